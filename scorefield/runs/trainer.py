"""Training: from data and settings to a run, and runs in progress."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from scorefield._internal.devices import conditions, find_device
from scorefield._internal.errors import StorageError, UsageError
from scorefield.data import Data, Standardize
from scorefield.data.config import DataConfig
from scorefield.data.lengths import moments
from scorefield.data.rows import chunks, digest, spans
from scorefield.data.source import as_data, check_without_space
from scorefield.networks import Wiener
from scorefield.noise import Noise
from scorefield.process import check_instance
from scorefield.runs import build
from scorefield.runs.folder import RunFolder, check_config, settings
from scorefield.runs.loading import describe_data, examples_of, new_denoiser
from scorefield.runs.memory import check_memory
from scorefield.runs.quality import Items, Quality, quality
from scorefield.runs.quantiles import with_quantiles
from scorefield.runs.run import Run
from scorefield.runs.settings import check_codec, check_settings, configured
from scorefield.training import checkpoint
from scorefield.training.config import RunConfig, TrainConfig
from scorefield.training.couplings import Coupling, FromData, Matches, check_coupling
from scorefield.training.course import Course
from scorefield.training.held_out import HeldOut, split
from scorefield.training.loop import fit
from scorefield.training.pace import steps_within
from scorefield.training.steps import Progress
from scorefield.training.workers import SingleWorker, Workers

if TYPE_CHECKING:
    from scorefield.runs.codecs import TrainedCodec
    from scorefield.spaces import Space

_SINGLE = SingleWorker()
# settings of trainings on a space
SPACE = {"process": "brownian", "parametrization": "eps", "weighting": "simple"}
# settings of flow matching, which suit paths between two data sets
FLOW = {
    "process": "flow",
    "parametrization": "velocity",
    "weighting": "flow-matching",
    "times": "uniform",
}


class Evaluation(NamedTuple):
    """The error on held-out data after a step.

    Attributes:
        step: the number of steps.
        error: the mean over the noise levels.
        levels: of each noise level, as `HeldOut.errors`.
        seconds: of the measurement.
    """

    step: int
    error: float
    levels: list[float]
    seconds: float


class Training:
    """A training run in progress: iterate to train, then take `run`.

    Args:
        data: the training data.
        config: the settings.
        workers: processes that train together.
        device: the device to train on.
        objects: the user's own objects, such as a network, which the configuration cannot name.
            The network is called with -1 where a class is hidden, and NaN where others are.
        source: a second data set in the place of noise, to translate from it to ``data``.
        codec: the codec whose latents the field is of.

    Attributes:
        course: the error on held-out data so far, and the step that it chooses.
        evaluation: the last measurement of that error.
        damaged: the names of damaged checkpoints that `resume` has skipped.
        changed: the `conditions` under which the checkpoint of `resume` was made, and the present
            ones, as texts by their names, where they differ; the bits may then differ too.

    Raises:
        ValueError: a conditional run on data without conditions; hidden classes for a network that
            needs one; a network that does not match the data or does not fit into memory.
    """

    def __init__(
        self,
        data: Data,
        config: TrainConfig | None = None,
        workers: Workers = _SINGLE,
        device: str | torch.device = "cpu",
        objects: build.Objects = build.NONE,
        source: Data | None = None,
        codec: TrainedCodec | None = None,
    ) -> None:
        check_instance("data", data, Data, "Data(x)")
        config = objects.described(TrainConfig() if config is None else config)
        if config.process.kind == "brownian":
            data, config = on_space(data, config)
        check_settings(config, data)
        space = build.process(config.process, objects.process).space
        if space is not None:
            objects = build.objects_on(space, objects)
        if source is not None and (space or data.points.space or source.points.space):
            raise UsageError(
                f"to={data.name}: translations add vectors, and points of a space do not add."
            )
        self.codec = codec
        if codec is not None:
            check_codec(config, source is not None)
            if space is not None or data.points.space:
                raise UsageError("codec: latents are vectors, and points of a space are not.")
            data = codec.aligned(data)
        shape = data.shape if codec is None else codec.module.shape(data.shape)
        self.config = build.resolved(config, shape, len(data.x))
        self.data_config = describe_data(data, self.config)
        if codec is not None:
            self.data_config = self.data_config.model_copy(update={"codec": codec.config})
        check_coupling(self.config, self.data_config, data, source)
        if source is not None:
            self.data_config = self.data_config.model_copy(update={"source": source.name})
        if objects.network is None:
            check_memory(self.config, self.data_config, torch.device(device), workers.size)
        check_config(RunConfig(data=self.data_config, train=self.config, loss=0.0))
        self._module = None if codec is None else codec.module.to(device)
        self.encoding = build.encoding(self.config, self.data_config, self._module)
        if space is not None and not data.points.space:  # of your own
            for chunk in chunks(data.x):
                space.check(chunk)
        for each in [data] if source is None else [data, source]:
            for chunk in chunks(each.x) if config.levels or data.points.space else ():
                self.encoding.check(chunk, each.name)
        mean, variance = moments(self.data_config, *self.encoding.moments(data.x), len(data.x))
        own = mean, variance
        self.transform = Standardize.fit(*own if space is None else scales(space, *own))
        self.denoiser = new_denoiser(
            self.config,
            self.data_config,
            self.transform.forward(mean).float(),
            (variance / self.transform.std.double() ** 2).float(),
            objects,
        ).to(device)
        if objects.network is not None:
            build.check_network(self.denoiser, self.data_config, self.config.dropout > 0)
        self.data, self.source = data, source
        self.workers = workers
        self.course = Course(self.config.evaluate_every, self.config.end or "last")
        self.evaluation: Evaluation | None = None
        self._maps: tuple[Standardize, DataConfig] | None = None
        self.damaged: tuple[str, ...] = ()
        self.changed: dict[str, str] = {}
        self._began, self._paced = time.monotonic(), not self.config.optim.minutes
        conditions = data.conditions.values if config.conditional else {}
        share = self.config.held_out or 0.0
        self.learned, rest = split(len(data.x), share, self.config.seed)
        if isinstance(self.denoiser.network, Wiener) and objects.network is None:
            parts = spans((len(self.learned), *self.denoiser.shape))
            items = (self.learned[torch.from_numpy(part)] for part in parts)
            self.denoiser.network.fit(self._middle(data.x[each]) for each in items)
        coupling = self._coupling(source)
        self.held_out = HeldOut(
            data.x, conditions, rest, self._prepared, self.config.seed, coupling
        )
        self.fit = fit(
            self.denoiser,
            build.objective(self.config, objects),
            data.x,
            conditions,
            optim=self.config.optim.model_copy(update={"minutes": 0.0}),
            dropout=self.config.dropout,
            prepare=self._prepared,
            seed=self.config.seed,
            among=self.learned,
            workers=workers,
            coupling=coupling,
        )

    def _coupling(self, source: Data | None) -> Coupling | None:
        coupling = build.coupling(self.config)
        if source is None:
            return coupling

        paired, conditional = self.config.coupling == "paired", self.config.conditional
        matches = None if paired else Matches.of(self.data, source, conditional)
        return FromData(source.x, self._middle, matches, coupling)

    def _middle(self, x: Tensor) -> Tensor:
        """Return the field's input for data, with the mean of the encoding's noise."""
        return self.transform.forward(self.encoding.middle(x)).to(self.transform.mean.dtype)

    def _prepared(self, x: Tensor, noise: Noise) -> tuple[Tensor, Noise]:
        v, _, noise = self.encoding.forward(x, noise)
        return self.transform.forward(v).to(self.transform.mean.dtype), noise

    def __iter__(self) -> Iterator[Progress]:
        self.pace()
        for progress in self.fit:
            self._measure(progress.step)
            yield progress

    def pace(self) -> None:
        """Fix the number of steps from ``minutes``, if that is set.

        A trial measures the time of a step and is then undone: the run is the same as one with that
        number of steps. This happens once, and a checkpoint keeps the number.
        """
        if not self._paced:
            self._paced = True
            self.fit.steps = steps_within(self.fit, self.config.optim.minutes)

    @property
    def seconds(self) -> float:
        """The seconds since the start, with those before the checkpoint that was resumed."""
        return time.monotonic() - self._began

    def evaluate(self) -> Tensor:
        """Return the `HeldOut.errors` of the averaged weights, one for each noise level."""
        return self.held_out.errors(self.fit.averaged)

    def _measure(self, step: int) -> None:
        """Measure the error on held-out data if it is time, and let it choose the weights."""
        course = self.course
        if not len(self.held_out.items) or not (step == self.fit.last or course.is_due(step)):
            return
        began = time.monotonic()
        errors = self.evaluate()
        # that of the first worker, so that all choose alike
        error = float(self.workers.gathered(float(errors.mean()))[0])
        self.evaluation = Evaluation(step, error, errors.tolist(), time.monotonic() - began)
        if course.add(step, error):
            self.fit.choose()
        if course.has_risen and step < self.fit.last:
            self.fit.stop = step

    @property
    def summary(self) -> str:
        """One line on the number of steps and the choice of the weights."""
        stopped = f" of {self.fit.steps}, stopped early" * (self.fit.stop is not None)
        ending = self.course.summary(len(self.held_out.items), self.data_config.baseline)
        text = f"{self.fit.step} steps{stopped}: {ending}"
        if self.codec is not None and len(self.held_out.items):
            text += f"; the codec has {self.codec.measure(self.data.x, self.held_out.items)}"
        return text

    def compare(self, run: Run, count: int = 256) -> Quality:
        """Return the quality of samples of the result, `run`; fewer if there are fewer data.

        Raises:
            ValueError: fewer than 32 samples to compare.
        """
        items = Items(self.data.x, self.learned, self.held_out.items)
        return quality(run, items, self.config.seed, count)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Settings and digests of the data, in JSON's types."""
        other = () if self.source is None else (self.source.x,)
        values = self.data.conditions.values.values()
        rows = [digest(rows) for rows in (self.data.x, *values, *other)]
        # the same numbers are learned in another way if the kinds of the columns differ
        columns = self.data_config.model_dump_json(exclude={"name"}).encode()
        columns += b"" if self.codec is None else self.codec.digest.encode()
        settings = self.config.model_dump(mode="json")
        return {"settings": settings, "data": rows, "columns": hashlib.sha256(columns).hexdigest()}

    def save_checkpoint(
        self, folder: Path, stays: Callable[[int], bool] = lambda step: False
    ) -> None:
        """Write a checkpoint, as a whole or not at all; the one before is kept too.

        Args:
            stays: whether the checkpoint of a step is never removed.
        """
        state = self.fit.state()  # every worker adds its share
        if self.workers.first:
            own = {"losses": list(self.fit.losses), "steps": self.fit.steps, "stop": self.fit.stop}
            own |= {"best": self.course.best, "last": self.course.last}
            facts = {**self.facts, **own, "seconds": self.seconds, "diverged": self.fit.diverged}
            facts["conditions"] = conditions(self.fit.device)
            checkpoint.save(folder, self.fit.step, state, facts, stays)

    def resume(self, folder: Path) -> int:
        """Continue from the newest checkpoint in a folder, if any; return the number of steps.

        Raises:
            UsageError: the checkpoint is from another run.
            StorageError: all checkpoints are damaged, or are not from a training.
        """
        latest = checkpoint.newest(folder)
        if latest is None:
            return 0
        checkpoint.check_same(folder, latest, self.facts)
        facts = latest.facts
        try:
            self.fit.restore(latest.tensors)
            self.fit.losses.extend(map(float, facts["losses"]))
            for name in ("best", "last"):
                error = facts[name]
                setattr(self.course, name, error and (int(error[0]), float(error[1])))
            self.fit.steps = int(facts["steps"])
            self.fit.stop = None if facts["stop"] is None else int(facts["stop"])
            self._began = time.monotonic() - float(facts["seconds"])
            now, then = conditions(self.fit.device), dict(facts.get("conditions", {}))
            self.changed = {
                k: f"{then[k]}, now {now[k]}" for k in now if then.get(k, now[k]) != now[k]
            }
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(
                f"{folder} does not hold a training to continue: {error}. Remove it to begin again."
            ) from None
        self.damaged, self._paced = latest.damaged, True
        return self.fit.step

    @property
    def loss(self) -> float:
        """The mean loss of the last hundred steps that were read from the device."""
        return sum(self.fit.losses) / max(1, len(self.fit.losses))

    @property
    def run(self) -> Run:
        """The result; before the last step, a view of the current weights, not averaged."""
        decays = self.config.optim.ema
        averages = {decays[k]: self.fit.average(k) for k in range(1, len(decays))}
        run = Run(
            self.denoiser,
            self.transform,
            self._run_config,
            codec=self._module,
            averages=averages,
            examples=examples_of(self.data, self.data_config, self.learned),
        )
        return self._corrected(run) if self.fit.step >= self.fit.last else run

    def _corrected(self, run: Run) -> Run:
        """Return the finished run with the maps of its columns, which are fitted once."""
        columns = self.data_config.columns
        if not columns.quantiles:
            return run
        if self._maps is None:
            maps = with_quantiles(run, self.data.x, self.learned, columns.quantiles)
            self._maps = maps.transform, maps.config.data
        transform, about = self._maps
        return replace(
            run, transform=transform, config=run.config.model_copy(update={"data": about})
        )

    @property
    def averaged(self) -> Run:
        """A view of the average of the weights so far."""
        return Run(self.fit.averaged, self.transform, self._run_config, codec=self._module)

    def is_in(self, folder: RunFolder) -> bool:
        """Return whether a folder holds the finished run of these settings and this data.

        The data is known by its description, means and deviations.
        """
        try:
            tensors, theirs, ours = folder.tensors(), folder.config, self._run_config
            folder.check_unchanged()
        except ValueError:  # of a folder that is missing, damaged, or holds another run
            return False
        if self.config.optim.minutes:
            steps = {"steps": theirs.train.optim.steps}
            optim = ours.train.optim.model_copy(update=steps)
            ours = ours.model_copy(update={"train": ours.train.model_copy(update={"optim": optim})})
        configs = []
        for config in (theirs, ours):
            same = {"loss": 0.0, "step": None, "data": _unfitted(config.data)}
            configs.append(settings(config.model_copy(update=same)))
        moments = [(tensors["transform.mean"], self.transform.mean)]
        moments.append((tensors["transform.std"], self.transform.std))
        return configs[0] == configs[1] and all(torch.equal(a, b.float()) for a, b in moments)

    @property
    def _run_config(self) -> RunConfig:
        # with the number of steps in place of the minutes, the run can be repeated
        counted = {"steps": self.fit.steps, "minutes": 0.0}
        optim = self.config.optim.model_copy(update=counted)
        config = self.config.model_copy(update={"optim": optim})
        about = _unfitted(self.data_config)
        best = self.course.best if self.fit.chosen else None
        step = None if best is None or best[0] == self.fit.last else best[0]
        return RunConfig(data=about, train=config, loss=self.loss, step=step)


