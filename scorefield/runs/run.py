"""A run: a trained field with its data transform and configuration, on disk a folder."""

from __future__ import annotations

import dataclasses
import math
import operator
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialise
from torch import Tensor

from scorefield._internal.atomic_files import in_room, publish
from scorefield._internal.errors import CheckpointError, DataError, UsageError
from scorefield.data import Standardize
from scorefield.data.config import DataConfig
from scorefield.data.encoding import Continuous, Encoding
from scorefield.field import ClassifierFree, Denoiser, ScoreField
from scorefield.inverse import Operator, mask_as_nan
from scorefield.likelihood import Bound, Likelihood, combined, elbo, log_prob
from scorefield.networks import Codec
from scorefield.noise import LEVELS, Noise
from scorefield.runs import build, folder as stored
from scorefield.runs.folder import CONFIG, WEIGHTS, average_name
from scorefield.runs.restore import restore_data
from scorefield.sampling import Adaptive, Codes, Decoded, Plan, decode, encode, interpolate, sample
from scorefield.solvers import Solver
from scorefield.training.config import RunConfig, TrainConfig


@dataclass(frozen=True)
class Run:
    """What training leaves: everything needed to generate in the data's own units.

    Attributes:
        field: the score field of the standardised data.
        transform: between data and what the field sees.
        config: how it came about.
        averages: the network's weights averaged with other decays, by the decay.
        guidance: the scale of classifier-free guidance towards a class that is asked for; 1 is
            none.
        codec: what makes the latents that the field is of, for a run of pictures by latents.
    """

    field: Denoiser
    transform: Standardize
    config: RunConfig
    averages: Mapping[float, Mapping[str, Tensor]] = dataclasses.field(default_factory=dict)
    guidance: float = 1.0
    codec: Codec | None = None

    @cached_property
    def encoding(self) -> Encoding:
        """Between the data and continuous vectors."""
        return build.encoding(self.config.train, self.config.data, self.codec)

    def sample(
        self,
        n: int | Sequence[int] | Tensor,
        solver: Solver | Plan | None = None,
        times: Tensor | Adaptive | None = None,
        *,
        seed: int = 0,
        y: int | None = None,
        batch_size: int = 64,
    ) -> Tensor:
        """Generate data ``(n, *shape)``; the arguments are those of `scorefield.sample`.

        Args:
            y: the class to generate, for a conditional run; all classes unless given.
        """
        z = sample(self.toward(y), n, solver, times, seed=seed, batch_size=batch_size)
        return self._to_data(z)

    def log_prob(
        self,
        x: Tensor,
        *,
        draws: int = 1,
        y: int | None = None,
        ids: Sequence[int] | Tensor | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> Likelihood:
        """Return the log-density of data ``(B, *shape)`` in nats, in the data's own units.

        Of whole numbers in levels it is a lower bound of the log-probability, by the noise between
        them; `Likelihood.bits_per_dim` makes bits of it.

        Args:
            draws: of that noise; several are combined to a tighter bound, weighted by importance.
            y: the class, for a conditional run.
            ids: which samples these are; ``0 .. B-1`` unless given.
            seed: with an id, determines the noise between levels and the probes.
            settings: those of `scorefield.log_prob`.

        Raises:
            ValueError: as `scorefield.log_prob`; several draws for data that is not in levels.
            DataError: data of another shape, or that is not in the run's levels.
            UsageError: as `check_density`.
            NumericalError: as `scorefield.log_prob`.
        """
        z, drawn, offset = self._drawn(x, draws, ids, seed)
        found = log_prob(self.toward(y), z, ids=drawn, seed=seed, **settings)
        found = replace(found, value=found.value + offset)
        return found if draws == 1 else combined(found, draws)

    def elbo(
        self,
        x: Tensor,
        *,
        y: int | None = None,
        ids: Sequence[int] | Tensor | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> Bound:
        """Return a lower bound of what `log_prob` tells, by the reverse SDE, in the same units.

        Args:
            y, ids, seed: as for `log_prob`.
            settings: those of `scorefield.elbo`.

        Raises:
            ValueError, DataError, NumericalError: as `log_prob`.
        """
        z, drawn, offset = self._drawn(x, 1, ids, seed)
        found = elbo(self.toward(y), z, ids=drawn, seed=seed, **settings)
        return replace(found, value=found.value + offset)

    def encode(self, x: Tensor, *arguments: Any, y: int | None = None, **settings: Any) -> Codes:
        """Return the codes of data ``(B, *shape)``; the rest is as for `scorefield.encode`.

        Whole numbers in levels stand in the middle of their intervals, and so come back as they
        were where the error is below half a level.
        """
        return encode(self.toward(y), self._checked(x), *arguments, **settings)

    def decode(
        self, codes: Codes | Tensor, *arguments: Any, y: int | None = None, **settings: Any
    ) -> Decoded:
        """Return the data of codes; the rest is as for `scorefield.decode`."""
        made = decode(self.toward(y), codes, *arguments, **settings)
        return made._replace(x=self._to_data(made.x))

    def interpolate(
        self, a: Tensor, b: Tensor, *arguments: Any, y: int | None = None, **settings: Any
    ) -> Decoded:
        """Return the data between ``a`` and ``b``; the rest is as for `scorefield.interpolate`."""
        ends = self._checked(a), self._checked(b)
        made = interpolate(self.toward(y), *ends, *arguments, **settings)
        points = self._to_data(made.x.flatten(0, 1))
        strip = points.reshape(*made.x.shape[:2], *points.shape[1:])
        return made._replace(x=torch.cat([a[:, None], strip[:, 1:-1], b[:, None]], 1))

    def restore(
        self,
        measured: Tensor,
        operator: Operator | None = None,
        noise_std: float = 0.0,
        *,
        y: int | None = None,
        **settings: Any,
    ) -> Tensor:
        """Return data ``(N, n, *shape)``, ``n`` samples given each of the measurements.

        Operator and measurements are in the data's units; the rest is as for `scorefield.restore`.

        Args:
            measured: ``(N, ...)``; without an operator data with NaN where it is to be found.
            y: the class, for a conditional run.

        Raises:
            DataError: known values that are not the run's; an operator, or noise, for columns of
                different kinds.
            UsageError: as `check_restoring`.
            ValueError, NumericalError: as `scorefield.restore`.
        """
        self.check_restoring()
        if operator is not None:
            operator.shape(self.config.data.shape)
        measured, operator = mask_as_nan(measured, operator)
        if operator is None:
            self.check_partial(measured, "measured", exact=not noise_std)
        parts = self.toward(y), self.transform, self.encoding
        return restore_data(*parts, measured, operator, noise_std, **settings)

    def guided(self, scale: float) -> Run:
        """Return the run with guidance towards the class that is asked for, away from none.

        Raises:
            UsageError: a run without classes, or one that learned nothing but classes; a scale
                that is not finite.
        """
        if not math.isfinite(scale):
            raise UsageError(f"guidance = {scale:g}: give a finite scale, 1 for none.")
        if scale != 1 and not self.config.data.classes:
            raise UsageError(
                f"guidance = {scale:g}: this run has no classes; train with conditional."
            )
        if scale != 1 and not self.config.train.dropout:
            raise UsageError(
                f"guidance = {scale:g}: this run was trained with dropout = 0, so what there is "
                "without a class was not learned."
            )
        return replace(self, guidance=float(scale))

    def toward(self, y: int | None) -> ScoreField:
        """Return the field of a class, with the run's guidance; all classes unless given.

        Raises:
            UsageError: guidance without a class.
        """
        if y is None:
            if self.guidance != 1:
                raise UsageError(f"guidance = {self.guidance:g}: name a class to go towards, y.")
            return self.field
        device = next(self.field.parameters()).device
        return self.conditional.condition_on(y=torch.tensor(operator.index(y), device=device))

    @property
    def conditional(self) -> ScoreField:
        """The field, with the run's guidance, that a class is given to; plans are tuned to it."""
        if self.guidance == 1:
            return self.field
        return ClassifierFree(self.field, self.guidance, negative={"y": -1})

    def _to_data(self, z: Tensor) -> Tensor:
        return self.encoding.inverse(self.transform.inverse(z))

    def seen(self, x: Tensor) -> Tensor:
        """Return data ``(B, *shape)`` as the field sees it, whole numbers amid their intervals."""
        return self.transform.forward(self.encoding.middle(x))

    def _checked(self, x: Tensor) -> Tensor:
        self.check(x)
        return self.seen(x)

    def check_density(self) -> None:
        """Refuse to tell densities of data that has none.

        Raises:
            UsageError: the run is of latents, which many pictures share.
        """
        if self.codec is not None:
            raise UsageError(
                "likelihood: this run is of latents, and a picture has no density through an "
                "autoencoder. Latents have: scorefield.log_prob(run.field, z)."
            )

    def check_restoring(self) -> None:
        """Refuse to restore data of which no part is a part of what the field sees.

        Raises:
            UsageError: the run is of latents, each of which is of a whole picture.
        """
        if self.codec is not None:
            raise UsageError(
                "restore: this run is of latents, and what is known of a picture is nothing linear "
                "of them. Take scorefield.restore(run.field, y, scorefield.Nonlinear(f), "
                "method='dps') with f from latents to y."
            )

    def check(self, x: Tensor, name: str = "x") -> None:
        """Refuse data that is not of the run's kind.

        Raises:
            DataError: another shape, or values that the run's encoding does not take.
        """
        self._check_shape(x, name)
        self.encoding.check(x, name)

    def check_partial(self, x: Tensor, name: str = "x", *, exact: bool = True) -> None:
        """Refuse data with NaN for what is not known whose rest is not of the run's kind.

        Args:
            exact: there is no noise in it.

        Raises:
            DataError: as `check`.
        """
        self._check_shape(x, name)
        rest = torch.where(x.isnan(), self.encoding.present.to(x), x)
        (self.encoding if exact else Continuous()).check(rest, name)

    def _check_shape(self, x: Tensor, name: str) -> None:
        shape = self.config.data.shape
        if tuple(x.shape[1:]) != shape:
            raise DataError(
                f"{name} has samples of shape {tuple(x.shape[1:])}: this run was trained on "
                f"{shape}."
            )

    def _drawn(
        self, x: Tensor, draws: int, ids: Sequence[int] | Tensor | None, seed: int
    ) -> tuple[Tensor, list[int], Tensor]:
        """Return data as the field sees it, each sample ``draws`` times, and their ids.

        The third is what to add to the log-density of the first for that of the data.
        """
        self.check_density()
        self.check(x)
        exact = self.encoding.exact
        if not isinstance(draws, Integral) or draws < 1 or (draws > 1 and exact):
            raise ValueError(
                f"draws = {draws!r}: of noise between levels or in gaps, so for data that has "
                "some, and one at least."
            )
        rows = range(len(x)) if ids is None else [operator.index(k) for k in ids]
        drawn = [k * int(draws) + j for k in rows for j in range(draws)]
        wide = x.repeat_interleave(int(draws), 0)
        wide = wide if wide.is_floating_point() else wide.to(self.transform.mean.dtype)
        key = torch.tensor(drawn, dtype=torch.int64, device=x.device)
        v, log_q, _ = self.encoding.forward(wide, Noise(seed, key, stream=LEVELS))
        return self.transform.forward(v), drawn, self.transform.log_det(self.field.shape) - log_q

    def save(self, folder: str | Path, include: Mapping[str, Path] | None = None) -> None:
        """Write the folder at once or not at all.

        Args:
            include: files and folders to copy into it, by their names there.

        Raises:
            UsageError: the folder exists and is not empty.
            StorageError: there is no room for it.
        """
        folder = Path(folder)
        refuse_existing(folder)
        tensors = {f"network.{k}": v for k, v in self.field.network.state_dict().items()}
        tensors |= {"transform.mean": self.transform.mean, "transform.std": self.transform.std}
        if self.codec is not None:
            tensors |= {f"codec.{k}": v for k, v in self.codec.state_dict().items()}
        for name, value in (("mean", self.field.mean), ("variance", self.field.variance)):
            tensors[f"data.{name}"] = torch.as_tensor(value).float().expand(self.field.shape)
        files = {WEIGHTS: tensors}
        for decay, average in self.averages.items():
            files[average_name(decay)] = {f"network.{k}": v for k, v in average.items()}
        data = {
            name: serialise({k: v.contiguous().cpu() for k, v in held.items()})
            for name, held in files.items()
        }
        text = stored.text(self.config)
        with in_room(folder, sum(map(len, data.values()))):
            folder.parent.mkdir(parents=True, exist_ok=True)
            written = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                for name, content in data.items():
                    (written / name).write_bytes(content)
                (written / CONFIG).write_text(text, encoding="utf-8")
                for name, source in ({} if include is None else include).items():
                    _copy(source, written / name)
                if folder.exists():
                    folder.rmdir()
                publish(written, folder)
            except BaseException:
                shutil.rmtree(written, ignore_errors=True)
                raise


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def refuse_existing(folder: Path) -> None:
    """Raise `UsageError` if a run cannot be written to ``folder`` without losing something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists already: name another folder, or remove it first.")
    parent = next(p for p in folder.absolute().parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UsageError(f"{folder} cannot be made: {parent} is no folder that can be written to.")


def load(folder: str | Path, *, ema: float | None = None, checkpoint: int | None = None) -> Run:
    """Rebuild a run from its folder: field, process, parametrization and data transform.

    Args:
        ema: the decay of the average of the weights to take, one of ``optim.ema``; the first unless
            given.
        checkpoint: the step to take the weights of, of one that was kept in the run; the last
            unless given.

    Raises:
        CheckpointError: a file is missing or unreadable, or the weights do not match the
            configuration; before anything is allocated.
        UsageError: an average or a checkpoint that the run does not have.
    """
    folder = Path(folder)
    config, tensors = stored.read(folder, ema, checkpoint)
    try:
        denoiser = new_denoiser(config.train, config.data)
    except ValueError as error:
        raise CheckpointError(f"{folder / CONFIG} describes no run: {error}") from None
    network = denoiser.network.state_dict()
    denoiser.network.load_state_dict({k: tensors[f"network.{k}"] for k in network})
    denoiser.mean, denoiser.variance = tensors["data.mean"], tensors["data.variance"]
    denoiser.eval()
    transform = Standardize(tensors["transform.mean"], tensors["transform.std"])
    codec = None
    if config.data.codec is not None:
        codec = build.codec(config.data.codec).eval()
        codec.load_state_dict({k: tensors[f"codec.{k}"] for k in codec.state_dict()})
    return Run(denoiser, transform, config, codec=codec)


def new_denoiser(
    config: TrainConfig,
    data: DataConfig,
    mean: float | Tensor = 0.0,
    variance: float | Tensor = 1.0,
    objects: build.Objects = build.NONE,
) -> Denoiser:
    """Return an untrained denoiser: of the user's objects, or weights that the seed decides."""
    shape, network = build.field_shape(config, data), objects.network
    if network is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = build.network(config.network, shape, data.classes)
    parametrization = build.parametrization(config.parametrization, objects.parametrization)
    process = build.process(config.process, objects.process)
    label = build.label(config.label, objects.label)
    return Denoiser(network, process, parametrization, shape, mean, variance, label)
