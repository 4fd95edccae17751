"""The files of experiments/, resolved, and at a size that a single thread steps through at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ganlab.registry import registry
from ganlab.spec import Json, Spec, merge, read, resolve

FOLDER = Path(__file__).parent.parent / "experiments"
FILES = {path.relative_to(FOLDER).as_posix(): path for path in sorted(FOLDER.rglob("[!.]*.json"))}
MOST = {"width": 4, "blocks": 2, "expansion": 2, "long_updates": 2, "pool": 3, "count": 12}
"""A file whose numbers are smaller keeps them."""
SIZE, BATCH = 32, 2
RUNTIME = {"device": "cpu", "precision": "float32", "threads": 1}


def load(name: str, patch: dict[str, Any] | None = None) -> Spec:
    assert name in FILES, f"there is no experiments/{name}"
    asked = merge(read(FILES[name]), {"runtime": RUNTIME})
    for domain in "ab":
        if asked["data"][domain]["type"] == "folder":
            # of one's own pictures, so a file may leave it out
            asked["data"][domain].setdefault("path", domain)
    return resolve(registry(), merge(asked, patch or {}), name)


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
