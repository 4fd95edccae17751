"""The errors that ganlab raises on purpose, and the words of messages.

The command line prints the message of an error and exits with its `exit_code`.
"""

import re

MOST = 300
"""The most characters of another error's text that a message repeats."""


LONGEST = 10_000
"""The most characters of a message."""


class GanlabError(Exception):
    """Base class of every error that ganlab raises on purpose. Its message is one sentence for a person."""

    exit_code = 1
    """The exit code of the command line."""

    def __init__(self, message: str = "") -> None:
        # it may repeat names of files and words of a command line, which hold any character
        super().__init__(shortened(printable(message), LONGEST))


class SpecError(GanlabError):
    """The request can't be met: a wrong spec, missing data, a folder in use. No step has been trained."""

    exit_code = 2
    """The exit code of a wrong command."""


class Unavailable(SpecError):
    """A number can't be measured here because weights, labels or images are missing.

    The message names them and says what to do.
    """


class RunError(GanlabError):
    """A run failed after it had begun."""


class OutOfMemory(RunError):
    """A training step needs more memory than there is. The message names a division of the batch that would fit."""


class Lost(RunError):
    """Another process of a run with several processes has ended."""


class Elsewhere(GanlabError):
    """Another process of the run failed, and says so. The command line prints nothing of this error.

    `exit_code` is that of the other process.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Interrupted(GanlabError):
    """Ctrl-C or SIGTERM stopped the run, and its state was saved.

    `exit_code` is 128 + the signal's number, as shells report it.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def one_line(error: BaseException) -> str:
    """Returns the error's text as one line of at most `MOST` characters, "" if it has none or raises when asked."""
    try:
        text = _without_numbers(" ".join(str(error).split()), error.args)
    # a plugin's error may fail in any way
    except Exception:
        return ""
    return shortened(text, MOST)


def _without_numbers(text: str, values: tuple[object, ...]) -> str:
    """Returns a text in which no tensor is printed whole, instead the shape and type of those in `values`."""
    for value in values:
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            kind = f"tensor of shape {tuple(value.shape)} and type {value.dtype}"
            text = text.replace(" ".join(repr(value).split()), kind)
    return re.sub(r"tensor\(\[[^()]*(?:\([^()]*\)[^()]*)*\)", "tensor(...)", text)


def shortened(text: str, most: int) -> str:
    """Returns the text, or its beginning and "..." if it has more than `most` characters."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def printable(text: str) -> str:
    r"""Returns the text with escapes such as \n and \x1b for line ends, control codes, surrogates and the like.

    Names of files and of third parties' components may hold them. A terminal would obey them.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def text_of(error: BaseException) -> str:
    """Returns the error's text, with the name of its type if the text alone doesn't say what is wrong."""
    text, name = one_line(error), type(error).__name__
    if "before Module.__init__() call" in text and (cls := _setting(error)) is not None:
        # torch's text names no class
        return f"{cls.__name__}.__init__ must call super().__init__() before it sets layers, parameters or buffers"
    if not text:
        return name
    return f"{name}: {text}" if isinstance(error, LookupError | AssertionError) else text


def _setting(error: BaseException) -> type | None:
    """Returns the class of the object that the innermost function of the error's traceback was called with."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    owner = None if trace is None else trace.tb_frame.f_locals.get("self")
    return None if owner is None else type(owner)


def plural(count: int, what: str) -> str:
    """Returns a number of things: "1 file", "2 files"."""
    return f"{count} {what}{'' if count == 1 else 's'}"
