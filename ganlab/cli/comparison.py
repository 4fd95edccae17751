"""Shows the progress of `ganlab compare` on stderr, and prints its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from rich.console import Console as Terminal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from ganlab.cli.process import print_json, say
from ganlab.comparison import search_tables, tables
from ganlab.comparison.ranges import is_range
from ganlab.comparison.running import TrialCallback
from ganlab.comparison.search import Search, search
from ganlab.comparison.trials import Comparison, Plan, Trial
from ganlab.errors import Interrupted, RunError, SpecError, plural, printable


class TrialConsole(TrialCallback):
    """Prints a line for each trial that starts or ends. A terminal also shows what the running trials say."""

    def __init__(self, jobs: int | None, on: str | None) -> None:
        self._terminal = Terminal(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            console=self._terminal,
            disable=not self._terminal.is_terminal,
        )
        self._jobs, self._on = jobs, on
        self._lines: dict[Trial, TaskID] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def begin(self, done: int, trials: int) -> None:
        how = f", at most {self._jobs} at a time" if self._jobs is not None and self._jobs > 1 else ""
        if self._on is not None:
            how += f", on {self._on}"
        elif how:
            how += " with one thread each"
        self._print(f"{plural(trials, 'trial')}, {done} of them finished already{how}")
        self._done = self._bar.add_task("trials", total=trials, completed=done)

    def started(self, trial: Trial) -> None:
        self._print(f"{trial}: starts, in {trial.folder}")
        # a task without a total would have a moving bar
        self._lines[trial] = self._bar.add_task(str(trial), total=1)

    def running(self, said: Mapping[Trial, str]) -> None:
        for trial, line in said.items():
            self._bar.update(self._lines[trial], description=printable(f"{trial}: {line}"))

    def ended(self, trial: Trial, outcome: str, seconds: float) -> None:
        self._print(f"{trial}, after {seconds:.0f} s: {outcome}")
        self._bar.remove_task(self._lines.pop(trial))
        self._bar.advance(self._done)

    def _print(self, sentence: str) -> None:
        self._terminal.print(printable(sentence), highlight=False, markup=False, soft_wrap=True)


def seeds_of(text: str) -> list[int]:
    """Returns the seeds of --seeds. Raises SpecError."""
    try:
        seeds = [int(seed) for seed in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0:
        raise SpecError(f"--seeds: {text!r} is not allowed: it should be whole numbers from 0 up, such as 0,1,2")
    return seeds


def refuse_ranges(specs: Sequence[str], search: str | None) -> None:
    """Raises SpecError if a range of a search stands among the specs of a comparison."""
    if search is None and (ranges := [word for word in specs if is_range(word)]):
        raise SpecError(f"compare: {ranges[0]} is a range to search; say how many trials with --search trials=N")


def run_search(text: str, asked: Comparison) -> dict[str, Any]:
    """Runs the search of --search, with the other options of the command. Raises SpecError."""
    name, _, count = text.partition("=")
    if name != "trials" or not count.isdecimal() or not int(count):
        raise SpecError(f"--search: {text!r} is not allowed: it should be trials=N, with N of at least 1")
    specs = [word for word in asked.specs if not is_range(str(word))]
    if len(specs) != 1:
        raise SpecError(f"--search: takes one spec, got {len(specs)}")
    if len(asked.seeds) != 1:
        raise SpecError(
            f"--search: takes one seed, got {len(asked.seeds)}: the best trial is compared with other seeds"
        )
    if len(asked.numbers) > 1:
        raise SpecError(f"--search: optimises one --number, got {len(asked.numbers)}")
    wanted = Search(
        specs[0],
        [str(word) for word in asked.specs if word not in specs],
        int(count),
        next(iter(asked.numbers), None),
        asked.seeds[0],
        *(asked.steps, asked.jobs, asked.set, asked.out, asked.on),
    )
    try:
        with TrialConsole(asked.jobs, asked.on) as callback:
            return search(wanted, callback)
    except Interrupted as stopped:
        stopped.args = (f"{stopped}; the same command continues",)
        raise


def show_search(found: dict[str, Any], as_json: bool) -> None:
    """Prints the tables of a search, and where they are kept. Raises RunError if no trial finished."""
    if as_json:
        print_json(found)
    else:
        for line in search_tables.text(found).splitlines():
            say(line)
        say("")
        for what, name in (("numbers", "search.json"), ("table", "search.md"), ("best spec", "best.json")):
            say(f"  {what.ljust(12)} {found['folder']}/{name}")
    if found["best"] is None:
        raise RunError(f"none of {len(found['trials'])} trials finished")


def show_plan(planned: Plan, as_json: bool) -> None:
    """Prints the command of each trial, or the trials as JSON."""
    if as_json:
        print_json([{**trial._asdict(), "command": trial.command} for trial in planned.trials])
    else:
        for trial in planned.trials:
            say(trial.command)


def show_comparison(found: dict[str, Any]) -> None:
    """Prints the tables of a comparison, and where they are kept."""
    for line in tables.text(found).splitlines():
        say(line)
    say("")
    files = {
        "page": "report.html",
        "numbers": "comparison.json",
        "table": "comparison.md",
        "spreadsheet": "comparison.csv",
    }
    for what, name in files.items():
        say(f"  {what.ljust(12)} {found['folder']}/{name}")


def show_diff(found: dict[str, Any]) -> None:
    """Prints the differences of two runs."""
    for line in tables.differences(found).splitlines():
        say(line)


def refuse_failures(found: dict[str, Any]) -> None:
    """Raises RunError if a trial failed."""
    failed = [trial for trial in found["trials"] if trial["state"] == "failed"]
    if failed:
        logs = sorted({trial["log"].rpartition("/")[0] for trial in failed})
        raise RunError(
            f"{len(failed)} of {len(found['trials'])} trials failed; {', '.join(logs)} has what they printed, and the"
            " same command tries them again"
        )
