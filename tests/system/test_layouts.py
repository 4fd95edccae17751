"""`data.root` and `--data`: the layouts of data sets, read image by image from crops of photographs."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from typer.testing import CliRunner

from ganlab.cli.commands import app
from ganlab.data.dataset import Dataset
from ganlab.data.folder import Folder
from ganlab.data.sampler import Sampler
from ganlab.errors import SpecError
from ganlab.evaluation.run_evaluator import RunEvaluator
from ganlab.evaluation.splits import split
from ganlab.spec.files import merge, read
from ganlab.spec.layouts import described
from ganlab.spec.models import Json, Spec
from ganlab.spec.resolve import resolve
from ganlab.system.build import build, build_data, dtype_of
from helpers.systems import SIZE, TINY

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

CYCLEGAN = {"a": {"train": "trainA", "held": "testA"}, "b": {"train": "trainB", "held": "testB"}}
NESTED = {"a": {"train": "train/a", "held": "test/a"}, "b": {"train": "train/b", "held": "test/b"}}
NAMED = {"a": {"train": "train/comics", "held": "valid/comics"}, "b": {"train": "train/photos", "held": "valid/photos"}}
COUNTS = {"a": {"train": 6, "held": 4}, "b": {"train": 5, "held": 6}}


@functools.cache
def photographs() -> Mapping[str, Pixels]:
    return {"a": skimage.data.astronaut(), "b": skimage.data.chelsea()}


def crop(domain: str, number: int) -> Pixels:
    """A part of a photograph, of a training image (from 0) or of a held-out one (from 100)."""
    row, column = 2 * number + 10, 7 * (number % 20) + 30
    found: Pixels = photographs()[domain][row : row + SIZE, column : column + SIZE]
    return found


def write(root: Path, layout: Mapping[str, Mapping[str, str]], splits: tuple[str, ...] = ("train", "held")) -> Path:
    for domain, places in layout.items():
        for part in splits:
            for number in range(COUNTS[domain][part]):
                path = root / places[part] / f"{number:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(crop(domain, number + 100 * (part == "held"))).save(path)
    return root


def spec(root: Path, **data: Any) -> Spec:
    """TINY with the folder of both domains instead of its own."""
    changed: Json = merge(TINY, {"data": {"a": None, "b": None, "root": str(root), **data}})
    return resolve(changed)


def shown(dataset: Dataset, indices: Any) -> list[Pixels]:
    return [dataset.images[int(index)].permute(1, 2, 0).numpy() for index in indices]


def same(found: list[Pixels], expected: list[Pixels]) -> bool:
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


def expected_of(domain: str, part: str) -> list[Pixels]:
    return [crop(domain, number + 100 * (part == "held")) for number in range(COUNTS[domain][part])]


@pytest.mark.parametrize("layout", [CYCLEGAN, NESTED, NAMED], ids=["cyclegan", "nested", "named"])
def test_a_split_is_what_is_held_out_image_by_image(tmp_path: Path, layout: dict[str, dict[str, str]]) -> None:
    datasets = build_data(spec(write(tmp_path, layout), holdout=0.9))
    parts = split(datasets)
    for domain, dataset in datasets.items():
        assert same(shown(dataset, dataset.train), expected_of(domain, "train"))
        assert same(shown(dataset, dataset.holdout), expected_of(domain, "held"))
        validation, test = (list(part[domain].pixels) for part in (parts.validation, parts.test))
        half = COUNTS[domain]["held"] // 2
        assert len(validation) == len(test) == half
        # each held-out image is in one of the two halves
        met = [[np.array_equal(image, one) for image in (*validation, *test)] for one in expected_of(domain, "held")]
        assert np.sum(met, axis=1).tolist() == [1] * (2 * half)


@pytest.mark.parametrize("layout", [CYCLEGAN, NESTED], ids=["cyclegan", "nested"])
def test_without_a_split_a_part_is_held_out(tmp_path: Path, layout: dict[str, dict[str, str]]) -> None:
    found = spec(write(tmp_path, layout, ("train",)))
    assert found.data.a["held_out"] is None
    datasets = build_data(found)
    for domain, dataset in datasets.items():
        assert same(shown(dataset, range(len(dataset.keys))), expected_of(domain, "train"))
        assert len(dataset.holdout) == round(0.25 * COUNTS[domain]["train"])


@pytest.mark.parametrize("swap", [False, True])
def test_two_folders_are_the_domains_in_the_order_of_their_names(tmp_path: Path, swap: bool) -> None:
    write(tmp_path, {"a": {"train": "comics"}, "b": {"train": "photos"}}, ("train",))
    (tmp_path / ".cache").mkdir()
    (tmp_path / "README.txt").write_text("read me")
    datasets = build_data(spec(tmp_path, swap=swap))
    for domain, dataset in datasets.items():
        there = "ba"["ab".index(domain)] if swap else domain
        assert same(shown(dataset, range(len(dataset.keys))), expected_of(there, "train"))


@pytest.mark.parametrize(("swap", "domain"), [(False, "a"), (True, "b")])
def test_images_alone_are_one_domain(tmp_path: Path, swap: bool, domain: str) -> None:
    Image.fromarray(crop("a", 0)).save(tmp_path / "0.png")
    other = {"type": "avatars", "style": "toon-head"}
    asked = {"data": {"root": str(tmp_path), "swap": swap, "a": other, "b": other}}
    found = resolve(merge(asked, {key: value for key, value in TINY.items() if key != "data"})).data
    assert getattr(found, domain)["path"] == str(tmp_path)
    assert getattr(found, "ab".replace(domain, ""))["style"] == "toon-head"
    assert f"{domain} is {tmp_path}" in (described(asked) or "")


def test_the_resolved_spec_has_the_sources_and_keeps_options_of_folder(tmp_path: Path) -> None:
    write(tmp_path, CYCLEGAN)
    found = spec(tmp_path, a={"type": "folder", "fit": "pad", "path": "elsewhere"}, b={"type": "avatars"}, swap=True)
    assert (found.data.root, found.data.swap) == (None, False)
    kept = {name: found.data.a[name] for name in ("type", "path", "held_out", "fit")}
    assert kept == {
        "type": "folder",
        "path": str(tmp_path / "trainB"),
        "held_out": str(tmp_path / "testB"),
        "fit": "pad",
    }
    assert (found.data.b["path"], found.data.b["fit"]) == (str(tmp_path / "trainA"), "cover")
    assert resolve(found.as_json()) == found


def test_a_relative_root_starts_at_the_folder_of_its_file(tmp_path: Path) -> None:
    write(tmp_path / "set", CYCLEGAN)
    (tmp_path / "mine.json").write_text(json.dumps({"data": {"root": "set"}}))
    assert read(tmp_path / "mine.json")["data"] == {"root": str(tmp_path / "set")}


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        ([], "ROOT has 0 folders; expected trainA and trainB, optionally testA"),
        (["x"], "ROOT has 1 folder: x; expected "),
        (["x", "y", "z"], "ROOT has 3 folders: x, y, z; expected "),
        ([*"uvwxyz"], "ROOT has 6 folders: u, v, w, x, y, ...; expected "),
        (["train", "test"], "ROOT has 2 folders: test, train; train has 0 folders; expected "),
        (["train/x", "train/y", "train/z"], "ROOT has 1 folder: train; train has 3 folders: x, y, z; expected "),
        (["trainA", "testA"], "ROOT has 2 folders: testA, trainA; expected "),
        (["trainA", "trainB", "testB"], "ROOT has testB, and no testA"),
        (["train/a", "train/b", "test/a"], "ROOT has test/a, and no test/b"),
        (["train/a", "train/b", "test/c"], "ROOT has test, and no test/a"),
    ],
)
def test_another_layout_is_one_sentence_with_what_was_found(tmp_path: Path, folders: list[str], said: str) -> None:
    for name in folders:
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(SpecError) as caught:
        spec(tmp_path)
    assert str(caught.value).startswith(f"data.root: {said.replace('ROOT', str(tmp_path))}")


def test_folders_whose_names_only_begin_like_a_split_are_domains(tmp_path: Path) -> None:
    for name in ("trains", "testimonials"):
        (tmp_path / name).mkdir()
    assert described({"data": {"root": str(tmp_path)}}) == (
        f"a is {tmp_path}/testimonials, b is {tmp_path}/trains (--swap exchanges them)"
    )


def test_other_wrong_values_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^data\.root: the folder '.*/no' can't be read: No such file or directory$"):
        spec(tmp_path / "no")
    with pytest.raises(SpecError, match=r"^spec: data\.swap: true is not allowed without data\.root, the folder of"):
        resolve(merge(TINY, {"data": {"swap": True}}))
    with pytest.raises(SpecError, match=r"^spec: data\.root: 3 is not allowed: it should be a string"):
        resolve(merge(TINY, {"data": {"root": 3}}))


def test_of_several_splits_the_first_is_used_and_the_others_are_named(tmp_path: Path) -> None:
    write(tmp_path, CYCLEGAN)
    for name in ("valA", "valB"):
        (tmp_path / name).mkdir()
    assert described({"data": {"root": str(tmp_path)}}) == (
        f"a is {tmp_path}/trainA, b is {tmp_path}/trainB (--swap exchanges them); held out: {tmp_path}/testA,"
        f" {tmp_path}/testB; not used: val"
    )
    assert described(TINY) is None


# -- random crops of real pictures


def test_training_images_are_cut_out_of_larger_ones_and_held_out_images_are_resized(tmp_path: Path) -> None:
    for domain, places in CYCLEGAN.items():
        for part, place in places.items():
            (tmp_path / place).mkdir()
            for number in range(4):
                start = 30 * number + 100 * (part == "held")
                pixels = photographs()[domain][start : start + 90, start : start + 70]
                Image.fromarray(pixels).save(tmp_path / place / f"{number}.png")
    found = spec(tmp_path, resize=20, crop=True, a={"fit": "stretch"}, b={"fit": "stretch"})
    datasets = build_data(found)
    sampler = Sampler(datasets, 4, False, 0, torch.device("cpu"), dtype_of(found))
    batches = [sampler(draw) for draw in range(6)]
    for domain, places in CYCLEGAN.items():
        for place, key in zip(datasets[domain].holdout, range(4), strict=True):
            small = Image.open(tmp_path / places["held"] / f"{key}.png").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
            assert np.array_equal(shown(datasets[domain], [place])[0], np.asarray(small))
        large = [
            np.asarray(Image.open(tmp_path / places["train"] / f"{key}.png").resize((20, 20), Image.Resampling.BICUBIC))
            for key in range(4)
        ]
        corners = set()
        for draw, batch in enumerate(batches):
            images = ((batch.images[domain].double() + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
            for image, index in zip(images, sampler.indices(domain, draw), strict=True):
                at = [
                    (row, column)
                    for row in range(5)
                    for column in range(5)
                    if np.array_equal(image, large[index][row : row + SIZE, column : column + SIZE])
                ]
                assert len(at) == 1
                corners.update(at)
        assert len(corners) > 8


def test_runs_that_cut_their_images_differently_are_measured_on_the_same(tmp_path: Path) -> None:
    write(tmp_path, CYCLEGAN)
    specs = [spec(tmp_path, **data) for data in ({}, {"resize": 20, "crop": True})]
    plain, cut = datasets = [build_data(each) for each in specs]
    measured = [
        RunEvaluator(build(each, {name: one.domain for name, one in found.items()}), found, each.evaluation)
        for each, found in zip(specs, datasets, strict=True)
    ]
    # compare refuses runs that were measured on other images
    one, other = (evaluator._protocol({}, None)["images"] for evaluator in measured)
    assert one == other
    # a run that resumes needs the larger images too
    assert plain["a"].fingerprint() != cut["a"].fingerprint()


def test_a_look_at_a_few_images_sees_training_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, CYCLEGAN)
    straight = Folder.keys
    monkeypatch.setattr(Folder, "keys", lambda self, domain: straight(self, domain)[::-1])
    for dataset in build_data(spec(tmp_path), most=2).values():
        assert len(dataset.train) == 2


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"resize": 20}, "data.resize: 20 is not allowed without crop: true, which cuts to size pixels"),
        ({"crop": True}, "data.crop: true is not allowed without resize, the size of the images that are cut"),
        ({"resize": 15, "crop": True}, "data.resize: 15 is not allowed: it should be at least size, 16"),
    ],
)
def test_a_crop_that_can_not_be_cut_is_refused(data: Json, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        resolve(merge(TINY, {"data": data}))
    assert str(caught.value) == f"spec: {said}"


# -- the command line


@pytest.mark.usefixtures("trial")
def test_a_run_of_a_folder_goes_on_from_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # a number, which --set would read as JSON
    write(tmp_path / "2024", CYCLEGAN)
    cheap = {
        "generator": {"type": "sharing"},
        "discriminators": {"image": {"type": "plain"}},
        "losses": {"cycle": None},
        "evaluation": {"metrics": [{"type": "brightness", "better": "higher"}]},
    }
    Path("tiny.json").write_text(json.dumps(merge(TINY, cheap)))
    line = f"a is {tmp_path}/2024/trainA, b is {tmp_path}/2024/trainB (--swap exchanges them); held out: "

    def call(*words: str) -> Any:
        done = CliRunner().invoke(app, [*words, "--json"])
        assert done.exit_code == 0, done.output
        return done

    first = call("run", "tiny.json", "--data", "2024", "--set", "schedule.steps=2", "--set", "schedule.decay_from=1")
    assert first.stderr.startswith(line)
    assert json.loads(first.stdout)["finished"]
    kept = json.loads(Path("runs/tiny/spec.json").read_text())["data"]
    assert (kept["a"]["held_out"], kept["root"]) == (f"{tmp_path}/2024/testA", None)
    described = json.loads(Path("runs/tiny/environment.json").read_text())["data"]
    assert [(found["images"], found["held_out"]) for found in described.values()] == [(10, 4), (11, 6)]
    checked = call("check", "runs/tiny")
    assert json.loads(checked.stdout)["images"] == {"a": 10, "b": 11}
    measured = json.loads(call("eval", "runs/tiny").stdout)["protocol"]["images"]
    assert {domain: found["test"] for domain, found in measured.items()} == {"a": 2, "b": 3}
    # moved, and found again by their content
    Path("2024").rename("moved")
    again = call("run", "runs/tiny", "--data", "moved", "--set", "schedule.steps=3")
    assert (json.loads(again.stdout)["step"], json.loads(again.stdout)["finished"]) == (3, True)
    refused = CliRunner().invoke(app, ["run", "runs/tiny", "--data", "moved", "--swap", "--set", "schedule.steps=4"])
    assert refused.exit_code == 2
    assert "data.a: these are not the images that runs/tiny began with" in refused.stderr
