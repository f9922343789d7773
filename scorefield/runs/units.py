"""The units, the classes and the kinds of data that a run's field is of."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from scorefield._internal.errors import DataError, UsageError
from scorefield.data.encoding import Continuous, Encoding, Standardize
from scorefield.data.rows import chunks
from scorefield.field import ClassifierFree, Denoiser, ScoreField, digest
from scorefield.noise import CLASSES, LEVELS, Noise
from scorefield.process import check_instance
from scorefield.process.base import wide
from scorefield.runs import build
from scorefield.sampling import as_numbers, template
from scorefield.training.config import RunConfig

if TYPE_CHECKING:
    import pyarrow

    from scorefield.data import Data
    from scorefield.networks import Codec


@dataclass(eq=False)
class DataField:
    """A score field and its data: what samples of the field mean.

    Data ``x`` is encoded as continuous vectors ``v``, and standardized to the units ``z`` of the
    field. For images and plain numbers the encoding changes nothing.

    Attributes:
        field: the score field of the transformed data.
        transform: from encoded data to the units of the field.
        config: the configuration that the field was trained with.
        guidance: the scale of classifier-free guidance; 1 means without guidance.
        codec: the autoencoder, for a field of image latents.
        condition: conditions of the network besides the class, by their names.
    """

    field: Denoiser
    transform: Standardize
    config: RunConfig
    guidance: float = 1.0
    codec: Codec | None = None
    condition: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)

    @cached_property
    def encoding(self) -> Encoding:
        """The map from data to continuous vectors."""
        return build.encoding(self.config.train, self.config.data, self.codec)

    @property
    def device(self) -> torch.device:
        """The device of the field, to which data is moved."""
        return template(self.field).device

    def to_field(self, x: Tensor) -> Tensor:
        """Return data ``(B, *shape)`` in the field's units; whole numbers as interval centres."""
        return self.standardized(self.encoding.middle(x.to(self.device)))

    def standardized(self, v: Tensor) -> Tensor:
        """Return encoded data in the field's units."""
        z = self.transform.forward(v)
        return z.to(self.transform.mean.dtype) if self.encoding.wide else z

    def to_data(self, z: Tensor) -> Tensor:
        """Return samples of the field ``(B, *field.shape)`` in the units of the data."""
        return self.encoding.inverse(self.transform.inverse(z))

    def table(self, x: Tensor, y: Tensor | None = None) -> pyarrow.Table:
        """Return data ``(B, columns)`` as a table with the columns and types of the data.

        ``run.table(x).to_pandas()`` is the table as a frame of pandas.

        Args:
            y: int64 ``(B,)`` classes, for a run whose classes are a column of the table.

        Raises:
            DataError: data of another shape, or a run of images; classes that do not exist.
        """
        if len(self.config.data.shape) > 1:
            raise DataError(
                f"x: this run is of samples of shape {self.config.data.shape}, not of a table."
            )
        self._check_shape(x, "x")
        from scorefield.data.contents import Coded
        from scorefield.data.tabular import as_table

        classes = None
        if y is not None:
            self._check_classes(y, len(x))
            classes = Coded(y.numpy(force=True), self.config.data.class_names)
        return as_table(x.numpy(force=True), self.config.data.columns, classes)

    def _check_classes(self, y: Tensor, count: int) -> None:
        check_instance("y", y, Tensor, "torch.as_tensor(y)")
        names = self.config.data.class_names
        if tuple(y.shape) != (count,) or not bool(((y >= -1) & (y < len(names))).all()):
            raise DataError(
                f"y has the shape {tuple(y.shape)} and the classes {sorted(set(y.tolist()))}: give "
                f"{count} numbers from 0 to {len(names) - 1}, or -1 for an unknown class."
            )

    def guided(self, scale: float) -> Self:
        """Return the run with classifier-free guidance towards the class that is sampled.

        Raises:
            UsageError: a run without classes, or one that learned only classes; a scale that is
                not finite.
        """
        if not isinstance(scale, Real) or not math.isfinite(scale):
            raise UsageError(
                f"guidance={scale!r}: must be a finite number; 1 means without guidance."
            )
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

    def condition_on(self, **condition: Tensor) -> Self:
        """Return the run with conditions besides the class, one for all of its samples.

        ``run.condition_on(encoder_hidden_states=embedding)`` is for a text, ``(1, tokens, width)``.
        """
        moved = {name: value.to(self.device) for name, value in condition.items()}
        return replace(self, condition={**self.condition, **moved})

    @property
    def bound(self) -> str:
        """A digest of the conditions of `condition_on`; empty without any."""
        return digest(dict(self.condition)) if self.condition else ""

    def toward(self, y: int | str | Tensor | None) -> ScoreField:
        """Return the field of a class, with the run's guidance; of all classes for None.

        Args:
            y: the number of a class, its name, or a number for each slot of a batch.

        Raises:
            UsageError: guidance without a class; a class that does not exist.
        """
        if y is None:
            if self.guidance != 1:
                raise UsageError(f"guidance={self.guidance:g}: pass the class as y.")
            return self.conditional
        if not isinstance(y, Tensor) or not y.ndim:
            y = torch.tensor(self._class_number(y))
        return self.conditional.condition_on(y=y.to(self.device))

    def _class_number(self, y: object) -> int:
        names = self.config.data.class_names
        if y in names:
            return names.index(y)
        try:
            return operator.index(y)  # type: ignore[arg-type]
        except TypeError:
            from scorefield.data.contents import first_few

            listed = f", or one of its names {first_few(names)}" if names else ""
            raise UsageError(f"y={y!r}: give the number of one class, from 0{listed}.") from None

    def classes_of(
        self, ids: Sequence[int], y: int | str | None = None, seed: int = 0
    ) -> Tensor | None:
        """Return the classes of samples of a table; None without a column of classes."""
        if not self.config.data.class_shares:
            return None
        if y is None:
            return self.draw_classes(ids, seed)
        return torch.full((len(ids),), self._class_number(y))

    def draw_classes(self, ids: Sequence[int], seed: int = 0) -> Tensor:
        """Return a class for each id, in the proportions of the data: int64 ``(B,)``.

        The class of an id is a function of the seed and the id.
        """
        shares = torch.tensor(self.config.data.class_shares, dtype=torch.float64).cumsum(0)
        key = Noise(seed, torch.tensor(ids, dtype=torch.int64), stream=CLASSES)
        u, _ = key.uniform_like(torch.empty(len(ids), 1, dtype=torch.float64))
        return torch.searchsorted(shares / shares[-1], u[:, 0], right=True).clamp(
            max=len(shares) - 1
        )

    @property
    def conditional(self) -> ScoreField:
        """The field with the run's guidance, not bound to a class; plans are tuned to it."""
        field = self.field.condition_on(**self.condition) if self.condition else self.field
        if self.guidance == 1:
            return field
        return ClassifierFree(field, self.guidance, negative={"y": -1})

    def read(self, source: Any, labels: Any = None) -> Data:
        """Return data of the run's kind; the arguments are those of `scorefield.read`.

        Raises:
            DataError: as `scorefield.read`; another shape, or values that the run does not allow.
        """
        from scorefield.data.source import as_data

        data = as_data(source, labels, learn=False, like=self.config.data)
        for chunk in chunks(data.x):
            self.check_data(chunk, data.name)
        return data

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
        check_instance(name, x, Tensor, f"torch.as_tensor({name})")
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

    def dequantized(
        self, x: Tensor, draws: int, ids: Sequence[int] | Tensor | None, seed: int
    ) -> tuple[Tensor, list[int], Tensor]:
        """Return data in the units of the field, each sample ``draws`` times, and their ids.

        The third is the log-density of the data minus that of the first.
        """
        self.check_density()
        x = as_numbers("x", x)
        self.check_data(x)
        if not isinstance(draws, Integral) or draws < 1 or (draws > 1 and self.encoding.exact):
            raise ValueError(
                f"draws={draws!r}: must be at least 1, and 1 for continuous data without missing "
                "values."
            )
        x = x.to(self.device)
        rows = range(len(x)) if ids is None else [operator.index(k) for k in ids]
        drawn = [k * int(draws) + j for k in rows for j in range(draws)]
        rows_drawn = x.repeat_interleave(int(draws), 0)
        if not x.is_floating_point():
            rows_drawn = rows_drawn.to(self.transform.mean.dtype)
        key = torch.tensor(drawn, dtype=torch.int64, device=x.device)
        v, log_q, _ = self.encoding.forward(rows_drawn, Noise(seed, key, stream=LEVELS))
        return self.standardized(v), drawn, self.transform.log_det(v) - wide(log_q)
