r"""The exact field of a Gaussian whose data and noise are coupled.

In the eigenbasis ``C = Q diag(s^2) Q^T`` of the data's covariance, with ``n`` independent noise::

    x_0 = mu + Q s (c Q^T eps + sqrt(1 - c^2) n)                                    (1)

With ``c = 1`` the data is the image of the noise under the optimal transport map ``mu + C^{1/2}
eps``, and with ``c = 0`` both are independent. With ``r = Q^T (x - alpha mu)`` and the variances
``w = alpha^2 s^2 + 2 alpha sigma c s + sigma^2`` along the axes::

    p_t = N(alpha mu, Q w Q^T)                                                      (2)
    E[eps | x] = Q ((alpha c s + sigma) r / w)                                      (3)
    E[x_0 | x] = mu + Q ((alpha s^2 + sigma c s) r / w)                             (4)

Reference: Peyré and Cuturi (2019), arXiv:1803.00567, remark 2.31 (the transport map).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scorefield.field.analytic import columns, eigen
from scorefield.field.base import Estimate, Instant, ScoreField
from scorefield.process import Coefficient, Prior, Process, Time


class CoupledGaussian(ScoreField):
    """The field of one Gaussian that is coupled with its noise by (1): a velocity without a score.

    Args:
        process: the forward process.
        mean: ``shape``, at least one-dimensional.
        covariance: ``(d, d)``, symmetric and positive semi-definite.
        correlation: ``c``, from 0 (independent: the field has a score) to 1 (optimal transport).

    Raises:
        ValueError: another correlation; a covariance of another shape, or that is not symmetric
            positive semi-definite.
    """

    _centre: Tensor
    _scales: Tensor
    _basis: Tensor

    def __init__(
        self, process: Process, mean: Tensor, covariance: Tensor, correlation: float = 1.0
    ) -> None:
        if not 0 <= correlation <= 1:
            raise ValueError(f"correlation={correlation:g}: must be from 0 to 1.")
        dim = mean.numel()
        if covariance.shape != (dim, dim):
            raise ValueError(
                f"covariance has shape {tuple(covariance.shape)}: a mean of {dim} coordinates "
                f"needs ({dim}, {dim})."
            )
        eigenvalues, basis = eigen(covariance.double()[None])
        shape = tuple(mean.shape)
        variance = covariance.double().diagonal().reshape(shape)
        super().__init__(process, shape, mean.double(), variance)
        self.correlation, self.coupled = float(correlation), correlation != 0
        self.register_buffer("_centre", mean.double().flatten())
        self.register_buffer("_scales", eigenvalues[0].sqrt())
        self.register_buffer("_basis", basis[0])

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        along, w, alpha, sigma = self._along(x, at)
        s, basis = self._scales.to(x), self._basis.to(x)
        r = along / w
        eps = ((alpha * self.correlation * s + sigma) * r) @ basis.T
        pulled = ((alpha * s**2 + sigma * self.correlation * s) * r) @ basis.T
        x0 = self._centre.to(x) + pulled
        return Estimate(x, at, (x0.reshape(x.shape), eps.reshape(x.shape)))

    def log_prob(self, x: Tensor, t: Time) -> Tensor:
        """Return ``log p_t`` of each sample of ``x`` ``(B, *shape)``, in nats, shape ``(B,)``."""
        along, w, _, _ = self._along(x, Instant.of(self.process, t, x))
        return Prior(torch.zeros_like(along), w.sqrt()).log_prob(along)

    def _along(self, x: Tensor, at: Instant) -> tuple[Tensor, Tensor, Coefficient, Coefficient]:
        """Return ``r`` ``(B, d)``, its variances ``w``, and alpha and sigma to multiply them."""
        alpha, sigma = columns(at, x)
        s = self._scales.to(x)
        w = (alpha * s) ** 2 + 2 * alpha * sigma * self.correlation * s + sigma**2
        return (x.flatten(1) - alpha * self._centre.to(x)) @ self._basis.to(x), w, alpha, sigma
