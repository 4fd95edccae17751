"""`ganlab.evaluate(images=...)`: two folders of any pictures, measured against each other."""

from __future__ import annotations

import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import tifffile
import torch
from PIL import Image
from torch.nn.functional import adaptive_avg_pool2d

import ganlab
from ganlab import SpecError, Unavailable
from ganlab.data.image_files import picture
from ganlab.data.reading import silent
from ganlab.evaluation import image_folders
from ganlab.evaluation.features import resized
from ganlab.evaluation.fid import frechet
from ganlab.evaluation.image_folders import Folder
from helpers.callbacks import Recording

pytestmark = pytest.mark.usefixtures("trial")


def crops(
    folder: Path, count: int, seed: int = 0, size: tuple[int, int] = (40, 32), dim: float = 1.0
) -> list[np.ndarray]:
    """Pieces of a photograph, kept as PNG."""
    folder.mkdir(parents=True)
    photograph = skimage.data.astronaut()
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        top, left = random.integers(0, 400, 2)
        piece = (photograph[top : top + size[0], left : left + size[1]] * dim).astype(np.uint8)
        Image.fromarray(piece).save(folder / f"{number:03}.png")
        made.append(piece)
    return made


def vectors(pieces: list[np.ndarray]) -> np.ndarray:
    """The vectors of the features `averages`, in float64."""
    stacked = torch.from_numpy(np.stack([resized(piece, 8) for piece in pieces])).permute(0, 3, 1, 2).double()
    found: np.ndarray = adaptive_avg_pool2d(stacked / 127.5 - 1, 2).flatten(1).numpy()
    return found


def test_the_result_is_of_all_images_and_the_reference_of_the_halves_of_the_real_ones(tmp_path: Path) -> None:
    one, two = crops(tmp_path / "a", 30, 1, dim=0.8), crops(tmp_path / "b", 41, 2)
    found = ganlab.evaluate(metrics=["fid"], features="averages", images=(tmp_path / "a", tmp_path / "b"))
    kid, fid = found["results"]
    assert (kid["number"], fid["number"]) == ("kid-averages", "fid-averages")
    assert fid["value"] == pytest.approx(frechet(vectors(one), vectors(two)), rel=1e-4)
    assert fid["counts"] == {"outputs": 30, "real": 41}
    real = fid["references"]["real"]
    assert real["counts"] == {"outputs": 20, "real": 21}
    # at the same counts, so that both have the same bias
    assert real["result_at_these_counts"]["counts"] == {"outputs": 20, "real": 21}
    assert real["value"] < real["result_at_these_counts"]["value"]
    assert "identity" not in fid["references"]
    measured = found["protocol"]["images"]["measured"]
    assert {**measured, "sha256": len(measured["sha256"])} == {
        "folder": "a",
        "images": 30,
        "left_out": [],
        "sha256": 64,
    }
    assert found == ganlab.evaluate(metrics=["fid"], features="averages", images=(tmp_path / "a", tmp_path / "b"))


def test_inputs_give_the_identity_baseline(tmp_path: Path) -> None:
    crops(tmp_path / "a", 20, 1, dim=0.9)
    crops(tmp_path / "from", 20, 1, dim=0.5)
    crops(tmp_path / "b", 40, 2)
    (tmp_path / "from" / "more.txt").write_text("not needed")
    recording = Recording()
    folders = (tmp_path / "a", tmp_path / "b")
    found = ganlab.evaluate(
        metrics=["kid"], features="averages", images=folders, inputs=tmp_path / "from", callback=recording
    )
    (kid,) = found["results"]
    assert kid["references"]["identity"]["value"] > kid["value"]
    assert recording.warned == [
        f"{tmp_path / 'from'}: 1 of 21 files are no readable images and are left out: more.txt: "
        "is no image of a kind that is read (AVIF, BMP, GIF, JPEG, JPEG2000, PNG, PPM, TIFF, WEBP)"
    ]
    (tmp_path / "from" / "007.png").unlink()
    with pytest.raises(SpecError, match=r"no readable '007\.png', with this suffix or another, .* \(1 of 20 have"):
        ganlab.evaluate(metrics=["kid"], features="averages", images=folders, inputs=tmp_path / "from")


