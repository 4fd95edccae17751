"""The processes of one run: they agree on the spec, build the same trainer and train it together."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.utils._pytree import tree_map_only

from ganlab import distributed
from ganlab.data.dataset import Dataset
from ganlab.data.sampler import Sampler
from ganlab.distributed import together
from ganlab.engine.loop import train
from ganlab.engine.memory import explaining_memory_of_two
from ganlab.engine.trainer import Trainer
from ganlab.errors import Elsewhere, Interrupted, SpecError
from ganlab.evaluation.worker import EvaluationWorker
from ganlab.experiment.parts import domains_of, images_of, reproducibly
from ganlab.experiment.shared_evaluation import serve_at_the_end
from ganlab.interfaces.callbacks import Callback
from ganlab.parts import check_parts
from ganlab.runs.due import Follower
from ganlab.spec.models import Spec
from ganlab.spec.resolve import resolve
from ganlab.system.batch_norms import synchronise
from ganlab.system.build import build
from ganlab.system.module_state import load_own_state, own_state


def follow() -> None:
    """Takes part in the training and the evaluations of a run, in a process of another rank than 0. Writes and shows
    nothing.

    Rank 0 calls `ganlab.run`. Raises Elsewhere if rank 0 fails or if all stop after a step, Lost if another process
    ends, KeyboardInterrupt if this one is interrupted at once. It must then end, because the others wait for it.
    """
    try:
        # rank 0 reads the spec and the run folder
        distributed.wait()
        if (spec := agreed(None)) is None:
            return
        with reproducibly(spec):
            datasets = read(spec, Callback())
            with together():
                trainer = build_trainer(spec, datasets, lambda sentence: None)
            # rank 0 locks the run folder, reads the newest checkpoint and starts the callbacks
            distributed.wait()
            share_state(trainer)
            worker = EvaluationWorker(spec.evaluation, trainer.system.device, trainer.system)
            train(trainer, Follower(trainer, worker), lambda sentence: None)
            if spec.evaluation.metrics:
                serve_at_the_end(worker)
    except Interrupted as stopped:
        raise Elsewhere(str(stopped), stopped.exit_code) from stopped


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
    with explaining_memory_of_two(spec.runtime):
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
