"""A plugin's first files: a package with a component that works, and its test."""

from __future__ import annotations

import re
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from string import Template
from typing import NamedTuple

from ganlab.errors import SpecError

LONGEST = 25
"""How many characters a name has at most: with longer ones a formatter would break the lines that hold it."""


def new(kind: str, name: str, into: Path = Path()) -> list[Path]:
    """Write the folder `into`/`name`, a package ready for `pip install -e`; the files written.

    Raises SpecError, with nothing written, where the kind is unknown, where the name is no Python identifier of
    lower-case ASCII letters, digits and inner _, or longer than `LONGEST`, or a keyword, or taken by an installed
    component of that kind, a plugin or the package `ganlab_NAME`, and where the folder exists.
    """
    if kind not in _PARTS:
        raise SpecError(f"there is no kind {kind!r} to begin; known are: {', '.join(_PARTS)}")
    if not _is_name(name):
        meant = re.sub("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
        raise SpecError(
            f"{name!r} can't be a name, which is a lower-case letter, then lower-case letters, digits and inner _"
            f"{f'; did you mean {meant!r}?' if _is_name(meant) else ''}"
        )
    if len(name) > LONGEST:
        raise SpecError(f"{name!r} can't be a name: it has {len(name)} characters, and {LONGEST} are the most")
    if iskeyword(name):
        raise SpecError(f"{name!r} can't be a name: it is a keyword of Python; choose another")
    _refuse_taken(kind, name)
    folder = into / name
    words = {
        "name": name,
        "kind": kind,
        "package": f"ganlab_{name}",
        "project": f"ganlab-{name.replace('_', '-')}",
        "cls": _class_name(name, kind),
    }
    part = _PARTS[kind]
    texts = {
        folder / "pyproject.toml": _PYPROJECT,
        folder / words["package"] / "__init__.py": part.module + _HOOK[kind],
        folder / "tests" / f"test_{name}.py": part.test + _FOUND,
    }
    try:
        folder.mkdir()
    except FileExistsError:
        raise SpecError(f"{str(folder)!r} is there already; choose another name, or move it away") from None
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(Template(text).substitute(words), "utf-8")
    return list(texts)


def _is_name(text: str) -> bool:
    return re.fullmatch("[a-z]([a-z0-9_]*[a-z0-9])?", text) is not None


def _refuse_taken(kind: str, name: str) -> None:
    # torch comes with it
    from ganlab.registry import registry

    for component in registry().components:
        if (component.kind, component.name) == (kind, name) or component.plugin == name:
            raise SpecError(f"{name!r} is the {component.full_name} already")
    for broken in registry().broken:
        if broken.plugin == name:
            raise SpecError(f"{name!r} is a plugin of {broken.package} {broken.version} already, a broken one")
    if find_spec(f"ganlab_{name}") is not None:
        raise SpecError(f"{name!r} can't be a name: its package ganlab_{name} is installed already; choose another")


def _class_name(name: str, kind: str) -> str:
    """`soft_edges` -> SoftEdgesLoss: the kind keeps it apart from what a module imports."""
    camel = "".join(word[:1].upper() + word[1:] for word in name.split("_"))
    return camel if camel.endswith(kind.title()) else camel + kind.title()


class _Part(NamedTuple):
    module: str
    test: str


_PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "$project"
version = "0.1.0"
description = "A $kind for ganlab"
requires-python = ">=3.11"
dependencies = ["ganlab"]

[project.optional-dependencies]
test = ["pytest"]

[project.entry-points.ganlab]
$name = "$package"

[tool.hatch.build]
dev-mode-dirs = ["."]

[tool.hatch.build.targets.wheel]
packages = ["$package"]
"""

_FOUND = """

def test_ganlab_finds_it() -> None:
    found = registry().find("$kind", "$name", "here")
    assert found.cls is $cls
"""


def _hook(hook: str, interface: str) -> str:
    return f"""

@ganlab.hookimpl
def {hook}() -> dict[str, type[ganlab.{interface}]]:
    return {{"$name": $cls}}
"""


_HOOK = {
    "loss": _hook("ganlab_losses", "Loss"),
    "generator": _hook("ganlab_generators", "Generator"),
    "discriminator": _hook("ganlab_discriminators", "Discriminator"),
    "schedule": _hook("ganlab_schedules", "Schedule"),
    "metric": _hook("ganlab_metrics", "Metric"),
    "source": _hook("ganlab_sources", "Source"),
}

_LOSS = _Part(
    module='''\
"""The loss `$name`."""

from typing import Annotated

import ganlab
from ganlab import Translation
from pydantic import Field
from torch import Tensor


class $cls(ganlab.Loss):
    """Least squares (arXiv:1611.04076): D answers `real` to reals and 0 to fakes.

    The generator wants `real` for its fakes.

    Args:
        real: the answer to reals.
    """

    def __init__(self, real: Annotated[float, Field(gt=0)] = 1.0) -> None:
        super().__init__()
        self.real = real

    def generator(self, t: Translation) -> Tensor:
        return (t.score(t.fake) - self.real).square().mean()

    def discriminator(self, t: Translation) -> dict[str, Tensor]:
        return {
            "real": (t.score(t.target) - self.real).square().mean(),
            "fake": t.score(t.fake_for_discriminator).square().mean(),
        }
''',
    test='''\
"""The loss `$name` is its formula, and keeps what the engine relies on."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ganlab.registry import registry
from ganlab.testing import check_loss

from $package import $cls


@pytest.mark.parametrize("real", [1.0, 0.9])
def test_it_keeps_its_promises(real: float) -> None:
    check_loss($cls, real=real)


def test_it_is_the_formula() -> None:
    reals, fakes = torch.tensor([1.0, 3.0]), torch.tensor([0.5, -1.0])
    # a translation whose scores are the images themselves
    t: Any = SimpleNamespace(
        target=reals, fake=fakes, fake_for_discriminator=fakes, score=lambda x: x
    )
    loss = $cls(real=1.0)
    assert loss.generator(t).item() == pytest.approx((0.25 + 4) / 2)
    terms = {part: value.item() for part, value in loss.discriminator(t).items()}
    assert terms == pytest.approx({"real": (0 + 4) / 2, "fake": (0.25 + 1) / 2})
''',
)

_GENERATOR = _Part(
    module='''\
"""The generator `$name`."""

from typing import Annotated

import ganlab
from ganlab import Domain
from pydantic import Field
from torch import Tensor, nn


class $cls(ganlab.Generator):
    """Two convolutions to the embedding, two back. Sides are multiples of 4.

    Args:
        width: channels of the first convolution; the embedding has twice as many.
    """

    def __init__(
        self,
        source: Domain,
        target: Domain,
        width: Annotated[int, Field(ge=1)] = 32,
    ) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(source.channels, width, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.InstanceNorm2d(2 * width),
            nn.ReLU(),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, target.channels, 4, 2, 1),
            nn.Tanh(),
        )

    def encode(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N, 2 width, H / 4, W / 4)."""
        embedding: Tensor = self.encoder(images)
        return embedding

    def decode(self, embedding: Tensor) -> Tensor:
        """(N, 2 width, H / 4, W / 4) -> (N, C, H, W) in [-1, 1]."""
        images: Tensor = self.decoder(embedding)
        return images
''',
    test='''\
"""The generator `$name` keeps what the engine relies on."""

import pytest
from ganlab.registry import registry
from ganlab.testing import check_generator

from $package import $cls


@pytest.mark.parametrize("width", [1, 4])
def test_it_keeps_its_promises(width: int) -> None:
    check_generator($cls, width=width)
''',
)

_DISCRIMINATOR = _Part(
    module='''\
"""The discriminator `$name`."""

from typing import Annotated

import ganlab
from ganlab import Domain
from pydantic import Field
from torch import Tensor, nn


class $cls(ganlab.Discriminator):
    """Three convolutions: scores (N, 1, H / 4, W / 4), unbounded.

    Args:
        width: channels of the first convolution; the second has twice as many.
    """

    def __init__(self, shape: Domain, width: Annotated[int, Field(ge=1)] = 32) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(shape.channels, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 3, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> scores (N, 1, H / 4, W / 4)."""
        scores: Tensor = self.net(x)
        return scores