def test_images_of_every_kind_and_size_are_read_right(tmp_path: Path) -> None:
    pieces = crops(tmp_path / "plain", 12, 1)
    odd = tmp_path / "odd"
    odd.mkdir()
    grey = np.asarray(Image.fromarray(pieces[0]).convert("L"))
    Image.fromarray(grey).save(odd / "000.png")
    # one file with an alpha channel is opaque, the other has ten transparent rows
    Image.fromarray(np.dstack([pieces[1], np.full(pieces[1].shape[:2], 255, np.uint8)])).save(odd / "001.png")
    alpha = np.full(pieces[2].shape[:2], 255, np.uint8)
    alpha[:10] = 0
    Image.fromarray(np.dstack([pieces[2], alpha])).save(odd / "002.png")
    deep = grey.astype(np.uint16) * 257
    Image.fromarray(deep).save(odd / "003.png")
    Image.fromarray(pieces[4]).resize((90, 50)).save(odd / "004.png")
    (odd / "inside").mkdir()
    Image.fromarray(pieces[5]).save(odd / "inside" / "005.png")
    whitened = pieces[2].copy()
    whitened[:10] = 255
    triple = np.dstack([grey] * 3)
    wide = np.asarray(Image.fromarray(pieces[4]).resize((90, 50)))
    expected = [triple, pieces[1], whitened, triple, wide, pieces[5]]
    found = ganlab.evaluate(metrics=["fid"], features="averages", images=(odd, tmp_path / "plain"))
    fid = next(f for f in found["results"] if f["number"] == "fid-averages")
    assert fid["value"] == pytest.approx(frechet(vectors(expected), vectors(pieces)), rel=1e-4)


