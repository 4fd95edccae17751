"""A comparison as text for a terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv as csv_files
import io
import math
import textwrap
from collections.abc import Iterator, Sequence
from itertools import takewhile

from ganlab.comparison.statistics import MOST_PAIRS
from ganlab.errors import plural, shortened
from ganlab.spec.models import Json

WIDTH = 80
"""The columns of a terminal."""

_COLUMNS = ("mean", "difference", "p", "verdict")

_COSTS = (
    ("seconds", "seconds", 1, 1),
    ("images_a_second", "images/s", 1, 1),
    ("images", "images", 1, 0),
    ("peak_memory_bytes", "peak MiB", 2**20, 0),
    ("parameters", "parameters", 1, 0),
)
"""(key, heading, unit, digits) of each cost."""


def text(found: Json) -> str:
    """Returns the tables and notes of a comparison as text, aligned and at most 80 columns wide for short names."""
    blocks = [(_heading(number, ", "), [*_rows(found, number)], half(number)) for number in found["numbers"]]
    rows = [("", *_COLUMNS), *(row for _, inner, _ in blocks for row in inner)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS) + 1)]

    def aligned(row: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

    lines = [title(found), ""]
    if blocks:
        lines += [f"  {aligned(('', *_COLUMNS))}"]
    for heading, inner, last in blocks:
        lines += [heading, *(f"  {aligned(row)}" for row in inner), *([f"  {last}"] if last else [])]
    after = map(wrapped, _after(found))
    costs = [*cost_rows(found)]
    return "\n".join([*lines, "", *([*columns(costs), ""] if costs else []), *after]) + "\n"


def wrapped(sentence: str) -> str:
    """Returns a sentence broken into lines for a terminal, at spaces only, so that no name is cut."""
    return textwrap.fill(sentence, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def markdown(found: Json) -> str:
    """Returns the tables and notes of a comparison as Markdown."""
    lines = [f"# {title(found)}"]
    for number in found["numbers"]:
        lines += ["", f"## {_heading(number, '; ')}", "", *markdown_table(("system", *_COLUMNS), _rows(found, number))]
        if last := half(number):
            lines += ["", last]
    if costs := [*cost_rows(found)]:
        lines += ["", "## Cost", "", *markdown_table(("system", *costs[0][1:]), costs[1:])]
    return "\n".join([*lines, "", *(f"- {line}" for line in _after(found))]) + "\n"


def csv(found: Json) -> str:
    """Returns a comparison as CSV, one line for each number, direction and system."""
    file = io.StringIO()
    writer = csv_files.writer(file, lineterminator="\n")
    ends = ("low", "high")
    writer.writerow(
        ["number", "direction", "better", "system", "seeds", "mean", *ends, "difference"]
        + [f"difference_{end}" for end in ends]
        + ["p", "p_holm", "verdict"]
    )
    for number in found["numbers"]:
        for name, summary in number["systems"].items():
            difference = number["differences"].get(name, {})
            writer.writerow(
                [number["number"], number["direction"], number["better"], name, len(summary["values"])]
                + [summary["mean"], *(summary["interval"] or ("", "")), difference.get("mean", "")]
                + [*difference.get("interval", ("", ""))]
                + ["" if difference.get(key) is None else difference[key] for key in ("p", "p_holm", "verdict")]
            )
    return file.getvalue()


def markdown_table(heading: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table in Markdown."""
    lines = [heading, ["---"] * len(heading), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]


def title(found: Json) -> str:
    """Returns the systems and the number of seeds of a comparison."""
    others = [system["name"] for system in found["systems"][1:]]
    seeds = plural(len(found["seeds"]), "seed")
    named = " and ".join(filter(None, [", ".join(others[:-1]), *others[-1:]]))
    compared = f"{named} compared with " if named else ""
    return f"{compared}{found['baseline']}: {seeds}"


def _heading(number: Json, between: str) -> str:
    parts = [f"{number['number']} {number['direction']}"]
    if number["better"]:
        parts.append(f"{number['better']} is better")
    parts += [f"{name} {value:.4g}" for name, value in number["references"].items()]
    return between.join(parts)


def _rows(found: Json, number: Json) -> Iterator[tuple[str, ...]]:
    """Yields (system, mean, difference, p, verdict) for each system."""
    for name, summary in number["systems"].items():
        difference = number["differences"].get(name)
        some = some_seeds(found, summary)
        label = f"{name} ({some})" if some else name
        shown = ("baseline" if name == found["baseline"] else "", "", "")
        if difference is not None:
            p = difference.get("p_holm")
            p_text = "" if not number["better"] else "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
            shown = (plus_minus(difference["mean"], difference["interval"]), p_text, difference["verdict"])
        yield (label, plus_minus(summary["mean"], summary["interval"]), *shown)


def some_seeds(found: Json, summary: Json) -> str:
    """Returns "N of M seeds" for a mean over some of a comparison's seeds, "" if it is over all."""
    seeds, every = len(summary["values"]), len(found["seeds"])
    return "" if seeds == every else f"{seeds} of {every} seeds"


def plus_minus(mean: float, interval: Sequence[float] | None) -> str:
    """Returns a mean and half of its interval, with two digits of the latter."""
    width = 0.0 if interval is None else (interval[1] - interval[0]) / 2
    if not width:
        return f"{mean:.4g}"
    digits = max(0, 1 - math.floor(math.log10(width)))
    return f"{mean:.{digits}f} ± {width:.{digits}f}"


def half(number: Json) -> str:
    """Returns how many seeds would find half of the largest difference; "" if that is not known."""
    found = number["half_of_the_largest"]
    if found is None:
        return ""
    needed = f"about {found['seeds']}" if found["seeds"] else f"more than {MOST_PAIRS}"
    return f"to find half of the largest difference ({found['system']}): {needed} seeds"


