"""The JSON files of a run as types: a value of a wrong type is one sentence, wherever it stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

# pydantic reads no TypedDict of Python 3.11's typing
from typing_extensions import TypedDict

from ganlab import files
from ganlab.engine.step_log import Record
from ganlab.errors import one_line
from ganlab.spec.models import Json

T = TypeVar("T")

_OPEN = ConfigDict(extra="allow")


class Fingerprint(TypedDict):
    """The content of the images of one domain."""

    images: int
    sha256: str


class Origin(TypedDict):
    """Everything outside a checkpoint that decides what its networks became."""

    spec: Json
    """The part of the run's spec that affects training, `Spec.trains`."""
    data: dict[str, Fingerprint]
    """{domain: its images}."""
    weights: dict[str, str]
    """{weight file of a feature network: SHA-256}."""


class FileContent(TypedDict):
    """The content of one file."""

    size: int
    sha256: str


class Manifest(Origin):
    """manifest.json of a checkpoint."""

    step: int
    files: dict[str, FileContent]


class Code(TypedDict):
    """A module in environment.json's "code"."""

    package: str | None
    version: str | None
    sha256: str | None
    used_by: list[str]


class Continued(TypedDict):
    """An entry of environment.json's "continued"."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    step: int
    code: NotRequired[dict[str, Code]]


class Environment(TypedDict):
    """environment.json."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    run_id: NotRequired[str]
    code: NotRequired[dict[str, Code]]
    continued: NotRequired[list[Continued]]


class _Estimate(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    value: float
    interval: Annotated[list[float], Field(min_length=2, max_length=2)]
    counts: dict[str, int]


class _Result(_Estimate):
    number: str
    direction: str
    step: int
    checkpoint: str
    metric: str
    better: str | None
    notes: list[str]
    references: dict[str, _Estimate]
    chance: NotRequired[float]


class _LeftOut(TypedDict):
    metric: str
    number: NotRequired[str]
    direction: str
    why: str


class _Measured(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    sha256: str


class _Protocol(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    checkpoints: dict[str, _Measured]
    images: NotRequired[dict[str, dict[str, Any]]]
    metrics: NotRequired[dict[str, dict[str, Any]]]
    code: NotRequired[dict[str, dict[str, str | None]]]
    features: NotRequired[dict[str, dict[str, Any]]]
    weights: NotRequired[dict[str, Any]]
    packages: NotRequired[dict[str, Any]]


class Evaluated(TypedDict):
    """evaluation.json."""

    protocol: _Protocol
    results: list[_Result]
    left_out: list[_LeftOut]


class _Costs(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    parameters: int


class Speed(TypedDict):
    """speed.json."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    directions: dict[str, _Costs]
    peak_memory_bytes: NotRequired[int | None]


class Failure(TypedDict):
    """failed.json."""

    why: str


class Stopped(TypedDict):
    """stopped.json."""

    step: int
    why: str


OBJECT = TypeAdapter(dict[str, Any])
ENVIRONMENT = TypeAdapter(Environment)
EVALUATED = TypeAdapter(Evaluated)
FAILURE = TypeAdapter(Failure)
SPEED = TypeAdapter(Speed)
STOPPED = TypeAdapter(Stopped)
MANIFEST = TypeAdapter(Manifest)

_RECORD: TypeAdapter[Record] = TypeAdapter(
    dict[str, Annotated[int, Field(ge=-(2**63), lt=2**63)] | float], config=ConfigDict(strict=True)
)


def read(path: Path, kind: TypeAdapter[T]) -> T:
    """Reads a JSON file. Raises FileNotFoundError, or ValueError with the reason if it can't be read."""
    try:
        with files.opened(path) as file:
            found: T = json.load(file)
        # in its own order, which is kept when the file is written again
        kind.validate_python(found, strict=True)
        return found
    except FileNotFoundError:
        raise
    except ValidationError as error:
        raise ValueError(described(error)) from error
    except OSError as error:
        raise ValueError(error.strerror or one_line(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def records(values: Any) -> list[Record]:
    """Returns a list of records after checking it. Raises ValueError."""
    if not isinstance(values, list):
        raise ValueError("it is no list of records")
    return [_complete(_RECORD.validate_python(value)) for value in values]


def described(error: ValidationError) -> str:
    """Returns where the first wrong value stands, and what is wrong with it."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{f'{place}: ' if place else ''}{first['msg']}"


def record(line: bytes) -> Record:
    """Returns the record of a line of metrics.jsonl. Raises ValueError."""
    return _complete(_RECORD.validate_json(line))


def _complete(found: Record) -> Record:
    if not (isinstance(step := found.get("step"), int) and step >= 0):
        raise ValueError("a record has a step")
    # a term's name is loss/PLAYER/DIRECTION/LABEL
    if any(name.startswith("loss/") and name.count("/") < 3 for name in found):
        raise ValueError("a term has a player, a direction and a label")
    return found
