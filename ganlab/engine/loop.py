"""The training loop: steps until the schedule's end or a signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Protocol

from ganlab import distributed
from ganlab.engine.memory import explaining_memory
from ganlab.engine.trainer import Trainer
from ganlab.errors import Interrupted, Lost


class StepWriter(Protocol):
    """Writes the results of each step."""

    def finish_last_step(self) -> None:
        """Writes the results that an earlier process had not yet written of the step at which it stopped."""

    def after_step(self, last: bool) -> None:
        """Called after each step; `last` is true for the last step of this process."""

    @property
    def stop_requested(self) -> str | None:
        """The reason why no further step is taken; None if there is none."""

    def stop_early(self) -> None:
        """Completes the present step as the last step of the run."""


def train(trainer: Trainer, writer: StepWriter, warn: Callable[[str], None]) -> None:
    """Trains to the schedule's end, or until a callback requests a stop.

    Raises Interrupted after SIGINT or SIGTERM, when the current step is saved. The second signal raises
    KeyboardInterrupt at once. Raises OutOfMemory if a step does not fit into the memory.
    """
    state, steps = trainer.state, trainer.schedule.steps
    with stop_signals(lambda: warn("stopping after this step; Ctrl-C again stops now")) as received:
        if state.step:
            writer.finish_last_step()
        while state.step < steps and (not state.step or not distributed.highest(writer.stop_requested is not None)):
            with explaining_memory(trainer):
                trainer.step()
            # read once: a signal that comes later is for the next step; one that any process gets stops all of them
            stop = distributed.highest(received[0] if received else 0)
            writer.after_step(last=stop > 0 or state.step == steps)
            if stop and state.step < steps:
                raise Interrupted(f"stopped after step {state.step} of {steps}; everything is saved", stop)
        if state.step < steps:
            writer.stop_early()


@contextmanager
def stop_signals(at_first: Callable[[], object] = int) -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of letting them act; the second one raises KeyboardInterrupt.

    `at_first` is called when the first one comes.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        # the signal may have come while something was printed
        with suppress(Exception):
            at_first()

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    except Lost:
        # torchrun sends SIGTERM to the processes that are left; this one is ending, and still has to say why
        before[signal.SIGTERM] = signal.SIG_IGN
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
