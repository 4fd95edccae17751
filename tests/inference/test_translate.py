"""`Run.translate`, `Run.generator` and `ganlab.translate`, compared with generators called by hand."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ganlab_resnet.generator import Resnet
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import pad

import ganlab
from ganlab import Domain, SpecError
from ganlab.components.registry import registry
from ganlab.inference import files
from ganlab.report.grids import GAP, MARGIN, STRIP
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.callbacks import Recording
from helpers.folders import draw
from helpers.paths import INSTALLED
from helpers.pictures import PILLOW_13, colourful, deep_png, hostile, saved
from helpers.systems import SIZE, TINY

Array = np.ndarray[Any, np.dtype[Any]]

BRIGHTEST = {"every": 1, "metrics": [{"type": "brightness", "better": "higher"}]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ganlab.Run]:
    """A run with averaged weights whose best checkpoint is not its last. Its pictures are gone."""
    folder = tmp_path_factory.mktemp("translate")
    sources = {domain: {"path": str(path)} for domain, path in draw(folder).items()}
    patch = {"data": sources, "schedule": {"lr": 0.05}, "ema_halflife_images": 8, "evaluation": BRIGHTEST}
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(INSTALLED))
        registry.cache_clear()
        ganlab.run(merge(TINY, patch), out=folder / "run")
        for source in sources.values():
            shutil.rmtree(source["path"])
        yield ganlab.load_run(folder / "run")
    registry.cache_clear()


def by_hand(run: ganlab.Run, direction: str, kind: str = "ema", step: int = 6) -> nn.Module:
    """A generator built outside of ganlab's machinery from the tensors of a checkpoint."""
    domains = [Domain(name, 3, SIZE, SIZE) for name in direction]
    generator = Resnet(*domains, width=4, blocks=2)
    tensors = load_file(run.folder / f"checkpoints/step-{step:06d}/networks.safetensors")
    start = f"{kind}/{direction}."
    generator.load_state_dict({k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)})
    return generator.eval()


def called(generator: nn.Module, image: Image.Image) -> Array:
    """The translation of an RGB image, padded to multiples of 4, as pixels."""
    images = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    below, right = -image.height % 4, -image.width % 4
    with torch.no_grad():
        output = generator(pad(images, (0, right, 0, below), mode="reflect"))[0, :, : image.height, : image.width]
    return ((output + 1) * 127.5).round().permute(1, 2, 0).numpy().astype(np.uint8)


def pixels(path: str | Path) -> Array:
    with Image.open(path) as image:
        return np.array(image)


# -- one picture ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["ab", "ba"])
def test_a_square_picture_is_translated_as_the_generator_does_by_hand(run: ganlab.Run, direction: str) -> None:
    image = colourful(40, 30)
    square = ImageOps.fit(image, (SIZE, SIZE), Image.Resampling.BICUBIC)
    translation = run.translate(image, to=direction[1])
    assert isinstance(translation, Image.Image)
    assert np.array_equal(np.array(translation), called(by_hand(run, direction), square))
    assert not np.array_equal(np.array(translation), called(by_hand(run, direction, "generator"), square))


@pytest.mark.parametrize("size", [(40, 32), (37, 50), (SIZE, SIZE), (16, 9)])
def test_a_whole_picture_is_padded_by_reflection_and_cropped(run: ganlab.Run, size: tuple[int, int]) -> None:
    image = colourful(*size)
    translation = run.translate(image, to="b", size="keep")
    assert np.array_equal(np.array(translation), called(by_hand(run, "ab"), image))


def test_the_generator_is_a_plain_module_in_eval_mode_and_a_copy(run: ganlab.Run) -> None:
    images = torch.rand(3, 3, 20, 24) * 2 - 1
    generator, expected = run.generator("ab"), by_hand(run, "ab")
    assert not any(module.training for module in generator.modules())
    with torch.no_grad():
        assert torch.equal(generator(images), expected(images))
        for parameter in generator.parameters():
            parameter.zero_()
        assert torch.equal(run.generator("ab")(images), expected(images))


