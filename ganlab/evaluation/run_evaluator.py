"""Measures the checkpoints of a run: during training on the validation images, afterwards on the test images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from ganlab.data.dataset import Dataset
from ganlab.data.reading import Progress, silent
from ganlab.engine.step_log import Record
from ganlab.errors import RunError, SpecError
from ganlab.evaluation.best import PREFIX, Best, best_of
from ganlab.evaluation.evaluator import LeftOut, Measured, fewer, reasons
from ganlab.evaluation.metric_suite import SEED, MetricSuite, evaluator_for
from ganlab.evaluation.splits import every_image, split
from ganlab.evaluation.translators import BATCH, Translators, copied_generators
from ganlab.interfaces.metrics import Images, MetricInputs
from ganlab.interfaces.networks import Generator
from ganlab.runs import checkpoint
from ganlab.runs.folder import RunFolder
from ganlab.runs.manifest import check_same_data
from ganlab.spec.models import Evaluation, Json
from ganlab.system.build import System


class RunEvaluator:
    """Measures the checkpoints of one run. `evaluation`, the spec's own or another, is resolved."""

    def __init__(
        self,
        system: System,
        datasets: Mapping[str, Dataset],
        evaluation: Evaluation,
        progress: Progress = silent,
    ) -> None:
        self._system = system
        self._directions = system.spec.directions
        self._suite = MetricSuite.build(evaluation, system.device, progress)
        self._split = split(datasets)
        self._datasets = datasets
        self.missing = self._suite.evaluator.missing(every_image(datasets), system.spec.data.paired)
        """{number: reason} of the numbers that can't be measured on the run's images."""
        self.fewest = self._suite.evaluator.fewest
        """{key of a metric: its `Metric.fewest`}."""
        # kept for all checkpoints, because the values depend on real images alone
        self._kept: dict[str, dict[Any, Any]] = {direction: {} for direction in self._directions}
        self._references: dict[str, dict[str, Measured]] = {}
        # the spec's own metrics, because training records their numbers
        own = system.spec.evaluation
        its = evaluator_for(own)
        self._monitors = its.monitors(own.monitor, own.keys_during)
        self.better = dict(self._monitors) | dict(its.monitors(None, own.keys_during))
        """{number: "lower" or "higher"} of the numbers that are measured during training, the monitor first."""

    def evaluate_checkpoint(self, generators: Mapping[str, nn.Module]) -> Record:
        """Measures the generators, {direction: generator}, on the validation images, without references, by the metrics
        of `evaluation.during`.

        Returns {"evaluation/DIRECTION/NUMBER": value}.
        """
        translators = self._translators(generators)
        self.left_out.clear()
        return {
            f"{PREFIX}/{direction}/{name}": float(measured.estimate.value)
            for direction in self._directions
            for name, measured in self._suite.evaluator.measure(
                self._metric_inputs(direction, self._split.validation, translators), self._suite.evaluation.keys_during
            ).items()
        }

    @property
    def left_out(self) -> LeftOut:
        """The numbers that the last measurement could not give, with the reasons."""
        return self._suite.evaluator.left_out

    def best(self, records: Sequence[Record], steps: Sequence[int]) -> Best | None:
        """Returns the checkpoint among `steps` whose monitor in `records`, averaged over the directions, is best.

        Returns None if no monitor was measured at any of the steps.
        """
        return best_of(self._monitors, self._directions, records, steps)

    def evaluate(self, folder: RunFolder, warn: Callable[[str], object] = str) -> Json:
        """Measures the last and the best checkpoint on the test images. Returns the content of evaluation.json."""
        self.left_out.clear()
        measured = [record for record in folder.records(warn) if any(name.startswith(PREFIX) for name in record)]
        while True:
            steps = folder.steps
            if not steps:
                raise SpecError(f"{folder.path} has no checkpoint yet; train it with `ganlab run`")
            best = self.best(measured, steps)
            roles = {steps[-1]: ["last"]}
            if best is not None:
                roles.setdefault(best.step, []).append("best")
            try:
                loaded = {step: self._load(folder, step) for step in roles}
                break
            except RunError:
                # a process that trains meanwhile may have dropped one
                if roles.keys() <= set(folder.steps):
                    raise
        results = [
            {**result, "step": step, "checkpoint": " = ".join(roles[step])}
            for step, (generators, _) in loaded.items()
            for result in self._results(generators)
        ]
        checkpoints = {
            checkpoint.name_of(step): {"is": list(roles[step]), "sha256": sha256}
            for step, (_, sha256) in sorted(loaded.items())
        }
        return {
            "protocol": {**self._protocol(checkpoints, best), **self._suite.protocol()},
            "results": results,
            "left_out": reasons(self.left_out),
        }

    def _load(self, folder: RunFolder, step: int) -> tuple[dict[str, Generator], str]:
        """Returns {direction: generator} of a checkpoint, and the SHA-256 of the file that holds them."""
        spec = folder.trained(self._system.spec)
        manifest = checkpoint.verify(folder.checkpoints, step, spec, self._system.schedule.steps)
        check_same_data(folder, manifest, self._datasets, self._system.spec)
        generators = copied_generators(self._system)
        averaged = self._system.spec.ema_halflife_images is not None
        checkpoint.load_generators(checkpoint.path_of(folder.checkpoints, step), generators, averaged)
        return generators, manifest["files"][checkpoint.NETWORKS]["sha256"]

    def _results(self, generators: Mapping[str, nn.Module]) -> list[Json]:
        translators = self._translators(generators)
        found: list[Json] = []
        for direction in self._directions:
            data = self._metric_inputs(direction, self._split.test, translators)
            evaluator, measured = self._suite.evaluator, self._suite.evaluator.measure(data)
            # as many images as there are outputs, or else the outputs at their number too
            others = fewer(self._split.validation[direction[1]], len(data.outputs), SEED)
            if direction not in self._references:
                self._references[direction] = {
                    "real": evaluator.real(data, others),
                    "identity": evaluator.identity(data, self._split.test[direction[0]]),
                }
            at_fewer = len(others) < len(data.outputs)
            beside = evaluator.measure_fewer(data, len(others)) if at_fewer else None
            results = evaluator.results(direction, measured, self._references[direction], beside)
            found += [result.as_json() for result in results]
        return found

    def _translators(self, generators: Mapping[str, nn.Module]) -> Translators:
        own = {direction: generator for direction, generator in generators.items() if isinstance(generator, Generator)}
        channels = {name: dataset.domain.channels for name, dataset in self._datasets.items()}
        return Translators(self._system, own, channels)

    def _metric_inputs(self, direction: str, images: Mapping[str, Images], translators: Translators) -> MetricInputs:
        outputs, cycled = translators.translate(direction, images[direction[0]])
        return MetricInputs(
            direction,
            outputs,
            targets=images[direction[1]],
            inputs=images[direction[0]],
            partners=images[direction[1]] if self._system.spec.data.paired else None,
            cycled=cycled,
            train=self._split.train,
            encode=translators.encode,
            seed=SEED,
            kept=self._kept[direction],
        )

    def _protocol(self, checkpoints: Json, best: Best | None) -> Json:
        return {
            "images": {
                domain: {
                    "test": len(self._split.test[domain]),
                    "validation": len(self._split.validation[domain]),
                    "train": len(self._split.train[domain]),
                    # of what is measured: how training images are cut makes results no less comparable
                    "sha256": dataset.sha256,
                }
                for domain, dataset in self._datasets.items()
            },
            "spec": self._system.spec.fingerprint(),
            "precision": self._system.spec.runtime.precision,
            "split": "held-out images, each domain's halved at random: the validation half picks the best checkpoint"
            ' and is the reference "real"; results come from the test half',
            "translated": f"in eval mode, {BATCH} images at a time, rounded to 8 bits, before the translation back too",
            "weights_averaged": self._system.spec.ema_halflife_images is not None,
            "checkpoints": checkpoints,
            "best_by": None
            if best is None
            else {"number": best.number, "mean_of_directions": best.value, "step": best.step},
        }
