"""The source `huggingface`, on datasets that the library `datasets` has written, without a network."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from ganlab_huggingface import HuggingFace
from PIL import Image

from ganlab import SpecError
from ganlab.experiment import check
from helpers.huggingface import ANIMALS, dataset, rows
from helpers.systems import TINY


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*where: object, **how: object) -> None:
        raise OSError("no network in a test")

    monkeypatch.setattr("socket.create_connection", refuse)
    # the library waits 23 s for the hub otherwise
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def saved(folder: Path) -> str:
    dataset().save_to_disk(folder)
    return "train"


def saved_splits(folder: Path) -> str:
    datasets.DatasetDict({"train": dataset().select([0]), "test": dataset()}).save_to_disk(folder)
    return "test"


def parquet(folder: Path) -> str:
    (folder / "data").mkdir(parents=True)
    dataset().to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    return "test"


FORMS = {form.__name__: form for form in (saved, saved_splits, parquet)}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_local_dataset_gives_its_images_and_columns(tmp_path: Path, form: str) -> None:
    split = FORMS[form](tmp_path / "set")
    source = HuggingFace(path=tmp_path / "set", split=split, image="photo")
    assert source.keys("a") == [f"{number:02}" for number in range(12)]
    assert source.classes == 0
    for key, row in zip(source.keys("a"), rows(), strict=True):
        # the centred square of 20x16
        np.testing.assert_array_equal(source.image(key, 16), row["photo"][:, 2:18])
        hair = {} if row["hair"] is None else {"hair": row["hair"]}
        wild = "true" if row["wild"] else "false"
        expected = {"animal": ANIMALS[row["animal"]], "age": str(row["age"]), "wild": wild, **hair}
        assert source.attributes(key) == expected
    assert HuggingFace(path=tmp_path / "set", split=split, image="photo", channels=1).image("00", 16).shape == (
        16,
        16,
        1,
    )


@pytest.mark.parametrize(
    ("labels", "classes", "of"),
    [
        ("animal", ("owl", "cat"), lambda row: ANIMALS[row["animal"]]),
        ("hair", ("red", "black"), lambda row: row["hair"]),
        ("age", ("3", "5", "11"), lambda row: str(row["age"])),
        ("wild", ("false", "true"), lambda row: str(row["wild"]).lower()),
    ],
)
def test_a_column_of_any_kind_gives_classes(
    tmp_path: Path, labels: str, classes: tuple[str, ...], of: Callable[[dict[str, Any]], str]
) -> None:
    saved(tmp_path)
    source = HuggingFace(path=tmp_path, image="photo", labels=labels, classes=classes)
    assert source.classes == len(classes)
    expected = {f"{n:02}": classes.index(of(row)) for n, row in enumerate(rows()) if of(row) in classes}
    assert {key: source.label(key) for key in source.keys("b")} == expected
    if left_out := [f"{n:02}" for n, row in enumerate(rows()) if of(row) not in classes]:
        with pytest.raises(ValueError, match=f"row {left_out[0]} has none of the classes"):
            source.label(left_out[0])


def refusal(**options: Any) -> str:
    with pytest.raises(SpecError) as refused:
        HuggingFace(**options).keys("a")
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_wrong_names_are_one_sentence_with_the_right_ones(tmp_path: Path) -> None:
    saved_splits(tmp_path / "set")
    start, place = "the source 'huggingface'", tmp_path / "set"
    assert refusal(path=place, split="valid") == (
        f"{start} can't load split 'valid' of {place}: the folder has the splits train, test"
    )
    columns = "its columns are: photo, animal, hair, age, wild"
    for image in ("image", "hair"):
        said = f"{start}: split 'test' of {place} has no images in the column '{image}'; {columns}"
        assert refusal(path=place, split="test", image=image) == said
    for labels in ("fur", "photo"):
        said = f"{start}: split 'test' of {place} has no labels in the column '{labels}'; {columns}"
        assert refusal(path=place, split="test", image="photo", labels=labels, classes=("a", "b")) == said
    said = refusal(path=place, split="test", image="photo", labels="animal", classes=("cat", "cow"))
    assert said == "data.a: no image has the animal 'cow'; the values are: cat, dog, owl"
    assert refusal(path=tmp_path / "nothing").startswith(
        f"{start} can't load split 'train' of {tmp_path / 'nothing'} (File"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give either dataset, a name on the hub, or path, a folder"),
        ({"dataset": "a/b", "path": Path("c")}, "give either dataset, a name on the hub, or path, a folder"),
        ({"path": Path("c"), "revision": "main"}, "revision is 'main', and a folder has no revisions"),
        ({"dataset": "a/b", "labels": "x"}, "labels is 'x', and classes lists []; list the values that become classes"),
        ({"dataset": "a/b", "classes": ("x", "y")}, "classes lists ['x', 'y'], and labels names nothing"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  (the message is compared)
        HuggingFace(**options)
    assert str(refused.value).startswith(said)


def spec_of(source: dict[str, Any]) -> dict[str, Any]:
    return {**TINY, "data": {**TINY["data"], "a": source, "b": source}}


def test_offline_one_sentence_says_what_to_do() -> None:
    with pytest.raises(SpecError) as refused:
        check(spec_of({"type": "huggingface", "dataset": "ganlab-tests/nowhere"}))
    said = str(refused.value)
    start = "the source 'huggingface' can't load split 'train' of ganlab-tests/nowhere: it is not in the cache of this"
    assert said.startswith(f"{start} machine, and the hub can't be reached (")
    assert said.endswith("load it once where there is a network, or set the option `path` to a folder that has it")
    assert "\n" not in said


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Python then raises ImportError, as if the module did not exist
    monkeypatch.setitem(sys.modules, "datasets", None)
    said = refusal(path=tmp_path)
    assert said == "the source 'huggingface' needs the package datasets; pip install 'ganlab[datasets]'"


def test_an_image_that_is_missing_or_damaged_is_left_out_and_named(tmp_path: Path) -> None:
    # a folder of picture files is a dataset too
    for number in range(3):
        (tmp_path / "files").mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 80 * number, np.uint8)).save(tmp_path / "files" / f"{number}.png")
    files = HuggingFace(path=tmp_path / "files")
    assert files.keys("a") == ["0", "1", "2"]
    assert files.attributes("0") == {}
    (tmp_path / "files" / "1.png").unlink()
    assert files.image("2", 8).tolist() == np.full((8, 8, 3), 160).tolist()
    features = datasets.Features({"image": datasets.Image()})
    stored = [None, {"bytes": b"no picture", "path": None}]
    datasets.Dataset.from_dict({"image": stored}, features=features).save_to_disk(tmp_path / "set")
    broken = HuggingFace(path=tmp_path / "set")
    for source, key, said in (
        (files, "1", "is not a file"),
        (broken, "0", "the row has no image"),
        (broken, "1", "cannot identify image"),
    ):
        with pytest.raises(ValueError, match=said):
            source.image(key, 8)


def test_credits_name_the_page_of_the_hub_and_load_nothing() -> None:
    said = (
        "the dataset owner/name, https://huggingface.co/datasets/owner/name; that page names its makers and its licence"
    )
    assert HuggingFace("owner/name").credits() == said
    assert HuggingFace(path=Path("nowhere")).credits() == ""