def test_tensors_are_translated_to_tensors_of_their_size(run: ganlab.Run) -> None:
    images = torch.rand(2, 3, 18, SIZE, requires_grad=True) * 2 - 1
    translation = run.translate(images, to="a")
    with torch.no_grad():
        expected = by_hand(run, "ba")(pad(images, (0, 0, 0, 2), mode="reflect"))[:, :, :18]
    assert torch.equal(translation, expected)
    assert (translation.dtype, translation.requires_grad) == (torch.float32, False)


def test_the_best_checkpoint_is_the_one_with_the_best_monitor(run: ganlab.Run) -> None:
    scores = {r["step"]: r["evaluation/ab/brightness"] + r["evaluation/ba/brightness"] for r in run.records}
    best = int(max(scores, key=lambda step: scores[step]))
    assert best != 6
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        choices: tuple[tuple[str | int, int], ...] = (("best", best), ("last", 6), (best, best), (str(best), best))
        for name, step in choices:
            expected = by_hand(run, "ab", step=step)(images)
            assert torch.equal(run.generator("ab", name)(images), expected)
            assert torch.equal(run.translate(images, to="b", checkpoint=name), expected)


def test_a_path_and_an_open_image_give_the_same_as_the_picture_itself(run: ganlab.Run, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    colourful(20, 30).save(path, exif=exif)
    upright = colourful(20, 30).transpose(Image.Transpose.ROTATE_270)
    expected = np.array(run.translate(upright, to="b", size="keep"))
    assert expected.shape == (20, 30, 3)
    with Image.open(path) as opened:
        given: list[Any] = [path, str(path), opened]
        for one in given:
            assert np.array_equal(np.array(run.translate(one, to="b", size="keep")), expected)


def small_run(tiny: Json, tmp_path: Path, patch: Json, steps: int = 1) -> ganlab.Run:
    return ganlab.run(merge(merge(tiny, {"schedule": {"steps": steps}}), patch), out=tmp_path / "small")


def test_pictures_are_fitted_as_the_runs_own_are(tiny: Json, tmp_path: Path) -> None:
    padding = small_run(tiny, tmp_path, {"data": {"a": {"fit": "pad"}}})
    wide, padded = colourful(2 * SIZE, SIZE), Image.new("RGB", (SIZE, SIZE), "white")
    padded.paste(wide.resize((SIZE, SIZE // 2), Image.Resampling.BICUBIC), (0, SIZE // 4))
    for to, same in (("b", True), ("a", False)):
        one, other = (np.array(padding.translate(picture, to=to)) for picture in (wide, padded))
        assert np.array_equal(one, other) == same


def test_grey_domains_keep_the_range_that_the_run_reads_them_with(tiny: Json, tmp_path: Path) -> None:
    ranged = small_run(tiny, tmp_path, {"data": {"a": {"channels": 1, "range": [100, 355]}, "b": {"channels": 1}}})
    path = tmp_path / "deep.png"
    path.write_bytes(deep_png(np.random.default_rng(0).integers(0, 400, (SIZE, SIZE)).astype(np.uint16)))
    values = np.clip(pixels(path).astype(float) - 100, 0, 255)
    with torch.no_grad():
        output = ranged.generator("ab")(torch.from_numpy(values).float()[None, None] / 127.5 - 1)[0, 0]
    translation = ranged.translate(path, to="b")
    assert translation.mode == "L"
    assert np.array_equal(np.array(translation), ((output + 1) * 127.5).round().numpy())
    # domain b has no range of its own
    assert not np.array_equal(np.array(ranged.translate(path, to="a")), np.array(translation))


def test_bfloat16_is_computed_as_in_training(tiny: Json, tmp_path: Path) -> None:
    half = small_run(tiny, tmp_path, {"runtime": {"precision": "bfloat16"}})
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = half.generator("ab")(images).float()
    assert torch.equal(half.translate(images, to="b"), expected)
    assert not torch.equal(expected, half.generator("ab")(images))


def test_a_generator_that_draws_gives_one_picture_the_same_translation(tiny: Json, tmp_path: Path) -> None:
    drawing = {"generator": {"type": "dropout", "of": {"type": "resnet", "width": 4, "blocks": 2}}}
    random = small_run(tiny, tmp_path, drawing)
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first, others = random.translate(colourful(), to="b"), random.translate(colourful(9, 9), to="b")
    assert np.array_equal(np.array(random.translate(colourful(), to="b")), np.array(first))
    assert not np.array_equal(np.array(others), np.array(first))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_a_generator_of_one_size_alone_refuses_to_keep_sizes(tiny: Json, tmp_path: Path) -> None:
    fixed = small_run(tiny, tmp_path, {"generator": {"type": "xgan", "width": 2, "embedding": 4}, "data": {"size": 32}})
    assert fixed.translate(colourful(50, 20), to="b").size == (32, 32)
    sentence = r"generator 'xgan'.* translates images of 32 x 32 pixels only; choose the size 'run'"
    with pytest.raises(SpecError, match=sentence):
        fixed.translate(colourful(), to="b", size="keep")
    with pytest.raises(SpecError, match=sentence):
        ganlab.translate(fixed, [tmp_path / "pictures-a"], to="b", out=tmp_path / "out", size="keep")
    assert not (tmp_path / "out").exists()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"to": "c"}, "to: 'c' is not allowed: this run translates to a and to b"),
    ({"size": "large"}, "size: 'large' is not allowed: it should be 'run' or 'keep'"),
    ({"checkpoint": "first"}, "checkpoint: 'first' is not allowed: it should be 'last', 'best' or one of the steps "),
    ({"image": "no.png"}, "no.png can't be translated: is not a file"),
    ({"image": Image.new("F", (9, 9))}, "the image can't be translated: holds floats of 32 bits"),
    (
        {"image": torch.zeros(1, 1, 16, 16)},
        "expected images (N, 3, H, W) of floats in [-1, 1], got torch.float32 (1, 1, 16, 16)",
    ),
    ({"image": torch.zeros(3, 16, 16)}, "got torch.float32 (3, 16, 16)"),
    ({"image": torch.zeros(1, 3, 16, 16, dtype=torch.uint8)}, "got torch.uint8 (1, 3, 16, 16)"),
]


@pytest.mark.parametrize(("wrong", "sentence"), REFUSED)
def test_what_cant_be_translated_is_refused(run: ganlab.Run, wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        run.translate(**{"image": colourful(), "to": "b", **wrong})
    assert sentence in str(caught.value)


def test_an_open_image_that_is_cut_off_is_refused(run: ganlab.Run, tmp_path: Path) -> None:
    content = saved(colourful(64, 64), "JPEG")
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    with (
        Image.open(tmp_path / "cut.jpg") as opened,
        pytest.raises(SpecError, match="the image can't be translated: image file is truncated"),
    ):
        run.translate(opened, to="b")


def test_a_direction_or_a_checkpoint_that_is_missing_is_refused(tiny: Json, tmp_path: Path) -> None:
    one = small_run(tiny, tmp_path, {"directions": ["ab"], "losses": {"cycle": None}})
    with pytest.raises(SpecError, match="to: 'a' is not allowed: this run translates to b"):
        one.translate(colourful(), to="a")
    with pytest.raises(SpecError, match="direction: 'ba' is not allowed: this run has ab"):
        one.generator("ba")
    with pytest.raises(SpecError, match="to: 'a' is not allowed"):
        ganlab.translate(one, [tmp_path / "pictures-a"], to="b", cycle=True)
    with pytest.raises(SpecError, match="has no best checkpoint: nothing was measured during its training"):
        one.translate(colourful(), to="b", checkpoint="best")
    shutil.rmtree(one.folder / "checkpoints")
    with pytest.raises(SpecError, match="has no checkpoint yet"):
        ganlab.load_run(one.folder).translate(colourful(), to="b")


def test_a_damaged_checkpoint_is_refused(run: ganlab.Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "damaged")
    path = tmp_path / "damaged/checkpoints/step-000006/networks.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ganlab.RunError, match="its content is not what was saved"):
        ganlab.load_run(tmp_path / "damaged").translate(colourful(), to="b")


# -- files ------------------------------------------------------------------------------------------------------


def of_mode(mode: str, width: int, height: int) -> Image.Image:
    image = colourful(width, height)
    if mode == "I;16":
        return Image.fromarray(np.array(image.convert("L")).astype(np.uint16) * 257)
    return image.convert(mode)


def fifty(folder: Path) -> dict[str, tuple[int, int] | None]:
    """Writes pictures of every kind; returns {name: size when upright, or None if it can't be read}."""
    found: dict[str, tuple[int, int] | None] = {}

    def add(name: str, content: bytes, size: tuple[int, int] | None) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        found[name] = size

    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = colourful(21 + orientation, 34)
        size = image.size if orientation < 5 else image.size[::-1]
        add(f"turned/{orientation}.jpg", saved(image, "JPEG", exif=exif), size)
    for mode in ("L", "I;16", "RGB"):
        add(f"turned/{mode}.tif", saved(of_mode(mode, 21, 34), "TIFF", tiffinfo={0x0112: 6}), (34, 21))
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "I;16"):
        add(f"modes/{mode}.png", saved(of_mode(mode, 13, 11), "PNG"), (13, 11))
    for mode in ("CMYK", "YCbCr", "LAB", "L"):
        image = Image.merge("LAB", [colourful(15, 31).convert("L")] * 3) if mode == "LAB" else None
        size = (15, 31) if mode != "YCbCr" or PILLOW_13 else None
        add(f"modes/{mode}.tif", saved(image or colourful(15, 31).convert(mode), "TIFF"), size)
    for width, height in ((1, 1), (1, 40), (40, 1), (2, 3), (3, 6000), (6000, 5), (7, 7), (63, 65)):
        add(f"sizes/{width}x{height}.png", saved(colourful(width, height), "PNG"), (width, height))
    for name, (content, readable) in hostile().items():
        size = (8, 8) if readable else None
        sizes = {"point.png": (1, 1), "line.png": (1, 5000), "line.bmp": (5000, 1)}
        if name not in ("endless pages.tif",):
            add(f"hostile/{name}", content, sizes.get(name, size))
    return found


def test_fifty_pictures_of_odd_sizes_modes_and_orientations(run: ganlab.Run, tmp_path: Path) -> None:
    kinds = fifty(tmp_path / "in")
    assert len(kinds) > 50
    callback, contents = Recording(), []
    for out in (tmp_path / "one", tmp_path / "two"):
        done = ganlab.translate(run, [tmp_path / "in"], to="b", out=out, size="keep", callback=callback)
        named = {Path(left["input"]).relative_to(tmp_path / "in").as_posix() for left in done["left_out"]}
        assert named == {name for name, size in kinds.items() if size is None}
        for picture in done["pictures"]:
            name = Path(picture["input"]).relative_to(tmp_path / "in")
            assert pixels(picture["output"]).shape[1::-1] == kinds[name.as_posix()], name
            assert Path(picture["output"]).parent == out / name.parent
        assert len(done["pictures"]) + len(named) == len(kinds)
        contents.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*.png")})
    assert contents[0] == contents[1]
    assert len(contents[0]) == len(done["pictures"])
    # each file is named with the reason, and the first of several images is used
    assert any(w.startswith(f"{tmp_path}/in/hostile/nothing.png is left out: is no image") for w in callback.warned)
    assert f"{tmp_path}/in/hostile/moving.gif: holds several images; the first is used" in callback.warned


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/1.png, photos/sub/2.jpg and others; the working folder is the one above."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("1.png", "sub/2.png", "sub/2.bmp", "sub/a.b.png"):
        colourful(len(name), 9).save(folder / name)
    (folder / ".hidden.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return folder


def below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


ALL = ["1.png", "sub/2.bmp.png", "sub/2.png.png", "sub/a.b.png"]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["photos"], ALL),
        (["photos/1.png"], ["1.png"]),
        (["photos/1.png", "photos", "photos/"], ALL),
        (["photos/sub/*.png"], ["2.png", "a.b.png"]),
        (["photos/*"], ALL),
        (["photos/**/*.png"], ["1.png", "sub/2.png", "sub/a.b.png"]),
        (["ph*/s?b/2.[bp]mp"], ["photos/sub/2.png"]),
    ],
)
def test_outputs_have_the_names_and_folders_of_the_inputs(
    run: ganlab.Run, photos: Path, inputs: list[str], expected: list[str]
) -> None:
    done = ganlab.translate(run, inputs, to="b", out="out")
    assert below(Path("out")) == expected
    assert sorted(picture["output"] for picture in done["pictures"]) == [f"out/{name}" for name in expected]
    assert (done["folder"], done["direction"], done["step"], done["grid"]) == ("out", "ab", 6, None)
    for picture in done["pictures"]:
        assert np.array_equal(pixels(picture["output"]), np.array(run.translate(picture["input"], to="b")))


