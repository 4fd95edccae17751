"""Reads specs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ganlab.experiment.asking import asked_json
from ganlab.spec.devices import moved_here
from ganlab.spec.files import explaining
from ganlab.spec.layouts import described
from ganlab.spec.models import Json, Spec
from ganlab.spec.resolve import resolve


def load_spec(
    spec: str | Path | Mapping[str, Any] | Spec,
    set: Iterable[str] = (),
    like: Spec | None = None,
    elsewhere: bool = False,
) -> Spec:
    """Returns a spec, resolved: every default and every "auto" is filled in, every name is found.

    Args:
        spec: The path of a spec file, the name of a shipped experiment or a run folder; or a spec.
        set: Changes to it, each "path.to.key=value".
        like: The resolved spec of an earlier run. Its values replace each "auto" of `runtime`, except the device's.
        elsewhere: Another machine trains it: a device that this machine does not have becomes "auto".

    Raises SpecError with one sentence that names the value, what is allowed and where it stands.
    """
    set = tuple(set)
    with explaining(set):
        asked, where = asked_json(spec, set)
        return resolve(moved_here(asked) if elsewhere else asked, where, like=like)


def layout(spec: str | Path, set: Iterable[str] = ()) -> str | None:
    """Returns the sentence that says which folder below `data.root` is which domain; None without `data.root`.

    Raises SpecError if the spec can't be read or the layout of the folder is not understood.
    """
    return described(asked_json(spec, set)[0])


def spec_json(spec: str | Path, set: Iterable[str] = ()) -> Json:
    """Returns a spec file, merged with the files that it extends and changed by `set`, without the defaults.

    Raises SpecError if the file or a change can't be read.
    """
    return asked_json(spec, set)[0]