''',
    test='''\
"""The discriminator `$name` keeps what the engine relies on."""

import pytest
from ganlab.registry import registry
from ganlab.testing import check_discriminator

from $package import $cls


@pytest.mark.parametrize("width", [1, 4])
def test_it_keeps_its_promises(width: int) -> None:
    check_discriminator($cls, width=width)
''',
)

_SCHEDULE = _Part(
    module='''\
"""The schedule `$name`."""

from typing import Annotated

import ganlab
import torch
from ganlab import Turn
from pydantic import Field
from torch import nn


class $cls(ganlab.Schedule):
    """All generators, then all discriminators, on the same batch; Adam.

    The learning rate falls linearly, to reach 0 after the last step.

    Args:
        steps: how many steps a run has.
        lr: the learning rate of the first.
    """

    def __init__(
        self,
        steps: Annotated[int, Field(ge=1)] = 1000,
        lr: Annotated[float, Field(gt=0)] = 2e-4,
    ) -> None:
        self.steps = steps
        self.lr = lr

    def turns(self, step: int) -> list[Turn]:
        return [Turn("generator", self.ways), Turn("discriminator", self.ways)]

    def optimizer(
        self, player: str, parameters: list[nn.Parameter]
    ) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.lr, betas=(0.5, 0.999))

    def learning_rate(self, player: str, step: int) -> float:
        return 1 - step / self.steps