def test_by_default_they_lie_in_the_run_folder(tiny: Json, photos: Path, tmp_path: Path) -> None:
    here = small_run(tiny, tmp_path, {})
    ganlab.translate(here.folder, ["photos"], to="a")
    assert below(here.folder / "translated/a") == ALL
    # which stays a run
    assert ganlab.load_run(here.folder) == here
    assert ganlab.run(merge(tiny, {"schedule": {"steps": 1}}), out=here.folder, fresh=True).finished
    assert below(here.folder / "translated/a") == ALL


def test_nothing_is_overwritten_unless_it_is_asked_for(run: ganlab.Run, photos: Path) -> None:
    out = Path("out")
    ganlab.translate(run, ["photos/sub"], to="b", out=out)
    before = {path: path.read_bytes() for path in out.rglob("*.png")}
    for asked in (["photos/sub"], ["photos/sub/2.png", "photos/sub/a.b.png"]):
        with pytest.raises(SpecError, match=r"exists.*; replace with --overwrite, or choose another folder with --out"):
            ganlab.translate(run, asked, to="a", out=out)
    assert {path: path.read_bytes() for path in out.rglob("*.png")} == before
    ganlab.translate(run, ["photos/sub"], to="a", out=out, overwrite=True)
    assert below(out) == ["2.bmp.png", "2.png.png", "a.b.png"]
    assert all(path.read_bytes() != content for path, content in before.items())


