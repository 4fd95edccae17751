"""Takes the steps of a run from CUDA graphs where that is possible.

A CUDA graph repeats the operations of a step on the device without running its Python. It is made by running the step
once while the device records instead of computing. The steps of a run differ in their turns and in the losses that have
a weight, so each kind of step has a graph of its own.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from ganlab.engine.optimizers import reads_rate_from_device
from ganlab.engine.state import TrainingState
from ganlab.engine.step_log import Row
from ganlab.errors import text_of
from ganlab.system.build import System
from ganlab.system.error_attribution import Position, place_of_network
from ganlab.system.host_inputs import HostInputs, StaticInputs
from ganlab.system.host_reads import HostReads
from ganlab.system.plain_state import Snapshot, overwritten, plain_state

Step = Callable[[HostInputs], Row | None]
"""Takes the turns of one step with the given inputs."""


class Graphs(Protocol):
    """Makes graphs of steps."""

    def warm_up(self, step: Callable[[], Row | None]) -> Row | None:
        """Takes a step as usual, before it is captured."""

    def capture(self, step: Callable[[], Row | None]) -> Callable[[], Row | None]:
        """Records a step, which computes nothing. Returns the function that computes it, each time it is called."""


class CudaGraphs:
    """Graphs of a CUDA device: `torch.cuda.graph`, and PyTorch's notes "CUDA Graphs" in "CUDA semantics"."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # all graphs share their memory, because none needs what another one, or its own last replay, left there
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, step: Callable[[], Row | None]) -> Row | None:
        # autograd keeps the stream of a parameter's first use as long as a graph with it lives, and a capture allows no
        # stream but its own
        gc.collect()
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            row = step()
        current.wait_stream(self._stream)
        return row

    def capture(self, step: Callable[[], Row | None]) -> Callable[[], Row | None]:
        graph = torch.cuda.CUDAGraph()
        generator = torch.cuda.default_generators[self._stream.device.index]
        before = generator.clone_state()
        try:
            # the outer contexts restore the stream also after a capture that fails
            with (
                torch.cuda.device(self._device),
                torch.cuda.stream(self._stream),
                torch.cuda.graph(graph, pool=self._pool, stream=self._stream),
            ):
                row = step()
        except BaseException:
            # otherwise the generator of torch 2.6 still waits for the end of the capture and refuses to draw
            generator.graphsafe_set_state(before)
            raise

        def replay() -> Row | None:
            graph.replay()
            # the next replay writes to the same memory
            return None if row is None else row._replace(values=row.values.clone())

        return replay


@dataclass
class _Known:
    """A kind of step that was taken at least once."""

    inputs: StaticInputs
    draws: int
    """The number of batches that the step draws."""
    replay: Callable[[], Row | None] | None = None


class StepCapture:
    """Takes the steps of one training.

    The first step of a kind is taken as usual, while its inputs are recorded. The second one is captured and replayed,
    and later ones are replayed. If a step can't be captured, `warn` receives one sentence that names the component at
    fault, and all later steps are taken as usual.

    `position` is that of the step, for error messages.
    """

    def __init__(
        self,
        system: System,
        state: TrainingState,
        position: Position,
        graphs: Graphs,
        warn: Callable[[str], object],
    ) -> None:
        self._system, self._state, self._position = system, state, position
        self._graphs, self._warn = graphs, warn
        self._known: dict[Hashable, _Known] = {}
        self.possible = True
        """False once a component has turned out not to be capturable."""
        for player, optimizer in state.optimizers.items():
            if not all(map(reads_rate_from_device, optimizer.param_groups)):
                kind = type(optimizer).__name__
                self._give_up("schedule", f"the {player}'s optimizer, {kind}, reads its learning rate from the host")

    def __call__(self, kind: Hashable, step: Step) -> Row | None:
        """Takes one step. Steps of the same `kind` compute the same operations on other inputs."""
        if not self.possible:
            return step(HostInputs())
        if kind not in self._known:
            return self._record(kind, step)
        known, first = self._known[kind], self._state.draws
        self._position.move("", "the next batch")
        known.inputs.refresh(self._state.step)
        if known.replay is None:
            known.replay = self._capture(known, step)
            self._state.draws = first
        if known.replay is None:
            return step(HostInputs())
        self._position.move("", "the captured step")
        row = known.replay()
        self._state.draws = first + known.draws
        return row

    def _capture(self, known: _Known, step: Step) -> Callable[[], Row | None] | None:
        """Returns the function that replays a step of a known kind, or None if it can't be captured."""
        failed: list[Exception] = []

        def again() -> Row | None:
            try:
                with known.inputs.again():
                    return step(known.inputs)
            except Exception as error:
                failed.append(error)
                raise

        try:
            return self._graphs.capture(again)
        except Exception as ended:
            # how the capture ended says less than the error in the step that ended it
            error = failed[0] if failed else ended
            found = self._system.components.find_component(error, self._position.place)
            self._give_up(self._position.place if found is None else found[0].place, text_of(error))
            for optimizer in self._state.optimizers.values():
                # gradients lie in the memory of the unfinished graph
                optimizer.zero_grad()
            return None

    def _record(self, kind: Hashable, step: Step) -> Row | None:
        reads = HostReads(self._system.device, self._system.components, self._position)
        inputs, first, addresses = StaticInputs(reads), self._state.draws, dict(self._addresses())
        attributes = self._attributes()
        with reads:
            row = self._graphs.warm_up(lambda: step(inputs))
        changed = [
            (place, what)
            for (place, name), state in self._attributes().items()
            for what in overwritten(attributes.get((place, name), {}), state)
        ]
        moved = [at for at, address in self._addresses() if addresses.get(at, address) != address]
        if reads.found is not None:
            self._give_up(*reads.found)
        elif moved:
            place, _, name = moved[0]
            self._give_up(place, f"replaces its tensor {name!r} instead of changing it in place")
        elif changed:
            place, what = changed[0]
            self._give_up(place, f"changes {what}, which a graph does not repeat")
        else:
            self._known[kind] = _Known(inputs, self._state.draws - first)
        return row

    def _addresses(self) -> Iterator[tuple[tuple[str, str, str], int]]:
        """Yields ((place in the spec, module, name), address) of every tensor that lasts from step to step."""
        for place, module_name, module in self._modules():
            for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                yield (place, module_name, name), tensor.data_ptr()

    def _attributes(self) -> dict[tuple[str, str], dict[str, Snapshot]]:
        """Returns {(place in the spec, name of a module or player of an optimizer): its plain attributes}."""
        found = {}
        for place, name, module in self._modules():
            # an attribute may be any object, and raise anything when it is looked at
            with suppress(Exception):
                found[place, name] = plain_state(module)
        for player, optimizer in self._state.optimizers.items():
            with suppress(Exception):
                found["schedule", player] = plain_state(optimizer)
        return found

    def _modules(self) -> Iterator[tuple[str, str, nn.Module]]:
        """Yields (place in the spec, name, module) of everything that a step may change."""
        networks, losses, pools = self._system.networks.modules, self._system.losses, self._state.pools
        yield from ((place_of_network(name), name, module) for name, module in networks.items())
        yield from ((f"losses.{label}", label, loss) for label, loss in losses.items())
        yield from (("schedule", direction, pool) for direction, pool in pools.items())

    def _give_up(self, place: str, why: str) -> None:
        if self.possible:
            self.possible = False
            self._known.clear()
            fault = f"{why}, so the steps are not captured as CUDA graphs"
            components, doing = self._system.components, self._position.doing or "the step"
            self._warn(components.sentence(place, fault) if components.at(place).name else f"{doing}: {fault}")