def _unfitted(data: DataConfig) -> DataConfig:
    """Return the description of data without the maps that are fitted after training."""
    columns = data.columns.model_copy(update={"quantiles": 0})
    return data.model_copy(update={"columns": columns})


def _by_name(space: Space, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return a space that has a name, or the settings of a training on a space of your own."""
    from scorefield.spaces import Brownian, Space, name_of

    check_instance("space", space, Space, "one such as scorefield.spaces.Sphere(2), or its name")
    if name_of(space):
        return space, settings
    return None, {**settings, "process": Brownian(space)}


def scales(space: Space, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Return the moments by which points are standardized: those of Euclidean parts alone."""
    from scorefield.spaces.product import is_flat

    flat = is_flat(space)
    return torch.where(flat, mean, 0.0), torch.where(flat, variance, 1.0)


def on_space(data: Data, config: TrainConfig) -> tuple[Data, TrainConfig]:
    """Return data and settings with the same space, declared by at least one of them.

    Raises:
        UsageError: two spaces, or none.
        DataError: as `scorefield.data.points.declared`.
    """
    from scorefield.data.source import as_points
    from scorefield.spaces import parse

    process, space = config.process, data.points.space
    assert process.kind == "brownian"
    if process.space and not space:
        data = as_points(data, build.process(process).space, None)
    elif process.space and build.process(process).space != parse(space):
        raise UsageError(f"process.space={process.space!r}: {data.name} has points of {space}.")
    process = process.model_copy(update={"space": data.points.space or None})
    return data, config.model_copy(update={"process": process})


def train(
    data: Any,
    conditions: Any = None,
    *,
    to: Any = None,
    space: Space | str | None = None,
    angles: str | None = None,
    codec: TrainedCodec | str | PathLike[str] | None = None,
    embeddings: Mapping[str, Any] | None = None,
    config: TrainConfig | None = None,
    device: str | torch.device = "cpu",
    **settings: Any,
) -> Run:
    """Train a field on data and return the finished run.

    Args:
        data: a tensor or array ``(N, D)``, ``(N, C, L)`` or ``(N, C, H, W)``; a pandas or polars
            table; an AnnData object; a path or the name of a built-in set; a `scorefield.Data`.
        conditions: of the samples, to learn the field under each: classes, as a list or an array of
            integers or texts; numbers; images; or several by name, as in
            ``{"dose": d, "drug": names}``; or the names of columns, ``"dose,drug"``. See
            `scorefield.read`. With them ``conditional`` is True by default.
        to: a second data set of the same shape. The run then translates ``data`` to it and back, by
            `Run.translate`, and is a flow by default. With conditions it is a `scorefield.Data`
            that has the same ones, or a table that has the same columns.
        space, angles: of points, as for `scorefield.read`. The network, of your own or an MLP, is
            in a `scorefield.spaces.SpaceNetwork`.
        codec: of `scorefield.train_codec`, or its folder: the field is one of its latents, and the
            run decodes.
        embeddings: as for `scorefield.read`.
        config: the settings as one object, such as that of another run.
        device: where to train: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        settings: the fields of `scorefield.TrainConfig` and `scorefield.OptimConfig`, which
            override those of ``config``: ``steps``, ``minutes``, ``lr``, ``batch_size``,
            ``network``, ``process``, ``parametrization``, ``conditional``, ``held_out``, ``seed``
            and others.
            A network, process, parametrization, label, weighting or distribution of times is the
            name of a kind, a configuration, or an object, for example of a class of your own. A
            network is a module called as ``network(x, label)``, or ``network(x, label, y=y)`` with
            the conditions by name, -1 where a class is hidden and NaN where others are; it is
            trained in place.

    Raises:
        TypeError: an unknown setting.
        DataError: as `scorefield.read`.
        UsageError: a device that is not available here; angles without a space.
        ValueError: as `Training` and `scorefield.training.loop.fit`.
    """
    if isinstance(conditions, TrainConfig):
        raise TypeError("conditions is a TrainConfig: pass it as config=.")
    if conditions is not None and "conditional" not in (config.model_fields_set if config else ()):
        settings = {"conditional": True, **settings}
    if to is not None and config is None:
        settings = {**FLOW, **settings}
    if space is not None or (isinstance(data, Data) and data.points.space):
        settings = {**(SPACE if config is None else {}), **settings}
    if not isinstance(space, str | None):
        space, settings = _by_name(space, settings)
    if space is None:
        check_without_space(angles)
    where = find_device(device)
    built, objects = configured(config, settings)
    with torch.inference_mode(False), torch.enable_grad():  # as they may be off around a call
        points = {} if space is None else {"space": space, "angles": angles}
        items, source = as_data(data, conditions, embeddings=embeddings, **points), None
        if to is not None:
            columns = conditions if isinstance(conditions, str) else None
            items, source = as_data(to, columns, embeddings=embeddings), items
        if isinstance(codec, str | PathLike):
            from scorefield.runs.codecs import load_codec

            codec = load_codec(codec)
        training = Training(items, built, _SINGLE, where, objects, source, codec)
        for _ in training:
            pass
        return training.run
