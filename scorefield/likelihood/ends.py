"""The two ends of a path: the prior's density, and the parts of the budget."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scorefield.likelihood.moments import Moments

_NEAR = 0.2  # of the data's deviation


def far(r: Tensor, moments: Moments) -> Tensor:
    """Return how good the score ``eps / r`` of a learned field is for the size of an error.

    From 1 far from the data down to 0 at the data, where most of it is the network's own error.
    """
    return 1 / (1 + (_NEAR * moments.deviation / r) ** 2)


class Ends:
    """The first point of a path from data to prior and its last two.

    Args:
        moments: of the prior.
        r: noise over signal there, ``(3, 1, 1)``.
        y, eps: the points and the field's noise there, ``(3, B, d)``.

    Attributes:
        value: the prior's log-density at the last point, with the Gaussian part of the
            trace's integral.
    """

    def __init__(self, moments: Moments, r: Tensor, y: Tensor, eps: Tensor) -> None:
        e, (first, _, last) = moments.eigenvalues, r.flatten().tolist()
        self.value = moments.log_prob(y[-1], last)
        self.value = self.value + 0.5 * torch.log((e + last**2) / (e + first**2)).sum()
        self._first = (eps[0] ** 2).sum(1)
        self._gaussian = moments.trace(r[-1, 0])
        ours = moments.eps(y[1:].flatten(0, 1), r[1:].expand(-1, y.shape[1], 1).flatten(0, 1))
        more = moments.along(eps[1:].flatten(0, 1)) - ours
        beyond = (ours * more).sum(1).reshape(2, -1)
        # falls like 1 / r where the prior's mean is not the data's, and like 1 / r^2 where it is
        fall = (beyond[0] / beyond[1]).abs().log() / (r[2] / r[1]).log().flatten()
        self._beyond: Tensor = beyond[1] / fall.nan_to_num(2.0).clamp(1, 2)

    def fields(
        self,
        totals: Tensor,
        error: Tensor,
        traces: tuple[Tensor, Tensor],
        nfe: Tensor | int,
        products: Tensor | int,
        exact: bool,
    ) -> Tensor:
        """Return the fields of `Likelihood` stacked, ``(8, B)``.

        Args:
            totals: the integral by each probe, ``(K, B)``, or exact, ``(1, B)``.
            error: the solver's, ``(B,)``.
            traces: the mean trace at the first and at the last point, ``(B,)`` each.
            nfe, products: for each sample, or for all.
            exact: whether the trace is.
        """
        count, whole = len(totals), torch.ones_like(error)
        return torch.stack(
            [
                self.value + totals.mean(0),
                totals.std(0) / math.sqrt(count) if count > 1 else 0 * whole,
                error,
                self.truncation(traces[0]),
                self.prior_mismatch(traces[1]),
                nfe * whole,
                products * whole,
                (0 if exact else count) * whole,
            ]
        )

    def truncation(self, trace: Tensor) -> Tensor:
        """Return the effect of the noise left, from the trace at the first point."""
        return 0.5 * (trace - self._first)

    def prior_mismatch(self, trace: Tensor) -> Tensor:
        """Return the effect of another distribution than the prior, from the trace there."""
        return 0.5 * (trace - self._gaussian) - self._beyond