def test_inputs_are_never_replaced(run: ganlab.Run, photos: Path) -> None:
    before = {path: path.read_bytes() for path in photos.rglob("*.*")}
    Path("link").symlink_to(photos)
    for inputs, out in ((["photos/1.png"], "photos"), (["photos/1.png"], "link"), (["photos"], "photos")):
        with pytest.raises(SpecError, match="choose another"):
            ganlab.translate(run, inputs, to="b", out=out, overwrite=True)
    assert {path: path.read_bytes() for path in photos.rglob("*.*")} == before


def test_translations_inside_the_folder_of_inputs_are_no_inputs(run: ganlab.Run, photos: Path) -> None:
    for number in range(2):
        done = ganlab.translate(run, ["."], to="b", out="photos/made", overwrite=number == 1)
        assert below(photos / "made") == [f"photos/{name}" for name in ALL]
        assert len(done["pictures"]) == len(ALL)


@pytest.mark.parametrize(
    ("inputs", "options", "sentence"),
    [
        (["photos", "no"], {}, "no does not exist"),
        (["photos/*.gif"], {}, "no file matches 'photos/*.gif'"),
        (["empty"], {}, "empty holds no file"),
        (["~nobody-here/x"], {}, "the home folder that its '~' stands for is not known"),
        (["photos/1.png", "more/1.png"], {}, "photos/1.png and more/1.png would both become out/1.png.png"),
        (["more/grid.png", "photos"], {"grid": True}, "the sheet and more/grid.png would both become out/grid.png"),
        (["photos"], {"out": "text.png"}, "text.png is not a folder; choose another with --out"),
        (["text.png"], {}, "text.png can't be translated: is no image of a kind that is read"),
        (["text.png", "text.txt"], {}, "none of the 2 files can be translated: text.png: is no image of a kind that"),
    ],
)
def test_wrong_inputs_are_refused_before_anything_is_written(
    run: ganlab.Run, photos: Path, inputs: list[str], options: dict[str, Any], sentence: str
) -> None:
    for name in ("text.png", "text.txt"):
        Path(name).write_text("text")
    Path("empty").mkdir()
    Path("more").mkdir()
    for name in ("1.png", "grid.png"):
        shutil.copy("photos/1.png", f"more/{name}")
    with pytest.raises(SpecError) as caught:
        ganlab.translate(run, inputs, to="b", **{"out": "out", **options})
    assert sentence in str(caught.value)
    assert not Path("out").exists()


