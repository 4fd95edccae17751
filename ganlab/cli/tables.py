"""The tables that commands print."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console as Terminal
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ganlab.cli.process import Output
from ganlab.components.options import schema
from ganlab.components.registry import Component
from ganlab.errors import printable
from ganlab.spec.tuning import Tuned

if TYPE_CHECKING:
    from ganlab.data.cache import Prepared
    from ganlab.runs.overview import Leftover, Status
    from ganlab.spec.shipped import Experiment


def _terminal(width: int | None = None) -> Terminal:
    return Terminal(file=Output.stream, width=width)


def _cells(*texts: str) -> Iterator[Text]:
    """Yields plain text, for a description or a name may look like rich's markup or hold control codes."""
    return (Text("\n".join(map(printable, text.split("\n")))) for text in texts)


def show_plugins(found: dict[str, Any]) -> None:
    """Prints the table of `ganlab plugins`, given what its --json prints."""
    terminal = _terminal()
    # to leave room in 80 columns, a kind is a heading, and the plugins of third parties alone are named, in no column
    table = Table(box=None, show_header=False)
    kind = ""
    for c in found["components"]:
        if c["kind"] != kind:
            kind = c["kind"]
            table.add_row(Text(kind, style="bold"))
        plugin = "" if c["package"] == "ganlab" else f" ({c['plugin']} of {c['package']} {c['version']})"
        table.add_row(*_cells(f"  {c['name']}", f"{c['about']}{plugin}"))
    terminal.print(table)
    for broken in found["broken"]:
        part = f"{broken['kind']} {broken['name']!r} of " if broken["kind"] else ""
        whole = f"plugin {broken['plugin']!r} of {broken['package']} {broken['version']}"
        terminal.print(printable(f"broken: {part}{whole}: {broken['reason']}"), markup=False, soft_wrap=True)


def show_component(component: Component) -> None:
    """Prints the name, the docstring and the options of a component: `ganlab plugins KIND NAME`."""
    terminal = _terminal()
    options = schema(component.cls)
    table = Table("option", "default", "description", box=None, header_style="bold")
    for name, option in options["properties"].items():
        required = name in options.get("required", ())
        default = "required" if required else json.dumps(option["default"], ensure_ascii=False)
        table.add_row(*_cells(name, default, option.get("description", "")))
    paragraphs = [component.full_name, *filter(None, [options.get("description")])]
    terminal.print(*_cells("\n\n".join(paragraphs)))
    terminal.print()
    terminal.print(table if table.rows else "It has no options.")
    for name, option in options["properties"].items():
        if values := option.get("enum"):
            terminal.print()
            terminal.print(*_cells(f"{name} is one of: {', '.join(map(str, values))}"))


