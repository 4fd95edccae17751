"""The commands. Each imports torch only when it runs, so that `ganlab --help` answers at once."""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ganlab.cli import data as image_data
from ganlab.cli import sharing, speed, starting, using
from ganlab.cli.options import AsJson, Data, OneOrTwo, Set, Swap, one_or_two, with_data
from ganlab.cli.process import (
    Commands,
    Debug,
    errors,
    finish_imports,
    leave_group,
    print_json,
    replace_interrupt_handler,
    say,
    to_stderr,
)
from ganlab.errors import Interrupted, SpecError, printable

if TYPE_CHECKING:
    from ganlab.inference.run import Run

app = typer.Typer(
    name="ganlab",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


SpecFile = Annotated[
    Path, typer.Argument(metavar="SPEC", help="A spec file, the name of a shipped experiment, or a run folder.")
]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ganlab {version('ganlab')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train and evaluate networks that translate images between two domains, without image pairs.

    An experiment is described by a spec, a JSON file. `ganlab run SPEC` trains it, measures it and keeps everything in
    one run folder. `ganlab COMMAND --help` describes a command.
    """
    Debug.on = debug
    # the check imports torch, which takes seconds
    if context.invoked_subcommand not in ("run", "eval") and "WORLD_SIZE" in os.environ:
        with errors():
            from ganlab import distributed

            with distributed.process_group(), distributed.together():
                if distributed.size() > 1 and distributed.rank() == 0:
                    raise SpecError(
                        f"start `ganlab {context.invoked_subcommand}` without torchrun: only `ganlab run` and `ganlab"
                        " eval` take several processes"
                    )


@app.command()
def run(
    spec: SpecFile,
    set_: Set = None,
    data: Data = None,
    swap: Swap = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run folder. Default: runs/ and the spec's name.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over: first remove the run in the folder.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a spec, measure the result and keep both in a run folder.

    Resumes an unfinished run from its last checkpoint. A folder that holds a run of another spec is refused, and the
    differences are listed. Ctrl-C saves the state and stops; the same command resumes the run.
    """
    with errors():
        from ganlab import distributed

        with distributed.process_group():
            finish_imports()
            with distributed.together():
                changes = with_data(set_, data, swap)
                if distributed.rank() == 0:
                    _show_layout(spec, changes)
            if distributed.rank() == 0:
                _run(spec, changes, out, fresh, as_json)
            else:
                from ganlab import experiment

                experiment.follow()


def _run(spec: Path, changes: Sequence[str], out: Path | None, fresh: bool, as_json: bool) -> None:
    from ganlab import distributed, experiment
    from ganlab.cli.tables import show_evaluation
    from ganlab.display.terminal import Console

    try:
        with Console() as callback:
            result = experiment.run(spec, changes, out, fresh, callback)
    except Interrupted as stopped:
        alone = distributed.size() == 1
        how = f"resume with: {_command(spec, changes, out)}" if alone else "the same command resumes the run"
        stopped.args = (f"{stopped}; {how}",)
        raise
    if as_json:
        last = result.records[-1] if result.records else {}
        found = {"folder": str(result.folder), "step": result.step, "finished": result.finished, "last": last}
        print_json({**found, "evaluation": result.evaluation})
    else:
        if result.evaluation is not None:
            show_evaluation(result.evaluation)
        _show_paths(result, callback.trained)


def _command(spec: Path, set_: Iterable[str], out: Path | None) -> str:
    words = ["ganlab", "run", str(spec), *(word for text in set_ for word in ("--set", text))]
    return shlex.join([*words, "--out", str(out)] if out else words)


def _show_layout(spec: str | Path, changes: Sequence[str]) -> None:
    """Says which folder of `data.root` is which domain."""
    from ganlab import experiment

    if (sentence := experiment.layout(spec, changes)) is not None:
        # stdout is for the results
        print(printable(sentence), file=sys.stderr)


def _show_paths(result: Run, trained: bool) -> None:
    from ganlab.runs.checkpoint import path_of
    from ganlab.runs.folder import PAGE, RunFolder

    folder = RunFolder(result.folder)
    say(f"{'trained' if trained else 'already trained'}: {result.step} steps, in {result.folder}")
    if result.stopped is not None:
        say(f"  stopped      {result.stopped}")
    say(f"  look at      {folder.path / PAGE if (folder.path / PAGE).exists() else folder.sample(result.step)}")
    if any(result.folder.glob("events.out.tfevents.*")):
        say(f"  curves       tensorboard --logdir {result.folder}")
    if result.evaluation is not None:
        say(f"  results      {result.folder / 'evaluation.json'}")
    say(f"  networks     {path_of(folder.checkpoints, result.step) / 'networks.safetensors'}")
    words = ["ganlab", "translate", str(result.folder), "PICTURES", "--to", result.spec.directions[0][1]]
    say(f"  use it       {shlex.join(words)}")
    if not trained:
        say("  start over   the same command with --fresh")


def _shorthand(metric: str, what: str) -> Any:
    return typer.Option(f"--{metric}", help=f"{what}. Same as --metric {metric}.")


@app.command("eval", cls=OneOrTwo)
def evaluate(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="A run folder. Default: the newest in runs/ with a checkpoint.")
    ] = None,
    fid: Annotated[bool, _shorthand("fid", "Fréchet distance of feature vectors")] = False,
    kid: Annotated[bool, _shorthand("kid", "Kernel distance of feature vectors")] = False,
    lpips: Annotated[bool, _shorthand("lpips", "Perceptual distance")] = False,
    prdc: Annotated[bool, _shorthand("prdc", "Precision, recall, density and coverage")] = False,
    content: Annotated[bool, _shorthand("content", "Content that the translations keep")] = False,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A metric; `ganlab plugins metric` lists them. May be given several times."),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The feature network for metrics that compare feature vectors. Default: the spec's, otherwise the"
            " first that needs no download.",
        ),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="[A] B",
            help="Measure against the real images in folder B: the run's translations of --inputs or, instead of a run,"
            " the images in folder A.",
        ),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="With --images: the pictures that the run translates, or the images from which those in A were made;"
            " then only suffixes of names may differ.",
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="DOMAIN",
            help="With a run and --images: the domain to translate into. Default: that of its first direction.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change what trains nothing in the run's spec, for example --set data.a.path=photos for images that"
            " have moved. May be given several times.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a run on its held-out images or on other pictures, or a folder of images.

    Prints every result with its 95% interval and its references. The results of a run are added to its
    evaluation.json. Without options, the metrics of the run's spec are measured.
    """
    with errors():
        from ganlab import distributed, experiment
        from ganlab.cli.tables import show_evaluation
        from ganlab.display.terminal import Console

        short = {"kid": kid, "fid": fid, "prdc": prdc, "lpips": lpips, "content": content}
        metrics = dict.fromkeys([*(name for name, asked in short.items() if asked), *(metric or [])])
        with distributed.process_group():
            finish_imports()
            with distributed.together():
                folders = one_or_two(images or [])
                if distributed.rank() == 0 and run is None and images is None and inputs is None:
                    run = experiment.newest_run().path
                    # stdout is for the results
                    print(printable(f"measures {run}, the newest run with a checkpoint"), file=sys.stderr)
            if distributed.rank():
                experiment.follow_evaluation()
                return
            asked = run, list(metrics), features, folders, inputs, set_ or (), to
            with Console() as callback:
                found = experiment.evaluate_together(lambda: experiment.asked_evaluation(*asked), callback)
            print_json(found) if as_json else show_evaluation(found)


app.command()(using.translate)
app.command()(using.demo)
app.command()(sharing.export)
app.command("import")(sharing.import_)
app.command()(using.report)
app.command()(using.runs)
app.command()(speed.bench)
app.command()(starting.experiments)
app.command()(starting.init)
app.add_typer(image_data.app)


@app.command()
def compare(
    specs: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEC", help="Specs, run folders with --from, or a spec and the ranges of its values with --search."
        ),
    ],
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N,N",
            help="The random seeds; every spec is trained with each. Default: 0,1,2; with --search, 0 alone.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The steps of every trial. Default: the specs', if equal.")
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Instead of --steps: the images of each domain that every trial sees."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Trials to run at a time. Above 1, each has one thread and no timings are kept. Default: 1; on Ray,"
            " as many as have room.",
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="Run the trials as tasks of a Ray cluster: ray for one on this machine, or ray://HOST:PORT.",
        ),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V,V",
            help="Make variants of every spec, for example --vary losses.cycle.weight=1,10. Several make a grid.",
        ),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            metavar="trials=N",
            help="Search for the best values of one spec in N trials; after the spec, name the keys and ranges to"
            " search, for example 'losses.cycle.weight=log(0.1,10)'. Also: uniform(0,1), int(1,8), choice(l1,l2).",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="The spec, system or run to compare the others with. Default: the first."),
    ] = None,
    set_: Set = None,
    data: Data = None,
    swap: Swap = False,
    number: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Compare only this number, for example kid-lite0: fewer tests find smaller differences. May be given"
            " several times. With --search: the number to optimise, by default the spec's evaluation.monitor, otherwise"
            " the first number that training measures.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder of the comparison. Default: runs/compare- and the systems."),
    ] = None,
    from_: Annotated[bool, typer.Option("--from", help="Compare existing runs instead of training specs.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print one command per trial, and train nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train specs with several seeds, and compare them with statistics.

    Every trial is a run in a process of its own. The same command continues an interrupted comparison. Prints the mean
    of every number over the seeds with its 95% interval, and the paired differences to the baseline with p values that
    are corrected for the number of tests. With --search, trains one spec with values that Optuna proposes, judges them
    on the validation images, and prints the results of the best on the test images.
    """
    with errors():
        from ganlab.cli import comparison as shown
        from ganlab.comparison import compare as comparison
        from ganlab.comparison import trials
        from ganlab.comparison.ranges import is_range

        finish_imports()
        shown.refuse_ranges(specs, search)
        changes = with_data(set_, data, swap)
        if data is not None:
            _show_layout(next((spec for spec in specs if not is_range(spec)), specs[0]), changes)
        asked = trials.Comparison(
            specs,
            shown.seeds_of(seeds if seeds is not None else "0,1,2" if search is None else "0"),
            *(steps, images, jobs, vary or (), baseline, changes, out, on, number or ()),
        )
        if search is not None:
            if images or vary or baseline or from_ or dry_run:
                raise SpecError("--search: does not go with --images, --vary, --baseline, --from or --dry-run")
            shown.show_search(shown.run_search(search, asked), as_json)
            return
        if from_:
            if seeds or steps or images or jobs or on or vary or set_ or data or swap or dry_run:
                raise SpecError(
                    "compare --from: trains nothing, so only --baseline, --number, --out and --json go with it"
                )
            found = comparison.compare_runs(specs, baseline, out, number or ())
        elif dry_run:
            shown.show_plan(trials.plan(asked), as_json)
            return
        else:
            try:
                with shown.TrialConsole(jobs, on) as callback:
                    found = comparison.compare(asked, callback)
            except Interrupted as stopped:
                stopped.args = (f"{stopped}; the same command continues",)
                raise
        print_json(found) if as_json else shown.show_comparison(found)
        shown.refuse_failures(found)