def test_the_way_back_starts_from_the_rounded_translation(run: ganlab.Run, photos: Path) -> None:
    done = ganlab.translate(run, ["photos/sub/a.b.png"], to="b", out="out", size="keep", cycle=True)
    (picture,) = done["pictures"]
    assert picture == {"input": "photos/sub/a.b.png", "output": "out/a.b.png", "back": "out/a.b.back.png"}
    expected = called(by_hand(run, "ba"), Image.fromarray(pixels(picture["output"])))
    assert np.array_equal(pixels(picture["back"]), expected)


@pytest.mark.parametrize("cycle", [False, True])
def test_the_sheet_has_inputs_in_odd_columns(run: ganlab.Run, photos: Path, cycle: bool) -> None:
    done = ganlab.translate(run, ["photos"], to="b", out="out", grid=True, cycle=cycle)
    assert done["grid"] == "out/grid.png"
    sheet, group = pixels("out/grid.png"), 3 if cycle else 2
    for index, picture in enumerate(done["pictures"]):
        square = ImageOps.fit(Image.fromarray(pixels(picture["input"])), (SIZE, SIZE), Image.Resampling.BICUBIC)
        images = [np.array(square), pixels(picture["output"])] + ([pixels(picture["back"])] if cycle else [])
        for place, image in enumerate(images):
            left = MARGIN + index * (group * (SIZE + GAP) + MARGIN) + place * (SIZE + GAP)
            assert np.array_equal(sheet[STRIP : STRIP + SIZE, left : left + SIZE], image)