def show_check(found: dict[str, Any]) -> None:
    """Prints the tables of `ganlab check`, given what `experiment.check` returns."""
    terminal = _terminal()
    networks = Table("network", "type", "parameters", "input", "output", box=None, header_style="bold")
    for n in found["networks"]:
        networks.add_row(*_cells(n["name"], n["type"], f"{n['parameters']:,}", n["input"], n["output"]))
    terms = Table("player", "direction", "term", "weight", box=None, header_style="bold")
    for t in found["terms"]:
        terms.add_row(
            *_cells(t["player"], t["direction"], t["term"], "logged" if t["weight"] is None else f"{t['weight']:g}")
        )
    turns = Table("turn", "player", "terms of", "moves", box=None, header_style="bold")
    if any(turn["new_batch"] for turn in found["turns"]):
        turns.add_column("batch")
    for index, turn in enumerate(found["turns"], 1):
        batch = ["new"] if turn["new_batch"] else []
        words = (turn["player"], " ".join(turn["directions"]), ", ".join(turn["moves"]), *batch)
        turns.add_row(*_cells(str(index), *words))
    terminal.print(printable(": ".join(filter(None, (found["name"], found["about"])))), markup=False)
    images = ", ".join(f"{count:,} of {domain}" for domain, count in found["images"].items())
    terminal.print(f"images: {images}", highlight=False)
    extras = [
        f"{name} of {domain} ({extra['values']})"
        for domain, named in found["extras"].items()
        for name, extra in named.items()
    ]
    if extras:
        terminal.print(printable(f"extras: {', '.join(extras)}"), highlight=False, markup=False)
    for table in (networks, terms, turns):
        terminal.print()
        terminal.print(table)
    if found["numbers"]:
        numbers = Table("number", "better", "description", box=None, header_style="bold")
        for n in found["numbers"]:
            numbers.add_row(*_cells(n["number"], n["better"] or "-", n["about"]))
        terminal.print()
        terminal.print(numbers)
    memory = found["memory"]
    terminal.print(
        f"\nmemory, estimated: {memory['total'] / 2**20:,.0f} MiB (weights, gradients and optimizers"
        f" {memory['states'] / 2**20:,.0f}, activations {memory['activations'] / 2**20:,.0f},"
        f" images {memory['images'] / 2**20:,.0f})",
        highlight=False,
    )
    if found["third_party"]:
        # a dry run is one use of each loss
        plugins = ", ".join(found["third_party"])
        terminal.print(
            printable(f"state and random draws of {plugins}: not checked; `pytest` with ganlab.testing checks them"),
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def show_evaluation(found: dict[str, Any]) -> None:
    """Prints the tables of `ganlab eval`, one for each checkpoint, then notes and what could not be measured.

    `found` is the content of an evaluation.json.
    """
    terminal = _terminal()
    tables: dict[str, Table] = {}
    notes: dict[str, list[str]] = {}
    for f in found["results"]:
        checkpoint = f"step {f['step']} ({f['checkpoint']})" if "step" in f else ""
        if checkpoint not in tables:
            tables[checkpoint] = _results_table(checkpoint)
        real, identity = (f["references"].get(name, {}) for name in ("real", "identity"))
        # a reference made from fewer images is shown beside the result at the same counts
        fewer = real.get("result_at_these_counts")
        _add_row(tables[checkpoint], f, None if fewer else real.get("value"), identity.get("value"))
        if fewer:
            _add_row(
                tables[checkpoint],
                {**fewer, "number": "  fewer images", "direction": f["direction"]},
                real["value"],
                None,
            )
        for note in f["notes"]:
            # one table needs no name
            role = f.get("checkpoint", "") if len({each.get("checkpoint") for each in found["results"]}) > 1 else ""
            notes.setdefault(note, []).append(" ".join(filter(None, (f["number"], f["direction"], role))))
    for table in tables.values():
        # rather too wide for the terminal than with digits cut off
        natural = Measurement.get(terminal, terminal.options.update(max_width=1000), table).maximum
        _terminal(max(terminal.width, natural)).print(table)
        terminal.print()
    for note, places in notes.items():
        terminal.print(printable(f"{note}: {', '.join(places)}"), highlight=False, markup=False, soft_wrap=True)
    for left in found["left_out"]:
        place = f"{left.get('number', left['metric'])} {left['direction']}".strip()
        terminal.print(printable(f"left out: {place}: {left['why']}"), highlight=False, markup=False, soft_wrap=True)
    if found["results"]:
        terminal.print(
            "real: real images instead of the outputs; identity: the inputs instead of the outputs;"
            " chance: outputs unrelated to the inputs",
            highlight=False,
            soft_wrap=True,
        )


def _add_row(table: Table, result: dict[str, Any], real: float | None, identity: float | None) -> None:
    shown = [
        "" if value is None else f"{value:.4g}" for value in (result["value"], real, identity, result.get("chance"))
    ]
    interval = " to ".join(f"{end:.4g}" for end in result["interval"])
    counts = ", ".join(f"{count} {what}" for what, count in result["counts"].items())
    table.add_row(*_cells(result["number"], result["direction"], shown[0], interval, *shown[1:], counts))


def _results_table(checkpoint: str) -> Table:
    table = Table(title=checkpoint or None, title_justify="left", box=None, header_style="bold")
    for heading in ("number", "direction", "value", "95% interval", "real", "identity", "chance", "counts"):
        table.add_column(
            heading, justify="right" if heading in ("value", "real", "identity", "chance") else "left", no_wrap=True
        )
    return table


def show_inspection(found: dict[str, Any]) -> None:
    """Prints the table of `ganlab data inspect`, given what `inspect_data` returns."""
    table = Table("images", box=None, header_style="bold")
    for domain in found["domains"]:
        table.add_column(domain, justify="right", no_wrap=True)
    table.add_row("readable", *(f"{domain['images']:,}" for domain in found["domains"].values()))
    for finding in found["findings"]:
        table.add_row(finding["title"].lower(), *(f"{count:,}" for count in finding["counts"].values()))
    table.add_row("to leave out", *(f"{len(names):,}" for names in found["left_out"].values()))
    _terminal().print(table)


def show_bench(found: dict[str, Any]) -> None:
    """Prints the tables of `ganlab bench`, given what `experiment.bench` returns."""
    terminal = _terminal()
    step, peak, share, hardware = (found[key] for key in ("step", "peak", "share_of_peak", "hardware"))
    memory = found["peak_memory_bytes"]
    seconds = step["seconds"]["median"]
    rows = {
        "spec": f"{found['spec']}: {found['size']} pixels, batch {found['batch']}",
        "device": f"{hardware['device']} ({hardware['device_name']}), {_setting(found)},"
        f" {hardware['threads']} CPU threads, torch {hardware['torch']}",
        "images a second": _median(found["images_a_second"], 1),
        "milliseconds a step": f"{_median(step['seconds'], 1000)}; {step['steps']} steps in {step['blocks']} blocks",
        "operators a step": f"{step['operators']:,}",
        "FLOPs a second": f"{step['flops'] / seconds / 1e9:,.1f} G, {share['flops']:.0%} of a matrix product's"
        f" {peak['flops_a_second'] / 1e9:,.1f} G",
        "bytes a second": f"{step['bytes'] / seconds / 1e9:,.1f} G, {share['bytes']:.0%} of a copy's"
        f" {peak['bytes_a_second'] / 1e9:,.1f} G",
        "peak memory": "not known" if memory is None else f"{memory / 2**20:,.0f} MiB",
    }
    table = Table(box=None, show_header=False)
    for row in rows.items():
        table.add_row(*_cells(*row))
    parts = Table("part of a step", box=None, header_style="bold")
    for heading in ("times", "milliseconds", "share"):
        parts.add_column(heading, justify="right", no_wrap=True)
    whole = sum(part["seconds"] for part in found["parts"])
    for part in found["parts"]:
        numbers = (f"{part['times']:g}", f"{1000 * part['seconds']:.1f}", f"{part['seconds'] / whole:.0%}")
        parts.add_row(*_cells(part["part"], *numbers))
    for each in (table, "", parts):
        terminal.print(each)


def show_tuning(found: dict[str, Any]) -> None:
    """Prints the table of `ganlab bench --tune`, given what `experiment.tune` returns."""
    terminal = _terminal()
    table = Table("setting", "images a second", "milliseconds a step", box=None, header_style="bold")
    for each in found["settings"]:
        table.add_row(*_cells(str(_setting(each)), _median(each["images_a_second"], 1), _median(each["seconds"], 1000)))
    terminal.print(table)
    compiles = f" and runtime.compile auto is {str(found['compile']).lower()}"
    sentence = (
        f"runtime.precision auto is {found['precision']}{compiles} on {found['hardware']['device_name']} from now on"
    )
    terminal.print(printable(f"{sentence}; kept in {found['file']}"), highlight=False, markup=False, soft_wrap=True)


def _setting(found: dict[str, Any]) -> Tuned:
    return Tuned(found["precision"], found["compile"])


def _median(spread: dict[str, Any], factor: float) -> str:
    """Returns the median of a spread and its quartiles, times `factor`: "61.2 (60.1 to 62.0)"."""
    low, high = (f"{factor * each:,.1f}" for each in spread["quartiles"])
    return f"{factor * spread['median']:,.1f} ({low} to {high})"


def show_experiments(found: Sequence[Experiment]) -> None:
    """Prints the table of `ganlab experiments`."""
    table = Table("experiment", "description", box=None, header_style="bold")
    for experiment in found:
        table.add_row(*_cells(experiment.name, experiment.about))
    _terminal().print(table)


def show_runs(where: Path, found: Sequence[Status]) -> None:
    """Prints the table of `ganlab runs`."""
    terminal = _terminal()
    table = Table("run", "state", box=None, header_style="bold")
    table.add_column("step", justify="right", no_wrap=True)
    table.add_column("result")
    table.add_column("size", justify="right", no_wrap=True)
    for run in found:
        steps = f"{run.step}/{'?' if run.steps is None else run.steps}"
        values = ", ".join(f"{direction} {value:.4g}" for direction, value in run.values.items())
        result = f"{run.number}: {values}" if run.number else ""
        table.add_row(*_cells(_inside(where, run.folder), run.state, steps, result, _bytes(run.size)))
    terminal.print(table if found else printable(f"there is no run in {where}"))
    for run in found:
        if run.why is not None:
            terminal.print(
                printable(f"{_inside(where, run.folder)} {run.state}: {run.why}"), markup=False, soft_wrap=True
            )


def show_leftovers(where: Path, found: Sequence[Leftover], deleted: bool) -> None:
    """Prints what `ganlab runs --prune` found."""
    terminal = _terminal()
    table = Table("path", box=None, header_style="bold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("why")
    for leftover in found:
        table.add_row(*_cells(_inside(where, leftover.path), _bytes(leftover.size), leftover.why))
    if not found:
        terminal.print(printable(f"there is nothing to delete in {where}"))
        return
    terminal.print(table)
    whole = _bytes(sum(leftover.size for leftover in found))
    said = f"{whole} are deleted" if deleted else f"{whole} would be deleted: the same command with --yes deletes them"
    terminal.print(said, highlight=False, soft_wrap=True)


def show_prepared(where: Path | None, found: Sequence[Prepared], removed: Sequence[Prepared]) -> None:
    """Prints what `ganlab data cache` found in the folder `where`, and what it has removed."""
    terminal = _terminal()
    if not found:
        terminal.print(printable(f"there are no prepared images in {where}"), markup=False, soft_wrap=True)
        return
    table = Table("source", "state", box=None, header_style="bold")
    for column in ("images", "pixels", "size"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("last used", no_wrap=True)
    for each in found:
        source = each.source or {}
        name = " ".join(str(source[key]) for key in ("type", "path") if source.get(key)) or each.path.name
        count, side = ("" if number is None else f"{number:,}" for number in (each.images, each.size))
        state = "removed" if each in removed else each.state
        table.add_row(*_cells(name, state, count, side, _bytes(each.bytes), each.used.partition("T")[0]))
    terminal.print(printable(f"prepared images in {where}"), markup=False, soft_wrap=True)
    terminal.print(table)
    if removed:
        terminal.print(f"{_bytes(sum(each.bytes for each in removed))} are freed", highlight=False)


def _inside(where: Path, path: Path) -> str:
    """Returns a path relative to the folder that holds it; the folder itself as it is."""
    return str(path) if path == where else path.relative_to(where).as_posix()


def _bytes(size: int) -> str:
    """Returns a number of bytes with three digits and its unit: "3.1 MB"."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}"
