"""The page of an inspection: counts, examples and distributions."""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np

from ganlab.errors import plural
from ganlab.inspection.findings import Domain, Finding, Findings, Image
from ganlab.inspection.pictures import Look
from ganlab.report.faces import spread
from ganlab.spec.models import Json

EXAMPLES = 12
"""The most images of a finding that the page shows."""

IN_GROUP = 4
"""The most images of a group of duplicates that the page shows."""

_SIDE, _BINS = 128, 24

_WIDTH, _HEIGHT = 240, 80

_DISTRIBUTIONS: Sequence[tuple[str, str, Callable[[Look], float]]] = (
    ("Shorter side", "pixels", lambda look: min(look.size)),
    ("Aspect", "width / height", lambda look: look.size[0] / look.size[1]),
    ("Brightness", "mean of grey values, 0 to 255", lambda look: look.brightness),
    ("Contrast", "standard deviation of grey values", lambda look: look.contrast),
    ("Saturation", "mean, 0 (grey) to 255", lambda look: look.saturation),
    ("Warmth", "mean of red minus blue", lambda look: look.warmth),
)


def page(
    title: str, domains: Sequence[Domain], found: Findings, described: Json, size: int, written: Json | None
) -> Json:
    """Returns what the template `inspection.html` shows."""
    by_name = {domain.name: domain for domain in domains}
    shown = [finding for finding in found.found if finding.spoiled]
    return {
        "title": f"Images of {title}",
        "faces": {"seeds": []},
        "sections": [
            *((finding.kind, finding.title) for finding in shown),
            ("distributions", "Distributions"),
            *([("labels", "Labels")] if any(domain["labels"] for domain in described.values()) else []),
        ],
        "domains": list(by_name),
        "facts": list(_facts(described, found, size, written)),
        "counts": [
            (finding, [sum(image.domain == name for image in finding.spoiled) for name in by_name])
            for finding in found.found
        ],
        "command": _command(written),
        "findings": [_shown(finding, by_name) for finding in shown],
        "distributions": [_distribution(*each, domains) for each in _DISTRIBUTIONS],
        "labels": [_labels(name, domain["labels"]) for name, domain in described.items() if domain["labels"]],
    }


def _facts(described: Json, found: Findings, size: int, written: Json | None) -> Iterator[tuple[str, str]]:
    for name, domain in described.items():
        held = "" if domain["held_out"] is None else f", {domain['held_out']:,} of them held out"
        yield f"domain {name}", f"{domain['source']}: {domain['images']:,} readable images{held}"
    yield "size in training", f"{size} x {size} pixels"
    yield "to leave out", plural(len(found.left_out), "image")
    yield "compared", f"hashes that differ in at most {found.bits} of 144 bits, then pixels"
    if written is not None:
        yield "list", written["file"]


def _command(written: Json | None) -> str | None:
    """Returns the options that make a training leave out the files of a list."""
    if written is None or not written["files"]:
        return None
    return shlex.join(
        [
            "ganlab",
            "run",
            "SPEC",
            *(w for d in written["files"] for w in ("--set", f"data.{d}.exclude={written['file']}")),
        ]
    )


def _shown(finding: Finding, domains: Mapping[str, Domain]) -> Json:
    at_most = EXAMPLES if all(len(group) == 1 for group in finding.groups) else EXAMPLES // 2
    chosen = [finding.groups[place] for place in spread(range(len(finding.groups)), at_most)]
    return {
        "kind": finding.kind,
        "title": finding.title,
        "about": finding.about,
        "count": len(finding.spoiled),
        "more": len(finding.groups) - len(chosen),
        "grouped": at_most < EXAMPLES,
        "groups": [
            {
                "images": [_thumbnail(image, domains[image.domain], len(domains) > 1) for image in group[:IN_GROUP]],
                "more": len(group[IN_GROUP:]),
            }
            for group in chosen
        ],
    }


def _thumbnail(image: Image, domain: Domain, several: bool) -> Json:
    """Returns {"name", "note", "uri": a WebP image, or None if it can't be read}."""
    uri = None
    # it may have changed since it was read
    with suppress(OSError, ValueError):
        picture = domain.source.picture(image.key)
        picture.thumbnail((_SIDE, _SIDE))
        content = io.BytesIO()
        picture.save(content, "WEBP", quality=80)
        uri = f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
    note = ", ".join(filter(None, (image.domain if several else "", image.part, image.why)))
    return {"name": image.key, "note": note, "uri": uri}


def _distribution(title: str, unit: str, value: Callable[[Look], float], domains: Sequence[Domain]) -> Json:
    """Returns a histogram of each domain as the points of a polygon; the largest share of all is the full height."""
    values = [np.array([value(look) for look in domain.looks]) for domain in domains]
    low, high = (float(end) for end in np.quantile(np.concatenate(values), [0.005, 0.995]))
    if low == high:
        low, high = low - 0.5, high + 0.5
    # what lies outside counts in the first or the last bin
    edges = np.linspace(low, high, _BINS + 1)
    shares = [np.histogram(each.clip(low, high), edges)[0] / len(each) for each in values]
    top = max(share.max() for share in shares)
    return {
        "title": title,
        "unit": unit,
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
        "width": _WIDTH,
        "height": _HEIGHT,
        "lines": [
            {
                "name": domain.name,
                "colour": colour,
                "median": f"{np.median(each):.4g}",
                "points": _points(share / top),
            }
            for colour, (domain, each, share) in enumerate(zip(domains, values, shares, strict=True))
        ],
    }


def _points(heights: Iterable[float]) -> str:
    """Returns the outline of a histogram as the points of an SVG polygon."""
    points = [(0.0, 1.0)]
    for place, height in enumerate(heights):
        points += [(place / _BINS, 1 - height), ((place + 1) / _BINS, 1 - height)]
    return " ".join(f"{x * _WIDTH:.1f},{y * _HEIGHT:.1f}" for x, y in [*points, (1.0, 1.0)])


def _labels(name: str, labels: Mapping[str, Mapping[str, int]]) -> Json:
    return {
        "name": name,
        "attributes": [
            {
                "name": attribute,
                "values": [(value, count, 100 * count / max(counts.values())) for value, count in counts.items()],
            }
            for attribute, counts in labels.items()
        ],
    }
