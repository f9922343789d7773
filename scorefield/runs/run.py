"""A run: a trained field with its data transform, configuration and plans; on disk a folder."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scorefield._internal.errors import DataError, UsageError
from scorefield.data import Standardize
from scorefield.data.columns import as_table
from scorefield.data.encoding import Continuous, Encoding
from scorefield.field import ClassifierFree, Denoiser, ScoreField
from scorefield.networks import Codec
from scorefield.noise import LEVELS, Noise
from scorefield.runs import build
from scorefield.runs.folder import RunFolder
from scorefield.sampling import (
    DEFAULT_CALLS,
    Adaptive,
    Codes,
    Decoded,
    Plan,
    decode,
    default_plan,
    encode,
    interpolate,
    sample,
)
from scorefield.solvers import Solver
from scorefield.training.config import RunConfig

if TYPE_CHECKING:
    from scorefield.inverse import Operator
    from scorefield.likelihood import Bound, Likelihood


@dataclass(eq=False)
class Run:
    """A trained field, and all that is needed to use it in the units of the data.

    `scorefield.train` and `scorefield.load` return runs, and `Run.of` makes one of any denoiser.

    Attributes:
        field: the score field of the transformed data.
        transform: from encoded data to the units of the field.
        config: the configuration that the run was made with.
        averages: the network's weights averaged with other decays, by the decay.
        guidance: the scale of classifier-free guidance; 1 is no guidance.
        codec: the autoencoder of a run of image latents.
        folder: the folder that the run was loaded from or saved to, or None.
        tuned: tuned plans of a run without a folder, by guidance and network calls.
    """

    field: Denoiser
    transform: Standardize
    config: RunConfig
    averages: Mapping[float, Mapping[str, Tensor]] = dataclasses.field(default_factory=dict)
    guidance: float = 1.0
    codec: Codec | None = None
    folder: RunFolder | None = None
    tuned: dict[tuple[float, int], Plan] = dataclasses.field(default_factory=dict)

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
            data: the training data, as for `scorefield.train`: it names the columns and classes and
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

        settings = {
            "levels": levels,
            "conditional": conditional,
            "dropout": dropout,
            "held_out": held_out,
            "seed": seed,
        }
        return run_of(denoiser, data, name, transform, settings)

    @cached_property
    def encoding(self) -> Encoding:
        """The map from data to continuous vectors."""
        return build.encoding(self.config.train, self.config.data, self.codec)

    # --- units

    def to_field(self, x: Tensor) -> Tensor:
        """Return data ``(B, *shape)`` in the field's units; whole numbers as interval centres."""
        return self.transform.forward(self.encoding.middle(x))

    def to_data(self, z: Tensor) -> Tensor:
        """Return samples of the field ``(B, *field.shape)`` in the units of the data."""
        return self.encoding.inverse(self.transform.inverse(z))

    def table(self, x: Tensor) -> dict[str, np.ndarray]:
        """Return data ``(B, columns)`` as named columns, with texts and whole numbers as they were.

        ``pandas.DataFrame(run.table(x))`` is the table as a frame.

        Raises:
            DataError: data of another shape, or a run of images.
        """
        if len(self.config.data.shape) > 1:
            raise DataError(
                f"x: this run is of samples of shape {self.config.data.shape}, not of a table."
            )
        self._check_shape(x, "x")
        return as_table(x.cpu().numpy(), self.config.data.columns)

    # --- plans

    def plan(self, nfe: int = DEFAULT_CALLS) -> Plan:
        """Return the plan of ``nfe`` network calls: the tuned one if there is one, or the default.

        Raises:
            ValueError: as `scorefield.default_plan`.
            CheckpointError: the run folder holds a plan of another run.
        """
        if self.folder is not None:
            tuned = self.folder.plan(self.conditional, nfe, self.guidance)
        else:
            tuned = self.plans.get(nfe)
        return default_plan(self.field, nfe) if tuned is None else tuned

    @property
    def plans(self) -> dict[int, Plan]:
        """The plans that were tuned for the run under its guidance, by their network calls.

        Raises:
            CheckpointError: the run folder holds a plan of another run.
        """
        if self.folder is not None:
            return self.folder.plans(self.conditional, self.guidance)
        return {nfe: plan for (scale, nfe), plan in self.tuned.items() if scale == self.guidance}

    # --- sampling

    def sample(
        self,
        n: int | Sequence[int] | Tensor,
        solver: Solver | Plan | None = None,
        times: Tensor | Adaptive | None = None,
        *,
        nfe: int | None = None,
        seed: int = 0,
        y: int | None = None,
        batch_size: int = 64,
    ) -> Tensor:
        """Generate data ``(n, *shape)``; the arguments are those of `scorefield.sample`.

        Args:
            nfe: network calls per sample, by `plan`; by default 20, if there is no solver.
            y: the class to generate; None for all classes.
        """
        if solver is None and times is None:
            solver = self.plan(DEFAULT_CALLS if nfe is None else nfe)
        elif nfe is not None:
            raise ValueError(
                f"nfe={nfe}: cannot be combined with solver or times; pass one of them."
            )
        z = sample(self.toward(y), n, solver, times, seed=seed, batch_size=batch_size)
        return self.to_data(z)

    def sample_table(
        self, n: int | Sequence[int] | Tensor, *arguments: Any, **settings: Any
    ) -> dict[str, np.ndarray]:
        """Generate rows of a table: `sample` with the same arguments, then `table`."""
        return self.table(self.sample(n, *arguments, **settings))

    def encode(self, x: Tensor, *arguments: Any, y: int | None = None, **settings: Any) -> Codes:
        """Return the codes of data ``(B, *shape)``; the other arguments are `scorefield.encode`'s.

        Whole numbers are encoded from the centres of their intervals.
        """
        self.check_data(x)
        return encode(self.toward(y), self.to_field(x), *arguments, **settings)

    def decode(
        self, codes: Codes | Tensor, *arguments: Any, y: int | None = None, **settings: Any
    ) -> Decoded:
        """Return the data of codes; the other arguments are `scorefield.decode`'s."""
        result = decode(self.toward(y), codes, *arguments, **settings)
        return result._replace(x=self.to_data(result.x))

    def interpolate(
        self, a: Tensor, b: Tensor, *arguments: Any, y: int | None = None, **settings: Any
    ) -> Decoded:
        """Return the data between ``a`` and ``b``; the rest is as for `scorefield.interpolate`."""
        for x, name in ((a, "a"), (b, "b")):
            self.check_data(x, name)
        ends = self.to_field(a), self.to_field(b)
        result = interpolate(self.toward(y), *ends, *arguments, **settings)
        points = self.to_data(result.x.flatten(0, 1))
        inner = points.reshape(*result.x.shape[:2], *points.shape[1:])[:, 1:-1]
        return result._replace(x=torch.cat([a[:, None], inner, b[:, None]], 1))

    def restore(
        self,
        measured: Tensor,
        operator: Operator | None = None,
        noise_std: float = 0.0,
        *,
        y: int | None = None,
        **settings: Any,
    ) -> Tensor:
        """Return ``n`` samples given each measurement, ``(N, n, *shape)``, as `scorefield.restore`.

        Args:
            measured: ``(N, ...)`` in the units of the data; without an operator, data with NaN in
                the places to restore.
            y: the class; None for all classes.

        Raises:
            DataError: values that are not of the run's kind; an operator, or noise, for a table.
            UsageError: as `check_restoring`.
            ValueError, NumericalError: as `scorefield.restore`.
        """
        from scorefield.runs.restore import restore

        return restore(self, self.toward(y), measured, operator, noise_std, **settings)

    # --- likelihood

    def log_prob(
        self,
        x: Tensor,
        *arguments: Any,
        draws: int = 1,
        y: int | None = None,
        ids: Sequence[int] | Tensor | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> Likelihood:
        """Return the log-density of data ``(B, *shape)`` in nats, in the units of the data.

        For whole numbers it is a lower bound of the log-probability; `Likelihood.bits_per_dim`
        converts it to bits. The other arguments are those of `scorefield.log_prob`.

        Args:
            draws: of the noise that makes whole numbers continuous; several give a tighter bound
                (importance weighting).
            y: the class; None for all classes.
            ids: of the samples; by default ``0 .. B-1``.
            seed: with an id, determines the noise and the probes.

        Raises:
            ValueError: as `scorefield.log_prob`; several draws for data that is continuous.
            DataError: as `check_data`.
            UsageError: as `check_density`.
            NumericalError: as `scorefield.log_prob`.
        """
        from scorefield.likelihood import combined, log_prob

        z, drawn, offset = self._dequantized(x, draws, ids, seed)
        result = log_prob(self.toward(y), z, *arguments, ids=drawn, seed=seed, **settings)
        result = replace(result, value=result.value + offset)
        return result if draws == 1 else combined(result, draws)

    def elbo(
        self,
        x: Tensor,
        *,
        y: int | None = None,
        ids: Sequence[int] | Tensor | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> Bound:
        """Return a lower bound of `log_prob` by the reverse SDE, in the same units.

        The arguments are those of `log_prob` and `scorefield.elbo`, and so are the errors.
        """
        from scorefield.likelihood import elbo

        z, drawn, offset = self._dequantized(x, 1, ids, seed)
        result = elbo(self.toward(y), z, ids=drawn, seed=seed, **settings)
        return replace(result, value=result.value + offset)

    def _dequantized(
        self, x: Tensor, draws: int, ids: Sequence[int] | Tensor | None, seed: int
    ) -> tuple[Tensor, list[int], Tensor]:
        """Return data in the units of the field, each sample ``draws`` times, and their ids.

        The third is the log-density of the data minus that of the first.
        """
        self.check_density()
        self.check_data(x)
        if not isinstance(draws, Integral) or draws < 1 or (draws > 1 and self.encoding.exact):
            raise ValueError(
                f"draws={draws!r}: must be at least 1, and 1 for continuous data without missing "
                "values."
            )
        rows = range(len(x)) if ids is None else [operator.index(k) for k in ids]
        drawn = [k * int(draws) + j for k in rows for j in range(draws)]
        wide = x.repeat_interleave(int(draws), 0)
        wide = wide if wide.is_floating_point() else wide.to(self.transform.mean.dtype)
        key = torch.tensor(drawn, dtype=torch.int64, device=x.device)
        v, log_q, _ = self.encoding.forward(wide, Noise(seed, key, stream=LEVELS))
        return self.transform.forward(v), drawn, self.transform.log_det(self.field.shape) - log_q

    # --- guidance and classes

    def guided(self, scale: float) -> Run:
        """Return the run with classifier-free guidance towards the class that is sampled.

        Raises:
            UsageError: a run without classes, or one that learned only classes; a scale that is
                not finite.
        """
        if not math.isfinite(scale):
            raise UsageError(f"guidance={scale:g}: must be finite; 1 is no guidance.")
        if scale != 1 and not self.config.data.classes:
            raise UsageError(
                f"guidance={scale:g}: this run has no classes; train with conditional."
            )
        if scale != 1 and not self.config.train.dropout:
            raise UsageError(
                f"guidance={scale:g}: this run was trained with dropout=0, so it did not learn the "
                "field without a class; train with dropout above 0."
            )
        return replace(self, guidance=float(scale))

    def toward(self, y: int | None) -> ScoreField:
        """Return the field of a class, with the run's guidance; of all classes for None.

        Raises:
            UsageError: guidance without a class.
        """
        if y is None:
            if self.guidance != 1:
                raise UsageError(f"guidance={self.guidance:g}: pass the class as y.")
            return self.field
        device = next(self.field.parameters()).device
        return self.conditional.condition_on(y=torch.tensor(operator.index(y), device=device))

    @property
    def conditional(self) -> ScoreField:
        """The field with the run's guidance, not bound to a class; plans are tuned to it."""
        if self.guidance == 1:
            return self.field
        return ClassifierFree(self.field, self.guidance, negative={"y": -1})

    # --- checks

    def check_data(self, x: Tensor, name: str = "x") -> None:
        """Reject data that is not of the run's kind.

        Raises:
            DataError: another shape, or values that the run's encoding does not allow.
        """
        self._check_shape(x, name)
        self.encoding.check(x, name)

    def check_partial(self, x: Tensor, name: str = "x", *, exact: bool = True) -> None:
        """Reject data with NaN in places to restore, if the other values are not of the run's kind.

        Args:
            exact: whether the values are without noise.

        Raises:
            DataError: as `check_data`.
        """
        self._check_shape(x, name)
        rest = torch.where(x.isnan(), self.encoding.present.to(x), x)
        (self.encoding if exact else Continuous()).check(rest, name)

    def _check_shape(self, x: Tensor, name: str) -> None:
        shape = self.config.data.shape
        if tuple(x.shape[1:]) != shape:
            raise DataError(
                f"{name} has samples of shape {tuple(x.shape[1:])}; this run was trained on "
                f"samples of shape {shape}."
            )

    def check_density(self) -> None:
        """Raise `UsageError` for a run of image latents: an image has no density under it."""
        if self.codec is not None:
            raise UsageError(
                "likelihood: this run models autoencoder latents, and an image has no density "
                "under them. For latents z, use scorefield.log_prob(run.field, z)."
            )

    def check_restoring(self) -> None:
        """Raise `UsageError` for a run of image latents, which are not linear in the image."""
        if self.codec is not None:
            raise UsageError(
                "restore: this run models autoencoder latents, and a measurement of an image is "
                "not linear in them. Use scorefield.restore(run.field, y, scorefield.Nonlinear(f), "
                "method='dps') with f from latents to y."
            )

    # --- files

    def save(self, folder: str | Path, include: Mapping[str, Path] | None = None) -> None:
        """Write the run to a new folder, at once or not at all; it belongs to it from then on.

        Args:
            include: files and folders to copy into it, by their names there.

        Raises:
            UsageError: the folder exists and is not empty.
            StorageError: no room on the disk.
        """
        tensors = {f"network.{k}": v for k, v in self.field.network.state_dict().items()}
        tensors |= {"transform.mean": self.transform.mean, "transform.std": self.transform.std}
        if self.codec is not None:
            tensors |= {f"codec.{k}": v for k, v in self.codec.state_dict().items()}
        for name, value in (("mean", self.field.mean), ("variance", self.field.variance)):
            tensors[f"data.{name}"] = torch.as_tensor(value).float().expand(self.field.shape)
        target = RunFolder(folder)
        target.write(self.config, tensors, self.averages, self.tuned, include or {})
        self.folder = target