def test_a_corrupt_file_is_named_and_left_out(tmp_path: Path) -> None:
    crops(tmp_path / "a", 10, 1)
    crops(tmp_path / "b", 10, 2)
    whole = (tmp_path / "a" / "003.png").read_bytes()
    (tmp_path / "a" / "003.png").write_bytes(whole[: len(whole) // 2])
    recording = Recording()
    found = ganlab.evaluate(
        metrics=["kid"], features="averages", images=(tmp_path / "a", tmp_path / "b"), callback=recording
    )
    assert found["results"][0]["counts"] == {"outputs": 9, "real": 10}
    (left_out,) = found["protocol"]["images"]["measured"]["left_out"]
    assert left_out.startswith("003.png: ")
    assert recording.warned[0].startswith(f"{tmp_path / 'a'}: 1 of 10 files are no readable images and are left out: ")


def test_what_is_no_folder_of_images_is_refused(tmp_path: Path) -> None:
    crops(tmp_path / "b", 8)
    (tmp_path / "empty").mkdir()
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "a.txt").write_text("words")
    for name, said in (
        ("lost", "lost does not exist"),
        ("empty", "empty holds no readable image and is empty"),
        ("words", r"words holds no readable image; a\.txt: is no image of a kind"),
        ("b/000.png", r"000\.png is not a folder"),
    ):
        with pytest.raises(SpecError, match=said):
            ganlab.evaluate(metrics=["kid"], features="averages", images=(tmp_path / name, tmp_path / "b"))
    with pytest.raises(SpecError, match="'~nosuchuser/x': the home folder that its '~' stands for is not known"):
        ganlab.evaluate(metrics=["kid"], features="averages", images=("~nosuchuser/x", tmp_path / "b"))


def test_one_image_is_too_few(tmp_path: Path) -> None:
    crops(tmp_path / "a", 1)
    crops(tmp_path / "b", 8)
    for images in ((tmp_path / "a", tmp_path / "b"), (tmp_path / "b", tmp_path / "a")):
        with pytest.raises(Unavailable, match=r"nothing could be measured: fid needs at least 4 images .*there is 1"):
            ganlab.evaluate(metrics=["fid", "kid"], features="averages", images=images)


def test_a_metric_is_needed_and_a_run_is_something_else(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"--images needs two folders and a metric; known are: .*kid"):
        ganlab.evaluate(images=(tmp_path, tmp_path))
    with pytest.raises(SpecError, match=r"either a run .* or two folders of --images are measured, not both"):
        ganlab.evaluate(tmp_path, metrics=["kid"], images=(tmp_path, tmp_path))
    with pytest.raises(SpecError, match="--inputs goes with --images"):
        ganlab.evaluate(tmp_path, inputs=tmp_path)


def test_a_metric_of_pairs_is_left_out_where_sizes_differ(tmp_path: Path) -> None:
    crops(tmp_path / "a", 6)
    Image.new("RGB", (90, 80)).save(tmp_path / "a" / "other.png")
    images = ganlab.Images([np.asarray(Image.open(path)) for path in sorted((tmp_path / "a").iterdir())])
    with pytest.raises(Unavailable, match="needs images of one size, and they go from 40x32 to 80x90 pixels"):
        images.tensor()


def test_inputs_are_found_by_their_names_without_the_suffixes(tmp_path: Path) -> None:
    crops(tmp_path / "a", 8, 1, dim=0.9)
    crops(tmp_path / "b", 8, 2)
    pieces = crops(tmp_path / "from", 8, 1, dim=0.5)
    folders = (tmp_path / "a", tmp_path / "b")

    def identity() -> dict[str, Any]:
        found = ganlab.evaluate(metrics=["kid"], features="averages", images=folders, inputs=tmp_path / "from")
        reference: dict[str, Any] = found["results"][0]["references"]["identity"]
        return reference

    same_names = identity()
    for number, piece in enumerate(pieces):
        (tmp_path / "from" / f"{number:03}.png").unlink()
        Image.fromarray(piece).save(tmp_path / "from" / f"{number:03}.bmp")
    assert identity() == same_names
    # an equal name decides before the stem does
    Image.fromarray(pieces[3]).save(tmp_path / "from" / "003.png")
    Image.new("RGB", (40, 32)).save(tmp_path / "from" / "003.gif")
    assert identity() == same_names
    (tmp_path / "from" / "003.png").unlink()
    with pytest.raises(
        SpecError, match=r"'003\.png' is not clear: .*a holds 003\.png, and .*from holds 003\.bmp, 003\.gif"
    ):
        identity()
    (tmp_path / "from" / "003.gif").unlink()
    (tmp_path / "a" / "003.png").rename(tmp_path / "a" / "003.webp")
    Image.fromarray(pieces[3]).save(tmp_path / "a" / "003.jpg")
    with pytest.raises(SpecError, match=r"'003\.jpg' is not clear: .*a holds 003\.jpg, 003\.webp, and .*003\.bmp"):
        identity()


def test_pictures_are_read_twice_at_most_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        crops(tmp_path / name, 80, seed)
    read: Counter[Path] = Counter()
    alive: set[int] = set()
    most = 0

    def counted(path: Path) -> np.ndarray:
        nonlocal most
        read[path] += 1
        pixels = np.asarray(picture(path)).copy()
        alive.add(number := sum(read.values()))
        weakref.finalize(pixels, alive.discard, number)
        most = max(most, len(alive))
        return pixels

    monkeypatch.setattr(image_folders, "picture", counted)
    ganlab.evaluate(metrics=["kid", "fid"], features="averages", images=(tmp_path / "a", tmp_path / "b"))
    assert len(read) == 160
    assert set(read.values()) == {2}
    assert 1 <= most <= 2 * torch.get_num_threads()
    # the vectors of the real images are known now
    read.clear()
    ganlab.evaluate(metrics=["kid", "fid"], features="averages", images=(tmp_path / "a", tmp_path / "b"))
    assert {read[path] for path in read if path.parent.name == "b"} == {1}


def test_a_picture_that_changes_meanwhile_is_not_measured(tmp_path: Path) -> None:
    crops(tmp_path / "a", 4)
    images = Folder(tmp_path / "a", True, silent).images
    before = images.pixels[1]
    Image.fromarray(255 - before).save(tmp_path / "a" / "001.png")
    (tmp_path / "a" / "002.png").unlink()
    with pytest.raises(SpecError, match=r"001\.png has changed since it was first read; measure again"):
        images.take([1]).tensor()
    with pytest.raises(
        SpecError, match=r"002\.png has changed since it was first read \(is not a file\); measure again"
    ):
        images.take([2]).tensor()
    assert images.take([3, 0]).tensor().shape == (2, 3, 40, 32)


def test_a_measured_folder_has_the_refusals_and_warnings_of_a_source(tmp_path: Path) -> None:
    crops(tmp_path / "a", 8, 1, dim=0.05)
    crops(tmp_path / "b", 8, 2)
    tifffile.imwrite(tmp_path / "b" / "float.tif", np.zeros((8, 8), np.float32))
    recording = Recording()
    ganlab.evaluate(metrics=["kid"], features="averages", images=(tmp_path / "a", tmp_path / "b"), callback=recording)
    dark, left_out = recording.warned
    assert dark.startswith(f"{tmp_path / 'a'}: the brightest value of all 8 images is 12 of 255; ")
    assert "1 of 9 files are no readable images and are left out: float.tif: holds floats of 32 bits" in left_out
