"""Prepared images (ganlab/data/store.py): their preparation, the second start, its memory, and batches.

`--images N` is the number of JPEG files of 178x218 pixels, half of them for each domain, cut out of photographs that
scikit-image ships. All are read at 128 pixels. Ratios compare things that are timed in turn in this run:

- preparation: all images of domain a are prepared, and a plain loop decodes, crops and resizes them with Pillow, in as
  many processes as there are cores, and keeps nothing. A second ratio compares with a loop that calls the source.
- second start: the seconds from the command `ganlab run` to its first step, and the largest resident memory of the
  process (VmHWM) in a training of 16 steps with 16 images of each domain, of a small system. Then the same with 100,000
  images, `--many N`: their files are hard links to the JPEG files, and their pixels are sparse files with a record of
  that many images, all of them black. They take no room on the disk, but as many pages of memory when they are read.
- batches: batches of 16 from the prepared images, and from torch's DataLoader over the files with two workers, from the
  second epoch on. In the first, the pixels come from the disk, and the files from the system's cache of it. Each batch
  is dropped before the next one, as in a training, so that the next one takes its memory.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import many_pictures
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from systems import EXPERIMENTS
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Files

from ganlab.data import store
from ganlab.data.dataset import Dataset, load
from ganlab.data.folder import Folder
from ganlab.data.sampler import Sampler
from ganlab.spec.files import merge, read
from ganlab.spec.resolve import resolve
from ganlab.system.build import build_sources

SIZE, BATCH, ROUNDS, STEPS = 128, 16, 3, 16
LEAST_SPEED, LEAST_BATCHES, MOST_SECONDS, MOST_BYTES = 0.9, 20, 10, 1.5e9


@pytest.fixture(scope="module")
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """{domain: a folder of half of the JPEG files}."""
    return many_pictures.write(tmp_path_factory.mktemp("jpegs"), request.config.getoption("--images"))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One cache for all tests of this file, in which small sets are kept too."""
    where = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("GANLAB_CACHE", str(where))
    monkeypatch.setattr(store, "KEPT_FROM", 0)
    return where / "images"


def spec_of(folders: dict[str, Path]) -> dict[str, Any]:
    """A small system on the images, which is trained and not measured."""
    images = {domain: {"type": "folder", "path": str(folder)} for domain, folder in folders.items()}
    patch = {
        "data": {**images, "size": SIZE, "batch": BATCH, "holdout": 0.05},
        "generator": {"width": 4, "blocks": 1},
        "discriminators": {"image": {"of": {"width": 4}}},
        "schedule": {"steps": STEPS, "fade_out": {"identity": STEPS}},
        "evaluation": {"every": None, "during": None, "features": None, "metrics": []},
        "samples": {"every": 10**6, "count": 4},
        "checkpoints": {"every": 10**6},
    }
    found: dict[str, Any] = merge(read(EXPERIMENTS / "cyclegan.json"), patch)
    return found


def identity_of(folders: dict[str, Path], domain: str) -> str:
    return json.dumps(resolve(spec_of(folders)).components[f"data.{domain}"].as_json(), sort_keys=True)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_all_cores(work: Callable[[Path], object], paths: list[Path]) -> None:
    """Calls `work` for all paths in as many processes as there are cores."""
    pids = []
    for core in range(store.cores()):
        if (pid := os.fork()) == 0:
            for path in paths[core :: store.cores()]:
                work(path)
            os._exit(0)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * len(pids)


def decode(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(ImageOps.fit(image.convert("RGB"), (SIZE, SIZE), Image.Resampling.BICUBIC))


def test_preparation_beside_a_plain_loop(folders: dict[str, Path], cache: Path) -> None:
    folder, paths = folders["a"], sorted(folders["a"].iterdir())
    source = Folder(folder)

    def prepare(number: int) -> Dataset:
        # another source for the store, so that it prepares again
        return load(source, "a", SIZE, 0.1, identity=json.dumps({"type": "folder", "number": number}))

    def read_by_source(path: Path) -> object:
        return source.image(path.name, SIZE)

    in_all_cores(decode, paths)
    plain, own, prepared = [], [], []
    for number in range(ROUNDS):
        plain.append(seconds(lambda: in_all_cores(decode, paths)))
        prepared.append(seconds(lambda number=number: prepare(number)))
        own.append(seconds(lambda: in_all_cores(read_by_source, paths)))
        for path in cache.iterdir():
            shutil.rmtree(path)
    ratio = statistics.median(p / q for p, q in zip(plain, prepared, strict=True))
    beside_own = statistics.median(p / q for p, q in zip(own, prepared, strict=True))
    rate = len(paths) / statistics.median(prepared)
    print(f"\npreparation of {len(paths)} images: {ratio:.2f} of the speed of a plain loop in {store.cores()} cores,")
    print(f"{beside_own:.2f} of that of the source alone; {rate:.0f} images a second")
    assert ratio >= LEAST_SPEED


def training(spec: Path, out: Path) -> tuple[float, float]:
    """Runs a spec. Returns the seconds from the command to its first step, and its largest memory in bytes."""
    started, first, most = time.perf_counter(), 0.0, 0
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "second_start.py"), "run", str(spec), "--out", str(out)],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step 1/"):
                first = time.perf_counter() - started
            if line.startswith(f"step {STEPS}/"):
                status = Path(f"/proc/{process.pid}/status").read_text()
                most = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    assert process.returncode == 0
    return first, most


