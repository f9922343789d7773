r"""Exact score fields: the truth that solvers, likelihoods and training are tested against.

Noising a Gaussian keeps it Gaussian. In the eigenbasis ``C = Q diag(e) Q^T`` of the data's
covariance, with ``r = Q^T (x - alpha mu)``::

    p_t = N(alpha mu, alpha^2 C + sigma^2 I)                                        (1)
    E[eps | x] = sigma Q r / (alpha^2 e + sigma^2)                                  (2)
    E[x_0 | x] = mu + alpha Q (e r / (alpha^2 e + sigma^2))                         (3)

Neither cancels at small ``sigma`` or ``alpha``; only ``r`` does, where ``x`` is much larger. With
one noise level per coordinate, the same holds of ``x / sigma`` with ``D C D`` in the place of ``C``
and ``D = alpha / sigma``, whose eigenbasis depends on the time.

A mixture averages its components' means with the posterior weights of the components; the empirical
distribution of a data set is the mixture with ``C = 0``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from scorefield.field.base import Estimate, Instant, ScoreField, Shape
from scorefield.process import Coefficient, Process, Time, check_instance, wide

_TINY = 1e-100


class Mixture(ScoreField):
    """The field of a mixture of ``K`` Gaussians with full covariances.

    Args:
        process: the forward process.
        weights: ``(K,)``, positive; scaled to sum to one.
        means: ``(K, *shape)``.
        covariances: ``(K, d, d)`` with ``d`` the number of coordinates of one sample, symmetric
            and positive semi-definite.

    Raises:
        ValueError: shapes disagree, a weight is not positive, or a covariance is not symmetric
            positive semi-definite.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor
    _basis: Tensor
    _eigenvalues: Tensor
    _axes: Tensor
    _centres: Tensor

    def __init__(
        self, process: Process, weights: Tensor, means: Tensor, covariances: Tensor
    ) -> None:
        check_instance("process", process, Process, "Mixture(process, weights, means, covariances)")
        check_instance("weights", weights, Tensor, "torch.as_tensor(weights)")
        weights, covariances = weights.double(), covariances.double()
        count, shape = means.shape[0], tuple(means.shape[1:])
        flat = means.double().reshape(count, -1)
        dim = flat.shape[1]
        if weights.shape != (count,) or covariances.shape != (count, dim, dim):
            raise ValueError(
                f"weights {tuple(weights.shape)}, means {tuple(means.shape)} and covariances "
                f"{tuple(covariances.shape)} disagree: needs ({count},), ({count}, ...) and "
                f"({count}, {dim}, {dim})."
            )
        if not bool((weights > 0).all()):
            raise ValueError(f"weights must be positive, the smallest is {weights.min():g}.")
        weights = weights / weights.sum()
        eigenvalues, basis = eigen(covariances)
        mean = weights @ flat
        second = covariances.diagonal(dim1=1, dim2=2) + (flat - mean) ** 2
        super().__init__(process, shape, mean.reshape(shape), (weights @ second).reshape(shape))
        self.register_buffer("weights", weights)
        self.register_buffer("means", flat)
        self.register_buffer("covariances", covariances)
        self.register_buffer("_eigenvalues", eigenvalues)
        self.register_buffer("_basis", basis)
        # every component's axes side by side, and its mean along them
        self.register_buffer("_axes", basis.transpose(0, 1).reshape(dim, count * dim))
        self.register_buffer("_centres", torch.einsum("ki,kij->kj", flat, basis))

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        alpha, sigma = columns(at, x)
        if self.process.coordinates:
            return Estimate(x, at, self._means(x, alpha, sigma))
        residual, spread = self._residuals(x, alpha, sigma)
        share = self._log_joint(residual, spread).softmax(1)
        scaled = share[..., None] * residual / spread
        axes = self._axes.to(x).T
        eps = sigma * (scaled.flatten(1) @ axes)
        pulled = (self._eigenvalues.to(x) * scaled).flatten(1) @ axes
        x0 = share @ self.means.to(x) + alpha * pulled
        return Estimate(x, at, (x0.reshape(x.shape), eps.reshape(x.shape)))

    def log_prob(self, x: Tensor, t: Time) -> Tensor:
        """Return ``log p_t`` of each sample of ``x`` ``(B, *shape)``, in nats, shape ``(B,)``."""
        alpha, sigma = columns(Instant.of(self.process, t, x), x)
        if self.process.coordinates:
            residual, spread, _ = self._turned(x, alpha, sigma)
            stretch = wide(torch.as_tensor(sigma)).log().sum(-1, keepdim=True)
            return (self._log_joint(residual, spread) - stretch).logsumexp(1).to(x)
        return self._log_joint(*self._residuals(x, alpha, sigma)).logsumexp(1)

    def data(self, eps: Tensor, choice: Tensor) -> Tensor:
        """Return data ``(B, *shape)`` from noise ``eps`` ``(B, *shape)`` and uniforms ``(B,)``."""
        edges = self.weights.cumsum(0).to(choice)
        k = torch.searchsorted(edges, choice).clamp(max=len(edges) - 1)
        stretched = self._eigenvalues.sqrt().to(eps)[k] * eps.flatten(1)
        turned = torch.einsum("bij,bj->bi", self._basis.to(eps)[k], stretched)
        return (self.means.to(eps)[k] + turned).reshape(eps.shape)

    def _residuals(
        self, x: Tensor, alpha: Coefficient, sigma: Coefficient
    ) -> tuple[Tensor, Tensor]:
        """Return ``r`` ``(B, K, d)`` and the variances along the axes, to broadcast with it."""
        if isinstance(alpha, Tensor) and isinstance(sigma, Tensor):
            alpha, sigma = alpha[..., None], sigma[..., None]
        along = (x.flatten(1) @ self._axes.to(x)).reshape(len(x), *self._centres.shape)
        spread = alpha**2 * self._eigenvalues.to(x) + sigma**2
        return along - alpha * self._centres.to(x), spread

    def _turned(
        self, x: Tensor, alpha: Coefficient, sigma: Coefficient
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the residuals of ``x / sigma``, their variances and axes ``(B or 1, K, d, d)``."""
        a, s = (wide(torch.as_tensor(c))[:, None] for c in (alpha, sigma))
        ratio = (a / s)[..., None]
        eigenvalues, axes = torch.linalg.eigh(ratio * wide(self.covariances) * ratio.mT)
        z = (wide(x).flatten(1)[:, None] - a * wide(self.means)) / s
        return (z[..., None] * axes).sum(-2), eigenvalues.clamp(min=0) + 1, axes

    def _means(self, x: Tensor, alpha: Coefficient, sigma: Coefficient) -> tuple[Tensor, Tensor]:
        """Return the means of data and noise where every coordinate has its own noise level."""
        residual, spread, axes = self._turned(x, alpha, sigma)
        share = self._log_joint(residual, spread).softmax(1)
        scaled = share[..., None] * residual / spread
        eps, pulled = (
            (axes * v[..., None, :]).sum((1, -1)) for v in (scaled, (spread - 1) * scaled)
        )
        ratio = (wide(torch.as_tensor(alpha)) / wide(torch.as_tensor(sigma))).clamp(min=_TINY)
        x0 = share @ wide(self.means) + pulled / ratio
        return x0.reshape(x.shape).to(x), eps.reshape(x.shape).to(x)

    def _log_joint(self, residual: Tensor, spread: Tensor) -> Tensor:
        """Return ``log(weight_k N(x; k))``, shape ``(B, K)``."""
        quadratic = (residual**2 / spread).sum(-1) + spread.log().sum(-1)
        dim = residual.shape[-1]
        return self.weights.log().to(residual) - 0.5 * (quadratic + dim * math.log(2 * math.pi))


class Gaussian(Mixture):
    """The field of one Gaussian.

    Args:
        process: the forward process.
        mean: ``shape``, at least one-dimensional.
        covariance: ``(d, d)``, symmetric and positive semi-definite.
    """

    def __init__(self, process: Process, mean: Tensor, covariance: Tensor) -> None:
        check_instance("process", process, Process, "Gaussian(process, mean, covariance)")
        check_instance("mean", mean, Tensor, "torch.as_tensor(mean)")
        check_instance("covariance", covariance, Tensor, "torch.as_tensor(covariance)")
        super().__init__(process, torch.ones(1), mean[None], covariance[None])


class Empirical(ScoreField):
    """The ideal denoiser of a data set, which a network that memorised it would approach.

    Args:
        process: the forward process.
        data: ``(N, *shape)``, finite. A batch of B takes memory for ``B N d`` numbers.
    """

    points: Tensor

    def __init__(self, process: Process, data: Tensor) -> None:
        check_instance("process", process, Process, "Empirical(process, data)")
        check_instance("data", data, Tensor, "torch.as_tensor(data)")
        if data.ndim < 2 or data.shape[0] < 1:
            raise ValueError(f"data has shape {tuple(data.shape)}: needs (N, ...) with N >= 1.")
        shape: Shape = tuple(data.shape[1:])
        wide = data.double()
        super().__init__(process, shape, wide.mean(0), wide.var(0, correction=0))
        self.register_buffer("points", wide.flatten(1))

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        share = self._log_joint(x, at).softmax(1)
        x0 = (share @ self.points.to(x)).reshape(x.shape)
        return Estimate.from_x0(x, at, x0)

    def log_prob(self, x: Tensor, t: Time) -> Tensor:
        """Return ``log p_t`` of each sample of ``x`` ``(B, *shape)``, in nats, shape ``(B,)``."""
        return self._log_joint(x, Instant.of(self.process, t, x)).logsumexp(1)

    def _log_joint(self, x: Tensor, at: Instant) -> Tensor:
        alpha, sigma = (torch.as_tensor(c, dtype=x.dtype) for c in columns(at, x))
        points = self.points.to(x)
        count, dim = points.shape
        norm = dim * 0.5 * math.log(2 * math.pi) + math.log(count)
        if self.process.coordinates:
            offsets = (x.flatten(1)[:, None] - alpha[:, None] * points) / sigma[:, None]
            return -0.5 * offsets.square().sum(-1) - sigma.log().sum(-1, keepdim=True) - norm
        offsets = x.flatten(1)[:, None] - alpha[..., None] * points
        return -0.5 * offsets.square().sum(-1) / sigma**2 - dim * sigma.log() - norm


def columns(at: Instant, x: Tensor) -> list[Coefficient]:
    """Return alpha and sigma: numbers, or tensors ``(B or 1, 1 or d)`` of the type of ``x``."""
    return [
        (c.flatten(1) if c.ndim > 1 else c.reshape(-1, 1)).to(x) if isinstance(c, Tensor) else c
        for c in (at.alpha, at.sigma)
    ]


def eigen(covariances: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues ``(K, d)`` and bases ``(K, d, d)``, or refuse."""
    if not torch.allclose(covariances, covariances.mT, rtol=1e-8, atol=1e-10):
        raise ValueError("covariances must be symmetric.")
    eigenvalues, basis = torch.linalg.eigh(covariances)
    if bool((eigenvalues < -1e-8 * eigenvalues.abs().amax()).any()):
        raise ValueError(
            f"covariances must be positive semi-definite: an eigenvalue is {eigenvalues.min():g}."
        )
    return eigenvalues.clamp(min=0.0), basis
