"""Checks of what losses and pools do with the forward cache. Error attribution puts the component before a message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Real

import torch
from torch import Tensor, nn

from ganlab.errors import SpecError
from ganlab.system.networks import Networks
from ganlab.torch_utils import shown


def find_discriminator(networks: Networks, direction: str, sees: str, label: str | None) -> str:
    """The name of the discriminator that a loss means. Raises SpecError unless there is exactly one."""
    names = networks.discriminators(sees, direction[1] if sees == "images" else None)
    by_label = {name.split("/")[1]: name for name in names}
    if label is None and len(names) == 1:
        return names[0]
    if isinstance(label, str) and label in by_label:
        return by_label[label]
    asked = f" named {shown(label)}" if label is not None else ""
    there = ", ".join(map(repr, by_label))
    there = f"there {'are' if len(names) > 1 else 'is'} {there}" if names else "the spec has none"
    choose = ", so the loss must name one" if label is None and names else ""
    raise SpecError(f"asks for a discriminator on {sees}{asked}; {there}{choose}")


def check_domain(direction: str, x: Tensor, images_of_source: Iterable[Tensor]) -> None:
    """Raises SpecError if `x` is one of the images of the source domain, which the discriminator does not judge."""
    if any(x is images for images in images_of_source):
        raise SpecError(
            f"shows images of domain {direction[0]} to the discriminator of domain {direction[1]}:"
            " t.score judges images of t's target domain, t.reverse.score those of its source domain"
        )


class Extras(dict[str, Tensor]):
    """The extras of a domain's images. Raises SpecError for another name."""

    def __init__(self, domain: str, extras: Mapping[str, Tensor]) -> None:
        super().__init__(extras)
        self._domain = domain

    def __missing__(self, name: str) -> Tensor:
        there = f"{', '.join(map(repr, self))} alone" if self else "none"
        raise SpecError(f"asks for the extra {shown(name)} of domain {self._domain}, and its source gives {there}")


def checked_logged(name: str, value: Tensor | float, like: Tensor) -> Tensor:
    """Returns a logged value as a scalar without history, of `like`'s type and on its device.

    Raises SpecError if it is neither a number nor a tensor with one element.
    """
    if not isinstance(name, str) or not name:
        raise SpecError(f"logs a value under the name {shown(name)}; a name is a string that is not empty")
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        return value.detach().reshape(()).to(like.device, like.dtype, non_blocking=True)
    if isinstance(value, Real):
        # filled on the device, so that the host does not wait
        return torch.full((), float(value), dtype=like.dtype, device=like.device)
    got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
    raise SpecError(f"logs {got} as {name!r}; expected a number or a tensor with one element")


def checked_pool(pool: nn.Module, fakes: Tensor, rolls: Tensor) -> Tensor:
    """Returns the images that the schedule's pool shows for the fakes, (N, C, H, W).

    Raises SpecError if the pool changes the fakes in place or returns another shape.
    """
    version = fakes._version
    pooled = pool(fakes, rolls)
    if fakes._version != version:
        raise SpecError("its pool changes the fakes in place")
    if not isinstance(pooled, Tensor) or pooled.shape != fakes.shape:
        made = tuple(pooled.shape) if isinstance(pooled, Tensor) else type(pooled).__name__
        raise SpecError(f"its pool returns {made} for fakes {tuple(fakes.shape)}")
    return pooled
