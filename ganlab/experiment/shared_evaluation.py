"""The processes of one evaluation: rank 0 measures, and the others compute translations and features for it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from ganlab import distributed
from ganlab.distributed import together
from ganlab.engine.loop import stop_signals
from ganlab.errors import Elsewhere, Lost
from ganlab.evaluation.worker import EvaluationWorker
from ganlab.experiment.parts import reproducibly
from ganlab.spec.models import Evaluation, Spec
from ganlab.spec.resolve import resolve, resolve_evaluation
from ganlab.system.build import build, build_domains
from ganlab.workers import serve


def follow_evaluation() -> None:
    """Takes part in an evaluation, in a process of another rank than 0. Writes and shows nothing.

    Rank 0 calls `evaluate_together`. Raises Elsewhere if rank 0 fails, Lost if another process ends, KeyboardInterrupt
    if this one is interrupted at once.
    """
    with measuring_again():
        # rank 0 checks what is asked for
        distributed.wait()
        evaluation, device, spec = _shared(None)
        with reproducibly(spec) if spec is not None else nullcontext():
            with together():
                system = None if spec is None else build(spec, build_domains(spec))
            serve_at_the_end(EvaluationWorker(evaluation, device, system))


@contextmanager
def measuring_again() -> Iterator[None]:
    """Raises Lost with another sentence: an evaluation has no checkpoints from which the command could resume."""
    try:
        yield
    except Lost as lost:
        raise Lost(
            "another process of this evaluation was killed or has failed, so this one stops; the same command measures"
            " again"
        ) from lost


def share_evaluation(evaluation: Evaluation, device: str, spec: Spec | None) -> None:
    """Tells the other processes, which call `follow_evaluation`, what rank 0 will measure, and waits for them.

    `evaluation` is resolved. `spec` is that of the generators, None if no other process translates. Its device becomes
    that of this process.
    """
    if distributed.size() == 1:
        return
    _shared((evaluation, device, spec))
    distributed.wait()


def _shared(given: tuple[Evaluation, str, Spec | None] | None) -> tuple[Evaluation, torch.device, Spec | None]:
    """Returns what rank 0 gives, with the device of this process. The other ranks give None."""
    as_json = None
    if given is not None:
        evaluation, device, spec = given
        as_json = evaluation.model_dump_json(), device, None if spec is None else spec.as_json()
    as_json = distributed.broadcast(as_json)
    assert as_json is not None
    with together():
        asked, device, trained = as_json
        if given is None:
            evaluation = resolve_evaluation(Evaluation.model_validate_json(asked), "eval")
            spec = None if trained is None else resolve(trained)
        device = distributed.device(device, "eval")
        if spec is not None:
            spec.runtime.device = device
    return evaluation, torch.device(device), spec


@contextmanager
def interruptible() -> Iterator[None]:
    """Lets SIGTERM raise KeyboardInterrupt if there are several processes: torchrun sends it if one of them ends.

    After an interrupt, or if another process is lost, SIGTERM is ignored, so that this process can say why it ends.
    """
    if distributed.size() == 1:
        yield
        return
    after = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except (KeyboardInterrupt, Lost):
        after = signal.SIG_IGN
        raise
    finally:
        signal.signal(signal.SIGTERM, after)


def serve_at_the_end(worker: EvaluationWorker) -> None:
    """Computes pieces for rank 0 while it measures. Ctrl-C, which every process gets, is left to rank 0."""
    with stop_signals() as received:
        try:
            serve(worker)
        except Lost as lost:
            if received:
                raise Elsewhere("interrupted", 130) from lost
            raise
