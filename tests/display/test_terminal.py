"""The values beside a training's progress."""

from __future__ import annotations

import pytest

from ganlab.display.terminal import _short


def test_parts_are_summed_and_directions_averaged() -> None:
    record = {
        "step": 3.0,
        "gradient/generator/ab+ba": 9.0,
        "loss/generator/ab/cycle": 1.0,
        "loss/generator/ba/cycle": 3.0,
        "loss/discriminator/ab/adversarial/real": 0.25,
        "loss/discriminator/ab/adversarial/fake": 0.5,
        "log/generator/ab/cycle/spread": 4.0,
        "log/generator/ba/cycle/spread": 5.0,
    }
    expected = {"G cycle": 2.0, "D adversarial": 0.75, "G cycle/spread": 4.5}
    assert _short(record) == pytest.approx(expected)