''',
    test='''\
"""The schedule `$name` keeps what the engine relies on."""

import pytest
from ganlab.registry import registry
from ganlab.testing import check_schedule

from $package import $cls


@pytest.mark.parametrize("steps", [1, 100])
def test_it_keeps_its_promises(steps: int) -> None:
    check_schedule($cls, steps=steps)


def test_the_learning_rate_falls() -> None:
    schedule = $cls(steps=4)
    rates = [schedule.learning_rate("generator", step) for step in range(5)]
    assert rates == [1, 0.75, 0.5, 0.25, 0]
''',
)

_METRIC = _Part(
    module='''\
"""The metric `$name`."""

from collections.abc import Mapping

import ganlab
from ganlab import Estimate, Evidence, Number
from ganlab.evaluation import estimates

DETAIL = Number("how much pixels differ from their right neighbours", "")


class $cls(ganlab.Metric):
    """The mean strength of details."""

    numbers: Mapping[str, Number] = {"$name": DETAIL}

    def measure(self, evidence: Evidence) -> dict[str, Estimate]:
        """Raises Unavailable where there are fewer than two outputs."""
        images = evidence.outputs.tensor()  # (N, 3, H, W) in [-1, 1]
        values = (images[..., 1:] - images[..., :-1]).abs().mean((1, 2, 3))
        return {"$name": estimates.mean(values.numpy(), "outputs")}
''',
    test='''\
"""The metric `$name` is its formula, and keeps what evaluations rely on."""

import numpy as np
import pytest
from ganlab import Evidence, Images
from ganlab.registry import registry
from ganlab.testing import check_metric

from $package import $cls


def test_it_keeps_its_promises() -> None:
    check_metric($cls)


def test_it_is_the_formula() -> None:
    flat, striped = np.zeros((2, 4, 4, 3), np.uint8)
    striped[:, ::2] = 255
    images = Images([flat, striped])
    measured = $cls().measure(Evidence("ab", images, images))
    found = measured["$name"]
    assert found.value == pytest.approx((0 + 2) / 2)
    assert found.counts == {"outputs": 2}
''',
)

_SOURCE = _Part(
    module='''\
"""The source `$name`."""

from typing import Annotated, Any

import ganlab
import numpy as np
from ganlab.draws import keyed
from pydantic import Field

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


class $cls(ganlab.Source):
    """Discs on black; colour, place and size are drawn from the key.

    Args:
        count: how many pictures each domain has.
    """

    def __init__(self, count: Annotated[int, Field(ge=2)] = 1000) -> None:
        self.count = count

    def keys(self, domain: str) -> list[str]:
        """Of the pattern "a-00000": the domains share no picture."""
        return [f"{domain}-{index:05d}" for index in range(self.count)]

    def image(self, key: str, size: int) -> Pixels:
        """(size, size, 3)."""
        random = keyed("$name", key)
        x, y, radius = random.uniform((0.3, 0.3, 0.1), (0.7, 0.7, 0.3))
        colour = random.integers(64, 256, 3)
        down, across = (np.mgrid[:size, :size] + 0.5) / size
        inside = np.hypot(across - x, down - y) < radius
        picture: Pixels = (inside[..., None] * colour).astype(np.uint8)
        return picture
''',
    test='''\
"""The source `$name` keeps what training relies on."""

import numpy as np
from ganlab.registry import registry
from ganlab.testing import check_source

from $package import $cls


def test_it_keeps_its_promises() -> None:
    check_source($cls, count=10)


def test_it_draws_one_disc_of_one_colour() -> None:
    image = $cls(count=2).image("a-00000", 32)
    colours = np.unique(image.reshape(-1, 3), axis=0)
    assert len(colours) == 2
    assert (colours[0] == 0).all()
''',
)

_PARTS = {
    "loss": _LOSS,
    "generator": _GENERATOR,
    "discriminator": _DISCRIMINATOR,
    "schedule": _SCHEDULE,
    "metric": _METRIC,
    "source": _SOURCE,
}
