"""The experiments: each resolves, builds and takes a step. A variant differs from the plain system in one thing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator

from ganlab.components.registry import registry
from ganlab.engine.trainer import Trainer
from ganlab.errors import SpecError
from ganlab.experiment import check
from ganlab.interfaces.networks import Domain
from ganlab.spec.files import read
from ganlab.spec.models import differences
from ganlab.spec.resolve import resolve
from ganlab.spec.schema import json_schema
from ganlab.system.build import build, build_sources
from helpers.experiments import BATCH, FILES, SIZE, load, small
from helpers.paths import ROOT
from helpers.systems import RandomImages

SYSTEMS = ("cyclegan", "large_kernel", "embedding", "emb", "noisy_labels", "wgan", "zhu2017")
EXPECTED = [f"{place}{system}.json" for place in ("", "paper/") for system in SYSTEMS]

everyone = pytest.mark.parametrize("name", sorted({*FILES, *EXPECTED}))
both = pytest.mark.parametrize("place", ["", "paper/"])


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    return Draft202012Validator(json_schema(registry().components))


@everyone
def test_the_file_is_there_and_fits_the_json_schema(name: str, validator: Draft202012Validator) -> None:
    load(name)
    validator.validate(read(FILES[name]))


@everyone
def test_it_names_the_json_schema_that_make_writes(name: str) -> None:
    schema = FILES[name].parent / json.loads(FILES[name].read_text("utf-8"))["$schema"]
    written = schema.resolve().relative_to(ROOT.resolve()).as_posix()
    assert f"ganlab schema > {written}\n" in (ROOT / "Makefile").read_text("utf-8")
    assert f"/{written}" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


@everyone
def test_its_name_is_its_files_and_it_says_what_it_is(name: str) -> None:
    spec = load(name)
    # otherwise the full-size experiment would train in the folder of the small one
    assert spec.name == Path(name).with_suffix("").as_posix().replace("/", "-")
    assert spec.about


@everyone
def test_it_takes_a_step(name: str) -> None:
    spec = resolve(small(name), name)
    sources = build_sources(spec)
    assert set(sources) == {"a", "b"}
    channels = {name: source.channels for name, source in sources.items()}
    images = RandomImages(BATCH, SIZE, torch.float32, sources["b"].classes, channels)
    trainer = Trainer(build(spec, images.domains), images)
    trainer.step()
    (record,) = trainer.log.read(trainer.state)
    assert all(math.isfinite(value) for value in record.values()), record
    for player in ("generator", "discriminator"):
        assert any(record_name.startswith(f"loss/{player}/") for record_name in record)
        gradients = [value for record_name, value in record.items() if record_name.startswith(f"gradient/{player}/")]
        assert gradients
        assert all(value > 0 for value in gradients)
    labels = {record_name.split("/")[3] for record_name in record if record_name.startswith("loss/")}
    assert labels == set(spec.losses)


CHANGES = {
    "large_kernel": {f"generator.{option}" for option in ("type", "kernel", "form", "expansion", "downsampling")},
    "embedding": {f"discriminators.embedding.{option}" for option in ("type", "width", "layers")}
    | {f"losses.embedding.{option}" for option in ("type", "target", "weight.generator", "weight.discriminator")},
    "noisy_labels": {f"losses.adversarial.{option}" for option in ("type", "fake", "real", "flip")},
    "wgan": {"discriminators.image", "losses.adversarial.type", "losses.adversarial.scale", "schedule"},
}
CHANGES["emb"] = CHANGES["large_kernel"] | CHANGES["embedding"] | CHANGES["noisy_labels"]
"""{variant: the only paths that may differ from the plain system}."""


@both
@pytest.mark.parametrize("variant", CHANGES)
def test_a_variant_differs_from_the_plain_system_in_one_thing(place: str, variant: str) -> None:
    found = differences(load(f"{place}cyclegan.json"), load(f"{place}{variant}.json"))
    paths = {line.partition(": ")[0] for line in found}
    assert paths
    allowed = CHANGES[variant]
    assert [path for path in paths if not any(f"{path}.".startswith(f"{prefix}.") for prefix in allowed)] == []


def test_labels_and_what_learns_them_are_all_that_is_new() -> None:
    plain, labels = load("cyclegan.json"), load("labels.json")
    found = {line.partition(": ")[0] for line in differences(plain, labels)}
    allowed = ("data.a.labels", "data.b.labels", "discriminators.image.of.type", "losses.classes", "losses.adversarial")
    assert [path for path in found if not path.startswith(allowed)] == []
    assert labels.data.a["labels"] == labels.data.b["labels"] != "none"
    assert labels.losses["adversarial"]["of"] == {"type": plain.losses["adversarial"]["type"]}


@both
def test_the_digits_have_face2comics_parameters(place: str) -> None:
    spec = load(f"{place}digits.json")
    assert (spec.schedule["type"], spec.schedule["lr"], spec.schedule["betas"]) == ("four_updates", 2e-4, [0.5, 0.999])
    assert (spec.losses["cycle"]["norm"], spec.weight("cycle")["generator"]) == ("l2", 1.0)
    assert (spec.data.size, spec.data.flip) == (32, False)
    paths = {line.partition(": ")[0] for line in differences(spec, load(f"{place}digits_labels.json"))}
    assert paths == {"discriminators.image.labels", "losses.fake.type", "losses.real.type"}


def test_the_digits_of_the_paper_have_face2comics_size() -> None:
    spec = load("paper/digits.json")
    assert (spec.data.a["dataset"], spec.data.b["dataset"]) == ("mnist", "svhn")
    assert (spec.data.batch, spec.schedule["steps"]) == (64, 40_000)
    sources = build_sources(spec)
    domains = {name: Domain(name, source.channels, 32, 32, source.classes) for name, source in sources.items()}
    networks = build(spec, domains).networks.modules
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    assert counts == {
        "generator/ab": 562_176,
        "generator/ba": 562_176,
        "discriminator/image/a": 661_248,
        "discriminator/image/b": 663_296,
    }


@both
def test_larger_kernels_are_larger_and_nothing_else_of_the_generator_changes(place: str) -> None:
    plain, large = load(f"{place}cyclegan.json").generator, load(f"{place}large_kernel.json").generator
    assert plain["type"] == "resnet"
    assert large["type"] == "large_kernel"
    assert large["kernel"] > plain["kernel"]
    shared = ("width", "blocks", "norm", "upsampling", "ends", "form")
    assert [large[option] for option in shared] == [plain[option] for option in shared]


@both
def test_noisy_labels_are_those_of_equation_2(place: str) -> None:
    adversarial = load(f"{place}noisy_labels.json").losses["adversarial"]
    assert (adversarial["fake"], adversarial["real"], adversarial["flip"]) == ([0.0, 0.2], [1.0, 1.0], 0.0)


@both
def test_the_embedding_terms_are_those_of_equations_1_and_3(place: str) -> None:
    spec = load(f"{place}embedding.json")
    assert spec.losses["embedding"]["target"] == "other"
    assert spec.weight("embedding") == {"generator": 0.5, "discriminator": 1.0}
    assert spec.losses["cycle"]["norm"] == "l1"
    assert spec.weight("cycle")["generator"] == 1.0


@both
def test_the_critics_have_the_wgan_papers_parameters(place: str) -> None:
    plain, spec = load(f"{place}cyclegan.json"), load(f"{place}wgan.json")
    assert spec.discriminators["image"] == {"type": "critic", "clamp": 0.01, "of": plain.discriminators["image"]}
    assert spec.losses["adversarial"]["type"] == "wasserstein"
    assert (spec.schedule["lr"], spec.schedule["critic_updates"]) == (5e-5, 5)


@both
def test_emb_is_the_three_variants_that_face2comic_joins(place: str) -> None:
    spec = load(f"{place}emb.json")
    large, embedding, noisy = (load(f"{place}{name}.json") for name in ("large_kernel", "embedding", "noisy_labels"))
    assert spec.generator == large.generator
    assert spec.discriminators == embedding.discriminators
    assert spec.losses["embedding"] == embedding.losses["embedding"]
    assert spec.losses["adversarial"] == noisy.losses["adversarial"]
    plain = load(f"{place}cyclegan.json")
    assert set(spec.losses) == {*plain.losses, "embedding"}
    # whatever is added to the printed losses is gone at the end
    assert set(plain.losses) - {"adversarial", "cycle"} == set(plain.schedule["fade_out"])
    assert all(steps <= plain.schedule["steps"] for steps in plain.schedule["fade_out"].values())


@both
def test_zhu2017_has_the_cyclegan_papers_parameters(place: str) -> None:
    spec = load(f"{place}zhu2017.json")
    assert spec.schedule["type"] == "simultaneous"
    assert (spec.schedule["lr"], spec.schedule["betas"]) == (2e-4, [0.5, 0.999])
    assert (spec.schedule["pool"], spec.schedule["decay_from"]) == (50, 0.5)
    assert {name: spec.weight(name)["generator"] for name in spec.losses} == {
        "adversarial": 1.0,
        "cycle": 10.0,
        "identity": 5.0,
    }
    assert spec.weight("adversarial")["discriminator"] == 0.5
    assert (spec.generator["type"], spec.generator["norm"], spec.generator["upsampling"]) == (
        "resnet",
        "instance",
        "transposed",
    )
    assert spec.generator["ends"] == "convolutions"
    assert spec.generator["form"] == "dense"
    assert spec.schedule["fade_out"] == {}
    assert {option: spec.discriminators["image"][option] for option in ("type", "layers", "norm")} == {
        "type": "patch",
        "layers": 3,
        "norm": "instance",
    }


def test_the_papers_specs_have_face2comics_numbers() -> None:
    for name in ("cyclegan", "emb", "zhu2017"):
        spec = load(f"paper/{name}.json")
        assert (spec.data.a["type"], spec.data.a["where"]) == ("celeba", {"Male": False})
        assert (spec.data.b["type"], spec.data.b["limit"]) == ("danbooru_faces", 120_000)
        assert spec.schedule["steps"] == 55_000


@pytest.mark.parametrize("name", [f"paper/{system}" for system in SYSTEMS])
def test_without_the_images_the_papers_specs_say_where_to_get_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANLAB_DATA", str(tmp_path))
    with pytest.raises(SpecError) as refused:
        check(name)
    assert str(refused.value) == (
        f"the source 'celeba' finds no list_attr_celeba.txt in {tmp_path}/celeba:"
        " https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html has CelebA, for non-commercial research only; put"
        " img_align_celeba, unpacked, list_attr_celeba.txt and list_eval_partition.txt there, or set the option `path`"
        " to the folder that holds them"
    )
