"""The training loop: turns -> terms -> update -> record."""

from __future__ import annotations

import copy
import math
import time
from contextlib import AbstractContextManager
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ganlab.build import System
from ganlab.data.sampler import Batch, Sampler
from ganlab.errors import RunError
from ganlab.interfaces import PLAYERS, SEES, Turn
from ganlab.modules import load_own_state, own_state, trainable
from ganlab.rehearsal import blamed, prepare, rehearse, terms
from ganlab.translation import Memo, Translation

Record = dict[str, float]
"""What one step was: "step", "seconds", "images", and every term and gradient norm by name."""


class _Ahead(NamedTuple):
    """What the turns that follow on the same batch mean for this one."""

    graph: bool
    again: frozenset[str]
    planned: frozenset[str]


class Engine:
    """Trains a system, step by step. `done` counts the steps."""

    def __init__(self, system: System, sampler: Sampler) -> None:
        self.system, self.sampler = system, sampler
        self.done = self.draws = 0
        self.seconds = 0.0
        example = _first(sampler(0), 2)
        prepare(system, example)
        self.rehearsal = rehearse(system, example)
        self.pools = self._make_pools()
        self.optimizers = self._make_optimizers()
        self._base = {p: [float(g["lr"]) for g in o.param_groups] for p, o in self.optimizers.items()}
        generators = {w: system.networks.generator(w) for w in system.schedule.ways}
        halflife = system.spec.ema_halflife_images
        self.ema = copy.deepcopy(generators) if halflife else None
        self._ema_rate = 1 - 0.5 ** (sampler.batch / halflife) if halflife else 0.0
        self._rows: list[tuple[Record, tuple[str, ...], Tensor]] = []
        self._ahead: dict[tuple[Any, ...], _Ahead] = {}
        self._moving: dict[Turn, tuple[list[str], list[nn.Parameter]]] = {}

    def step(self) -> None:
        """One step of the schedule. Nothing here waits for the device."""
        started = time.perf_counter()
        turns = self.turns(self.done)
        record: dict[str, list[Tensor]] = {}
        memo = self._deal()
        for index, turn in enumerate(turns):
            if turn.fresh and index > 0:
                memo = self._deal()
            for name, value in self._take(memo, turns, index).items():
                record.setdefault(name, []).append(value)
        self._average()
        self.done += 1
        self.seconds += time.perf_counter() - started
        if record:
            # of a term that several turns of a step have, the mean
            row = torch.stack([torch.stack(values).mean() for values in record.values()])
            images = self.draws * self.sampler.batch
            head = {"step": self.done, "seconds": round(self.seconds, 3), "images": images}
            self._rows.append((head, tuple(record), row))

    def turns(self, step: int) -> tuple[Turn, ...]:
        """The schedule's turns. Raises RunError where one names what isn't there."""
        with self._schedule_blamed("turns", step):
            planned = list(self.system.schedule.turns(step))
            if strange := [turn for turn in planned if not isinstance(turn, Turn)]:
                raise TypeError(f"gives {strange[0]!r} where a Turn is due")
        turns = []
        for given in planned:
            lists: dict[str, Any] = {
                part: tuple(named) for part, named in given._asdict().items() if isinstance(named, list)
            }
            turn = given._replace(**lists)
            known = {
                "player": (PLAYERS, (turn.player,)),
                "ways": (self.system.schedule.ways, turn.ways),
                "moves": (self.system.schedule.ways, turn.moves or ()),
                "losses": (tuple(self.system.losses), turn.losses or ()),
                "sees": ((None, *SEES), (turn.sees,)),
            }
            for part, (allowed, named) in known.items():
                if isinstance(named, str) or not set(named) <= set(allowed):
                    raise RunError(
                        f"schedule: step {step + 1} has {turn}: its {part} are of {', '.join(map(str, allowed))}"
                        f" ({self.system.parts.of('schedule').what})"
                    )
            turns.append(turn)
        return tuple(turns)

    def read(self) -> list[Record]:
        """The records since the last reading. Waits for the device."""
        if not self._rows:
            return []
        started = time.perf_counter()
        values = iter(torch.cat([row for *_, row in self._rows]).tolist())
        # where the device works on its own, this is where its time shows
        self.seconds += time.perf_counter() - started
        records = [head | {name: next(values) for name in names} for head, names, _ in self._rows]
        self._rows.clear()
        return records

    def _deal(self) -> Memo:
        memo = Memo(self.system.networks, self.sampler(self.draws), self.pools, self.system.spec.seed)
        self.draws += 1
        return memo

    def _take(self, memo: Memo, turns: tuple[Turn, ...], index: int) -> dict[str, Tensor]:
        turn = turns[index]
        names, parameters = self._moves(turn)
        memo.begin(turn.player, (self.done, index), *self._look_ahead(turns, index))
        weighted = self._terms(memo, turn)
        record = {name: value.detach() for name, (_, value) in weighted.items()}
        total = torch.stack([weight * value for weight, value in weighted.values()]).sum() if weighted else None
        if total is None or not parameters or not total.requires_grad:
            return record
        summed = list(dict.fromkeys(name.split("/")[3] for name in weighted))
        backward = f"the {turn.player}'s gradients of {'+'.join(summed)} on way {'+'.join(turn.ways)}"
        of = [f"losses.{label}" for label in summed]
        with self.system.parts.blamed("gradients", backward, self.done + 1, of):
            # only these parameters are reached: nothing needs freezing
            torch.autograd.backward(total, inputs=parameters)
        moved = [p for p in parameters if p.grad is not None]
        if not moved:
            return record
        norm = torch.nn.utils.get_total_norm([p.grad for p in moved if p.grad is not None])
        record[f"gradient/{turn.player}/{turn.sees if turn.sees == 'embeddings' else '+'.join(turn.ways)}"] = norm
        self._update(turn.player)
        self.system.networks.updated(moved)
        if turn.player == "discriminator":
            reached = {id(p) for p in moved}
            with torch.no_grad():
                for name in names:
                    network = self.system.networks.discriminator(name)
                    if any(id(p) in reached for p in network.parameters()):
                        place = f"discriminators.{name.split('/')[1]}"
                        with self.system.parts.blamed(place, f"{place}'s after_update", self.done + 1):
                            network.after_update()
        for p in moved:
            p.grad = None
        return record

    def _terms(self, memo: Memo, turn: Turn) -> dict[str, tuple[float, Tensor]]:
        found: dict[str, tuple[float, Tensor]] = {}
        for way in turn.ways:
            for label in self._partakers(turn, way):
                if (weight := self._weight(label, turn.player)) == 0:
                    continue
                with blamed(self.system, label, turn.player, way, self.done + 1):
                    parts = terms(self.system.losses[label], turn.player, Translation(way, memo))
                for part, value in parts.items():
                    found[f"loss/{turn.player}/{way}/{label}{f'/{part}' if part else ''}"] = (weight, value)
        return found

    def _weight(self, label: str, player: str) -> float:
        with self._schedule_blamed(f"weight of {label} for the {player}"):
            factor = _number(self.system.schedule.weight(label, player, self.done))
        return self.system.spec.weight(label)[player] * factor

    def _update(self, player: str) -> None:
        optimizer = self.optimizers[player]
        with self._schedule_blamed(f"learning rate of the {player}"):
            factor = _number(self.system.schedule.learning_rate(player, self.done))
        for group, base in zip(optimizer.param_groups, self._base[player], strict=True):
            group["lr"] = base * factor
        with self._schedule_blamed(f"optimizer of the {player}"):
            optimizer.step()

    def _schedule_blamed(self, what: str, step: int | None = None) -> AbstractContextManager[None]:
        """An error in what the schedule does during training."""
        at = self.done if step is None else step
        return self.system.parts.blamed("schedule", f"schedule's {what}", at + 1)

    def _partakers(self, turn: Turn, way: str) -> list[str]:
        """The losses whose terms a turn sums."""
        return [label for label in self.system.losses if self._takes_part(turn, way, label)]

    def _takes_part(self, turn: Turn, way: str, label: str) -> bool:
        if turn.losses is not None and label not in turn.losses:
            return False
        if turn.sees is None:
            return True
        asked = self.rehearsal.asked[turn.player, way, label].names
        on_embeddings = not asked.isdisjoint(self.system.networks.discriminators("embeddings"))
        on_images = not asked.isdisjoint(self.system.networks.discriminators("images"))
        return on_embeddings if turn.sees == "embeddings" else on_images or not on_embeddings

    def _moves(self, turn: Turn) -> tuple[list[str], list[nn.Parameter]]:
        """The networks that a turn moves, and all parameters: theirs and those of its losses."""
        if turn not in self._moving:
            networks = self.system.networks
            ways = turn.ways if turn.moves is None else turn.moves
            if turn.player == "generator":
                names = [f"generator/{way}" for way in ways]
            else:
                names = [n for n in networks.discriminators("embeddings") if turn.sees != "images"]
                if turn.sees != "embeddings":
                    names += [n for way in ways for n in networks.discriminators("images", way[1])]
            losses: list[nn.Module] = [
                self.system.losses[label]
                for label in dict.fromkeys(label for way in turn.ways for label in self._partakers(turn, way))
                if self.system.losses[label].trains == turn.player
            ]
            self._moving[turn] = names, list(trainable([*(networks.modules[n] for n in names), *losses]))
        return self._moving[turn]

    def _look_ahead(self, turns: tuple[Turn, ...], index: int) -> _Ahead:
        silent = tuple((label, p) for label in self.system.losses for p in PLAYERS if self._weight(label, p) == 0)
        if (turns, index, silent) not in self._ahead:
            turn = turns[index]
            later: list[Turn] = []
            for following in turns[index + 1 :]:
                if following.fresh:
                    break
                later.append(following)
            again: set[str] = set()
            unmoved = set(self.system.networks.modules)
            for following in later:
                if following.player == "discriminator":
                    again |= self._asks(following) & unmoved
                unmoved -= set(self._moves(following)[0])
            graph = any(t.player == "generator" for t in (turn, *later))
            planned = self._asks(turn) if self.system.spec.runtime.joint else frozenset()
            self._ahead[turns, index, silent] = _Ahead(graph, frozenset(again), frozenset(planned))
        return self._ahead[turns, index, silent]

    def _asks(self, turn: Turn) -> set[str]:
        return {
            name
            for way in turn.ways
            for label in self._partakers(turn, way)
            if self._weight(label, turn.player) != 0
            for name in self.rehearsal.asked[turn.player, way, label].names
        }

    def _average(self) -> None:
        if self.ema is None:
            return
        # as one dictionary, in which what ways share comes once
        averages = nn.ModuleDict(self.ema)
        current = nn.ModuleDict({way: self.system.networks.generator(way) for way in self.ema})
        with torch.no_grad():
            for average, weight in zip(averages.parameters(), current.parameters(), strict=True):
                average.lerp_(weight, self._ema_rate)
            for copied, buffer in zip(averages.buffers(), current.buffers(), strict=True):
                copied.copy_(buffer)

    def _make_pools(self) -> dict[str, nn.Module]:
        pools, parts = {}, self.system.parts
        for way in self.system.schedule.ways:
            target = self.sampler.domains[way[1]]
            with parts.blamed("schedule", f"schedule's pool of way {way}"):
                if (pool := self.system.schedule.pool(target)) is not None:
                    pools[way] = pool.to(self.system.device, self.system.dtype)
                    parts.add(pool, parts.of("schedule"))
        return pools

    def _make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        optimizers = {}
        for player in PLAYERS:
            networks = [m for n, m in self.system.networks.modules.items() if n.startswith(f"{player}/")]
            losses = [loss for loss in self.system.losses.values() if loss.trains == player]
            if not (parameters := list(trainable([*networks, *losses]))):
                continue
            with self.system.parts.blamed("schedule", f"schedule's optimizer of the {player}"):
                made = self.system.schedule.optimizer(player, parameters)
                if not isinstance(made, torch.optim.Optimizer):
                    raise TypeError(f"gives {made!r} where a torch.optim.Optimizer is due")
                optimizers[player] = made
        return optimizers

    def translators(self) -> dict[str, nn.Module]:
        """{way: generator} for samples and evaluation: the averages where there are any."""
        ways = self.system.schedule.ways
        return dict(self.ema or {way: self.system.networks.generator(way) for way in ways})

    def moved_by(self, turn: Turn) -> list[str]:
        """The networks and losses whose parameters a turn moves; none where it has no terms."""
        if not any(self.rehearsal.asked[turn.player, w, n].parts for w in turn.ways for n in self._partakers(turn, w)):
            return []
        labels = dict.fromkeys(label for way in turn.ways for label in self._partakers(turn, way))
        own = [f"loss/{label}" for label in labels if self._trained(label, turn.player)]
        return [*self._moves(turn)[0], *own]

    def _trained(self, label: str, player: str) -> bool:
        """Whether a loss has parameters of its own that a player moves."""
        loss = self.system.losses[label]
        return loss.trains == player and any(p.requires_grad for p in loss.parameters())

    def state_bytes(self) -> int:
        """Weights, gradients, averages, pools and the optimisers' state. Lets each optimiser take a step on zeros."""
        kept_whole = [*(self.ema or {}).values(), *self.pools.values(), *self.system.losses.values()]
        total: int = sum(t.nbytes for module in kept_whole for t in module.state_dict().values())
        for player, optimizer in self.optimizers.items():
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            for p in parameters:
                p.grad = torch.zeros_like(p)
            with self.system.parts.blamed("schedule", f"schedule's optimizer of the {player}"):
                optimizer.step()
            optimizer.zero_grad()
            kept = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
            total += sum(t.nbytes for t in (*parameters, *parameters, *kept))
        return total

    def modules(self) -> dict[str, nn.Module]:
        """The networks by name, and `ema/WAY` for the averages."""
        return self.system.networks.modules | {f"ema/{way}": module for way, module in (self.ema or {}).items()}

    def state(self) -> dict[str, Any]:
        """All the rest that the next step depends on: plain values and tensors."""
        state = {
            "done": self.done,
            "draws": self.draws,
            "seconds": self.seconds,
            "optimizers": {player: o.state_dict() for player, o in self.optimizers.items()},
            "losses": {label: own_state(loss) for label, loss in self.system.losses.items()},
            "pools": {way: pool.state_dict() for way, pool in self.pools.items()},
            "random": torch.get_rng_state(),
        }
        if self.system.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(self.system.device)
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        self.done, self.draws, self.seconds = state["done"], state["draws"], state["seconds"]
        for player, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][player])
        for label, loss in self.system.losses.items():
            load_own_state(loss, state["losses"][label])
        for way, pool in self.pools.items():
            pool.load_state_dict(state["pools"][way])
        torch.set_rng_state(state["random"])
        if self.system.device.type == "cuda" and "random_cuda" in state:
            torch.cuda.set_rng_state(state["random_cuda"], self.system.device)


def _number(given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, Real):
        raise TypeError(f"gives {given!r} where a number is due")
    if not math.isfinite(given):
        raise ValueError(f"gives {given!r} where a finite number is due")
    return float(given)


def _first(batch: Batch, count: int) -> Batch:
    """The first images of a batch."""
    images, labels = ({k: v[:count] for k, v in values.items()} for values in (batch.images, batch.labels))
    return batch._replace(images=images, labels=labels)
