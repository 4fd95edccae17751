"""Prepared images: what they hold, when they are made again, kills, full disks, and processes at the same time."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from typer.testing import CliRunner

import ganlab
from ganlab.cli.commands import app
from ganlab.data import cache, store
from ganlab.data.blocks import _in_order, in_processes
from ganlab.data.dataset import Dataset, load
from ganlab.data.folder import Folder
from ganlab.data.sampler import Sampler
from ganlab.errors import RunError, SpecError
from ganlab.experiment import check
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.paths import TESTS
from helpers.processes import Forker, moments, networks

SIZE = 24
COUNT = 70
BROKEN = (0, 33, 69)

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads read the images")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of JPEG files of several sizes, some of them damaged, with labels."""
    from skimage import data

    folder = tmp_path_factory.mktemp("photographs")
    whole = Image.fromarray(data.astronaut())
    lines = ["file,kind"]
    for number in range(COUNT):
        x, y = 5 * number, 4 * number
        path = folder / f"{number:03}.jpg"
        whole.crop((x, y, x + 60 + number, y + 80)).save(path, quality=90)
        if number in BROKEN:
            path.write_bytes(path.read_bytes()[:300])
        lines.append(f"{path.name},{'even' if number % 2 == 0 else 'odd'}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Prepares small sets too, several blocks of them, in two processes, in a cache of the test's own."""
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "KEPT_FROM", 0)
    monkeypatch.setattr(store, "_BLOCK", 16 * 3 * SIZE**2)
    monkeypatch.setattr(store, "cores", lambda: 2)
    return tmp_path / "cache" / "images"


def source_of(folder: Path, **options: Any) -> Folder:
    return Folder(folder, labels="kind", classes=("even", "odd"), **options)


def prepared(source: Folder, size: int = SIZE, name: str = "folder") -> Dataset:
    return load(source, "a", size, 0.25, identity=json.dumps({"type": name, "path": str(source.path)}))


