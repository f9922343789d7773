"""Codes, restorations and likelihoods of data under a field, in the units of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scorefield.runs.units import DataField
from scorefield.sampling import Codes, Decoded, as_numbers, decode, encode, interpolate

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
        converts it to bits. The other arguments are those of `scorefield.log_prob`.

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

        z, drawn, offset = self.dequantized(x, 1, ids, seed)
        result = elbo(self.toward(given), z, ids=drawn, seed=seed, **settings)
        return replace(result, value=result.value + offset.to(result.value))
