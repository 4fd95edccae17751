"""Extras: masks and further pictures of a folder's images are resized, cut and mirrored with them, and losses read
them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

import ganlab
from ganlab import Extra
from ganlab.data import cache, store
from ganlab.data.dataset import Dataset, load
from ganlab.data.folder import Folder
from ganlab.data.sampler import Sampler
from ganlab.engine.trainer import Trainer
from ganlab.errors import SpecError
from ganlab.experiment import check
from ganlab.sharing.folder import shareable
from ganlab.spec.files import merge, read
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from ganlab.system.build import build, build_data
from helpers.callbacks import Recording
from helpers.processes import networks
from helpers.specs import refusal

LARGE, SIZE, COUNT = 14, 12, 20


@pytest.fixture
def numbered(tmp_path: Path) -> dict[str, Path]:
    """{part: folder} of images, masks and depths in which every pixel tells its image and its place.

    Red is 14 * row + column and green the number of the image; the mask and the depth hold the sum of both.
    """
    place = np.arange(LARGE * LARGE, dtype=np.uint8).reshape(LARGE, LARGE)
    folders = {part: tmp_path / part for part in ("images", "masks", "depths")}
    for folder in folders.values():
        (folder / "inner").mkdir(parents=True)
    for number in range(COUNT):
        name = f"inner/{number:02}"
        colours = np.stack([place, np.full_like(place, number), 0 * place], 2)
        Image.fromarray(colours).save(folders["images"] / f"{name}.png")
        Image.fromarray(place + number).save(folders["masks"] / f"{name}.bmp")
        Image.fromarray(place + number).save(folders["depths"] / f"{name}.png")
    return folders


def source_of(numbered: dict[str, Path], **options: Any) -> Folder:
    return Folder(
        numbered["images"], masks={"parts": numbered["masks"]}, pictures={"depth": numbered["depths"]}, **options
    )


def bytes_of(values: Tensor) -> Tensor:
    """[-1, 1] -> 0 to 255."""
    return ((values.double() + 1) * 127.5).round().long()


def verify_all_belong_together(sampler: Sampler, domain: str, draws: int) -> set[tuple[bool, int]]:
    """Every pixel of a batch's extras is that of the same image and place. Returns {(mirrored, corner)}."""
    seen = set()
    for draw in range(draws):
        batch = sampler(draw)
        place, number = bytes_of(batch.images[domain])[:, :2].unbind(1)
        mask, depth = batch.extras[domain]["parts"], batch.extras[domain]["depth"]
        assert (mask.dtype, depth.dtype) == (torch.int64, torch.float32)
        assert mask.shape == (sampler.batch, 1, SIZE, SIZE)
        assert depth.shape == (sampler.batch, 3, SIZE, SIZE)
        assert torch.equal(mask[:, 0], place + number)
        assert torch.equal(bytes_of(depth), mask.expand(-1, 3, -1, -1))
        assert depth.abs().max() <= 1
        seen |= {(bool(each[0, 0] > each[0, 1]), int(each.min())) for each in place}
    return seen


@pytest.mark.parametrize("prepared", [False, True])
def test_extras_are_cut_and_mirrored_with_their_image(
    numbered: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepared: bool
) -> None:
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "KEPT_FROM", 0)
    source = source_of(numbered)

    def at(size: int) -> Dataset:
        return load(source, "a", size, 0.2, identity="{}" if prepared else None)

    dataset = replace(at(SIZE), larger=at(LARGE))
    assert dataset.larger is not None
    assert (dataset.larger.file is not None) == prepared
    seen = verify_all_belong_together(Sampler({"a": dataset}, 8, True, 0, torch.device("cpu"), torch.float32), "a", 30)
    # the images are cut at 3 x 3 places
    assert len(seen) == 2 * 9


def test_extras_of_pairs_belong_together(numbered: dict[str, Path]) -> None:
    of = {"type": "folder", "path": str(numbered["images"]), "masks": {"parts": str(numbered["masks"])}}
    b = {**of, "pictures": {"depth": str(numbered["depths"])}}
    spec = merge(read("paired"), {"data": {"a": of, "b": b, "size": 16}})
    sampler = Sampler(build_data(resolve(spec)), 8, True, 0, torch.device("cpu"), torch.float32)
    for draw in range(5):
        batch = sampler(draw)
        assert [*batch.extras["a"]] == ["parts"]
        assert torch.equal(batch.extras["a"]["parts"], batch.extras["b"]["parts"])
        assert [*batch.extras["b"]] == ["parts", "depth"]


