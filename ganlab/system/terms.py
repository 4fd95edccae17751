"""The terms of a loss, checked."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ganlab.errors import SpecError
from ganlab.interfaces.losses import Loss, Term, Translation


def checked_terms(loss: Loss, player: str, t: Translation) -> dict[str, Tensor]:
    """{part: scalar} that `loss` gives `player` in direction `t`; the part of a plain scalar is "".

    Raises SpecError if a part is not a floating-point scalar.
    """
    given: Term = loss.generator(t) if player == "generator" else loss.discriminator(t)
    if given is None:
        return {}
    parts = dict(given) if isinstance(given, Mapping) else {"": given}
    for part, value in parts.items():
        named = f" for {part!r}" if part else ""
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            advice = ""
            if isinstance(value, int | float):
                # a number has no gradient
                advice = "; return the tensor itself, without .item() or float()"
            elif isinstance(value, list | tuple):
                advice = "; add the terms up, or return {part: scalar}"
            raise SpecError(f"expected a scalar tensor{named}, got {got}{advice}")
        if not value.is_floating_point():
            raise SpecError(f"expected a floating-point scalar{named}, got {value.dtype}")
    return {part: value.reshape(()) for part, value in parts.items()}
