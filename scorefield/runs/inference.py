"""Codes, restorations and likelihoods of data under a field, in the units of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scorefield._internal.errors import UsageError
from scorefield.data.lengths import by_length, lengths
from scorefield.runs.units import DataField, Given
from scorefield.sampling import (
    Codes,
    Decoded,
    as_numbers,
    decode,
    encode,
    interpolate,
)

if TYPE_CHECKING:
    from scorefield.inverse import Operator
    from scorefield.likelihood import Bound, Likelihood


class DataInference(DataField):
    """A field with which data is encoded, restored, and measured by its density."""

    def encode(self, x: Tensor, *arguments: Any, given: Any = None, **settings: Any) -> Codes:
        """Return the codes of data ``(B, *shape)``; the other arguments are `scorefield.encode`'s.

        Whole numbers are encoded from the centres of their intervals.
        """
        x = as_numbers("x", x)
        self.check_data(x)
        return encode(self.toward(given), self.to_field(x), *arguments, **settings)

    def decode(
        self, codes: Codes | Tensor, *arguments: Any, given: Any = None, **settings: Any
    ) -> Decoded:
        """Return the data of codes; the other arguments are `scorefield.decode`'s."""
        if not isinstance(codes, Codes):
            codes = as_numbers("codes", codes).to(self.device)
        else:
            partner = None if codes.partner is None else codes.partner.to(self.device)
            codes = codes._replace(z=codes.z.to(self.device), partner=partner)
        result = decode(self.toward(given), codes, *arguments, **settings)
        return result._replace(x=self.to_data(result.x))

    def translate(
        self,
        x: Tensor,
        *arguments: Any,
        given: Any = None,
        target: DataInference | None = None,
        **settings: Any,
    ) -> Decoded:
        """Return data of the first set in the other one, or with ``back=True`` the reverse.

        For a run of `scorefield.train` with ``to``. The other arguments are those of
        `scorefield.translate`.

        Args:
            given: conditions, one for all or one for each; None for none.
            target: the run of the second set, if each set has its own: it decodes the codes of this
                run. The other arguments are then those of `scorefield.encode`, such as ``nfe``.

        Raises:
            UsageError: a target with samples of another shape.
        """
        x = as_numbers("x", x)
        self.check_data(x)
        if target is not None:
            return self._recoded(x, target, *arguments, **settings)
        from scorefield.sampling.translate import translate

        result = translate(self.toward(given), self.to_field(x), *arguments, **settings)
        return result._replace(x=self.to_data(result.x))

    def _recoded(
        self, x: Tensor, target: DataInference, *arguments: Any, check: bool = True, **settings: Any
    ) -> Decoded:
        """Return data in the set of another run, by the codes of both."""
        if target.field.shape != self.field.shape:
            raise UsageError(
                f"target: its field has samples of shape {target.field.shape}, and that of this "
                f"run {self.field.shape}; use runs of one shape."
            )
        from scorefield.sampling.codes import apart

        way = partial(dict[str, Any], settings, check=False)
        codes = self.encode(x, *arguments, **way())
        result = target.decode(codes.z, *arguments, **way())
        error, nfe = x.new_full((len(x),), torch.nan, dtype=torch.float64), codes.nfe + result.nfe
        if check:
            again = target.encode(result.x, *arguments, **way()).z
            returned = self.decode(again, *arguments, **way()).x
            ends = self.to_field(returned), self.to_field(x)
            error, nfe = apart(*ends, self.field.data_std), 2 * nfe
        return Decoded(result.x, error, nfe)

    def interpolate(
        self, a: Tensor, b: Tensor, *arguments: Any, given: Any = None, **settings: Any
    ) -> Decoded:
        """Return the data between ``a`` and ``b``; the rest is as for `scorefield.interpolate`."""
        a, b = as_numbers("a", a), as_numbers("b", b)
        for x, name in ((a, "a"), (b, "b")):
            self.check_data(x, name)
        ends = self.to_field(a), self.to_field(b)
        result = interpolate(self.toward(given), *ends, *arguments, **settings)
        points = self.to_data(result.x.flatten(0, 1))
        inner = points.reshape(*result.x.shape[:2], *points.shape[1:])[:, 1:-1]
        return result._replace(
            x=torch.cat([a.to(inner.device)[:, None], inner, b.to(inner.device)[:, None]], 1)
        )

    def restore(
        self,
        measured: Tensor,
        operator: Operator | None = None,
        noise_std: float = 0.0,
        *,
        given: Any = None,
        **settings: Any,
    ) -> Tensor:
        """Return ``n`` samples given each measurement, ``(N, n, *shape)``, as `scorefield.restore`.

        Args:
            measured: ``(N, ...)`` in the units of the data; without an operator, data with NaN in
                the places to restore.
            given: conditions, one for all or one for each, as for `given`; None for none.

        Raises:
            DataError: values that are not of the run's kind; an operator, or noise, for a table;
                nothing to restore.
            UsageError: as `check_restoring`.
            ValueError, NumericalError: as `scorefield.restore`.
        """
        from scorefield.runs.restore import check_unknown, restore

        measured = as_numbers("measured", measured)
        check_unknown(measured, operator, noise_std)
        return restore(self, self.toward(given), measured, operator, noise_std, **settings)

    def log_prob(
        self,
        x: Tensor,
        *arguments: Any,
        draws: int = 1,
        given: Any = None,
        ids: Sequence[int] | Tensor | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> Likelihood:
        """Return the log-density of data ``(B, *shape)`` in nats, in the units of the data.

        For whole numbers it is a lower bound of the log-probability; `Likelihood.bits_per_dim`
        converts it to bits. The other arguments are those of `scorefield.log_prob`. For signals of
        several lengths it is the density of a signal among those of its length.

        Args:
            draws: of the noise that makes whole numbers continuous; several give a tighter bound
                (importance weighting).
            given: conditions, one for all or one for each, as for `given`; None for none.
            ids: of the samples; by default ``0 .. B-1``.
            seed: with an id, determines the noise and the probes.

        Raises:
            ValueError: as `scorefield.log_prob`; several draws for data that is continuous.
            DataError: as `check_data`.
            UsageError: as `check_density`.
            NumericalError: as `scorefield.log_prob`.
        """
        from scorefield.likelihood import combined, log_prob

        if self.config.data.lengths:
            settings |= {"draws": draws, "seed": seed}
            density: Likelihood = self._each_length(
                "log_prob", x, given, ids, *arguments, **settings
            )
            return density
        z, drawn, offset = self.dequantized(x, draws, ids, seed)
        field = self.toward(given).take([k // draws for k in range(len(z))], len(z) // draws)
        result = log_prob(field, z, *arguments, ids=drawn, seed=seed, **settings)
        result = replace(result, value=result.value + offset.to(result.value))
        return result if draws == 1 else combined(result, draws)

    def elbo(
        self,
        x: Tensor,
        *,
        given: Any = None,
        ids: Sequence[int] | Tensor | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> Bound:
        """Return a lower bound of `log_prob` by the reverse SDE, in the same units.

        The arguments are those of `log_prob` and `scorefield.elbo`, and so are the errors.
        """
        from scorefield.likelihood import elbo

        if self.config.data.lengths:
            least: Bound = self._each_length("elbo", x, given, ids, seed=seed, **settings)
            return least
        z, drawn, offset = self.dequantized(x, 1, ids, seed)
        result = elbo(self.toward(given), z, ids=drawn, seed=seed, **settings)
        return replace(result, value=result.value + offset.to(result.value))

    def _each_length(
        self,
        method: str,
        x: Tensor,
        given: Any,
        ids: Sequence[int] | Tensor | None,
        *arguments: Any,
        **settings: Any,
    ) -> Any:
        """Return the likelihoods of signals, each by the method of the run of its length."""
        x = as_numbers("x", x)
        self.check_data(x)
        if not len(x):
            length = self.config.data.lengths[-1][0]
            return getattr(self.of_length(length), method)(x, *arguments, **settings)
        values, every = Given(self.given(given)), list(range(len(x)) if ids is None else ids)
        columns: dict[str, Tensor] = {}
        for length, rows in by_length(lengths(x, "x").cpu()):
            settings |= {"given": values.rows(rows, len(x)), "ids": [every[k] for k in rows]}
            run, some = self.of_length(length), x[rows.to(x.device), :, :length]
            result = getattr(run, method)(some, *arguments, **settings)
            for name, value in vars(result).items():
                column = columns.setdefault(name, value.new_zeros(len(x)))
                column[rows.to(value.device)] = value
        return type(result)(**columns)
