"""The check for callbacks."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from ganlab.interfaces.callbacks import Callback, Measurement, TrainingEnd, TrainingStart
from ganlab.report.grids import png
from ganlab.testing.building import build, check_class
from ganlab.testing.requirement import keeps_random_state, requirement

__tracebackhide__ = True

STEPS = 40
"""The steps of the run that a callback follows. Every second one is measured."""


_GRID = png(Image.new("RGB", (8, 8)))


@keeps_random_state
def check_callback(cls: type[Callback], /, **options: Any) -> None:
    """Lets a callback follow a run that is not trained: whole, and resumed after some of its steps.

    In the run a validation number improves for a while and then gets worse.
    """
    check_class(cls, "callback", options)

    def make() -> Callback:
        callback: Callback = build(cls, options)
        return callback

    with requirement(cls, "can be built from its options"):
        make()
    with requirement(cls, "follows a run from its beginning to its end"):
        whole = _stop(make(), 0)
    with requirement(cls, "stops a run at the same step if it resumes: it counts in `history`, not in memory") as check:
        for done in (7, 20, 39):
            expected = None if whole is None else max(whole, done)
            found = _stop(make(), done)
            at = f"it stops after step {found} in a run that resumes after step {done}, not after step {expected}"
            check(found == expected, at)
    with requirement(cls, "takes results without `begin`, as in `ganlab eval`"), TemporaryDirectory() as folder:
        make().evaluation(Measurement(Path(folder), STEPS, "test", {"ab/number": 0.5}))


def _stop(callback: Callback, done: int) -> int | None:
    """Lets a callback follow a run after its first `done` steps. Returns the step after which the run stops early."""
    records = [_record(step) for step in range(1, STEPS + 1)]
    with TemporaryDirectory() as name:
        folder = Path(name)
        start = ("checked", folder, done, STEPS, 4, "cpu", "float32", 1, "0123456789abcdef")
        spec = {"name": "checked", "seed": 0}
        callback.begin(TrainingStart(*start, spec, {"number": "lower"}, records[:done]))
        step = done
        while step < STEPS and callback.stop_requested is None:
            step += 1
            callback.records([dict(records[step - 1])])
            if step % 2 == 0:
                values = {"ab/number": records[step - 1]["evaluation/ab/number"]}
                callback.evaluation(Measurement(folder, step, "validation", values))
        sample = folder / "samples" / f"step-{step:06d}.png"
        sample.parent.mkdir()
        sample.write_bytes(_GRID)
        callback.samples(step, sample)
        checkpoint = folder / "checkpoints" / f"step-{step:06d}"
        checkpoint.mkdir(parents=True)
        callback.checkpoint(step, checkpoint)
        callback.evaluation(Measurement(folder, step, "test", {"ab/number": 0.5}))
        stopped = callback.stop_requested
        callback.end(TrainingEnd("finished", step, stopped))
        return None if stopped is None else step


def _record(step: int) -> dict[str, float]:
    record = {"step": step, "seconds": step / 4, "images": 4 * step, "loss/generator/ab/cycle": 1 / step}
    return record | ({"evaluation/ab/number": 1 + abs(step - 10) / 10} if step % 2 == 0 else {})