def cost_rows(found: Json) -> Iterator[tuple[str, ...]]:
    """Yields a heading and a row for each system, with the costs that are known."""
    costs = [system["cost"] for system in found["systems"]]
    known = [column for column in _COSTS if any(column[0] in cost for cost in costs)]
    if not known:
        return
    yield ("cost of a trial", *(heading for _, heading, _, _ in known))
    for system, cost in zip(found["systems"], costs, strict=True):
        cells = (f"{cost[key] / unit:,.{digits}f}" if key in cost else "" for key, _, unit, digits in known)
        yield (system["name"], *cells)


def cautions(found: Json) -> Iterator[str]:
    """Yields sentences about failed trials, missing numbers, and differences between the trainings or evaluations."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for trial in found["trials"]:
        if trial["state"] != "finished":
            reasons.setdefault((trial["state"], trial["why"]), []).append(f"{trial['system']}, seed {trial['seed']}")
    for (state, why), trials in reasons.items():
        yield f"{state}: {'; '.join(trials)}: {why}"
    left_out: dict[str, list[str]] = {}
    for trial in found["trials"]:
        for left in trial["left_out"]:
            place = f"{left.get('number', left['metric'])} {left['direction']}".strip()
            left_out.setdefault(f"left out: {place}: {left['why']}", []).append(trial["system"])
    yield from (f"{sentence} ({', '.join(dict.fromkeys(names))})" for sentence, names in left_out.items())
    yield from (f"note: {note}" for note in found["notes"])


def explanations(found: Json) -> Iterator[str]:
    """Yields sentences that explain the numbers in the tables."""
    if not found["numbers"]:
        return
    if found["jobs"] != 1:
        several = "trials ran at the same time" if found["jobs"] else "it is not known what ran at the same time"
        yield f"cost of a trial: without timings, because {several}"
    tests = found["tests"]
    yield (
        "mean: over seeds, after the last step, on test images; ± is half of Student's 95% interval and covers the"
        " spread over seeds alone"
    )
    if any(number["references"] for number in found["numbers"]):
        yield "real: real images instead of the outputs; identity: the inputs instead of the outputs"
    if not tests["count"]:
        yield "nothing is tested: a test needs two seeds that both systems have"
        return
    yield (
        "difference: to the baseline, paired by seed; p: paired t-test, corrected for all"
        f" {tests['count']} tests (Holm); none: no difference that the seeds can support (p of {tests['level']:.2g} or"
        " more)"
    )
    if any(d["p"] is None for number in found["numbers"] if number["better"] for d in number["differences"].values()):
        yield "p is - where the difference is the same for every seed: without a spread nothing can be tested"
    yield (
        f"a difference of 3 standard deviations between seeds is found in {tests['power_at_3_deviations']:.0%} of cases"
        f" with {tests['pairs']} seeds and {tests['count']} tests"
    )


def _after(found: Json) -> Iterator[str]:
    """Yields the sentences below the tables, in a terminal and in Markdown."""
    yield from cautions(found)
    yield from explanations(found)
    if found["tests"]["count"]:
        yield from (findings(found, system["name"]) for system in found["systems"][1:])


def findings(found: Json, name: str) -> str:
    """Returns a sentence with the numbers in which a system is better and worse than the baseline."""
    numbers = [number for number in found["numbers"] if number["better"] and name in number["differences"]]
    if not numbers:
        return f"{name} against {found['baseline']}: not tested, since no number has two seeds in common"

    def counted(verdict: str) -> str:
        places = [f"{n['number']} {n['direction']}" for n in numbers if n["differences"][name]["verdict"] == verdict]
        named = f" ({', '.join(places)})" if places and verdict != "none" else ""
        return f"{verdict} in {len(places)}{named}"

    counts = ", ".join(map(counted, ("better", "worse", "none")))
    return f"{name} against {found['baseline']}: {counts}"


def differences(found: Json) -> str:
    """Returns the differences of two runs, `ganlab.diff`, as text."""
    lines = [
        f"{name}  {run}: {step} steps{why and f', {why}'}"
        for name, run, step, why in zip("AB", found["runs"], found["steps"], found["why"], strict=True)
    ]
    for part in ("spec", "data", "environment", "code", "measured"):
        each = [f"  {path}: {' / '.join(_brief(a, b))}" for path, (a, b) in found[part].items()]
        lines += ["", f"{part} (A / B)", *each] if each else ["", f"{part}: the same"]
    if found["results"]:
        rows = [("results", "better", "A", "B", "B - A", "95% intervals"), *map(_result_row, found["results"])]
        lines += ["", *columns(rows)]
        lines += [
            "",
            "the intervals cover the test images, not the seeds; `ganlab compare` tests over seeds",
        ]
    return "\n".join(lines) + "\n"


def _brief(one: str, other: str) -> tuple[str, str]:
    """Returns two different values; long ones are shortened to a part in which they differ."""
    one, other = one.strip('"'), other.strip('"')
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
    # a few of the characters that they share are kept
    start = shared - 10 if max(len(one), len(other)) > 40 and shared > 13 else 0
    a, b = (f"{'...' if start else ''}{shortened(value[start:], 40)}" for value in (one, other))
    return a, b


def _result_row(result: Json) -> tuple[str, ...]:
    (a_low, a_high), (b_low, b_high) = result["intervals"]
    apart = a_high < b_low or b_high < a_low
    values = (f"{value:.4g}" for value in (*result["values"], result["difference"]))
    label, better = f"  {result['number']} {result['direction']}", result["better"] or ""
    return (label, better, *values, "apart" if apart else "overlap")


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns lines of which all columns but the first are aligned to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
