"""Inspects the images of a spec or of folders before a training: `ganlab data inspect`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ganlab import files
from ganlab.data.dataset import load
from ganlab.data.exclusions import exclusions, holds
from ganlab.data.folder import Folder
from ganlab.display.choice import showing
from ganlab.errors import SpecError, plural
from ganlab.experiment.asking import run_folder
from ganlab.experiment.specs import load_spec
from ganlab.inspection.findings import Domain, Finding, Findings, Image, findings
from ganlab.inspection.near_duplicates import SIDE
from ganlab.inspection.page import page
from ganlab.inspection.pictures import LookedAt
from ganlab.interfaces.callbacks import Callback
from ganlab.interfaces.sources import Source
from ganlab.report.page import render
from ganlab.spec.layouts import find
from ganlab.spec.models import Data, Json, Spec
from ganlab.system.build import build_sources

PAGE = "inspection.html"
"""The default file of the page, in the working folder."""

VALUES = 12
"""The most values of an attribute that are counted one by one: the most frequent ones."""


def inspect_data(
    data: str | Path | Mapping[str, Any] | Spec | Sequence[str | Path],
    set: Iterable[str] = (),
    out: str | Path = PAGE,
    write_filter: str | Path | None = None,
    callback: Callback | None = None,
) -> Json:
    """Looks for what would spoil a training in the images of a spec or of folders, and writes a page about it.

    Args:
        data: A spec as `load_spec` takes it; or one or two folders of images, domain a and domain b; or one folder
            with both domains, as `data.root` takes it. A folder that holds a run is a spec. Images are divided into
            training and held-out ones if a spec or the layout of the folder does it.
        set: Changes to a spec, each "path.to.key=value".
        out: The file of the page.
        write_filter: The file for the list of files to leave out, which `exclude` of the source `folder` takes.
        callback: Shows the progress and the warnings. By default a progress bar does, in a terminal and in a notebook.

    Returns {"page", "filter", "size", "domains", "findings", "left_out"}. "domains" is {domain: {"source", "images",
    "held_out", "labels"}}. Each of "findings" is {"kind", "title", "count", "counts": {domain: count}, "groups": [[
    {"domain", "name", "part", "why"}]]}; an image that is no duplicate is a group of one. "left_out" is
    {domain: names}.

    Raises SpecError if the spec or a folder can't be used, RunError if a file can't be written.
    """
    with showing(callback) as shown:
        return _inspect(data, tuple(set), Path(out), None if write_filter is None else Path(write_filter), shown)


def _inspect(data: Any, set: tuple[str, ...], out: Path, write_filter: Path | None, shown: Callback) -> Json:
    domains, size, title = _looked_at(data, set, shown)
    found = findings(domains, size, shown.progress)
    described = {domain.name: _described(domain) for domain in domains}
    left_out = {name: [image.key for image in found.left_out if image.domain == name] for name in described}
    written = None
    if write_filter is not None:
        written = _write_filter(write_filter, domains, found, shown)
    with files.writing(out):
        files.write(out, render("inspection.html", page(title, domains, found, described, size, written)))
    return {
        "page": str(out),
        "filter": written,
        "size": size,
        "domains": described,
        "findings": [_as_json(finding, described) for finding in found.found],
        "left_out": left_out,
    }


def _looked_at(data: Any, set: tuple[str, ...], shown: Callback) -> tuple[list[Domain], int, str]:
    """Returns the domains, the size of the training's images, and what was inspected."""
    folders = _folders(data)
    if folders is None:
        spec = load_spec(data[0] if isinstance(data, list | tuple) else data, set)
        sources: Mapping[str, Source] = build_sources(spec)
        holdout, size, title = spec.data.holdout, spec.data.size, spec.name
        ordered_as = "a" if spec.data.paired else ""
    else:
        if set:
            raise SpecError("inspect: --set changes a spec, and folders of images have none")
        sources = _sources(folders)
        holdout, size, ordered_as = 0.5, Data.model_fields["size"].default, ""
        title = " and ".join(map(str, folders))
    domains = []
    for name, source in sources.items():
        seen = LookedAt(source, size)
        dataset = load(seen, name, SIDE, holdout, shown.progress, ordered_as=ordered_as)
        domains.append(Domain(dataset, seen, divided=folders is None or source.divided))
    return domains, size, title


def _sources(folders: Sequence[Path]) -> dict[str, Source]:
    """Returns {domain: the images of a folder}; of one folder, both domains if it has a layout of two."""
    if len(folders) == 1:
        with suppress(SpecError):
            layout = find(folders[0])
            return {d: Folder(path, held_out=layout.held_out.get(d)) for d, path in layout.train.items()}
    return {domain: Folder(folder) for domain, folder in zip("ab", folders, strict=False)}


def _folders(data: Any) -> list[Path] | None:
    """Returns the folders of images that are named; None for a spec."""
    if isinstance(data, Mapping | Spec):
        return None
    paths = [Path(data)] if isinstance(data, str | Path) else [Path(path) for path in data]
    if len(paths) == 1 and (not paths[0].is_dir() or run_folder(paths[0])):
        return None
    if not 1 <= len(paths) <= 2:
        raise SpecError(f"inspect: {len(paths)} folders are named; one or two are allowed, domain a and domain b")
    return paths


def _described(domain: Domain) -> Json:
    labels = domain.dataset.labels
    counts = {} if labels is None else {"class": Counter(map(str, labels.tolist()))}
    attributes: dict[str, Counter[str]] = {}
    for key in domain.dataset.keys:
        for name, value in domain.source.attributes(key).items():
            attributes.setdefault(name, Counter())[value] += 1
    return {
        "source": str(domain.source.source.path)
        if isinstance(domain.source.source, Folder)
        else type(domain.source.source).__name__.lower(),
        "images": len(domain.dataset.keys),
        "held_out": len(domain.dataset.holdout) if domain.divided else None,
        "labels": {name: dict(values.most_common(VALUES)) for name, values in {**counts, **attributes}.items()},
    }


def _as_json(finding: Finding, domains: Iterable[str]) -> Json:
    counts = Counter(image.domain for image in finding.spoiled)
    return {
        "kind": finding.kind,
        "title": finding.title,
        "count": len(finding.spoiled),
        "counts": {domain: counts[domain] for domain in domains},
        "groups": [[_image(image) for image in group] for group in finding.groups],
    }


def _image(image: Image) -> Json:
    return {"domain": image.domain, "name": image.key, "part": image.part, "why": image.why}


def _write_filter(path: Path, domains: Sequence[Domain], found: Findings, shown: Callback) -> Json:
    """Writes the list of files to leave out. Returns {"file", "files": {domain: number of files}}.

    The domains of which the list names no file are left out, because `exclude` refuses such a list.
    """
    folders = {d.name: d.source.source for d in domains if isinstance(d.source.source, Folder)}
    listed = {image for image in found.left_out if image.domain in folders and holds(image.key)}
    if others := len(found.left_out) - len(listed):
        shown.warn(
            f"{path} does not name {plural(others, 'image')}: of a source that is not 'folder', or with a name that is"
            " not UTF-8 or has a line break"
        )
    sections: dict[str, list[Path]] = {}
    left = {*listed}
    for finding in found.found:
        named = [image for image in finding.spoiled if image in left]
        left.difference_update(named)
        if named:
            sections[finding.title] = [folders[image.domain].files(image.key)[0] for image in named]
    with files.writing(path):
        files.write(path, exclusions(path, sections))
    counts = Counter(image.domain for image in listed)
    return {"file": str(path), "files": {name: counts[name] for name in folders if counts[name]}}
