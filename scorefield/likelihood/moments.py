"""A Gaussian that stands for the data where noise dominates it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scorefield.field import ScoreField
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

    def log_prob(self, y: Tensor, r: float) -> Tensor:
        """Return the log-density of ``y`` ``(B, d)`` under this Gaussian with ``r^2`` added."""
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