# --- the files


def test_masks_keep_their_classes_and_pictures_are_resized_as_images(tmp_path: Path) -> None:
    """A mask is compared with numpy: the nearest pixels of the largest centred square."""
    random = np.random.default_rng(0)
    classes = random.integers(0, 4, (60, 80), np.uint8)
    colours = random.integers(0, 256, (60, 80, 3), np.uint8)
    for folder in ("images", "masks", "pictures"):
        (tmp_path / folder).mkdir()
    for name in ("grey", "palette", "bit", "small"):
        Image.fromarray(colours).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(255 - colours).save(tmp_path / "pictures" / f"{name}.png")
    Image.fromarray(60 * classes).save(tmp_path / "masks/grey.png")
    palette = Image.fromarray(classes)
    palette.putpalette([10, 20, 30, 200, 100, 0, 7, 7, 7, 250, 250, 250])
    assert palette.mode == "P"
    palette.save(tmp_path / "masks/palette.png")
    Image.fromarray(classes > 1).save(tmp_path / "masks/bit.tif")
    Image.fromarray(classes[::2, ::2]).save(tmp_path / "masks/small.png")
    source = Folder(tmp_path / "images", masks={"m": tmp_path / "masks"}, pictures={"p": tmp_path / "pictures"})
    assert source.extras == {"m": Extra(1, "classes"), "p": Extra(3, "picture")}

    # the middle of each third pixel of columns 10 to 69
    nearest = classes[1::3, 11:70:3]
    expected = {"grey.png": 60 * nearest, "palette.png": nearest, "bit.png": nearest > 1}
    for key, mask in expected.items():
        assert (source.extra("m", key, 20)[..., 0] == mask).all()
    halves = classes[::2, ::2]
    at = np.floor((np.arange(20) + 0.5) * 1.5).astype(int)
    assert (source.extra("m", "small.png", 20)[..., 0] == halves[at][:, 5 + at]).all()
    fitted = ImageOps.fit(Image.fromarray(255 - colours), (20, 20), Image.Resampling.BICUBIC)
    assert (source.extra("p", "grey.png", 20) == np.asarray(fitted)).all()

    padded = Folder(tmp_path / "images", fit="pad", masks={"m": tmp_path / "masks"}).extra("m", "grey.png", 40)[..., 0]
    assert (padded[:5] == 0).all()
    assert (padded[35:] == 0).all()
    assert (padded[5:35] == 60 * classes[1::2, 1::2]).all()


def test_images_without_an_extra_are_left_out_and_named(numbered: dict[str, Path], tiny: Json, tmp_path: Path) -> None:
    masks = {name: numbered["masks"] / f"inner/{name}.bmp" for name in ("03", "04", "05", "06", "07", "09")}
    masks["03"].unlink()
    Image.fromarray(np.zeros((14, 14, 3), np.uint8)).save(masks["04"])
    Image.fromarray(np.zeros((14, 20), np.uint8)).save(masks["05"])
    Image.open(masks["06"]).save(masks["06"].with_suffix(".jpg"))
    Image.open(masks["07"]).save(masks["07"].with_suffix(".jpg"))
    masks["07"].unlink()
    masks["09"].write_bytes(masks["09"].read_bytes()[:100])
    source = source_of(numbered)
    # a file of the same suffix is the partner whatever else there is
    Image.new("L", (LARGE, LARGE)).save(numbered["masks"] / "inner/08.png")
    folder = numbered["masks"]
    dataset = load(source, "a", SIZE, 0.2)
    assert list(dataset.skipped) == [
        f"inner/03.png: has no 'parts' in {folder}",
        f"inner/04.png: its 'parts', {masks['04']}, is no mask: expected 8-bit grey or a palette, got the mode RGB of"
        " Pillow",
        f"inner/05.png: its 'parts', {masks['05']}, is 20 x 14 pixels, which is not the shape of the image",
        f"inner/06.png: has several 'parts' in {folder}: inner/06.bmp, inner/06.jpg",
        f"inner/07.png: its 'parts', {folder / 'inner/07.jpg'}, is no mask of a kind that is read (BMP, GIF, PNG, PPM,"
        " TIFF)",
        f"inner/09.png: its 'parts', {masks['09']}, image file is truncated (0 bytes not processed)",
    ]
    assert len(dataset.keys) == COUNT - 6

    told = Recording()
    of = {"path": str(numbered["images"]), "masks": {"parts": str(folder)}}
    found = check(merge(tiny, {"data": {"a": of}}), callback=told)
    assert found["images"]["a"] == COUNT - 2
    assert found["extras"] == {"a": {"parts": {"channels": 1, "values": "classes"}}, "b": {}}
    assert told.warned[0] == (
        f"data.a: 2 of 20 files are no readable images and are left out: inner/03.png: has no 'parts' in {folder};"
        f" inner/06.png: has several 'parts' in {folder}: inner/06.bmp, inner/06.jpg"
    )


