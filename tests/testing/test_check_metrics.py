"""`check_metric`, `check_features`, and each requirement that a metric or a feature network can fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import relu

import ganlab
from ganlab import Estimate, MetricInfo, MetricInputs, testing
from ganlab.testing import metrics
from ganlab.testing.simple import SimpleFeatures
from helpers.broken import Broken, names_of, verify_every_condition_fails, verify_sentence


class Light(ganlab.Metric):
    """Passes the check; the broken ones derive from it."""

    numbers: Mapping[str, MetricInfo] = {"light": MetricInfo("how light outputs are", "")}

    def value(self, data: MetricInputs) -> float:
        return float(data.outputs.tensor().mean())

    def measure(self, data: MetricInputs) -> dict[str, Estimate | ganlab.Unavailable]:
        value = self.value(data)
        return {"light": Estimate(value, value - 1, value + 1, {"outputs": len(data.outputs)})}


class Nameless(Light):
    numbers: Mapping[str, MetricInfo] = {}


class OtherName(Light):
    numbers: Mapping[str, MetricInfo] = {"dark": MetricInfo("how dark outputs are")}


class Sentence(Light):
    numbers: Mapping[str, MetricInfo] = {"light": MetricInfo("how light outputs are", "higher is better")}  # type: ignore[arg-type]


class Mute(Light):
    def measure(self, data: MetricInputs) -> dict[str, Estimate | ganlab.Unavailable]:
        return {}


class Bare(Light):
    def measure(self, data: MetricInputs) -> Any:
        return {"light": 0.5}


class Counted(Light):
    def measure(self, data: MetricInputs) -> Any:
        return {"light": Estimate(0.0, -1.0, 1.0, 3)}  # type: ignore[arg-type]


class InTensors(Light):
    def value(self, data: MetricInputs) -> Any:
        return data.outputs.tensor().mean()


class Outside(Light):
    def measure(self, data: MetricInputs) -> dict[str, Estimate | ganlab.Unavailable]:
        return {"light": Estimate(0.5, 0.6, 0.7, {})}


class Unseeded(Light):
    def value(self, data: MetricInputs) -> float:
        return float(np.random.default_rng().random())


class Darkens(Light):
    def value(self, data: MetricInputs) -> float:
        data.outputs.pixels[0][:] = 0
        return super().value(data)


class NeedsInputs(Light):
    def value(self, data: MetricInputs) -> float:
        return float(data.inputs.tensor().mean())  # type: ignore[union-attr]


class NoWeights(SimpleFeatures):
    def __init__(self) -> None:
        super().__init__()
        self.load_state_dict({})


class Logarithms(SimpleFeatures):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).log()


class Maps(SimpleFeatures):
    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.net(images)
        return maps


class Centred(SimpleFeatures):
    def forward(self, images: Tensor) -> Tensor:
        vectors = super().forward(images)
        return vectors - vectors.mean(0)


class Noisy(SimpleFeatures):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + 1e-5 * torch.rand(1)


class NoGrad(SimpleFeatures):
    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)


class NoFile(SimpleFeatures):
    def files(self) -> Sequence[Path]:
        return (Path("no-such-file.pt"),)


class NoPackage(SimpleFeatures):
    packages = ("no-such-package-of-anybody",)


class Dead(SimpleFeatures):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(relu(images - 2))


class WithMaps(SimpleFeatures):
    """Gives its activations as maps; the broken ones derive from it."""

    def maps(self, images: Tensor) -> list[Tensor]:
        return [layer(images) for layer in (self.net[0], self.net)]


class FlatMaps(WithMaps):
    def maps(self, images: Tensor) -> list[Tensor]:
        return [maps.mean((2, 3)) for maps in super().maps(images)]


class OneMap(WithMaps):
    def maps(self, images: Tensor) -> Any:
        return super().maps(images)[0]


class InfiniteMaps(WithMaps):
    def maps(self, images: Tensor) -> list[Tensor]:
        return [maps.log() for maps in super().maps(images)]


class NoisyMaps(WithMaps):
    def maps(self, images: Tensor) -> list[Tensor]:
        return [maps + 1e-5 * torch.rand(1) for maps in super().maps(images)]


class FrozenMaps(WithMaps):
    @torch.no_grad()
    def maps(self, images: Tensor) -> list[Tensor]:
        return super().maps(images)


class DeadMaps(WithMaps):
    def maps(self, images: Tensor) -> list[Tensor]:
        return super().maps(relu(images - 2))


BROKEN: list[Broken] = [
    (testing.check_metric, Nameless, "has numbers.* numbers is {}"),
    (testing.check_metric, Sentence, "has numbers.* light has better='higher is better', not one of 'lower', 'higher'"),
    (testing.check_metric, OtherName, r"its numbers.* numbers has \['dark'\], and it measures \['light'\]"),
    (testing.check_metric, Mute, "at least one.* it measures none, though the data are complete"),
    (testing.check_metric, Bare, "its numbers.* light is 0.5"),
    (testing.check_metric, Counted, "its numbers.* light has the counts 3, not {text: whole number}"),
    (testing.check_metric, InTensors, r"its numbers.* light has the value tensor\(\S+\), not a finite number"),
    (testing.check_metric, Outside, r"inside its interval.* 0.5, not in \[0.6, 0.7\]"),
    (testing.check_metric, Unseeded, "same twice.* and then"),
    (testing.check_metric, Darkens, "does not change the images.* it changes the outputs"),
    (testing.check_metric, NeedsInputs, "no error but Unavailable.* AttributeError"),
    (testing.check_features, NoWeights, "built from its options.* RuntimeError: Error"),
    (testing.check_features, Logarithms, "finite vectors.* of 8 values are not finite"),
    (testing.check_features, Maps, r"vectors \(N, D\).* it gives \(2, 4, 6, 6\)"),
    (testing.check_features, Centred, "its own image alone.* alone and in a batch they differ by up to"),
    (testing.check_features, Noisy, "same twice.* two results differ by up to"),
    (testing.check_features, NoGrad, "with respect to the images.* the vectors have no gradient"),
    (testing.check_features, Dead, "with respect to the images.* all gradients of the images are 0"),
    (testing.check_features, OneMap, "gives finite maps.* features: expected a list of tensors, got a Tensor"),
    (testing.check_features, FlatMaps, r"gives finite maps.* map 0 is \(2, 4\) of torch.float32"),
    (testing.check_features, InfiniteMaps, "gives finite maps.* of 288 values of map 0 are not finite"),
    (testing.check_features, NoisyMaps, "gives finite maps.* two of map 0 differ by up to"),
    (testing.check_features, FrozenMaps, "has maps that can be differentiated.* map 0 has no gradient"),
    (testing.check_features, DeadMaps, "has maps that can be .* all gradients of the images from map 0 are 0"),
    (testing.check_features, NoFile, "weight files.* missing: no-such-file.pt"),
    (testing.check_features, NoPackage, "packages that are installed.* PackageNotFoundError"),
]


@pytest.mark.parametrize(("check", "cls", "sentence"), BROKEN, ids=names_of)
def test_a_failed_requirement_is_named(check: Callable[..., None], cls: type, sentence: str) -> None:
    verify_sentence(check, cls, sentence)


def test_every_requirement_and_condition_fails_for_one_of_them() -> None:
    verify_every_condition_fails([metrics], BROKEN)


@pytest.mark.parametrize(
    ("check", "cls"),
    [(testing.check_metric, Light), (testing.check_features, SimpleFeatures), (testing.check_features, WithMaps)],
)
def test_what_they_derive_from_passes(check: Callable[[type], None], cls: type) -> None:
    before = torch.manual_seed(99).get_state()
    check(cls)
    # the check leaves torch's global generator as it was
    assert torch.equal(torch.get_rng_state(), before)
