"""What can go wrong, by who can mend it. The command line prints the sentence and exits with `exit_code`."""

MOST = 300
"""How many characters of another's error are told."""


class GanlabError(Exception):
    """Base of every error that ganlab raises on purpose; its text is one sentence for a person."""

    exit_code = 1
    """With which the command line ends."""


class SpecError(GanlabError):
    """What was asked for can't be built: a wrong spec, missing data, an unfit folder. Nothing has been written."""

    exit_code = 2
    """As of a wrong command."""


class Unavailable(SpecError):
    """A number can't be measured here: weights, labels or images that it needs are missing; the sentence says which,
    and what to do."""


class RunError(GanlabError):
    """A run that had begun had to stop."""


class Interrupted(GanlabError):
    """A person (Ctrl-C) or a scheduler (SIGTERM) stopped the run; its state was saved.

    `exit_code` is 128 + the signal's number, as shells report it.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def said(error: BaseException) -> str:
    """Another's error's text as one line, cut; "" where it has none, or fails to say it."""
    try:
        text = " ".join(str(error).split())
    # anyone's error, which may itself fail in any way
    except Exception:
        return ""
    return text if len(text) <= MOST else f"{text[: MOST - 3]}..."


def text_of(error: BaseException) -> str:
    """What an error says, with its type's name where the text alone doesn't tell what is wrong."""
    text, name = said(error), type(error).__name__
    if not text:
        return name
    return f"{name}: {text}" if isinstance(error, LookupError | AssertionError) else text
