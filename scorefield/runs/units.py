"""The units, the conditions and the kinds of data that a run's field is of."""

from __future__ import annotations

import dataclasses
import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from scorefield._internal.errors import DataError, UsageError
from scorefield.data.encoding import Continuous, Encoding, Standardize
from scorefield.data.lengths import lengths
from scorefield.data.rows import chunks
from scorefield.field import ClassifierFree, Denoiser, ScoreField, digest
from scorefield.noise import CLASSES, ENDS, LEVELS, Noise
from scorefield.process import check_instance
from scorefield.process.base import wide
from scorefield.runs import build
from scorefield.sampling import as_numbers, template
from scorefield.training.config import RunConfig

if TYPE_CHECKING:
    import pyarrow

    from scorefield.data import Data
    from scorefield.networks import Codec


class Given(dict[str, Tensor]):
    """Conditions as a network takes them, by the names of its arguments."""

    def rows(self, places: Tensor, count: int) -> Given:
        """Return the conditions of some of ``count`` items, by their places.

        Raises:
            UsageError: a condition with another number of rows than ``count``, or one.
        """
        for name, value in self.items():
            if value.ndim and len(value) not in (1, count):
                raise UsageError(
                    f"given: {name} has {len(value)} rows for {count} items; give one for all, or "
                    "one for each."
                )
        every = {k: v for k, v in self.items() if v.ndim and len(v) == count}
        return Given(self, **{k: v[places] for k, v in every.items()})


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
        codec: the codec, for a field of latents.
        condition: conditions of the network besides those of the data, by their names.
        scales: of classifier-free guidance, by the condition; empty for one of all.
        examples: of the conditions in the data, rows by their keys, to which plans are tuned; not
            for a single class.
        length: of all signals, for a view of a run of several lengths by `of_length`.
    """

    field: Denoiser
    transform: Standardize
    config: RunConfig
    guidance: float = 1.0
    codec: Codec | None = None
    condition: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    scales: Mapping[str, float] = dataclasses.field(default_factory=dict)
    examples: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    length: int | None = None

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

    def to_data(self, z: Tensor, noise: Noise | None = None) -> Tensor:
        """Return samples of the field ``(B, *field.shape)`` in the units of the data.

        Args:
            noise: of the decoder of counts, which are then whole numbers; None for their means.
        """
        v = self.transform.inverse(z)
        return self.encoding.inverse(v) if noise is None else self.encoding.drawn(v, noise)

    def table(self, x: Tensor, given: Any = None) -> pyarrow.Table:
        """Return data ``(B, columns)`` as a table with the columns and types of the data.

        ``run.table(x).to_pandas()`` is the table as a frame of pandas.

        Args:
            given: the conditions of the rows, for a run whose conditions are columns of the table.

        Raises:
            DataError: data of another shape, or a run of images.
            UsageError: as `given`.
        """
        if len(self.config.data.shape) > 1:
            raise DataError(
                f"x: this run is of samples of shape {self.config.data.shape}, not of a table."
            )
        self._check_shape(x, "x")
        from scorefield.data.tabular import as_table, others_of

        columns = self.columns_of(given, len(x))
        others = others_of(self.config.data, columns)
        return as_table(x.numpy(force=True), self.config.data.columns, others)

    def columns_of(self, given: Any, count: int, every: bool = False) -> dict[str, np.ndarray]:
        """Return the conditions that are columns of the table, ``(count,)``, as ``given NAME``.

        Args:
            every: all conditions that are classes, names or single numbers.
        """
        values = self.given(given)
        if not values:
            return {}
        from scorefield.data.channels import column, is_column

        return {
            f"given {channel.name}": column(channel, values[channel.key], count)
            for channel in self.config.data.conditions
            if channel.key in values and (channel.column or (every and is_column(channel)))
        }

    def guided(self, scale: float | Mapping[str, float]) -> Self:
        """Return the run with classifier-free guidance towards the conditions that are given.

        Args:
            scale: one for all conditions together, or a mapping with one for each condition, as in
                `ClassifierFree`.

        Raises:
            UsageError: a run without conditions, or one that learned the field only with them; a
                scale that is not finite; a condition that does not exist.
        """
        if isinstance(scale, Mapping):
            return self._guided_each(scale)
        if not isinstance(scale, Real) or not math.isfinite(scale):
            raise UsageError(
                f"guidance={scale!r}: must be a finite number; 1 means without guidance."
            )
        if scale != 1:
            self._check_guidance(f"{scale:g}")
        return replace(self, guidance=float(scale), scales={})

    def _guided_each(self, scales: Mapping[str, float]) -> Self:
        keys = {channel.name: channel.key for channel in self.config.data.conditions}
        for name, scale in scales.items():
            if name not in keys or not isinstance(scale, Real) or not math.isfinite(scale):
                raise UsageError(
                    f"guidance={{{name!r}: {scale!r}}}: give a finite number for a condition of "
                    f"{', '.join(keys) or 'this run, which has none'}."
                )
        self._check_guidance(str(dict(scales)))
        by_key = {keys[name]: float(w) for name, w in scales.items()}
        return replace(self, scales=by_key, guidance=1.0)

    def _check_guidance(self, shown: str) -> None:
        if not self.config.data.conditions:
            raise UsageError(f"guidance={shown}: this run has no conditions; train with some.")
        if not self.config.train.dropout:
            raise UsageError(
                f"guidance={shown}: this run was trained with dropout=0, so it did not learn the "
                "field without a condition; train with dropout above 0."
            )

    def condition_on(self, **condition: Tensor) -> Self:
        """Return the run with conditions besides those of the data, one for all of its samples.

        ``run.condition_on(encoder_hidden_states=embedding)`` is for a text, ``(1, tokens, width)``.
        """
        moved = {name: value.to(self.device) for name, value in condition.items()}
        return replace(self, condition={**self.condition, **moved})

    def of_length(self, length: int) -> Self:
        """Return the run of the signals of one length, for a run of signals of several lengths.

        Its samples have the shape ``(C, length)``, and their density is that of such signals.

        Raises:
            UsageError: a run of samples of one shape; a length beyond those of the data.
        """
        data = self.config.data
        if not data.lengths:
            raise UsageError(
                f"length={length!r}: this run has samples of one shape, {data.shape}; leave it out."
            )
        low, high = data.lengths[0][0], data.lengths[-1][0]
        if not isinstance(length, Integral) or not low <= length <= high:
            raise UsageError(f"length={length!r}: this run has learned lengths of {low} to {high}.")
        field = self.field.of_length(int(length))
        about = data.model_copy(update={"shape": field.shape, "lengths": ()})
        config = self.config.model_copy(update={"data": about})
        return replace(self, field=field, config=config, length=int(length))

    @property
    def bound(self) -> str:
        """A digest of the conditions of `condition_on` and of the scales; empty without any."""
        if self.scales:
            return digest([dict(self.condition), tuple(self.scales.items())])
        return digest(dict(self.condition)) if self.condition else ""

    def given(self, given: Any) -> dict[str, Tensor]:
        """Return conditions as the network takes them, by the names of its arguments.

        Args:
            given: a mapping of the names of conditions to values, one for all samples or one for
                each; for a run of one condition, the value itself. A class is a name or a number.
                None, also as a value, is for no condition. ``encoder_hidden_states`` of an imported
                network is ``(tokens, width)`` or has a row for each sample; other embeddings alike.

        Raises:
            UsageError: a condition that does not exist, or a value of another kind, shape or range.
        """
        if given is None or isinstance(given, Given) or (isinstance(given, Mapping) and not given):
            return dict(given or {})
        from scorefield.data.channels import given_values

        extra = getattr(self.field.network, "inputs", {})
        if not isinstance(given, Mapping) or not extra:
            return given_values(self.config.data.conditions, given)
        rest = {name: value for name, value in given.items() if name not in extra}
        values = given_values(self.config.data.conditions, rest) if rest else {}
        return values | {
            k: _of_rows(k, given[k], extra[k]) for k in extra if given.get(k) is not None
        }

    def given_name(self, given: Any) -> str:
        """Return a name of conditions for files; empty for none."""
        values = self.given(given)
        if len(self.config.data.conditions) > 1 or any(
            value.ndim or value.is_floating_point() for value in values.values()
        ):
            return f"given-{digest(dict(values))[:8]}" if values else ""
        texts = [f"{key}{int(value)}" for key, value in values.items()]
        return re.sub(r"[^\w-]", "_", "-".join(texts))

    def toward(self, given: Any = None) -> ScoreField:
        """Return the field under conditions, with the run's guidance; without any for None.

        Args:
            given: as for `given`.

        Raises:
            UsageError: as `given`; guidance without a condition.
        """
        self.check_one_length()
        values = self.given(given)
        self._check_all_given(values)
        if not values:
            if self.guidance != 1 or self.scales:
                shown = dict(self.scales) or f"{self.guidance:g}"
                raise UsageError(f"guidance={shown}: give a condition, as given=.")
            return self.conditional
        return self.conditional.condition_on(**{k: v.to(self.device) for k, v in values.items()})

    def drawn(self, ids: Sequence[int], given: Any = None, seed: int = 0) -> Given:
        """Return the conditions of samples; without any that are needed, those of the data.

        They are needed if all conditions are columns of the table, or if the run learned the field
        with conditions only. Those of an id are a function of the seed and the id: a class in the
        proportions of the data, or else one of up to 2,048 rows of the data.

        Raises:
            UsageError: as `given`.
        """
        values, channel = self.given(given), self.config.data.classes
        if values or not (self._needs_all or self.config.data.are_columns):
            return Given(values)
        if channel is None:
            count = len(next(iter(self.examples.values())))
            rows = _drawn([1.0] * count, ids, seed, CLASSES)
            return Given({key: value[rows] for key, value in self.examples.items()})
        return Given({channel.key: _drawn(channel.shares, ids, seed, CLASSES)})

    def drawn_lengths(self, ids: Sequence[int], seed: int = 0) -> Tensor:
        """Return lengths of signals ``(B,)`` as frequent as in the data, whatever the condition.

        The length of an id is a function of the seed and the id.
        """
        length, shares = zip(*self.config.data.lengths, strict=True)
        return torch.tensor(length)[_drawn(shares, ids, seed, ENDS)]

    @property
    def _needs_all(self) -> bool:
        """Whether the field was learned with all of its conditions only."""
        train = self.config.train
        return train.conditional and not train.dropout and self.config.source is None

    def _check_all_given(self, values: Mapping[str, Tensor]) -> None:
        absent = [c.name for c in self.config.data.conditions if c.key not in values]
        if absent and self._needs_all:
            raise UsageError(
                f"given: this run was trained with dropout=0, so that it needs all conditions; "
                f"{', '.join(absent)} missing."
            )

    @property
    def conditional(self) -> ScoreField:
        """The field with the run's guidance, without its conditions; plans are tuned to it."""
        field = self.field.condition_on(**self.condition) if self.condition else self.field
        if self.guidance == 1 and not self.scales:
            return field
        negative = {
            channel.key: -1 if channel.kind == "class" else math.nan
            for channel in self.config.data.conditions
        }
        return ClassifierFree(field, self.scales or self.guidance, negative=negative)

    def read(self, source: Any, conditions: Any = None) -> Data:
        """Return data of the run's kind; the arguments are those of `scorefield.read`.

        Raises:
            DataError: as `scorefield.read`; another shape, or values that the run does not allow.
        """
        from scorefield.data.source import as_data

        data = as_data(source, conditions, learn=False, like=self.config.data)
        for chunk in chunks(data.x):
            self.check_data(chunk, data.name)
        return data

    def check_data(self, x: Tensor, name: str = "x") -> None:
        """Reject data that is not of the run's kind.

        Raises:
            DataError: another shape, or values that the run's encoding does not allow.
        """
        self._check_shape(x, name)
        if self.config.data.lengths:
            lengths(x, name)
            x = x.nan_to_num()
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
        shape, own = self.config.data.shape, tuple(x.shape[1:])
        if self.config.data.lengths and len(own) == 2 and own[1] <= shape[1]:
            own = (own[0], shape[1])
        if own != shape:
            raise DataError(
                f"{name} has samples of shape {tuple(x.shape[1:])}; this run was trained on "
                f"samples of shape {shape}."
            )

    def check_one_length(self) -> None:
        """Raise `UsageError` for a run of signals of several lengths."""
        if self.config.data.lengths:
            most = self.config.data.shape[1]
            raise UsageError(
                "length=None: this run has signals of several lengths; choose one, as in "
                f"run.of_length({most})."
            )

    def check_density(self) -> None:
        """Raise `UsageError` for a run of latents: the data has no density under it."""
        if self.codec is not None:
            raise UsageError(
                "likelihood: this run models the latents of a codec, and data has no density under "
                "them. For latents z, use scorefield.log_prob(run.field, z)."
            )

    def check_restoring(self) -> None:
        """Raise `UsageError` for a run of latents, which are not linear in the data."""
        if self.codec is not None:
            raise UsageError(
                "restore: this run models the latents of a codec, and a measurement of data is not "
                "linear in them. Use scorefield.restore(run.field, y, scorefield.Nonlinear(f), "
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


def _of_rows(name: str, value: Any, axes: Sequence[str]) -> Tensor:
    """Return a condition of such axes, with a first axis for one or for each of the samples."""
    rows = as_numbers(name, value)
    if rows.ndim not in (len(axes), len(axes) + 1):
        raise UsageError(
            f"{name} has shape {tuple(rows.shape)}: give ({', '.join(axes)}), or that for each "
            "sample."
        )
    return rows if rows.ndim > len(axes) else rows[None]


def _drawn(shares: Sequence[float], ids: Sequence[int], seed: int, stream: int) -> Tensor:
    """Return the number of a share for each id, as probable as the share is large."""
    sums = torch.tensor(shares, dtype=torch.float64).cumsum(0)
    noise = Noise(seed, torch.tensor(ids, dtype=torch.int64), stream=stream)
    u, _ = noise.uniform_like(torch.empty(len(ids), 1, dtype=torch.float64))
    places = torch.searchsorted(sums / sums[-1], u[:, 0], right=True)
    return places.clamp(max=len(sums) - 1)
