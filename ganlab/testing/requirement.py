"""Requirements that a check tests, and the helpers that compare tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import ParamSpec

import torch
from torch import Tensor, nn

from ganlab.determinism import keyed, untouched_settings
from ganlab.errors import Unavailable, text_of

# pytest then shows authors the sentence and their own code, and none of this module's; the same in the other modules
__tracebackhide__ = True

Check = Callable[[bool, str], None]
Arguments = ParamSpec("Arguments")


def keeps_random_state(check: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Decorates a check, which seeds torch's global generator: restores the process's random generators afterwards."""

    @functools.wraps(check)
    def checked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        with untouched_settings():
            check(*args, **kwargs)

    return checked


class requirement:
    """A context manager that gives a function `check(holds, found)`.

    Raises AssertionError with one sentence if `holds` is false; `found` says what was seen instead. Any other error
    inside the block fails the requirement too and becomes the cause; `Unavailable` passes through.
    """

    # not a generator with `contextmanager`: pytest would show contextlib's frames

    def __init__(self, cls: type, text: str) -> None:
        self.failed = f'{cls.__name__} failed the requirement "{text}"'

    def __enter__(self) -> Check:
        return self.check

    def check(self, holds: bool, found: str) -> None:
        if not holds:
            raise AssertionError(f"{self.failed}: {_one_line(found)}") from None

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception) and not isinstance(error, AssertionError | Unavailable):
            text = text_of(error) if isinstance(error, AttributeError) else _one_line(str(error))
            raise AssertionError(f"{self.failed}: {type(error).__name__}: {text}") from error


def _one_line(text: str) -> str:
    return " ".join(text.split())


def check_gradients(gradients: Mapping[str, Tensor | None], check: Check, nonzero: bool = True) -> None:
    """Checks that every gradient exists, is finite and, if `nonzero`, is not 0 everywhere."""
    missing = [name for name, gradient in gradients.items() if gradient is None]
    check(not missing, f"no gradient reaches {', '.join(missing)}")
    for name, gradient in gradients.items():
        assert gradient is not None
        wrong = int((~gradient.isfinite()).sum())
        check(wrong == 0, f"{wrong} of {gradient.numel()} gradients of {name} are not finite")
        check(not nonzero or bool((gradient != 0).any()), f"all gradients of {name} are 0")


def run_seeded(run: Callable[[nn.Module, Tensor], Tensor], network: nn.Module, x: Tensor, seed: int = 0) -> Tensor:
    """Returns `run(network, x)` without gradients, with torch's global generator seeded."""
    torch.manual_seed(seed)
    with torch.no_grad():
        return run(network, x)


def weighted_sum(values: Tensor) -> Tensor:
    """Returns a scalar to differentiate. Its random weights keep normalisation layers from cancelling its gradient."""
    weights = torch.from_numpy(keyed("weights").standard_normal(values.shape)).to(values.dtype)
    return (weights * values).sum()


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Compares names and tensors exactly."""
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def close(one: Tensor, other: Tensor, tolerance: float = 1e-9) -> bool:
    """Compares shapes, and values up to tolerance * (1 + the largest absolute value of `one`)."""
    return one.shape == other.shape and max_difference(one, other) <= tolerance * (1 + float(one.detach().abs().max()))


def max_difference(one: Tensor, other: Tensor) -> float:
    """Returns the largest absolute difference; infinity if the shapes differ."""
    return float((one - other).detach().abs().max()) if one.shape == other.shape else float("inf")


def shape_text(x: Tensor) -> str:
    """Formats a tensor's shape: "(2, 3, 16, 16)"."""
    return f"({', '.join(map(str, x.shape))})"


def terms_text(terms: Mapping[str, Tensor]) -> str:
    """Formats scalars: "generator/ab = 0.5, generator/ba = 0.25"; "no terms" if there are none."""
    return ", ".join(f"{key} = {value.item():.6g}" for key, value in sorted(terms.items())) or "no terms"