def report(what: str, first: float, most: float) -> None:
    print(f"\nsecond start with {what}: first step after {first:.1f} s; largest memory {most / 1e6:.0f} MB")
    assert first <= MOST_SECONDS
    assert most <= MOST_BYTES


def test_the_second_start(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(json.dumps(spec_of(folders)))
    training(tmp_path / "spec.json", tmp_path / "first")
    report(
        f"{sum(len([*f.iterdir()]) for f in folders.values())} images",
        *training(tmp_path / "spec.json", tmp_path / "second"),
    )


def test_the_second_start_with_many_images(
    request: pytest.FixtureRequest, folders: dict[str, Path], tmp_path: Path
) -> None:
    many = {}
    for domain, folder in folders.items():
        files = sorted(folder.iterdir())
        many[domain] = tmp_path / domain
        many[domain].mkdir()
        for number in range(request.config.getoption("--many") // 2):
            os.link(files[number % len(files)], many[domain] / f"{number:06}.jpg")
    for domain, source in build_sources(resolve(spec_of(many))).items():
        synthesise(source, domain, identity_of(many, domain))
    (tmp_path / "spec.json").write_text(json.dumps(spec_of(many)))
    report(f"{request.config.getoption('--many')} images", *training(tmp_path / "spec.json", tmp_path / "run"))


def synthesise(source: Any, domain: str, identity: str) -> None:
    """Writes the prepared images of a source as sparse files of black pixels."""
    keys = source.keys(domain)
    one = lambda key: source.image(key, SIZE).transpose(2, 0, 1)  # noqa: E731
    found = store.find(source, f"data.{domain}", keys, SIZE, one, lambda keys: None, identity)
    assert found is not None
    found.path.mkdir(parents=True)
    shape = [len(keys), 3, SIZE, SIZE]
    record = store.Record(identity, shape, {}, keys, [], {}, None, 255, False, "0" * 64)
    (found.path / store.RECORD).write_text(json.dumps(record._asdict()))
    with (found.path / store.PIXELS).open("wb") as file:
        file.write(store.header(shape))
        file.truncate(store.HEADER + len(keys) * 3 * SIZE * SIZE)


class Decoded(Files[torch.Tensor]):
    """The images of files, as a training usually reads them."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> torch.Tensor:
        pixels = torch.from_numpy(decode(self.paths[place]).copy()).permute(2, 0, 1)
        if torch.rand(()) < 0.5:
            pixels = pixels.flip(-1)
        return pixels.float().div_(127.5).sub_(1)


def batches_of(loader: DataLoader[torch.Tensor]) -> Iterator[torch.Tensor]:
    while True:
        yield from loader


def draw(batch: Callable[[], object], count: int) -> None:
    for _ in range(count):
        batch()


def test_batches_beside_a_data_loader(folders: dict[str, Path]) -> None:
    source = Folder(folders["a"])
    dataset = load(source, "a", SIZE, 0.1, identity=identity_of(folders, "a"))
    assert dataset.file is not None
    sampler = Sampler({"a": dataset}, BATCH, True, 0, torch.device("cpu"), torch.float32)
    paths = [folders["a"] / dataset.keys[index] for index in dataset.train.tolist()]
    loader = DataLoader(Decoded(paths), BATCH, shuffle=True, num_workers=2, persistent_workers=True, drop_last=True)
    loaded, draws = batches_of(loader), iter(range(10**9))
    per_round = 40
    for _ in range(per_round):
        assert next(loaded).shape == sampler(next(draws)).images["a"].shape == (BATCH, 3, SIZE, SIZE)

    def compared(count: int) -> float:
        """Returns the ratio of the times of a batch; `count` is the number of ours in a round."""
        ratios = []
        for _ in range(ROUNDS):
            theirs = seconds(lambda: draw(lambda: next(loaded), per_round)) / per_round
            # the workers read four batches ahead, and would take the cores
            time.sleep(0.5)
            ours = seconds(lambda: draw(lambda: sampler(next(draws)), count)) / count
            ratios.append(theirs / ours)
        return statistics.median(ratios)

    first = compared(per_round)
    # the rest of the first epoch, in which the pixels come from the disk
    for part in dataset.images.split(1000):
        part.max()
    ratio = compared(10 * per_round)
    print(
        f"\na batch of {BATCH} from prepared images is {ratio:.1f} times as fast as from a DataLoader with two workers"
    )
    print(f"and, in the first epoch, {first:.1f} times")
    assert ratio >= LEAST_BATCHES
