"""The processes of one run: they agree on the spec, build the same trainer, train it together and measure it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ganlab import distributed
from ganlab.data.dataset import Dataset
from ganlab.data.sampler import Sampler
from ganlab.distributed import together
from ganlab.engine.loop import stop_signals, train
from ganlab.engine.trainer import Trainer
from ganlab.errors import Elsewhere, Interrupted, Lost, SpecError
from ganlab.evaluation.worker import EvaluationWorker
from ganlab.experiment.parts import domains_of, images_of, reproducibly
from ganlab.interfaces.callbacks import Callback
from ganlab.parts import check_parts
from ganlab.runs.due import Follower
from ganlab.spec.models import Evaluation, Spec
from ganlab.spec.resolve import resolve, resolve_evaluation
from ganlab.system.batch_norms import synchronise
from ganlab.system.build import build, build_domains
from ganlab.system.module_state import load_own_state, own_state
from ganlab.workers import serve


def follow() -> None:
    """Takes part in the training and the evaluations of a run, in a process of another rank than 0. Writes and shows
    nothing.

    Rank 0 calls `ganlab.run`. Raises Elsewhere if rank 0 fails or is interrupted, Lost if another process ends.
    """
    try:
        # rank 0 reads the spec and the run folder
        _wait()
        if (spec := agreed(None)) is None:
            return
        with reproducibly(spec):
            datasets = read(spec, Callback())
            with together():
                trainer = build_trainer(spec, datasets, lambda sentence: None)
            # rank 0 locks the run folder, reads the newest checkpoint and starts the callbacks
            _wait()
            share_state(trainer)
            worker = EvaluationWorker(spec.evaluation, trainer.system.device, trainer.system)
            train(trainer, Follower(trainer, worker), lambda sentence: None)
            if spec.evaluation.metrics:
                _serve_at_the_end(worker)
    except Interrupted as stopped:
        raise Elsewhere(str(stopped), stopped.exit_code) from stopped
    except KeyboardInterrupt as stopped:
        raise Elsewhere("interrupted", 130) from stopped


def follow_evaluation() -> None:
    """Takes part in an evaluation, in a process of another rank than 0. Writes and shows nothing.

    Rank 0 calls `ganlab.evaluate`. Raises Elsewhere if rank 0 fails or is interrupted, Lost if another process ends.
    """
    try:
        with measuring_again():
            # rank 0 checks what is asked for
            _wait()
            evaluation, device, spec = _shared(None)
            with reproducibly(spec) if spec is not None else nullcontext():
                with together():
                    system = None if spec is None else build(spec, build_domains(spec))
                _serve_at_the_end(EvaluationWorker(evaluation, device, system))
    except KeyboardInterrupt as stopped:
        raise Elsewhere("interrupted", 130) from stopped


@contextmanager
def measuring_again() -> Iterator[None]:
    """Says of a lost process what that means for an evaluation, which has no checkpoints."""
    try:
        yield
    except Lost as lost:
        raise Lost(
            "another process of this evaluation was killed or has failed, so this one stops; the same command measures"
            " again"
        ) from lost


def share_evaluation(evaluation: Evaluation, device: str, spec: Spec | None) -> None:
    """Tells the other processes, which call `follow_evaluation`, what rank 0 will measure, and waits for them.

    `evaluation` is resolved. `spec` is that of the generators that translate, if they do; it gets the device of this
    process.
    """
    if distributed.size() == 1:
        return
    _shared((evaluation, device, spec))
    _wait()


def _shared(given: tuple[Evaluation, str, Spec | None] | None) -> tuple[Evaluation, torch.device, Spec | None]:
    """Returns what rank 0 has given, with the device of this process."""
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

    Then, or if another process is lost, SIGTERM is ignored from then on: this process is ending, and has to say why.
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


def _serve_at_the_end(worker: EvaluationWorker) -> None:
    """Serves rank 0 while it measures the trained run. Ctrl-C, which every process gets, is left to rank 0."""
    with stop_signals() as received:
        try:
            serve(worker)
        except Lost as lost:
            if received:
                raise Elsewhere("interrupted", 130) from lost
            raise


def _wait() -> None:
    with together():
        pass


def agreed(spec: Spec | None) -> Spec | None:
    """Returns rank 0's resolved spec with this process's device, or None if rank 0 has nothing to train.

    Raises SpecError if there is no device for this process, or if the processes can't share a batch.
    """
    asked = distributed.broadcast(None if spec is None else spec.as_json())
    if asked is None:
        return None
    with together():
        mine = spec or resolve(asked)
        mine.runtime.device = distributed.device(mine.runtime.device, "runtime.device")
        check_parts(mine.data.batch, mine.runtime.accumulate, "runtime.accumulate", distributed.size())
    return mine


def read(spec: Spec, callback: Callback) -> dict[str, Dataset]:
    """Returns {domain: its images}. The first process of each machine reads them first, and may prepare them.

    Raises SpecError if a process has other images than rank 0.
    """
    datasets: dict[str, Dataset] = {}
    for first in (True, False):
        with together():
            if (distributed.local_rank() == 0) == first:
                datasets = images_of(spec, callback)
    hashes = {domain: dataset.fingerprint()["sha256"] for domain, dataset in datasets.items()}
    expected = distributed.broadcast(hashes)
    with together():
        for domain in hashes:
            if hashes[domain] != expected[domain]:
                raise SpecError(
                    f"data.{domain}: process {distributed.rank()} of {distributed.size()}, counted from 0, has other"
                    " images than process 0: each machine needs the same files at the same path"
                )
    return datasets


def build_trainer(spec: Spec, datasets: dict[str, Dataset], warn: Callable[[str], object]) -> Trainer:
    """Builds the trainer of a run, with the initial weights that the random seed gives. `warn` is that of `Trainer`."""
    system, data = build(spec, domains_of(datasets)), spec.data
    sampler = Sampler(datasets, data.batch, data.flip, spec.seed, system.device, system.dtype)
    trainer = Trainer(system, sampler, warn)
    # after the dry run, in which no process may wait for another
    synchronise(system)
    return trainer


def share_state(trainer: Trainer) -> None:
    """Gives every process rank 0's weights and state of the training."""
    if distributed.size() == 1:
        return
    state = trainer.state
    modules = state.modules()
    own = state.state_dict(), {name: own_state(module) for name, module in modules.items()}
    # a tensor of rank 0's GPU would be unpickled on that GPU by every process
    kept, weights = distributed.broadcast(tree_map_only(Tensor, Tensor.cpu, own))
    if distributed.rank():
        state.load_state_dict(kept)
        for name, module in modules.items():
            load_own_state(module, weights[name])