def in_memory(source: Folder, size: int = SIZE) -> Dataset:
    found = load(source, "a", size, 0.25)
    assert found.file is None
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """{path: bytes} of all files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- what is kept


@pytest.mark.parametrize("size", [SIZE, 64])
def test_they_are_what_reading_into_memory_gives(photographs: Path, kept: Path, size: int) -> None:
    """Images of 64 pixels are whole pages of the memory, which are written in another way."""
    source = source_of(photographs)
    expected = in_memory(source, size)
    for found in (prepared(source, size), prepared(source, size)):
        assert found.file is not None
        assert torch.equal(found.images, expected.images)
        assert found.labels is not None
        assert expected.labels is not None
        assert torch.equal(found.labels, expected.labels)
        assert (found.keys, found.skipped, found.notes) == (expected.keys, expected.skipped, expected.notes)
        assert len(found.skipped) == len(BROKEN)
        assert torch.equal(found.train, expected.train)
        assert torch.equal(found.holdout, expected.holdout)
        assert found.fingerprint() == expected.fingerprint()
        assert found.warnings() == expected.warnings()


def test_the_file_is_an_array_of_the_pixels_that_pillow_gives(photographs: Path, kept: Path) -> None:
    dataset = prepared(source_of(photographs))
    (path,) = kept.glob("*/pixels.npy")
    array = np.load(path)
    assert array.dtype == np.uint8
    for key, image in zip(dataset.keys, array, strict=True):
        with Image.open(photographs / key) as picture:
            fitted = ImageOps.fit(picture, (SIZE, SIZE), Image.Resampling.BICUBIC)
        assert (image.transpose(1, 2, 0) == np.asarray(fitted)).all()


def test_a_later_start_reads_a_few_images_only(photographs: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"

    class Logged(Folder):
        def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
            # a line at a time, from any process
            with log.open("a") as file:
                file.write(f"{key}\n")
            return super().image(key, size)

    source = Logged(photographs)
    prepared(source)
    assert len(log.read_text().split()) == store._PROBED + COUNT
    assert set(log.read_text().split()) == set(source.keys("a"))
    log.unlink()
    prepared(source)
    assert len(log.read_text().split()) == store._PROBED


def test_a_set_without_skipped_images_has_the_same_hash_too(photographs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sound"
    folder.mkdir()
    for number in range(1, 33):
        (folder / f"{number:03}.jpg").write_bytes((photographs / f"{number:03}.jpg").read_bytes())
    assert prepared(Folder(folder)).fingerprint() == in_memory(Folder(folder)).fingerprint()


def test_warnings_are_kept(tmp_path: Path, kept: Path) -> None:
    folder = tmp_path / "dark"
    folder.mkdir()
    frames = [Image.new("RGB", (30, 30), (shade, 0, 0)) for shade in (3, 9)]
    for number in range(40):
        frames[0].save(folder / f"{number:02}.gif", save_all=True, append_images=frames[1:])
    found, again, expected = (make(Folder(folder)).warnings() for make in (prepared, prepared, in_memory))
    assert found == again == expected
    assert len(found) == 3
    assert "holds several images" in found[0]
    assert "the brightest value of all 40 images is 3 of 255" in found[1]
    assert "has one colour only" in found[2]


def test_small_sets_and_images_without_files_stay_in_memory(
    photographs: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Drawn(Folder):
        def files(self, key: str) -> list[Path]:
            return []

    assert prepared(Drawn(photographs)).file is None
    # by their pixels, 70 x 3 x 24 x 24 bytes, or by their files
    monkeypatch.setattr(store, "KEPT_FROM", max(COUNT * 3 * SIZE**2, 10**6))
    assert prepared(Folder(photographs)).file is None
    assert not kept.exists()


# --- when they are made again


def test_they_are_prepared_again_if_anything_they_depend_on_differs(
    photographs: Path, tmp_path: Path, kept: Path
) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name, content in contents(photographs).items():
        (folder / name).write_bytes(content)

    def sets() -> int:
        prepared(source_of(folder))
        return len(cache.prepared())

    assert (sets(), sets()) == (1, 1)
    state = (folder / "005.jpg").stat()
    os.utime(folder / "005.jpg", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert sets() == 2
    (folder / "labels.csv").write_text((folder / "labels.csv").read_text().replace("007.jpg,odd", "007.jpg,even"))
    assert sets() == 3
    (folder / "009.jpg").unlink()
    assert sets() == 4
    prepared(source_of(folder), SIZE + 1)
    prepared(source_of(folder), name="other")
    prepared(source_of(folder, channels=1))
    assert len(cache.prepared()) == 7


def test_edited_code_is_noticed(photographs: Path) -> None:
    class Edited(Folder):
        def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
            return 255 - super().image(key, size)

    one, other = prepared(Folder(photographs)), prepared(Edited(photographs))
    assert torch.equal(one.images, 255 - other.images)


# --- use


def test_batches_are_those_from_memory_and_pages_are_given_back(
    photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ganlab.data.sampler.RELEASED", 10 * 3 * SIZE**2)
    source = source_of(photographs)
    samplers = [
        Sampler({"a": make(source), "b": make(source)}, 4, True, 0, torch.device("cpu"), torch.float32)
        for make in (prepared, in_memory)
    ]
    for draw in range(30):
        one, other = (sampler(draw).images for sampler in samplers)
        assert all(torch.equal(one[domain], other[domain]) for domain in "ab")


def test_a_file_that_becomes_shorter_or_unreadable_is_one_sentence(
    photographs: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = prepared(Folder(photographs))
    (path,) = kept.glob("*/pixels.npy")
    os.truncate(path, path.stat().st_size - 1)
    assert torch.equal(dataset.read([65, 3]), in_memory(Folder(photographs)).images[[65, 3]])
    with pytest.raises(RunError, match=f"^{path} can't be read: it has become shorter$"):
        dataset.read([66])
    assert dataset.file is not None
    closed = dataset.file._handle
    monkeypatch.setattr(dataset.file, "_handle", os.open(kept, os.O_RDONLY))
    with pytest.raises(RunError, match=f"^{path} can't be read: Is a directory$"):
        dataset.read([0])
    os.close(dataset.file._handle)
    monkeypatch.undo()
    del dataset
    # the file is closed with the last of its users
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(closed)


@LINUX
def test_released_images_are_not_in_the_memory_of_the_process(photographs: Path) -> None:
    dataset = prepared(Folder(photographs), 128)

    def resident() -> int:
        """The kB of the mapped file that count as memory of this process."""
        parts = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.M)
        return sum(int(re.findall(r"^Rss: +(\d+) kB", part, re.M)[0]) for part in parts if "pixels.npy" in part)

    dataset.read(range(len(dataset.keys)))
    assert resident() == 0
    assert dataset.images.sum() > 0
    assert resident() > 67 * 3 * 128 * 128 / 1024
    dataset.release()
    assert resident() == 0
    assert torch.equal(dataset.images, in_memory(Folder(photographs), 128).images)


def test_a_run_is_the_same_to_the_byte_with_and_without_them(
    cheap: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch = {"schedule": {"steps": 4}, "checkpoints": {"every": 4, "keep": 2}}
    monkeypatch.setattr(store, "KEPT_FROM", 2**40)
    ganlab.run(merge(cheap, patch), out=tmp_path / "memory")
    monkeypatch.setattr(store, "KEPT_FROM", 0)
    ganlab.run(merge(cheap, patch), out=tmp_path / "mapped")
    assert len(cache.prepared()) == 2
    assert networks(tmp_path / "memory", 4) == networks(tmp_path / "mapped", 4)
    # a run that began without them goes on with them
    ganlab.run(merge(cheap, patch), ["schedule.steps=8"], out=tmp_path / "memory")
    ganlab.run(merge(cheap, patch), ["schedule.steps=8"], out=tmp_path / "mapped")
    assert networks(tmp_path / "memory", 8) == networks(tmp_path / "mapped", 8)


# --- processes


def test_places_are_yielded_in_order_whoever_is_faster() -> None:
    def work(place: int, room: np.ndarray[Any, Any]) -> int:
        room[:] = place
        # the first ones take longest
        sum(range(10**5 // (place + 1)))
        return os.getpid()

    seen, workers = [], set()
    for worker, room in in_processes(work, 50, (3,), 3):
        seen.append(room.tolist())
        workers.add(worker)
    assert seen == [[place] * 3 for place in range(50)]
    assert sys.platform != "linux" or (os.getpid() not in workers and len(workers) > 1)


@LINUX
def test_a_process_may_use_torch_after_this_one_has_used_its_threads() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.ones(10**6).sum() == 10**6
        found = [each for each, _ in in_processes(lambda place, room: torch.get_num_threads(), 4, (1,), 2)]
    finally:
        torch.set_num_threads(threads)
    # more than one would wait for threads that a forked process does not have
    assert found == [1] * 4


def test_a_process_that_is_killed_before_it_is_given_work_is_named() -> None:
    ours, theirs = multiprocessing.Pipe()
    theirs.close()
    with pytest.raises(RunError, match="a process that reads images was killed"):
        next(_in_order([ours], [np.zeros(1, np.uint8)], 1))


@LINUX
def test_errors_of_a_source_and_killed_processes_end_the_preparation(photographs: Path, kept: Path) -> None:
    class Unpicklable(Exception):
        def __init__(self, one: str, other: str) -> None:
            super().__init__(one)

    class Faulty(Folder):
        def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
            image = super().image(key, size)
            if key != "040.jpg":
                return image
            if self.fault == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "bug":
                raise LookupError("misspelt")
            if self.fault == "odd":
                raise Unpicklable("odd", "error")
            return image.astype(np.float32)

    faulty = Faulty(photographs)
    expected = {
        "killed": (RunError, "a process that reads images was killed"),
        "bug": (LookupError, "misspelt"),
        "odd": (RuntimeError, "Unpicklable: odd"),
        "shape": (SpecError, r"data\.a: image '040.jpg' of the source: expected uint8 \(24, 24, 3\), got float32"),
    }
    for fault, (error, said) in expected.items():
        faulty.fault = fault
        with pytest.raises(error, match=said):
            prepared(faulty)
        assert not multiprocessing.active_children()
    # what was read before the error is kept
    assert [each.state for each in cache.prepared()] == ["unfinished"]
    assert prepared(Folder(photographs)).fingerprint() == in_memory(Folder(photographs)).fingerprint()
    assert [each.state for each in cache.prepared()] == ["prepared"]


@LINUX
def test_processes_that_need_the_same_images_prepare_them_once(photographs: Path, tmp_path: Path, kept: Path) -> None:
    context = multiprocessing.get_context("fork")
    log, answers = tmp_path / "log", context.SimpleQueue()

    class Logged(Folder):
        def image(self, key: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
            with log.open("a") as file:
                file.write(f"{key}\n")
            return super().image(key, size)

    source = Logged(photographs)
    processes = [context.Process(target=lambda: answers.put(prepared(source).fingerprint())) for _ in range(3)]
    for process in processes:
        process.start()
    expected = in_memory(Folder(photographs)).fingerprint()
    assert [answers.get() for _ in processes] == [expected] * 3
    for process in processes:
        process.join()
    assert len(log.read_text().split()) == 3 * store._PROBED + COUNT
    assert [each.state for each in cache.prepared(verify=True)] == ["prepared"]
    assert len([*kept.iterdir()]) == 1


# --- kills and full disks


KILLS = {"store.py:add": COUNT, "store.py:finished": 1, "files.py:write": 1, "store.py:_prepare": 1}
"""{function: how often it is called}."""


def prepare(forker: Forker, photographs: Path, cache: Path, size: int = 64, **job: Any) -> Any:
    script = str(TESTS / "helpers" / "preparing.py")
    return forker.run(script, str(photographs), str(size), python=True, environment={"GANLAB_CACHE": str(cache)}, **job)


@LINUX
@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.faults)])
def test_killed_preparations_continue_to_the_same_bytes(
    forker: Forker, photographs: Path, tmp_path: Path, kills: int
) -> None:
    whole = prepare(forker, photographs, tmp_path / "whole")
    assert whole.code == 0, whole.said
    random, killed = moments(), 0
    functions = ["store.py:add", *KILLS] * kills
    while killed < kills:
        name = functions[killed]
        at = [signal.SIGKILL, name, random.randint(1, max(1, KILLS[name] // kills)), random.randint(0, 12)]
        done = prepare(forker, photographs, tmp_path / "killed", signals=[at])
        assert done.code in (0, -signal.SIGKILL), done.said
        if done.code == 0:
            # the moment was after the end
            break
        killed += 1
    assert killed
    done = prepare(forker, photographs, tmp_path / "killed")
    assert done == whole
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@LINUX
def test_what_a_power_cut_lost_is_read_again(forker: Forker, photographs: Path, tmp_path: Path) -> None:
    whole = prepare(forker, photographs, tmp_path / "whole")
    at = [signal.SIGKILL, "store.py:add", COUNT // 2, 0]
    for damage in ("byte", "line"):
        where = tmp_path / damage
        assert prepare(forker, photographs, where, signals=[at]).code == -signal.SIGKILL
        (pixels,), (journal,) = where.rglob("pixels.npy"), where.rglob("journal.jsonl")
        if damage == "byte":
            # in the first block
            content = bytearray(pixels.read_bytes())
            content[9000] ^= 1
            pixels.write_bytes(content)
        else:
            journal.write_bytes(journal.read_bytes()[:-7])
        assert prepare(forker, photographs, where) == whole
        assert contents(where) == contents(tmp_path / "whole")


@LINUX
@pytest.mark.parametrize(("size", "largest"), [(SIZE, 300), (SIZE, 60_000), (64, 60_000)])
def test_a_full_disk_is_one_sentence_and_nothing_is_left(
    forker: Forker, photographs: Path, tmp_path: Path, size: int, largest: int
) -> None:
    done = prepare(forker, photographs, tmp_path / "cache", size, largest_file=largest)
    assert done.code == 1
    assert re.fullmatch(r"ganlab: \S+/cache/images/\w+ can't be written: File too large\n", done.said), done.said
    assert contents(tmp_path / "cache") == {}
    assert not [*(tmp_path / "cache" / "images").iterdir()]


def test_too_small_a_disk_is_said_before_anything_is_read(
    photographs: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10**5}))
    with pytest.raises(SpecError, match=r"^data\.a: 70 prepared images need 0\.00 GiB in \S+/images, and 0\.00 GiB"):
        prepared(Folder(photographs))
    assert not [*kept.iterdir()]


# --- ganlab data cache


def invoke(*words: str) -> Any:
    return CliRunner().invoke(app, ["data", "cache", *words])


def test_cache_lists_and_frees(photographs: Path, kept: Path) -> None:
    assert invoke().stdout == f"there are no prepared images in {kept}\n"
    dataset = prepared(Folder(photographs))
    (path,) = kept.iterdir()
    found = json.loads(invoke("--json").stdout)
    assert found["folder"] == str(kept)
    assert found["removed"] == []
    (each,) = found["sets"]
    assert each.pop("used")[:2] == "20"
    assert each == {
        "path": str(path),
        "state": "prepared",
        "images": COUNT - len(BROKEN),
        "size": SIZE,
        "source": {"type": "folder", "path": str(photographs)},
        "bytes": sum(file.stat().st_size for file in path.iterdir()),
    }
    assert re.search(r"prepared +67 +24", invoke().stdout)
    assert "are freed" in invoke("--prune").stdout
    assert not [*kept.iterdir()]
    # a run that uses them keeps them
    assert torch.equal(dataset.images, in_memory(Folder(photographs)).images)


def test_changed_bytes_are_found_and_removed_when_asked(photographs: Path, kept: Path) -> None:
    prepared(Folder(photographs))
    assert invoke("--verify").exit_code == 0
    (path,) = kept.iterdir()
    with (path / "pixels.npy").open("r+b") as file:
        file.seek(30_000)
        byte = file.read(1)[0]
        file.seek(30_000)
        file.write(bytes([byte ^ 1]))
    result = invoke("--verify")
    assert result.exit_code == 1
    assert result.stderr == f"ganlab: 1 prepared set had changed or lost bytes: {path}\n"
    assert not [*kept.iterdir()]
    assert prepared(Folder(photographs)).fingerprint() == in_memory(Folder(photographs)).fingerprint()


@pytest.mark.parametrize("damaged", ["pixels.npy", "record.json"])
def test_incomplete_files_are_prepared_again(photographs: Path, kept: Path, damaged: str) -> None:
    expected = prepared(Folder(photographs)).fingerprint()
    (path,) = kept.iterdir()
    before = contents(kept)
    (path / damaged).write_bytes((path / damaged).read_bytes()[:-1])
    assert [each.state for each in cache.prepared()] == ["damaged"]
    assert prepared(Folder(photographs)).fingerprint() == expected
    assert contents(kept) == before


def test_what_another_process_removes_meanwhile_is_left_out(
    photographs: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(Folder(photographs))
    (found,) = cache.prepared()
    monkeypatch.setattr(cache, "_folders", lambda: iter([kept / "removed", found.path]))
    assert cache.prepared() == [found]
    assert cache.remove(found)
    assert cache.remove(found)


def test_images_in_preparation_are_left_alone(photographs: Path, kept: Path) -> None:
    unfinished = kept / ".0123.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "pixels.npy").write_bytes(bytes(100))
    with store.locked(kept / "0123"):
        assert json.loads(invoke("--prune", "--json").stdout)["removed"] == []
        assert [each.state for each in cache.prepared()] == ["in preparation"]
    assert [each.state for each in cache.prepared()] == ["unfinished"]
    assert json.loads(invoke("--prune", "--json").stdout)["removed"] == [str(unfinished)]
    assert not [*kept.iterdir()]


def test_check_counts_no_memory_for_them(tiny: Json, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(tiny)["memory"]["images"] == 0
    monkeypatch.setattr(store, "KEPT_FROM", 10**9)
    assert check(tiny)["memory"]["images"] > 0
    assert not kept.exists()
