"""The Gaussian of the data's moments: far from the data, and as the prior at a path's end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scorefield.field import Instant, ScoreField
from scorefield.process import Prior, widest

PriorName = Literal["moments", "standard"]


@dataclass(frozen=True)
class Moments:
    """The mean and covariance of data, in the field's units.

    Attributes:
        mean: ``(d,)``.
        eigenvalues: of the covariance, ``(d,)``, not negative and not all 0.
        basis: its eigenvectors as columns, ``(d, d)``; None for the axes themselves.
    """

    mean: Tensor
    eigenvalues: Tensor
    basis: Tensor | None = None

    @classmethod
    def of(cls, data: Tensor, *, diagonal: bool = False) -> Moments:
        """Return the moments of data ``(N, ...)``: full, or of each coordinate alone."""
        flat = data.double().flatten(1)
        mean = flat.mean(0)
        if diagonal:
            return cls(mean, flat.var(0, correction=0))
        eigenvalues, basis = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
        return cls(mean, eigenvalues.clamp(min=0), basis)

    @classmethod
    def of_field(cls, field: ScoreField) -> Moments:
        """Return the mean and the variances that a field has of its data."""
        return cls(*(_flat(value, field) for value in (field.mean, field.variance)))

    @classmethod
    def standard(cls, field: ScoreField) -> Moments:
        """Return zero mean and unit variance: what most samplers start from."""
        return cls(*(_flat(value, field) for value in (0.0, 1.0)))

    @property
    def deviation(self) -> float:
        """The root of the mean variance."""
        return float(self.eigenvalues.mean().sqrt())

    def log_prob(self, y: Tensor, r: float | Tensor) -> Tensor:
        """Return the log-density of ``y`` ``(B, d)`` under this Gaussian with ``r^2`` added.

        Without a basis, ``r`` may have a value for each coordinate.
        """
        along = self.centred(y)
        return Prior(torch.zeros_like(along), (self.eigenvalues + r**2).sqrt()).log_prob(along)

    def eps(self, y: Tensor, r: Tensor) -> Tensor:
        """Return ``E[eps | y]`` under it, along the basis; ``r`` broadcasts against ``(B, d)``."""
        return r * self.centred(y) / (self.eigenvalues + r**2)

    def trace(self, r: Tensor) -> Tensor:
        """Return ``sum_k r^2 / (e_k + r^2)``, its trace at noises ``r`` ``(..., 1)``."""
        return (r**2 / (self.eigenvalues + r**2)).sum(-1)

    def along(self, vectors: Tensor) -> Tensor:
        """Return vectors ``(B, d)`` in the basis."""
        return vectors if self.basis is None else vectors @ self.basis.to(vectors)

    def centred(self, y: Tensor) -> Tensor:
        """Return points ``(B, d)`` less the mean, in the basis."""
        return self.along(y - self.mean)

    def to(self, device: torch.device) -> Moments:
        """Return it on a device, in the widest type there."""
        dtype = widest(device)
        basis = None if self.basis is None else self.basis.to(device, dtype)
        mean, eigenvalues = (v.to(device, dtype) for v in (self.mean, self.eigenvalues))
        return Moments(mean, eigenvalues, basis)


def resolved(field: ScoreField, prior: Moments | PriorName) -> Moments:
    """Return the moments that an argument ``prior`` stands for.

    Raises:
        ValueError: a name that is none, or moments in another dimension.
    """
    if isinstance(prior, Moments):
        dim = math.prod(field.shape)
        if prior.mean.shape != (dim,) or prior.eigenvalues.shape != (dim,):
            raise ValueError(
                f"prior has a mean of shape {tuple(prior.mean.shape)}: samples of shape "
                f"{field.shape} have {dim} coordinates. Use Moments.of(data)."
            )
        return prior
    if prior not in ("moments", "standard"):
        raise ValueError(f"prior={prior!r}: give 'moments', 'standard' or Moments.of(data).")
    return Moments.of_field(field) if prior == "moments" else Moments.standard(field)


def _flat(value: float | Tensor, field: ScoreField) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).expand(field.shape).flatten()


_NEAR = 0.2  # of the data's deviation


def far(r: Tensor, moments: Moments) -> Tensor:
    """Return how good the score ``eps / r`` of a learned field is for the size of an error.

    From 1 far from the data down to 0 at the data, where most of it is the network's own error.
    """
    return 1 / (1 + (_NEAR * moments.deviation / r) ** 2)


def at_noise(field: ScoreField, x: Tensor, at: Instant) -> Tensor:
    """Return data ``(B, *shape)`` at the first noise ``r`` of its path, in the units of the field.

    If noise is independent of the data, a density changes by ``r^2`` between the two, which is
    reported. Coupled noise changes it by ``r``, so the data makes an Euler step first.
    """
    x = x * torch.as_tensor(at.alpha)
    return x if field.has_score else x + at.sigma * field(x, at).eps.detach()


class Ends:
    """The first point of a path from data to prior and its last two.

    For a field without a score, whose data and noise are coupled, the density at both ends is that
    of the noise at infinity, ``eps``, to first order::

        log N(eps; 0, I) - d log r - (d - trace)    at the last point,    + trace    at the first

    Args:
        coupled: the field has no score.
        moments: of the prior.
        r: noise over signal there, ``(3, 1, 1)``.
        y, eps: the points and the field's noise there, ``(3, B, d)``.

    Attributes:
        value: the prior's log-density at the last point, with the Gaussian part of the
            trace's integral.
    """

    def __init__(
        self, moments: Moments, r: Tensor, y: Tensor, eps: Tensor, coupled: bool = False
    ) -> None:
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
        self._coupled, self._dim = coupled, y.shape[2]
        if coupled:
            noise = Prior(torch.zeros_like(eps[2]), torch.ones_like(eps[2])).log_prob(eps[2])
            self.value = self.value - moments.log_prob(y[-1], last) + noise
            self.value = self.value - self._dim * math.log(last)

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
        if self._coupled:
            totals = totals + traces[0] - (self._dim - traces[1])
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
        if self._coupled:
            return 0.5 * trace**2 / self._dim
        return 0.5 * (trace - self._first)

    def prior_mismatch(self, trace: Tensor) -> Tensor:
        """Return the effect of another distribution than the prior, from the trace there."""
        if self._coupled:
            return 0.5 * (trace - self._dim) ** 2 / self._dim
        return 0.5 * (trace - self._gaussian) - self._beyond
