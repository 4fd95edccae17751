"""The command line. Torch is imported only inside the commands that need it: `--help` answers at once."""

from __future__ import annotations

import json
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ganlab.errors import GanlabError, Interrupted, SpecError

if TYPE_CHECKING:
    from ganlab.laboratory import Run

app = typer.Typer(
    name="ganlab",
    help="A laboratory for adversarial image-to-image translation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Patch the spec: --set losses.cycle.weight=10")
]
SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="A JSON file, experiments/emb.json say.")]


class _Debug:
    """Whether errors show their traceback."""

    on = False


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ganlab {version('ganlab')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A laboratory for adversarial image-to-image translation."""
    _Debug.on = debug


@app.command()
def run(
    spec: SpecFile,
    set_: Set = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The run's folder; by default runs/NAME.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew, removing the run that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a spec and measure it; an unfinished run goes on where it was."""
    with _errors():
        from ganlab import laboratory
        from ganlab.console import Console, show_evaluation

        _imports_done()
        try:
            with Console() as watcher:
                result = laboratory.run(spec, set_ or (), out, fresh, watcher)
        except Interrupted as stopped:
            stopped.args = (f"{stopped}; go on with: {_going_on(spec, set_ or (), out)}",)
            raise
        if as_json:
            last = result.records[-1] if result.records else {}
            found = {"folder": str(result.folder), "step": result.step, "finished": result.finished, "last": last}
            _print_json({**found, "evaluation": result.evaluation})
        else:
            if result.evaluation is not None:
                show_evaluation(result.evaluation)
            _say_where_to_look(result, watcher.trained)


def _going_on(spec: Path, set_: Iterable[str], out: Path | None) -> str:
    words = ["ganlab", "run", str(spec), *(word for text in set_ for word in ("--set", text))]
    return shlex.join([*words, "--out", str(out)] if out else words)


def _say_where_to_look(result: Run, trained: bool) -> None:
    sample = result.folder / "samples" / f"step-{result.step:06d}.png"
    checkpoint = result.folder / "checkpoints" / f"step-{result.step:06d}"
    typer.echo(f"{'trained' if trained else 'already trained'}: {result.step} steps, in {result.folder}")
    typer.echo(f"  look at      {sample}")
    typer.echo(f"  curves       tensorboard --logdir {result.folder}")
    if result.evaluation is not None:
        typer.echo(f"  figures      {result.folder / 'evaluation.json'}")
    typer.echo(f"  networks     {checkpoint / 'networks.safetensors'}")
    if not trained:
        typer.echo("  train anew   the same command with --fresh")


def _shorthand(metric: str, what: str) -> Any:
    return typer.Option(f"--{metric}", help=f"{what} (short for --metric {metric}).")


@app.command("eval")
def evaluate(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="A run's folder; by default the newest.")] = None,
    fid: Annotated[bool, _shorthand("fid", "Fréchet distance of feature vectors")] = False,
    kid: Annotated[bool, _shorthand("kid", "Kernel distance of feature vectors")] = False,
    lpips: Annotated[bool, _shorthand("lpips", "Perceptual distance")] = False,
    prdc: Annotated[bool, _shorthand("prdc", "Precision, recall, density, coverage")] = False,
    content: Annotated[bool, _shorthand("content", "What the translation kept")] = False,
    metric: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Any other metric; may be given several times.")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The feature network; by default the spec's, or the first whose weights ship."
        ),
    ] = None,
    images: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Measure the images of folder A against the real ones of folder B."),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With --images: the folder of what A's images were made from."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a run on held-out images, or two folders of images: figures with intervals and references."""
    with _errors():
        from ganlab import laboratory
        from ganlab.console import Console, show_evaluation

        _imports_done()
        short = {"kid": kid, "fid": fid, "prdc": prdc, "lpips": lpips, "content": content}
        metrics = dict.fromkeys([*(name for name, asked in short.items() if asked), *(metric or [])])
        with Console() as watcher:
            found = laboratory.evaluate(run, list(metrics), features, images, inputs, watcher)
        _print_json(found) if as_json else show_evaluation(found)


@app.command()
def check(spec: SpecFile, set_: Set = None, as_json: AsJson = False) -> None:
    """Show what a spec would build: networks, terms and who minimises them, memory."""
    with _errors():
        from ganlab import laboratory
        from ganlab.console import Console, show_check

        _imports_done()
        with Console() as watcher:
            found = laboratory.check(spec, set_ or (), watcher)
        _print_json(found) if as_json else show_check(found)


@app.command()
def plugins(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help="Only this kind's: loss, say.")] = None,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only this component: all that it says.")] = None,
    as_json: AsJson = False,
) -> None:
    """List every component that is installed, and every plugin that is broken; describe one with its options."""
    with _errors():
        from ganlab.console import show_component, show_plugins
        from ganlab.options import KINDS, nearest
        from ganlab.registry import registry

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
            _print_json(found)
        elif name:
            show_component(components[0])
        else:
            show_plugins(found)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a spec, with all that is installed: editors complete and explain by it."""
    with _errors():
        from ganlab.registry import registry
        from ganlab.schema import json_schema

        _print_json(json_schema(registry()))


