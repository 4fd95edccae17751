"""A search as text for a terminal and as Markdown."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from ganlab.comparison.tables import columns, markdown_table, wrapped
from ganlab.spec.models import Json


def text(found: Json) -> str:
    """Returns the trials and the results of the best one as aligned text."""
    lines = [_title(found), "", *columns([*_trial_rows(found)])]
    if found["best"] is not None:
        lines += ["", _best(found), "", *columns([*_result_rows(found)])]
    after = map(wrapped, _after(found))
    return "\n".join([*lines, "", *after]) + "\n"


def markdown(found: Json) -> str:
    """Returns the trials and the results of the best one as Markdown."""
    heading, *rows = _trial_rows(found)
    lines = [f"# {_title(found)}", "", *markdown_table(heading, rows)]
    if found["best"] is not None:
        heading, *rows = _result_rows(found)
        lines += ["", f"## {_best(found)}", "", *markdown_table(heading, rows)]
    return "\n".join([*lines, "", *(f"- {line}" for line in _after(found))]) + "\n"


def _title(found: Json) -> str:
    return (
        f"{found['name']}: {len(found['trials'])} of {found['asked']} trials, {found['number']} on validation images,"
        f" {found['better']} is better"
    )


def _best(found: Json) -> str:
    values = ", ".join(f"{path}={value}" for path, value in found["best"]["parameters"].items())
    return f"trial {found['best']['trial']} is best ({values}); its results on test images"


def _trial_rows(found: Json) -> Iterator[tuple[str, ...]]:
    """Yields a heading and a row for each trial: the finished ones first, the best before the others."""
    paths = [text.partition("=")[0] for text in found["ranges"]]
    yield ("trial", *paths, found["number"], "")
    order = ("finished", "pruned", "failed")
    sign = 1 if found["better"] == "lower" else -1
    for trial in sorted(found["trials"], key=lambda t: (order.index(t["state"]), sign * (t["value"] or 0))):
        values = [trial["parameters"][path] for path in paths]
        shown = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)
        number = "" if trial["value"] is None else f"{trial['value']:.4g}"
        state = f"pruned at step {trial['step']}" if trial["state"] == "pruned" else trial["state"]
        yield (str(trial["trial"]), *shown, number, state)


def _result_rows(found: Json) -> Iterator[tuple[str, ...]]:
    yield ("number", "value", "95% interval", "real", "identity")
    for result in found["best"]["results"]:
        low, high = result["interval"]
        references = (result["references"].get(name, {}).get("value") for name in ("real", "identity"))
        yield (
            f"{result['number']} {result['direction']}",
            f"{result['value']:.4g}",
            f"{low:.4g} to {high:.4g}",
            *("" if value is None else f"{value:.4g}" for value in references),
        )


def _after(found: Json) -> Iterator[str]:
    """Yields what the reader needs to judge the tables."""
    for trial in found["trials"]:
        if trial["state"] == "failed":
            yield f"failed: trial {trial['trial']}: {trial['why']}"
    yield (
        f"{found['number']}: mean over the directions, on validation images, after the last step; of a pruned trial"
        " after its last measurement"
    )
    if found["best"] is not None:
        words = ["ganlab", "compare", found["spec"], found["best"]["spec"], "--seeds"]
        seeds = ",".join(str(found["seed"] + n) for n in range(1, 6))
        yield (
            f"the best of {len(found['trials'])} trials of one seed is best by luck too; other seeds tell:"
            f" {shlex.join(words)} {seeds}"
        )