@app.command()
def diff(
    one: Annotated[Path, typer.Argument(metavar="RUN_A", help="A run folder.")],
    other: Annotated[Path, typer.Argument(metavar="RUN_B", help="Another run folder.")],
    as_json: AsJson = False,
) -> None:
    """Show what differs between two runs.

    Lists the differences of their specs, data, environments, code and evaluations, and the results of both.
    """
    with errors():
        from ganlab.cli.comparison import show_diff
        from ganlab.comparison.diff import diff as differences

        finish_imports()
        found = differences(one, other)
        print_json(found) if as_json else show_diff(found)


@app.command()
def check(spec: SpecFile, set_: Set = None, data: Data = None, swap: Swap = False, as_json: AsJson = False) -> None:
    """Show what a spec builds, without training it.

    Prints the networks, the loss terms, the turns of a step, the metrics and the memory needed. Builds the networks and
    computes every loss once on two images, so it finds what does not fit together. Writes nothing.
    """
    with errors():
        from ganlab import experiment
        from ganlab.cli.tables import show_check
        from ganlab.display.terminal import Console

        finish_imports()
        changes = with_data(set_, data, swap)
        _show_layout(spec, changes)
        with Console() as callback:
            found = experiment.check(spec, changes, callback)
        print_json(found) if as_json else show_check(found)