def test_wrong_options_are_one_sentence(numbered: dict[str, Path], tiny: Json, tmp_path: Path) -> None:
    def said(**options: Any) -> str:
        return refusal(lambda: check(merge(tiny, {"data": {"a": options}})))

    assert said(masks={"parts": str(tmp_path / "none")}) == (
        f"data.a.masks.parts: the folder '{tmp_path}/none' does not exist"
    )
    assert said(masks={"x": "a"}, pictures={"x": "b"}) == (
        "data.a: source 'folder' of plugin 'folder' of ganlab 0.1.0: masks and pictures share the name 'x'"
    )
    assert 'data.a.masks.a b: "a b" is not allowed' in said(masks={"a b": "a"})
    allowed = "it should be the path of a file or a folder"
    assert f'data.a.masks: {{"x": ""}} is not allowed: {allowed}' in said(masks={"x": ""})


def test_held_out_images_need_no_extra(numbered: dict[str, Path], tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.mkdir()
    for number in range(2):
        Image.new("RGB", (LARGE, LARGE), (number, 0, 9)).save(held / f"{number}.png")
    source = source_of(numbered, held_out=held)
    dataset = load(source, "a", SIZE, 0.2)
    assert (len(dataset.train), len(dataset.holdout)) == (COUNT, 2)
    assert not dataset.skipped
    assert source.is_image("held_out//0.png")


def test_paths_start_at_the_spec_file_and_are_no_part_of_what_is_shared(numbered: dict[str, Path], tiny: Json) -> None:
    home = numbered["images"].parent
    (home / "spec.json").write_text(
        json.dumps(merge(tiny, {"data": {"a": {"path": "images", "masks": {"m": "masks"}}}}))
    )
    spec = resolve(read(home / "spec.json"))
    assert spec.data.a["masks"] == {"m": str(home / "masks")}
    assert spec.locations()["data.a.masks.m"] == str(home / "masks")
    assert shareable(spec)["data"]["a"]["masks"] == {"m": "masks"}


# --- prepared images


def test_prepared_extras_are_those_from_memory(
    numbered: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "KEPT_FROM", 0)
    expected = load(source_of(numbered), "a", SIZE, 0.2)
    (numbered["masks"] / "inner/03.bmp").unlink()
    for source in (source_of(numbered), Folder(numbered["images"])):
        found, expected = (load(source, "a", SIZE, 0.2, identity=identity) for identity in ("{}", None))
        assert (found.file is None, expected.file is None) == (False, True)
        assert torch.equal(found.layers, expected.layers)
        assert found.images.shape == (len(found.keys), 3, SIZE, SIZE)
        assert found.skipped == expected.skipped
        assert found.fingerprint() == expected.fingerprint()
        assert found.warnings() == expected.warnings()
    assert [each.state for each in cache.prepared(verify=True)] == ["prepared"] * 2
    # another mask, of none of the images that are read at every start
    Image.new("L", (LARGE, LARGE), 9).save(numbered["masks"] / "inner/06.bmp")
    again = load(source_of(numbered), "a", SIZE, 0.2, identity="{}")
    assert len(cache.prepared()) == 3
    assert (again.layers[again.keys.index("inner/06.png"), 3] == 9).all()


def test_names_and_kinds_of_extras_are_a_part_of_the_hash(
    numbered: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "KEPT_FROM", 0)

    def hashed(**extras: Any) -> str:
        source = Folder(numbered["images"], **extras)
        # as of a plugin that declares other extras than before, with the same options
        found, prepared = (load(source, "a", SIZE, 0.2, identity=identity).sha256 for identity in (None, "{}"))
        assert found == prepared
        return found

    masks, depths = numbered["masks"], numbered["depths"]
    different = [
        hashed(),
        hashed(masks={"m": masks}),
        hashed(masks={"n": masks}),
        hashed(masks={"m": masks, "n": depths}),
        hashed(masks={"n": masks, "m": depths}),
        hashed(pictures={"m": masks}),
    ]
    assert len({*different}) == len(different)


# --- losses


def painted(folder: Path) -> dict[str, Any]:
    """Writes noise with one bright quarter, and masks of the quarters. Returns the options of a source."""
    random = np.random.default_rng(0)
    for name in ("noise", "bright"):
        (folder / name).mkdir()
    for number in range(12):
        mask = np.zeros((16, 16), np.uint8)
        row, column = 8 * random.integers(0, 2, 2)
        mask[row : row + 8, column : column + 8] = 1
        Image.fromarray(random.integers(0, 64, (16, 16), np.uint8) + 190 * mask).save(folder / f"noise/{number}.png")
        Image.fromarray(mask).save(folder / f"bright/{number}.png")
    return {"path": str(folder / "noise"), "masks": {"parts": str(folder / "bright")}}


def test_a_loss_on_masks_trains(tiny: Json, tmp_path: Path, trial: None) -> None:
    """A generator learns to paint the masks, unless they do not belong to their images: black everywhere costs 0.5."""
    of = painted(tmp_path)
    spec = resolve(
        merge(
            tiny,
            {
                "data": {"a": of, "b": of},
                "directions": ["ab"],
                "losses": {"cycle": None, "adversarial": {"weight": 0}, "painted": {"type": "painted"}},
                "schedule": {"steps": 40, "lr": 0.01},
            },
        )
    )
    datasets = build_data(spec)
    trainer = Trainer(
        build(spec, {name: dataset.domain for name, dataset in datasets.items()}),
        Sampler(datasets, 4, True, 0, torch.device("cpu"), torch.float32),
    )
    for _ in range(40):
        trainer.step()
    values = [record["loss/generator/ab/painted"] for record in trainer.log.read(trainer.state)]
    assert values[0] > 0.8
    assert values[-1] < 0.25


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"extra": "hair"}, "asks for the extra 'hair' of domain a, and its source gives 'parts' alone"),
        ({"extra": "hair", "directions": ["ba"]}, "asks for the extra 'hair' of domain b, and its source gives none"),
        ({"spoils": True}, "changes t.source_extras['parts'] in place"),
    ],
)
def test_what_a_loss_may_not_do_is_one_sentence(
    tiny: Json, tmp_path: Path, trial: None, options: Json, said: str
) -> None:
    directions = options.pop("directions", ["ab"])
    losses = {"cycle": None, "painted": {"type": "painted", **options}}
    spec = merge(tiny, {"data": {"a": painted(tmp_path)}, "directions": directions, "losses": losses})
    where = f"losses.painted's generator term in direction {directions[0]}: {said} (loss 'painted' of plugin"
    assert refusal(lambda: check(spec)).startswith(where)


def test_a_resumed_run_is_the_same_to_the_byte(
    tiny: Json, tmp_path: Path, trial: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = painted(tmp_path)
    spec = merge(tiny, {"data": {"a": of, "b": of}, "losses": {"painted": {"type": "painted"}}})
    ganlab.run(spec, ["schedule.steps=4"], out=tmp_path / "whole")
    ganlab.run(spec, ["schedule.steps=2"], out=tmp_path / "parts")
    monkeypatch.setattr(store, "KEPT_FROM", 0)
    ganlab.run(spec, ["schedule.steps=4"], out=tmp_path / "parts")
    # both domains have the same images
    assert len(cache.prepared()) == 1
    assert networks(tmp_path / "whole", 4) == networks(tmp_path / "parts", 4)
    # other masks are other data
    Image.new("L", (16, 16), 1).save(tmp_path / "bright/3.png")
    with pytest.raises(SpecError, match="these are not the images that"):
        ganlab.run(spec, ["schedule.steps=6"], out=tmp_path / "parts")
