"""Translates files of pictures into a folder."""

from __future__ import annotations

import errno
import glob
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import NamedTuple

from PIL import Image

from ganlab import files
from ganlab.data.image_files import found_below
from ganlab.data.reading import noting_warnings, read
from ganlab.display.choice import showing
from ganlab.errors import RunError, SpecError
from ganlab.inference.run import Run, load_run, translator_of
from ganlab.inference.translator import Translated, Translator
from ganlab.interfaces.callbacks import Callback
from ganlab.report.grids import png, sheet
from ganlab.spec.models import Json

GRID = "grid.png"
"""The name of the sheet."""
MOST_IN_GRID = 64
"""The most pictures in a sheet: the first ones."""
LARGEST_IN_GRID = 256
"""The largest height and width of a picture in a sheet, in pixels."""


class _Job(NamedTuple):
    """One picture to translate."""

    source: Path
    outputs: dict[str, Path]
    """{field of `Translated`: its file}."""


def translate(
    run: str | Path | Run,
    inputs: Sequence[str | Path],
    to: str,
    out: str | Path | None = None,
    size: str = "run",
    checkpoint: str | int = "last",
    overwrite: bool = False,
    grid: bool = False,
    cycle: bool = False,
    callback: Callback | None = None,
) -> Json:
    """Translates files of pictures, as `Run.translate` does, into PNG files.

    A file that can't be translated is left out with a warning, and the others are translated.

    Args:
        run: A run folder, or a run.
        inputs: Files, folders, which are read with their subfolders, and patterns such as "photos/*.jpg".
        to: The domain to translate into, "a" or "b".
        out: The folder for the translations, by default translated/TO in the run folder. They have the names
            and subfolders of the inputs.
        size: "run" or "keep".
        checkpoint: "last", "best" or a step.
        overwrite: Replace files that are there already.
        grid: Also write grid.png, a sheet of the first pictures: odd columns inputs, even columns translations.
        cycle: Also write NAME.back.png, the translation translated back.
        callback: Shows the progress and the warnings, as for `run`.

    Returns {"folder", "step", "direction", "pictures", "left_out", "grid"}. Raises SpecError, before anything is
    written, if an argument is wrong or a file is there already; also if no file could be translated.
    """
    run = run if isinstance(run, Run) else load_run(run)
    translator = translator_of(run, checkpoint)
    direction = translator.direction(to)
    for each in (direction, translator.direction(direction[0])) if cycle else (direction,):
        translator.check_size(each, size)
    folder = files.home_expanded(out) if out is not None else run.folder / "translated" / to
    jobs = _jobs(inputs, folder, ("output", "back") if cycle else ("output",))
    sheet_path = folder / GRID if grid else None
    _check_outputs(jobs, sheet_path, overwrite)
    written: list[Json] = []
    left_out: list[Json] = []
    shown: list[list[Image.Image]] = []
    with showing(callback) as told, noting_warnings():
        for job in told.progress(jobs, "pictures", len(jobs)):
            found, notes = read(partial(_made, translator, direction, size, job.outputs), str(job.source))
            for note in dict.fromkeys(notes):
                told.warn(f"{job.source}: {note}")
            if isinstance(found, Exception):
                told.warn(f"{job.source} is left out: {found}")
                left_out.append({"input": str(job.source), "why": str(found)})
                continue
            written.append({"input": str(job.source)} | {name: str(path) for name, path in job.outputs.items()})
            if len(shown) < MOST_IN_GRID:
                shown.append([_small(image) for image in found if image is not None])
    if not written:
        first, why = left_out[0]["input"], left_out[0]["why"]
        if len(jobs) == 1:
            raise SpecError(f"{first} can't be translated: {why}")
        raise SpecError(f"none of the {len(jobs)} files can be translated: {first}: {why}")
    if sheet_path is not None:
        way = f"{direction[0]} > {direction[1]}"
        title = f"{way} > {direction[0]}   (input, output, back)" if cycle else f"{way}   (input, output)"
        _write(sheet_path, sheet({title: shown}))
    return {
        "folder": str(folder),
        "step": translator.step,
        "direction": direction,
        "pictures": written,
        "left_out": left_out,
        "grid": sheet_path and str(sheet_path),
    }