@app.command()
def plugins(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help="List components of this kind only, for example loss.")
    ] = None,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Describe this component of the kind and its options.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the installed components, or describe one.

    Also lists the plugins and components that can't be used, with the reason.
    """
    with errors():
        from ganlab.cli.tables import show_component, show_plugins
        from ganlab.components.options import KINDS, nearest
        from ganlab.components.registry import registry

        if kind is not None and kind not in KINDS:
            raise SpecError(f"plugins: there is no kind {kind!r}{nearest(kind, KINDS)}")
        components = [component for component in registry().components if kind in (None, component.kind)]
        if kind and name:
            components = [registry().find(kind, name, "plugins")]
        found = {
            "components": [component.as_dict() for component in components],
            "broken": [broken._asdict() for broken in registry().broken],
        }
        if as_json:
            print_json(found)
        elif name:
            show_component(components[0])
        else:
            show_plugins(found)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a spec.

    It covers the options of every installed component. Editors use it to complete, check and explain specs.
    """
    with errors():
        from ganlab.components.registry import registry
        from ganlab.spec.schema import json_schema

        print_json(json_schema(registry().components))


@app.command()
def new(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help="loss, generator, discriminator, schedule, metric, source or callback."),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The component's name in a spec, and the folder's.")],
    as_json: AsJson = False,
) -> None:
    """Create a plugin with a working component and its test.

    Writes the folder NAME, a package to install with pip and to edit.
    """
    with errors():
        from ganlab.components import scaffold

        files = [str(path) for path in scaffold.new(kind, name)]
        if as_json:
            print_json({"folder": name, "files": files})
        else:
            say(f"written: {', '.join(files)}")
            # pip must download hatchling if it is not installed
            flag = "--no-build-isolation " if find_spec("hatchling") else ""
            say(f"  install it   pip install {flag}-e {name}")
            say(f"  test it      pytest {name}")


def main(words: Iterable[str] | None = None) -> None:
    """Runs the command line with the arguments `words`, by default the process's."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # for names that the terminal's encoding doesn't have
            stream.reconfigure(errors="backslashreplace")
    # SIGINT ends the process at once: during its import torch swallows a KeyboardInterrupt, or aborts
    replace_interrupt_handler(signal.default_int_handler, signal.SIG_DFL)
    try:
        app(args=list(words) if words is not None else None)
    except SystemExit as ended:
        if words is None:
            leave_group(ended.code)
        raise
    finally:
        replace_interrupt_handler(signal.SIG_DFL, signal.default_int_handler)
        if words is None:
            # what plugins print when the process ends
            to_stderr()
