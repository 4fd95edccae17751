"""A promise, kept or broken; and what is compared to see that."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import ParamSpec

import torch
from torch import Tensor, nn

from ganlab.draws import keyed
from ganlab.errors import Unavailable
from ganlab.rehearsal import untouched_randomness

# an author whose test fails sees the sentence and their own code, none of the kit's: so in all its modules
__tracebackhide__ = True

So = Callable[[bool, str], None]
Arguments = ParamSpec("Arguments")


def unseen(check: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Decorates a check: it seeds torch's global generator, and leaves it as it was."""

    @functools.wraps(check)
    def checked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        with untouched_randomness(torch.device("cpu")):
            check(*args, **kwargs)

    return checked


class promise:
    """Within it, `so(whether it holds, what was seen)`; any error breaks the promise too, and is its cause.

    No generator with `contextmanager`: pytest would show contextlib's frames.
    """

    def __init__(self, cls: type, promise: str) -> None:
        self.broken = f"{cls.__name__} {promise}: that is broken;"

    def __enter__(self) -> So:
        return self.so

    def so(self, holds: bool, seen: str) -> None:
        if not holds:
            raise AssertionError(f"{self.broken} {_one_line(seen)}") from None

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception) and not isinstance(error, AssertionError | Unavailable):
            raise AssertionError(f"{self.broken} {type(error).__name__}: {_one_line(str(error))}") from error


def _one_line(text: str) -> str:
    return " ".join(text.split())


def check_gradients(gradients: Mapping[str, Tensor | None], so: So, nonzero: bool = True) -> None:
    missed = [name for name, gradient in gradients.items() if gradient is None]
    so(not missed, f"none reaches {', '.join(missed)}")
    for name, gradient in gradients.items():
        assert gradient is not None
        wrong = int((~gradient.isfinite()).sum())
        so(wrong == 0, f"of {gradient.numel()} for {name} {wrong} are not finite")
        so(not nonzero or bool((gradient != 0).any()), f"all for {name} are 0")


def seeded(run: Callable[[nn.Module, Tensor], Tensor], network: nn.Module, x: Tensor, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    with torch.no_grad():
        return run(network, x)


def weighted(values: Tensor) -> Tensor:
    """A scalar in which no normalisation cancels."""
    weights = torch.from_numpy(keyed("weights").standard_normal(values.shape)).to(values.dtype)
    return (weights * values).sum()


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def close(one: Tensor, other: Tensor, tolerance: float = 1e-9) -> bool:
    return one.shape == other.shape and apart(one, other) <= tolerance * (1 + float(one.detach().abs().max()))


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().abs().max()) if one.shape == other.shape else float("inf")


def sides_of(x: Tensor) -> str:
    return f"({', '.join(map(str, x.shape))})"


def told(values: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{key} = {value.item():.6g}" for key, value in sorted(values.items())) or "nothing"
