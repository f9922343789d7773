"""A run: a trained field with its data transform, configuration and plans; on disk a folder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scorefield._internal.errors import UsageError
from scorefield.data import Standardize
from scorefield.data.lengths import by_length
from scorefield.field import Denoiser, ScoreField, check_flat
from scorefield.noise import DECODER, Noise
from scorefield.runs.folder import RunFolder
from scorefield.runs.inference import DataInference
from scorefield.runs.units import Given
from scorefield.sampling import (
    DEFAULT_CALLS,
    Adaptive,
    Plan,
    as_ids,
    default_plan,
    sample,
)
from scorefield.solvers import Solver

if TYPE_CHECKING:
    import pyarrow

    from scorefield.evaluate.audit import Audit
    from scorefield.evaluate.calibration import Calibration
    from scorefield.evaluate.check import Check, Progress
    from scorefield.evaluate.metrics import Metric
    from scorefield.tuning.frontier import Frontier
    from scorefield.tuning.frontier.measure import NamedPlan


@dataclass(eq=False)
class Run(DataInference):
    """A trained field, and all that is needed to use it in the units of the data.

    `scorefield.train` and `scorefield.load` return runs, and `Run.of` makes one of any denoiser.

    Attributes:
        averages: the network's weights averaged with other decays, by the decay.
        folder: the folder that the run was loaded from or saved to, or None.
        tuned: tuned plans that no folder has, by guidance, network calls and `bound`.
    """

    averages: Mapping[float, Mapping[str, Tensor]] = dataclasses.field(default_factory=dict)
    folder: RunFolder | None = None
    tuned: dict[tuple[float, int, str], Plan] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        data, process = self.config.data, self.field.process
        names = [channel.name for channel in data.conditions]
        conditions = f", conditions={names}" if names else ""
        guidance = f", guidance={self.guidance:g}" if self.guidance != 1 else ""
        guidance += f", guidance={dict(self.scales)}" if self.scales else ""
        folder = f", folder={str(self.folder.path)!r}" if self.folder else ""
        return f"Run({data.name!r}, shape={data.shape}{conditions}, {process!r}{guidance}{folder})"

    @classmethod
    def of(
        cls,
        denoiser: Denoiser,
        data: Any = None,
        *,
        name: str = "data",
        transform: Standardize | None = None,
        levels: int = 0,
        conditional: bool = False,
        dropout: float = 0.0,
        held_out: float = 0.0,
        seed: int = 0,
    ) -> Run:
        """Return a run of any denoiser, with a network, process or parametrization of your own.

        Args:
            denoiser: the trained field.
            data: the training data, as for `scorefield.train`: it names columns and conditions and
                gives the moments; None if there is only the field, whose units are then the data's.
            name: of the data.
            transform: from the data to the units of the field; by default the field was trained on
                the data as it is.
            levels, conditional, dropout, held_out, seed: the settings of `TrainConfig` that the
                denoiser was trained with.

        Raises:
            ValueError: the shape of the field is not the shape of the data.
        """
        from scorefield.runs.loading import run_of

        flags = {"levels": levels, "conditional": conditional, "dropout": dropout}
        settings = {**flags, "held_out": held_out, "seed": seed}
        return run_of(denoiser, data, name, transform, settings)

    def plan(self, nfe: int = DEFAULT_CALLS) -> Plan:
        """Return the plan of ``nfe`` network calls: the tuned one if there is one, or the default.

        Raises:
            ValueError: as `scorefield.default_plan`.
            CheckpointError: the run folder holds a plan of another run.
        """
        tuned = self.tuned.get((self.guidance, nfe, self.bound))
        if tuned is None and self.folder is not None and not self.scales:
            tuned = self.folder.plan(self.conditional, nfe, self.guidance)
        return default_plan(self.field, nfe) if tuned is None else tuned

    @property
    def plans(self) -> dict[int, Plan]:
        """The plans that were tuned for the run under its guidance, by their network calls.

        Raises:
            CheckpointError: the run folder holds a plan of another run.
        """
        if self.folder is None or self.scales:
            return self._own_plans()
        return self.folder.plans(self.conditional, self.guidance) | self._own_plans()

    def _own_plans(self) -> dict[int, Plan]:
        """Return the plans that were tuned to this run and not written."""
        own = self.guidance, self.bound
        return {nfe: plan for (scale, nfe, of), plan in self.tuned.items() if (scale, of) == own}

    def sample(
        self,
        n: int | Sequence[int] | Tensor,
        solver: Solver | Plan | None = None,
        times: Tensor | int | Adaptive | None = None,
        *,
        nfe: int | None = None,
        seed: int = 0,
        given: Any = None,
        together: bool = False,
        batch_size: int | None = None,
    ) -> Tensor:
        """Generate data ``(n, *shape)``; the arguments are those of `scorefield.sample`.

        Args:
            nfe: network calls per sample. Without a solver the plan is that of `plan`, of 20 calls
                by default.
            given: conditions, one for all samples or one for each, as for `given`; None for none.
                If a column of classes is the condition, `drawn` then gives that of each sample.
            together: whether the rows of ``given`` are independent observations of every sample,
                whose posteriors are composed; see `scorefield.Product`.

        Signals of several lengths have lengths as in the data, and NaN after their ends;
        `of_length` chooses one.
        """
        settings: dict[str, Any] = {"nfe": nfe, "seed": seed, "batch_size": batch_size}
        settings |= {"given": given, "together": together}
        z = self.sample_field(n, solver, times, **settings)
        ids = torch.tensor(as_ids(n, batch_size), dtype=torch.int64)
        return self.to_data(z, Noise(seed, ids, stream=DECODER))

    def sample_field(
        self,
        n: int | Sequence[int] | Tensor,
        solver: Solver | Plan | None = None,
        times: Tensor | int | Adaptive | None = None,
        *,
        nfe: int | None = None,
        given: Any = None,
        together: bool = False,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Generate samples in the units of the field; the arguments are those of `sample`."""
        settings: dict[str, Any] = {"nfe": nfe, "seed": seed, "batch_size": batch_size}
        ids = as_ids(n, batch_size)
        given = given if together else self.drawn(ids, given, seed)
        if self.config.data.lengths and not together:
            return self._of_lengths(ids, solver, times, given, settings)
        if solver is None and times is None:
            settings["nfe"], solver = None, self.plan(DEFAULT_CALLS if nfe is None else nfe)
        if together:
            from scorefield.runs.together import posterior_of_all

            field: ScoreField = posterior_of_all(self, given)
        else:
            field = self.toward(given)
        return sample(field, n, solver, times, **settings)

    def _of_lengths(
        self, ids: list[int], solver: Any, times: Any, given: Given, settings: dict[str, Any]
    ) -> Tensor:
        """Return signals of lengths as in the data, with NaN after their ends."""
        result = torch.full((len(ids), *self.config.data.shape), math.nan, device=self.device)
        for length, places in by_length(self.drawn_lengths(ids, settings["seed"])):
            rows, some = [ids[k] for k in places], given.rows(places, len(ids))
            x = self.of_length(length).sample_field(rows, solver, times, given=some, **settings)
            result[places, :, :length] = x.to(result)
        return result

    def sample_table(
        self, n: int | Sequence[int] | Tensor, *arguments: Any, **settings: Any
    ) -> pyarrow.Table:
        """Generate rows of a table: `sample` with the same arguments, then `table`.

        Conditions that are columns are among its columns.
        """
        given = self.drawn(as_ids(n), settings.pop("given", None), settings.get("seed", 0))
        return self.table(self.sample(n, *arguments, given=given, **settings), given)

    def tune(
        self,
        nfe: int | Iterable[int] = DEFAULT_CALLS,
        *,
        rounds: int | None = None,
        tries: int | None = None,
        polish: int | None = None,
        conditions: Mapping[str, Tensor] | None = None,
        noises: int | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        overwrite: bool = False,
        progress: Callable[[float], None] = lambda error: None,
    ) -> dict[int, Plan]:
        """Fit a plan for each number of network calls, for the guidance of the run.

        Each plan is written to the run folder at once, and an interrupted search resumes. Without a
        folder the run keeps its plans, and `save` writes them. Plans that exist are not fitted
        again. A conditional run is tuned for all of its classes, or for conditions of the data.

        Args:
            nfe: network calls, one number or several.
            rounds, tries, polish, progress: those of `scorefield.Tuner.tune`. Plans of several
                calls a round are not in `plans`, and without a folder the caller alone has them.
            conditions, noises, seed, batch_size: those of `scorefield.Tuner`.
            overwrite: fit plans again that exist.

        Raises:
            UsageError: SciPy is missing.
            ValueError: as `scorefield.default_plan`, `scorefield.Tuner`, `scorefield.Tuner.tune`.
            CheckpointError: the folder holds a plan of another run, without ``overwrite``.
        """
        from scorefield.runs.tune import RunTuner
        from scorefield.tuning.tuner import check_rounds, longest_below

        budgets = [nfe] if isinstance(nfe, int) else list(nfe)
        for calls in budgets:
            check_rounds(calls, rounds)
            default_plan(self.field, rounds or calls)  # raises before any work
        tuned = {} if overwrite else {calls: self._stored(calls, rounds) for calls in budgets}
        plans = {calls: plan for calls, plan in tuned.items() if plan is not None}
        if missing := [calls for calls in budgets if calls not in plans]:
            settings: dict[str, Any] = {"noises": noises, "seed": seed, "batch_size": batch_size}
            tuner = RunTuner(self, conditions=conditions, **settings)
            settings = {"rounds": rounds, "tries": tries, "polish": polish, "progress": progress}
            for calls in sorted(missing):
                shorter = longest_below(plans, calls)
                plans[calls] = tuner.tune(calls, shorter=shorter, **settings)
        return dict(sorted(plans.items()))

    def _stored(self, nfe: int, rounds: int | None) -> Plan | None:
        """Return the plan that was tuned for a number of calls and rounds, if there is one."""
        if rounds in (None, nfe):
            return (self._own_plans() if self.bound else self.plans).get(nfe)
        if self.bound or self.folder is None:
            return None
        return self.folder.plan(self.conditional, nfe, self.guidance, rounds)

    def compare(
        self,
        data: Any = None,
        plans: Mapping[str, Plan | Sequence[Plan]] | None = None,
        *,
        nfe: int | Sequence[int] = (5, 10, 20),
        given: Any = None,
        conditions: Any = None,
        held_out: bool = False,
        n: int | None = None,
        seed: int = 0,
        metrics: Sequence[Metric] | None = None,
        level: float = 0.95,
        batch_size: int = 64,
        progress: Callable[[Sequence[NamedPlan]], Iterable[NamedPlan]] = iter,
    ) -> Frontier:
        """Measure plans on the run: network calls, time, error, and distance to held-out data.

        A run folder keeps the result, from which ``scorefield sample --tolerance`` chooses. The
        result of a run with conditions besides the class is not kept.

        Args:
            data: as for `scorefield.train`; None to measure errors and times only.
            plans: by name; by default the default plan, tuned plans, and seven known solvers.
            nfe: network calls of the default plans and solvers, one number or several.
            given: conditions, as for `given`; None for none.
            conditions, held_out, n, seed: as for `scorefield.runs.comparison.references`.
            metrics, level, batch_size, progress: as for `scorefield.frontier`. With ``held_out``
                the default has the distance to the closest training record, too.

        Raises:
            UsageError: training data, too few items; guidance without a condition.
            DataError: data that is not of the run's kind.
            ValueError, NumericalError: as `scorefield.frontier`.
        """
        from scorefield.evaluate.metrics import ClosestRecord
        from scorefield.runs.comparison import SAMPLES, references, usual_plans
        from scorefield.tuning.frontier import METRICS, frontier

        field, real, other, records = self.toward(given), None, None, None
        check_flat("compare", field)
        if data is not None:
            items = {"conditions": conditions, "held_out": held_out, "n": n, "seed": seed}
            real, other, records = references(self, data, given, **items)
        if metrics is None:
            metrics = METRICS if records is None else (*METRICS, ClosestRecord(records))
        result = frontier(
            field,
            usual_plans(self, [nfe] if isinstance(nfe, int) else nfe) if plans is None else plans,
            real=real,
            other=other,
            n=(n or SAMPLES) if other is None else len(other),
            seed=seed,
            metrics=metrics,
            features=lambda z: self.to_field(self.to_data(z)),
            level=level,
            batch_size=batch_size,
            progress=progress,
        )
        if self.folder is not None and not self.bound:
            self.folder.save_frontier(
                result, self.folder.frontier_path(self.given_name(given), self.guidance)
            )
        return result

    def check(
        self,
        data: Any = None,
        *,
        given: Any = None,
        conditions: Any = None,
        n: int = 64,
        seed: int = 0,
        progress: Progress = iter,
    ) -> Check:
        """Measure whether the network matches the configuration.

        Args:
            data: as for `scorefield.train`; by default samples of the run.
            given: conditions, one for all items or samples, or one for each, as for `given`; None
                for none, or those of the data.
            conditions: of the items, as for `scorefield.train`.
            n, seed, progress: as for `scorefield.evaluate.check.check`.

        Raises:
            DataError: data that is not of the run's kind.
            ValueError: as `scorefield.evaluate.check.check`.
        """
        from scorefield.runs.comparison import check

        return check(self, data, given, conditions=conditions, n=n, seed=seed, progress=progress)

    def audit(
        self,
        data: Any,
        *,
        given: Any = None,
        conditions: Any = None,
        n: int = 2048,
        seed: int = 0,
        progress: Progress = iter,
    ) -> Audit:
        """Test the field by noise level, on data that it was not trained on.

        Args:
            data: as for `scorefield.train`.
            given, conditions: as for `check`.
            n, seed, progress: as for `scorefield.audit`.

        Raises:
            DataError: data that is not of the run's kind.
            ValueError: as `scorefield.audit`.
        """
        from scorefield.runs.comparison import audit

        return audit(self, data, given, conditions=conditions, n=n, seed=seed, progress=progress)

    def calibrate(
        self,
        data: Any,
        *,
        conditions: Any = None,
        held_out: bool = False,
        **settings: Any,
    ) -> Calibration:
        """Measure the calibration of draws given the conditions of data; see `sf.calibration`.

        Args:
            data, conditions: pairs that the run was not trained on, as for `scorefield.train`.
            held_out: the data is that of the training: use only the items that were held out.
            settings: ``pairs``, by default 200, and ``draws`` of each, 99; the ``levels`` of
                intervals; ``nfe`` of `plan`, ``seed`` and ``batch_size``.

        Raises:
            UsageError: a run without conditions, or of samples of more than 32 numbers or of none
                that is continuous; fewer than 20 items.
            DataError: data that is not of the run's kind, or has not all of its conditions.
        """
        from scorefield.runs.calibrate import calibrate

        return calibrate(self, self.read(data, conditions), held_out=held_out, **settings)

    def save(self, folder: str | Path, include: Mapping[str, Path | str] | None = None) -> None:
        """Write the run to a new folder, at once or not at all; it belongs to it from then on.

        The log, the plans and the frontiers of the folder that it belonged to are copied. Not
        written are the guidance and the conditions of the run, and averages that were not loaded.

        Args:
            include: files and folders to copy into it, or texts, by their names there.

        Raises:
            UsageError: the folder exists and is not empty; a view by `of_length`.
            StorageError: no room on the disk.
        """
        if self.length is not None:
            raise UsageError(f"length={self.length}: save the run of all lengths instead.")
        tensors = {f"network.{k}": v for k, v in self.field.network.state_dict().items()}
        for key in self.config.data.examples:
            tensors[f"examples.{key}"] = self.examples[key].float()
        tensors |= {"transform.mean": self.transform.mean, "transform.std": self.transform.std}
        if self.transform.quantiles is not None:
            maps = self.transform.quantiles
            tensors |= {"quantiles.data": maps.data, "quantiles.field": maps.field}
        if self.codec is not None:
            tensors |= {f"codec.{k}": v for k, v in self.codec.state_dict().items()}
        for name, value in (("mean", self.field.mean), ("variance", self.field.variance)):
            tensors[f"data.{name}"] = torch.as_tensor(value).float().expand(self.field.shape)
        target = RunFolder(folder)
        files = {} if self.folder is None else self.folder.measurements
        plans = {(scale, nfe): plan for (scale, nfe, of), plan in self.tuned.items() if not of}
        target.write(self.config, tensors, self.averages, plans, {**files, **(include or {})})
        self.folder = target

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that is ready for the hub: as `save`, with a model card, README.md.

        Raises:
            UsageError, StorageError: as `save`.
        """
        from scorefield.runs.model_card import CARD, model_card

        self.save(folder, {CARD: model_card(self, Path(folder).name)})

    @classmethod
    def from_pretrained(cls, folder: str | Path, **settings: Any) -> Run:
        """Return the run of a folder, or of a repository in the hub's cache.

        Args:
            settings: those of `scorefield.load`, and so are the errors.
        """
        from scorefield.runs.loading import load

        return load(folder, **settings)
