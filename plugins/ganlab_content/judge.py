"""A classifier that learns a shared class from real images of one domain, and the mapping of attributes to classes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, Self, cast

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, pad

import ganlab
from ganlab.determinism import keyed, one_thread
from ganlab.interfaces.metrics import Images
from ganlab_content.agreement import shrunk

SIDE = 32
"""Height and width in pixels of the classifier's input. Images are resized; each value is the mean of its area."""

STEPS = 160
BATCH = 32
RATE = 4e-3

FEWEST = 20
"""The smallest number of labelled images that a classifier can usefully learn from."""

WIDTHS = (16, 32, 64)
"""The channels of the convolutions; each convolution halves height and width."""

SHIFT = 2
"""The largest shift of a training image in pixels: a translation may move what it draws."""

_READ = 256
"""The number of images of one forward. It bounds the memory."""


class Shared(BaseModel):
    """Maps an attribute of both domains' images to classes that the domains share."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    attribute: str | dict[Literal["a", "b"], str]
    """The attribute's name; {domain: name} if the domains use different names."""

    classes: dict[str, list[str]] = {}
    """{shared class: values of the attribute in either domain}. If it is empty, each value is a class. Images with a
    value that belongs to no class are left out."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if isinstance(self.attribute, dict) and len(self.attribute) < 2:
            raise ValueError(f"the attribute must be named for both domains, and {self.attribute} names one")
        if len(self.classes) == 1:
            raise ValueError(f"there is only one class, {next(iter(self.classes))!r}; at least two are needed")
        values = [value for values in self.classes.values() for value in values]
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise ValueError(f"the value {twice[0]!r} is in two classes; a value can be in one")
        return self

    def of(self, images: Images) -> list[str | None]:
        """Returns the class of each image, None for an image without one.

        Raises Unavailable if no image has the attribute, or if none has a value that is in a class.
        """
        if images.attributes is None:
            raise ganlab.Unavailable(f"the images of domain {images.domain} have no attributes")
        names = self.attribute if isinstance(self.attribute, dict) else {"a": self.attribute, "b": self.attribute}
        attribute = names[cast(Literal["a", "b"], images.domain)]
        known = images.attributes
        values = [each.get(attribute) for each in known]
        given = sorted({value for value in values if value is not None})
        if not given:
            others = ", ".join(sorted({name for each in known for name in each}))
            raise ganlab.Unavailable(
                f"no image of domain {images.domain} has an attribute {attribute!r}; known are: {others}"
            )
        within = {value: name for name, values in self.classes.items() for value in values}
        classes = [within.get(value) if self.classes and value is not None else value for value in values]
        if all(name is None for name in classes):
            raise ganlab.Unavailable(
                f"no class has a value of the attribute {attribute!r} of domain {images.domain}; its values are: "
                f"{', '.join(given)}"
            )
        return classes


class Judge:
    """A classifier for images of any sizes, trained by its constructor on labelled images.

    Three convolutions suffice for colours and large parts. Translations are less exact than real images, so the
    training images are mirrored, moved, blurred, tinted and made noisy. The same images and `key` give the same
    classifier.
    """

    def __init__(self, images: Images, classes: Sequence[str], *key: int | str) -> None:
        """`classes` has one class for each image."""
        self.classes = sorted(set(classes))
        labels = torch.tensor([self.classes.index(name) for name in classes])
        # seeds the CPU's generator alone; torch.manual_seed would seed every device's
        # one thread: layers this small gain next to nothing from more, and lose much if other processes use the cores
        with torch.random.fork_rng([]), torch.enable_grad(), one_thread():
            torch.default_generator.manual_seed(int(keyed("judge", *key).integers(2**63)))
            self._net = _taught(shrunk(images, SIDE), labels, len(self.classes))

    def read(self, images: Images) -> list[str]:
        """Returns the class of each image."""
        with torch.no_grad():
            scores = torch.cat([self._net(part) for part in torch.split(shrunk(images, SIDE), _READ)])
        return [self.classes[place] for place in scores.argmax(1).tolist()]


def _taught(images: Tensor, labels: Tensor, classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for channels, width in pairwise((3, *WIDTHS)):
        # the largest value is the same before and after the ReLU, which has a quarter of the work after it
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]
    side = SIDE >> len(WIDTHS)
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(WIDTHS[-1] * side**2, classes))
    # with the pooling first, it takes 0.6 of the time of the default memory format
    net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters())
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    for _ in range(STEPS):
        chosen = torch.randint(len(images), (BATCH,))
        loss = cross_entropy(net(_disturbed(images[chosen])), labels[chosen])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        rates.step()
    return net


def _disturbed(images: Tensor) -> Tensor:
    """Changes each image of (N, 3, SIDE, SIDE) at random: mirrors it half the time, moves it by up to `SHIFT` pixels,
    blurs it half the time, tints it (for each channel contrast by up to 10%, brightness by up to 0.1 of 2), and adds
    noise with a standard deviation of 0.05."""
    count = len(images)

    def uniform(channels: int) -> Tensor:
        return torch.rand(count, channels, 1, 1)

    images = torch.where(uniform(1) < 0.5, images.flip(3), images)
    framed = pad(images, [SHIFT] * 4, mode="replicate")
    rows, columns = torch.randint(2 * SHIFT + 1, (2, count, 1)) + torch.arange(SIDE)
    images = framed[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    blurred = avg_pool2d(pad(images, [1] * 4, mode="replicate"), 3, 1)
    images = torch.lerp(images, blurred, uniform(1) * (uniform(1) < 0.5))
    images = images * (0.9 + 0.2 * uniform(3)) + 0.2 * uniform(3) - 0.1
    return images + 0.05 * torch.randn_like(images)
