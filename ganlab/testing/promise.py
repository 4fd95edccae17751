"""A promise, kept or broken; and what is compared to see that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ganlab.draws import keyed
from ganlab.errors import Unavailable
from ganlab.rehearsal import untouched_randomness

So = Callable[[bool, str], None]

unseen = untouched_randomness(torch.device("cpu"))
"""Decorates a check: it seeds torch's global generator, and leaves it as it was."""


@contextmanager
def promise(cls: type, promise: str) -> Iterator[So]:
    """Within it, `so(whether it holds, what was seen)`; any error breaks the promise too."""

    def so(holds: bool, seen: str) -> None:
        if not holds:
            raise AssertionError(f"{cls.__name__} {promise}: that is broken; {' '.join(seen.split())}")

    try:
        yield so
    except (AssertionError, Unavailable):
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise AssertionError(f"{cls.__name__} {promise}: that is broken; {type(error).__name__}: {text}") from error


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