def test_a_sheet_of_large_pictures_is_small(run: ganlab.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_IN_GRID", 2)
    monkeypatch.setattr(files, "LARGEST_IN_GRID", 20)
    for number in range(3):
        colourful(60, 30).save(tmp_path / f"{number}.png")
    ganlab.translate(run, [tmp_path / "*.png"], to="b", out=tmp_path / "out", size="keep", grid=True)
    width = 2 * (2 * (20 + GAP) + MARGIN) + MARGIN
    assert pixels(tmp_path / "out/grid.png").shape == (STRIP + 10 + GAP + MARGIN, width, 3)


def test_a_picture_at_which_the_generator_fails_is_left_out(
    run: ganlab.Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Resnet.encode

    def scarce(self: Resnet, images: Tensor) -> Tensor:
        if images.shape[3] > 12:
            raise RuntimeError("not enough memory")
        return before(self, images)

    callback = Recording()
    colourful(70, 9).save("photos/wide.png")
    monkeypatch.setattr(Resnet, "encode", scarce)
    with monkeypatch.context() as patched:
        patched.setattr(Resnet, "encode", before)
        run.translate(colourful(), to="b", size="keep")
    done = ganlab.translate(run, ["photos"], to="b", out="out", size="keep", callback=callback)
    why = "the generator fails at 70 x 9 pixels: not enough memory"
    assert done["left_out"] == [{"input": "photos/wide.png", "why": why}]
    assert f"photos/wide.png is left out: {why}" in callback.warned
    assert below(Path("out")) == ALL


def test_a_link_to_itself_and_a_name_that_is_too_long_cost_no_other_picture(run: ganlab.Run, tmp_path: Path) -> None:
    folder, long = tmp_path / "in", f"{'n' * 250}.png"
    folder.mkdir()
    (folder / "loop.png").symlink_to("loop.png")
    for name in (long, "line\nend.png"):
        colourful(9, 9).save(folder / name)
    done = ganlab.translate(run, [folder], to="b", out=tmp_path / "out", cycle=True)
    assert {Path(left["input"]).name: left["why"] for left in done["left_out"]} == {
        "loop.png": "is not a file",
        long: f"the name {'n' * 250}.back.png is too long",
    }
    assert below(tmp_path / "out") == ["line\nend.back.png", "line\nend.png"]
    ganlab.translate(run, [folder / "loop.png", folder / long], to="b", out=tmp_path / "other")
    assert below(tmp_path / "other") == [long]