@app.command()
def new(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="loss, generator, discriminator, schedule, metric or source.")
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="What a spec will say under `type`.")],
    as_json: AsJson = False,
) -> None:
    """Begin a plugin: write the folder NAME, a package with a component that works and its test."""
    with _errors():
        from ganlab import scaffold

        files = [str(path) for path in scaffold.new(kind, name)]
        if as_json:
            _print_json({"folder": name, "files": files})
        else:
            typer.echo(f"written: {', '.join(files)}")
            # without hatchling at hand, pip has to download it
            flag = "--no-build-isolation " if find_spec("hatchling") else ""
            typer.echo(f"  install it   pip install {flag}-e {name}")
            typer.echo(f"  test it      pytest {name}")


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


@contextmanager
def _errors() -> Iterator[None]:
    """One sentence on stderr and an exit code, instead of a traceback."""
    try:
        yield
    except GanlabError as error:
        _end(error, str(error), error.exit_code)
    except KeyboardInterrupt as error:
        _end(error, "interrupted", 130)
    except BrokenPipeError as error:
        # whoever read the output has gone; Python would complain once more when it closes stdout
        sys.stdout = None
        raise typer.Exit(1) from error
    except OSError as error:
        _end(error, str(error), 1)
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        _end(error, f"{what} (unexpected; `ganlab --debug COMMAND` shows where)", 1)


def _end(error: BaseException, sentence: str, code: int) -> NoReturn:
    if _Debug.on:
        traceback.print_exception(error)
    typer.echo(f"ganlab: {' '.join(sentence.splitlines())}", err=True)
    raise typer.Exit(code) from error


def _imports_done() -> None:
    """Import the plugins too; from here on Ctrl-C is a KeyboardInterrupt, which a run can answer by saving."""
    from ganlab.registry import registry

    registry()
    _on_interrupt(signal.SIG_DFL, signal.default_int_handler)


def _on_interrupt(before: Callable[..., Any] | signal.Handlers, then: Callable[..., Any] | signal.Handlers) -> None:
    # one that is ignored, as a shell's background jobs have it, or another's own, stays; a thread can have none
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is before:
        signal.signal(signal.SIGINT, then)


def main(words: Iterable[str] | None = None) -> None:
    """The entry point."""
    # ends the process at once: torch's import loses a KeyboardInterrupt, or aborts with it
    _on_interrupt(signal.default_int_handler, signal.SIG_DFL)
    try:
        app(args=list(words) if words is not None else None)
    finally:
        _on_interrupt(signal.SIG_DFL, signal.default_int_handler)
