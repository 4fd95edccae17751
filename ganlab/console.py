"""What a person sees in a terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any, Self

from rich.console import Console as Terminal
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ganlab.engine import Record
from ganlab.folder import RunFolder
from ganlab.options import schema
from ganlab.registry import Component
from ganlab.spec import Spec

QUIET_SECONDS = 10.0
"""Where there is no terminal to draw a bar in, a line as often as this."""


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        rate = task.fields.get("rate") or task.speed
        return Text(f"{rate:.1f} images/s" if rate else "")


class Console:
    """Draws the progress on stderr: a bar in a terminal, lines elsewhere."""

    def __init__(self) -> None:
        self._terminal = Terminal(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[terms]}"),
            console=self._terminal,
            disable=not self._terminal.is_terminal,
        )
        self._said = time.monotonic()
        self.trained = False

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def progress(self, items: Iterable[Any], what: str, total: int) -> Iterable[Any]:
        """Show `items` advancing."""
        task = self._bar.add_task(what, total=total, terms="")
        for item in items:
            yield item
            self._bar.advance(task)
        self._bar.remove_task(task)

    def begins(self, folder: RunFolder, spec: Spec, done: int, steps: int) -> None:
        """Training begins, or goes on after `done` of all steps."""
        self.trained = True
        self._total, self._batch = steps, spec.data.batch
        self._begun, self._done_before = time.monotonic(), done
        how = f"goes on after step {done}" if done else "begins"
        runtime = spec.runtime
        self._terminal.print(
            f"{spec.name} {how}: {self._total} steps on {runtime.device}, {runtime.precision},"
            f" {runtime.threads} threads, in {folder.path}",
            highlight=False,
        )
        self._task = self._bar.add_task("training", total=self._total, completed=done, terms="")

    def steps(self, records: list[Record]) -> None:
        """These steps were done."""
        if not records:
            return
        last = records[-1]
        done = int(last["step"])
        seconds = time.monotonic() - self._begun
        rate = (done - self._done_before) * self._batch / seconds if seconds else 0.0
        terms = "  ".join(f"{name} {value:.3f}" for name, value in _short(last).items())
        self._bar.update(self._task, completed=done, terms=terms, rate=rate)
        if self._bar.disable and (time.monotonic() - self._said > QUIET_SECONDS or done == self._total):
            self._said = time.monotonic()
            left = (self._total - done) * self._batch / rate if rate else 0.0
            line = f"step {done}/{self._total}  {rate:.1f} images/s  {_clock(left)} left  {terms}"
            self._terminal.print(line, highlight=False, soft_wrap=True)

    def warns(self, sentence: str) -> None:
        """Something that a person should know."""
        self._terminal.print(f"warning: {sentence}", highlight=False, markup=False, soft_wrap=True)


def _short(record: Record) -> Record:
    """Each loss of each player, its parts summed and its ways averaged."""
    sums: dict[str, float] = {}
    ways: dict[str, set[str]] = {}
    for name, value in record.items():
        if name.startswith("loss/"):
            _, player, way, label = name.split("/")[:4]
            key = f"{'G' if player == 'generator' else 'D'} {label}"
            sums[key] = sums.get(key, 0.0) + value
            ways.setdefault(key, set()).add(way)
    return {key: value / len(ways[key]) for key, value in sums.items()}


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def show_plugins(found: dict[str, Any]) -> None:
    """The table of `ganlab plugins`."""
    terminal = Terminal()
    table = Table("kind", "name", "what it is", "whose", box=None, header_style="bold")
    kind = ""
    for c in found["components"]:
        whose = c["plugin"] if c["package"] == "ganlab" else f"{c['plugin']} of {c['package']} {c['version']}"
        # plain text: a component's words may look like rich's markup
        table.add_row(*(Text(word) for word in (c["kind"] if c["kind"] != kind else "", c["name"], c["about"], whose)))
        kind = c["kind"]
    terminal.print(table)
    for broken in found["broken"]:
        terminal.print(
            f"broken: plugin {broken['plugin']!r} of {broken['package']} {broken['version']}: {broken['reason']}",
            markup=False,
            soft_wrap=True,
        )


def show_component(component: Component) -> None:
    """What `ganlab plugins KIND NAME` says of a component."""
    terminal = Terminal()
    options = schema(component.cls)
    table = Table("option", "default", "what it is", box=None, header_style="bold")
    for name, option in options["properties"].items():
        required = name in options.get("required", ())
        default = "required" if required else json.dumps(option["default"], ensure_ascii=False)
        table.add_row(*map(Text, (name, default, option.get("description", ""))))
    paragraphs = [component.full_name, *filter(None, [options.get("description")])]
    terminal.print("\n\n".join(paragraphs), highlight=False, markup=False)
    terminal.print()
    terminal.print(table if table.rows else "It has no options.")


def show_check(found: dict[str, Any]) -> None:
    """The tables of `ganlab check`."""
    terminal = Terminal()
    networks = Table("network", "type", "parameters", "input", "output", box=None, header_style="bold")
    for n in found["networks"]:
        networks.add_row(n["name"], n["type"], f"{n['parameters']:,}", n["input"], n["output"])
    terms = Table("player", "way", "term", "weight", box=None, header_style="bold")
    for t in found["terms"]:
        terms.add_row(t["player"], t["way"], t["term"], f"{t['weight']:g}")
    turns = Table("turn", "player", "terms of", "moves", box=None, header_style="bold")
    if any(turn["fresh"] for turn in found["turns"]):
        turns.add_column("batch")
    for index, turn in enumerate(found["turns"], 1):
        batch = ["new"] if turn["fresh"] else []
        turns.add_row(str(index), turn["player"], " ".join(turn["ways"]), ", ".join(turn["moves"]), *batch)
    terminal.print(f"{found['name']}: {found['about']}", markup=False)
    for table in (networks, terms, turns):
        terminal.print()
        terminal.print(table)
    if found["numbers"]:
        numbers = Table("number", "better", "what it says", box=None, header_style="bold")
        for n in found["numbers"]:
            numbers.add_row(n["number"], n["better"] or "-", n["about"])
        terminal.print()
        terminal.print(numbers)
    memory = found["memory"]
    terminal.print(
        f"\nmemory, estimated: {memory['total'] / 2**20:,.0f} MiB (weights, gradients and optimisers"
        f" {memory['states'] / 2**20:,.0f}, activations {memory['activations'] / 2**20:,.0f},"
        f" images {memory['images'] / 2**20:,.0f})",
        highlight=False,
    )


def show_evaluation(found: dict[str, Any]) -> None:
    """The tables of `ganlab eval`, one a checkpoint, and what a reader should notice."""
    terminal = Terminal()
    tables: dict[str, Table] = {}
    notes: dict[str, list[str]] = {}
    for f in found["figures"]:
        checkpoint = f"step {f['step']} ({f['checkpoint']})" if "step" in f else ""
        if checkpoint not in tables:
            tables[checkpoint] = _figures_table(checkpoint)
        real, nothing = (f["references"].get(name, {}) for name in ("real", "nothing"))
        # a reference of fewer images stands beside the figure at those counts
        fewer = real.get("figure_at_these_counts")
        _add_row(tables[checkpoint], f, None if fewer else real.get("value"), nothing.get("value"))
        if fewer:
            _add_row(tables[checkpoint], {**fewer, "number": "  at fewer", "way": f["way"]}, real["value"], None)
        for note in f["notes"]:
            notes.setdefault(note, []).append(" ".join(filter(None, (f["number"], f["way"], f.get("checkpoint", "")))))
    for table in tables.values():
        # wider than the terminal rather than with digits cut off
        natural = Measurement.get(terminal, terminal.options.update(max_width=1000), table).maximum
        Terminal(width=max(terminal.width, natural)).print(table)
        terminal.print()
    for note, places in notes.items():
        terminal.print(f"{note}: {', '.join(places)}", highlight=False, markup=False, soft_wrap=True)
    for left in found["left_out"]:
        place = f"{left.get('number', left['metric'])} {left['way']}".strip()
        terminal.print(f"left out: {place}: {left['why']}", highlight=False, markup=False, soft_wrap=True)
    if found["figures"]:
        terminal.print(
            "real: real images in the outputs' place; nothing: the inputs in their place; chance: unrelated outputs",
            highlight=False,
            soft_wrap=True,
        )


def _add_row(table: Table, figure: dict[str, Any], real: float | None, nothing: float | None) -> None:
    shown = [
        "" if value is None else f"{value:.4g}" for value in (figure["value"], real, nothing, figure.get("chance"))
    ]
    interval = " to ".join(f"{end:.4g}" for end in figure["interval"])
    counts = ", ".join(f"{count} {what}" for what, count in figure["counts"].items())
    table.add_row(figure["number"], figure["way"], shown[0], interval, *shown[1:], counts)


def _figures_table(checkpoint: str) -> Table:
    table = Table(title=checkpoint or None, title_justify="left", box=None, header_style="bold")
    for heading in ("number", "way", "value", "95% interval", "real", "nothing", "chance", "counts"):
        table.add_column(
            heading, justify="right" if heading in ("value", "real", "nothing", "chance") else "left", no_wrap=True
        )
    return table
