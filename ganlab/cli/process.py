"""Ends a command: exit codes, one-sentence errors, and Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

from ganlab.errors import GanlabError


class Debug:
    """Holds the option --debug for the error handler."""

    on = False


@contextmanager
def errors() -> Iterator[None]:
    """Ends the process with one sentence on stderr and an exit code instead of a traceback."""
    try:
        yield
    except GanlabError as error:
        _end(error, str(error), error.exit_code)
    except KeyboardInterrupt as error:
        _end(error, "interrupted", 130)
    except BrokenPipeError as error:
        # the reader of the output has gone; Python would raise again when it closes stdout
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
    if Debug.on:
        traceback.print_exception(error)
    typer.echo(f"ganlab: {' '.join(sentence.splitlines())}", err=True)
    raise typer.Exit(code) from error


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
