"""Every shipped component passes its check, with each value of its options that have few values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ganlab_avatars import Avatars
from ganlab_cyclegan.schedules import Alternating
from ganlab_faces.imdb_wiki import ARCHIVES
from ganlab_ugatit import UGATIT, CAMPatch

import ganlab
from ganlab import Domain, testing
from ganlab.components.options import signature
from ganlab.components.registry import Component
from ganlab.testing.simple import IMAGES
from helpers.faces import PEOPLE, write_celeba, write_danbooru, write_imdb_wiki
from helpers.huggingface import write_dataset
from helpers.maps import Maps
from helpers.mnist import write_mnist
from helpers.systems import SHIPPED, choices

LABELLED = Domain("labelled", 3, 16, 16, classes=3)
DIGITS = Domain("digits", 1, 32, 32, classes=10)


WHERE: dict[tuple[str, str], dict[str, Any]] = {
    ("generator", "resnet"): {"width": 4, "blocks": 2},
    ("generator", "large_kernel"): {"width": 4, "blocks": 2},
    ("generator", "dcgan"): {"width": 4, "latents": 8},
    ("generator", "digits"): {"width": 4, "images": DIGITS},
    ("generator", "xgan"): {"width": 2, "embedding": 8},
    ("generator", "unet"): {"width": 2},
    ("generator", "ugatit"): {"width": 2, "blocks": 1},
    ("discriminator", "acgan"): {"width": 4, "layers": 1, "images": LABELLED},
    ("discriminator", "conditional_patch"): {"width": 4, "layers": 1},
    ("discriminator", "minibatch_discrimination"): {"width": 4, "layers": 1, "kernels": 4},
    ("discriminator", "patch"): {"width": 4, "layers": 1},
    ("discriminator", "dcgan"): {"width": 4},
    ("discriminator", "digits"): {"width": 4, "images": DIGITS, "labels": True},
    ("discriminator", "embedding"): {"width": 4},
    ("discriminator", "cam_patch"): {"width": 3, "layers": 1},
    ("discriminator", "projected"): {"features": Maps, "width": 2},
    ("loss", "acgan_class"): {"images": LABELLED, "scores": 4},
    ("loss", "acgan_source"): {"images": LABELLED, "scores": 4},
    ("loss", "class_real"): {"images": LABELLED, "scores": 4},
    ("loss", "class_fake"): {"images": LABELLED, "scores": 4},
    ("loss", "cam"): {"generator": (UGATIT, {"width": 2, "blocks": 1})},
    ("loss", "cam_lsgan"): {"discriminators": {"image": (CAMPatch, {"width": 3, "layers": 1})}},
    ("loss", "noisy_lsgan"): {"flip": 0.1},
    ("loss", "patch_nce"): {"patches": 8},
    ("schedule", "sgd_discriminator"): {"of": Alternating, "momentum": 0.5},
    ("schedule", "alternating"): {"pool": 4},
    ("schedule", "simultaneous"): {"pool": 4, "decay_from": 0.5},
    ("source", "avatars"): {"style": "big-ears"},
    ("source", "celeba"): {"where": {"Male": False}, "labels": ("Smiling",)},
    ("source", "edges"): {"of": (Avatars, {"style": "big-ears"})},
    ("source", "huggingface"): {"labels": "animal", "classes": ("cat", "dog")},
    ("source", "imdb_wiki"): {"part": "wiki", "gender": "male"},
    ("source", "interpolation"): {"latents": 20, "steps": 3},
    ("callback", "wandb"): {"mode": "disabled"},
}
"""The options with which a component is checked at a small size."""

WRITERS = {
    "celeba": write_celeba,
    "danbooru_faces": write_danbooru,
    "huggingface": write_dataset,
    "imdb_wiki": lambda root: [write_imdb_wiki(root, part, [*PEOPLE.values()]) for part in ARCHIVES],
}
"""{source: writes the data that it reads into a folder}."""


def variants(component: Component) -> list[dict[str, Any]]:
    """The options of each check: those above, and each other value of every option that has few values."""
    fields = signature(component.cls).model.model_fields
    usual = {name: field.default for name, field in fields.items()} | WHERE.get((component.kind, component.name), {})
    # tests/plugins/test_digits.py tests the other data set of torchvision's source, which needs more preparation;
    # tests/plugins/test_trackers.py tests W&B offline
    elsewhere = {("torchvision", "dataset"), ("wandb", "mode")}
    some = [pair for pair in choices(component) if (component.name, pair[0]) not in elsewhere]
    return [{}, *({option: value} for option, value in some if value != usual[option])]


def named(value: Any) -> str:
    if isinstance(value, Component):
        return f"{value.kind}-{value.name}"
    return "".join(f"{option}={choice}" for option, choice in value.items())


@pytest.mark.parametrize(
    ("component", "variant"), [(each, variant) for each in SHIPPED for variant in variants(each)], ids=named
)
def test_every_shipped_component_passes_its_check(
    component: Component,
    variant: dict[str, Any],
    pictures: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*where: object, **how: object) -> None:
        raise OSError("no test downloads weights")

    monkeypatch.setattr("socket.create_connection", refuse)
    where = WHERE.get((component.kind, component.name), {})
    if component.name in WRITERS:
        WRITERS[component.name](tmp_path / "data")
        where = {**where, "path": tmp_path / "data"}
    if component.name == "folder":
        where = {"path": pictures["a"]}
    if component.kind == "callback":
        # each tracker writes here; tests/plugins/test_trackers.py reads what they write
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "mlruns"))
        monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    if component.name == "torchvision":
        digits = np.arange(12, dtype=np.uint8)
        write_mnist(tmp_path, np.broadcast_to(20 * digits[:, None, None], (12, 28, 28)), digits % 10)
        where = {"dataset": "mnist", "path": tmp_path}
    if (kernel := variant.get("kernel", 0)) > 7:
        # at a quarter of the images' size, padding by reflection needs a side of more than half the kernel
        where = {**where, "images": IMAGES._replace(height=4 * (kernel // 2 + 1), width=4 * (kernel // 2 + 1))}
        # large dense kernels take long
        where |= {"form": "depthwise"} if kernel > 15 else {}
    try:
        getattr(testing, f"check_{component.kind}")(component.cls, **{**where, **variant})
    except ganlab.Unavailable as missing:
        pytest.skip(str(missing))
