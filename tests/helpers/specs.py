"""Specs that tests of the spec share, and the sentence of a refusal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from ganlab.errors import SpecError
from ganlab.spec.files import merge
from ganlab.spec.models import Spec
from ganlab.spec.resolve import resolve
from helpers.systems import TINY

WEIGHED = {"type": "perceptual", "features": {"type": "weighed", "file": "weights"}}


def resolved(patch: Mapping[str, Any] | None = None, **more: Any) -> Spec:
    return resolve(merge(TINY, patch or {}), **more)


def refusal(call: Callable[[], object]) -> str:
    """Returns the sentence with which a call is refused."""
    with pytest.raises(SpecError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


RESOLVED = resolved(
    {
        "discriminators": {"critic": {"type": "critic", "of": {"type": "patch"}}},
        "about": "words",
        "data": {"resize": 20, "crop": True},
        "init": {"run": "another"},
        "evaluation": {
            "metrics": ["kid", "fid", {"type": "kid", "features": "stlpips-alex"}],
            "features": "lite0",
            "every": 5,
            "during": ["kid", "fid"],
            "monitor": "fid-lite0",
        },
    }
)
FULL = RESOLVED.as_json()