def _made(translator: Translator, direction: str, size: str, outputs: Mapping[str, Path], source: str) -> Translated:
    """Translates a picture and writes its outputs, {field of `Translated`: file}. Raises ValueError, RunError."""
    translated = translator.pictures(direction, source, size, "back" in outputs)
    # the longest name first: if it is too long, nothing is written
    for field in ("back", "output"):
        if field in outputs:
            _write(outputs[field], getattr(translated, field))
    return translated


def _jobs(inputs: Sequence[str | Path], out: Path, fields: Sequence[str]) -> list[_Job]:
    """Returns the pictures to translate, each once. Raises SpecError if an input is missing."""
    found = list(dict.fromkeys(pair for asked in inputs for pair in _found(asked, out)))
    alike = Counter(name.with_suffix("") for _, name in found)
    jobs = []
    for source, name in found:
        # with the suffix if pictures of one folder differ in nothing else
        stem = name.stem if alike[name.with_suffix("")] == 1 else name.name
        ends = {"output": ".png", "back": ".back.png"}
        jobs.append(_Job(source, {field: out / name.parent / f"{stem}{ends[field]}" for field in fields}))
    return jobs


def _found(asked: str | Path, out: Path) -> Iterator[tuple[Path, PurePath]]:
    """Yields (file, its name below `out` but for the suffix) of every file that an input stands for."""
    try:
        path = files.home_expanded(asked)
    except ValueError as error:
        raise SpecError(str(error)) from error
    if path.is_dir():
        yield from _below(path, out, PurePath())
    elif os.path.lexists(path):
        yield path, PurePath(path.name)
    elif any(sign in str(path) for sign in "*?["):
        plain = list(itertools.takewhile(lambda part: not any(sign in part for sign in "*?["), path.parts))
        matches = sorted(map(Path, glob.glob(str(path), recursive=True)))
        if not matches:
            raise SpecError(f"no file matches {str(asked)!r}")
        for match in matches:
            name = match.relative_to(Path(*plain))
            if match.is_dir():
                yield from _below(match, out, name)
            else:
                yield match, name
    else:
        raise SpecError(f"{path} does not exist")


def _below(folder: Path, out: Path, name: PurePath) -> Iterator[tuple[Path, PurePath]]:
    """Yields the files below a folder, without those below `out`."""
    if folder.resolve() == out.resolve():
        raise SpecError(f"{folder} is the folder of the inputs and of the translations; choose another with --out")
    holds_out = out.resolve().is_relative_to(folder.resolve())
    keys = found_below(folder)
    if not keys:
        raise SpecError(f"{folder} holds no file")
    for key in keys:
        if not (holds_out and Path(os.path.realpath(folder / key)).is_relative_to(out.resolve())):
            yield folder / key, name / key


def _check_outputs(jobs: Sequence[_Job], sheet_path: Path | None, overwrite: bool) -> None:
    """Raises SpecError if two outputs have one name, if a file would be lost, or if a file blocks a folder."""
    # Path.resolve raises an error for a link that leads to itself
    sources = {os.path.realpath(job.source) for job in jobs}
    made_from: dict[Path, object] = {} if sheet_path is None else {sheet_path: "the sheet"}
    for job in jobs:
        for path in job.outputs.values():
            if path in made_from:
                raise SpecError(
                    f"{made_from[path]} and {job.source} would both become {path}; translate them one after the other,"
                    " with another --out"
                )
            made_from[path] = job.source
    if lost := [path for path in made_from if os.path.realpath(path) in sources]:
        raise SpecError(f"{lost[0]} is an input and would be replaced; choose another folder with --out")
    folders = dict.fromkeys(parent for path in made_from for parent in path.parents)
    if blocking := [path for path in folders if os.path.lexists(path) and not path.is_dir()]:
        raise SpecError(f"{blocking[0]} is not a folder; choose another with --out")
    if not overwrite and (there := [path for path in made_from if os.path.lexists(path)]):
        others = f", and {len(there) - 1} others do" if len(there) > 1 else ""
        raise SpecError(f"{there[0]} exists{others}; replace with --overwrite, or choose another folder with --out")


def _write(path: Path, image: Image.Image) -> None:
    """Writes a PNG file. Raises ValueError if its name is too long for the disk, RunError if the disk fails."""
    try:
        with files.writing(path):
            files.write(path, png(image))
    except RunError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENAMETOOLONG:
            raise ValueError(f"the name {path.name} is too long") from error
        raise


def _small(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail((LARGEST_IN_GRID, LARGEST_IN_GRID))
    return small
