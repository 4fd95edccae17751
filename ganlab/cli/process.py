"""Prints what a command finds and ends it: results apart from other output, exit codes, one-sentence errors, Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, NoReturn, TextIO

import typer
from typer.core import TyperGroup

from ganlab.errors import Elsewhere, GanlabError, one_line, printable


class Debug:
    """Holds the option --debug for the error handler."""

    on = False


class Output:
    """Holds the stream for the results of the command."""

    stream: TextIO = sys.stdout


def say(text: str) -> None:
    """Prints a line of a result."""
    print(printable(text), file=Output.stream, flush=True)


def print_json(value: Any) -> None:
    """Prints a result as JSON, with escapes for what a terminal would obey or its encoding doesn't have."""
    everything = (Output.stream.encoding or "utf-8").lower() == "utf-8"
    text = json.dumps(value, indent=2, ensure_ascii=not everything)
    kept = (c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text)
    print("".join(kept), file=Output.stream, flush=True)


@contextmanager
def errors() -> Iterator[None]:
    """Ends the process with one sentence on stderr and an exit code instead of a traceback.

    Within it only results reach stdout, through `Output.stream`. What plugins, C code or child processes print goes to
    stderr.
    """
    try:
        with _results_apart():
            yield
    except Elsewhere as error:
        raise typer.Exit(error.exit_code) from error
    except GanlabError as error:
        _end(error, str(error), error.exit_code)
    except KeyboardInterrupt as error:
        _end(error, "interrupted", 130)
    except BrokenPipeError as error:
        # the reader of the output has gone; Python would raise again when it closes stdout
        sys.stdout = None
        raise typer.Exit(1) from error
    except OSError as error:
        _end(error, one_line(error), 1)
    except (typer.Exit, typer.Abort):
        raise
    # a component may raise what is no Exception: sys.exit, pytest.skip, panics of Rust code
    except BaseException as error:
        what = f"{type(error).__name__}: {one_line(error)}"
        _end(error, f"{what} (unexpected; `ganlab --debug COMMAND` shows where)", 1)


def _end(error: BaseException, sentence: str, code: int) -> NoReturn:
    if Debug.on:
        with suppress(OSError, ValueError):
            traceback.print_exception(error)
    print_error(sentence)
    raise typer.Exit(code) from error


def print_error(sentence: str) -> None:
    """Prints a sentence on stderr, which may be full or closed."""
    with suppress(OSError, ValueError):
        typer.echo(f"ganlab: {printable(sentence)}", err=True)


@contextmanager
def _results_apart() -> Iterator[None]:
    stdout, results = sys.stdout, -1
    # closed by the caller's shell
    Output.stream = stdout or io.StringIO()
    if _is_file_1(stdout):
        results = os.dup(1)
        # closed below
        Output.stream = open(results, "w", encoding=stdout.encoding, errors="backslashreplace")  # noqa: SIM115
        to_stderr()
    try:
        with redirect_stdout(sys.stderr):
            yield
        Output.stream.flush()
    finally:
        if results >= 0:
            # what a plugin wrote to sys.__stdout__
            with suppress(OSError, ValueError):
                stdout.flush()
            os.dup2(results, 1)
            with suppress(OSError):
                Output.stream.close()


def leave_group(code: object) -> None:
    """Ends the process at once if it still belongs to a group of processes, as after an error: torch would abort it."""
    distributed = sys.modules.get("ganlab.distributed")
    if distributed is not None and distributed.size() > 1:
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):
                stream.flush()
        os._exit(code if isinstance(code, int) else 1)


def to_stderr() -> None:
    """Sends what is printed to stdout from now on to stderr, whoever prints it."""
    if _is_file_1(sys.stdout):
        sys.stdout.flush()
        try:
            os.dup2(2, 1)
        except OSError:
            # stderr is closed
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _is_file_1(stream: TextIO | None) -> bool:
    with suppress(AttributeError, OSError, ValueError):
        return stream is not None and stream.fileno() == 1
    return False


class Commands(TyperGroup):
    """The commands, with usage errors that hold no control codes, and an error for help that can't be printed."""

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            return super().main(*args, **options)
        except OSError as error:
            print_error(f"the output can't be written: {error.strerror or error}")
            # Python would raise again when it closes stdout
            sys.stdout = None
            sys.exit(1)

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _printable():
            return super().make_context(*args, **options)

    def invoke(self, *args: Any) -> Any:
        with _printable():
            return super().invoke(*args)


@contextmanager
def _printable() -> Iterator[None]:
    try:
        yield
    # typer has a copy of click of its own, so these errors have no class to name
    except Exception as error:
        if isinstance(message := getattr(error, "message", None), str) and type(error).__name__ != "NoArgsIsHelpError":
            error.message = printable(message)  # type: ignore[attr-defined]
        raise


def finish_imports() -> None:
    """Imports the plugins, then lets Ctrl-C raise KeyboardInterrupt again, so that a run can save its state."""
    from ganlab.components.registry import registry

    registry()
    replace_interrupt_handler(signal.SIG_DFL, signal.default_int_handler)


def replace_interrupt_handler(
    present: Callable[..., Any] | signal.Handlers, new: Callable[..., Any] | signal.Handlers
) -> None:
    """Replaces SIGINT's handler if it is `present`. Another handler stays, such as that of a shell's background job."""
    # Python lets only the main thread set handlers
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is present:
        signal.signal(signal.SIGINT, new)
