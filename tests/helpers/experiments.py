"""The files of experiments/, resolved, and also made so small that a step takes almost no time."""

from __future__ import annotations

from typing import Any

from ganlab.spec.files import merge, read
from ganlab.spec.models import Json, Spec
from ganlab.spec.resolve import resolve
from helpers.paths import EXPERIMENTS

FILES = {path.relative_to(EXPERIMENTS).as_posix(): path for path in sorted(EXPERIMENTS.rglob("[!.]*.json"))}
MOST = {"width": 4, "blocks": 2, "expansion": 2, "long_updates": 2, "pool": 3, "count": 12, "layers": 3, "size": 64}
"""The largest value of each option in a small experiment. Smaller values are kept."""
SIZE, BATCH = 32, 2
RUNTIME = {"device": "cpu", "precision": "float32", "threads": 1}


def load(name: str, patch: dict[str, Any] | None = None) -> Spec:
    assert name in FILES, f"there is no experiments/{name}"
    asked = merge(read(FILES[name]), {"runtime": RUNTIME})
    for domain in "ab":
        if asked["data"][domain]["type"] == "folder":
            # the user's own pictures, so a file may have no path
            asked["data"][domain].setdefault("path", domain)
    return resolve(merge(asked, patch or {}), name)


def small(name: str) -> Json:
    asked = load(name).as_json()
    parts = {key: _reduced(asked[key]) for key in ("data", "generator", "discriminators", "schedule")}
    patched: Json = merge(asked, {**parts, "data": {**parts["data"], "size": SIZE, "batch": BATCH}})
    return patched


def _reduced(options: Json) -> Json:
    return {
        key: _reduced(value) if isinstance(value, dict) else min(value, MOST[key]) if key in MOST else value
        for key, value in options.items()
    }
