r"""Products of densities, and quotients: one field made of several.

The density is ``p(x_0) ~ prod_k p_k(x_0)^w_k``. With scores ``s_k`` of the same noisy ``x``, means
``mu_k = E[x_0 | x]`` and the covariances ``C_k`` of the data of each::

    s = sum_k w_k s_k                                                               (1)
    1 / C = sum_k w_k / C_k                                                         (2)
    E[x_0 | x] = S (sum_k w_k B_k mu_k + (1 - w) alpha x)                           (3)
    E[eps | x] = S sum_k w_k B_k eps_k                                              (4)

with ``B_k = sigma^2 / C_k + alpha^2``, ``S = (sigma^2 / C + alpha^2)^-1`` and ``w = sum_k w_k``.

(1) is the score of the product at ``sigma = 0`` only: noising a product is not the product of the
noised factors. (3) and (4) take ``x_0`` given ``x`` as a Gaussian of precision ``B_k / sigma^2``
under each factor, and multiply those. That is exact for Gaussian factors at every noise level, by
ODE and SDE, and equals (1) at ``sigma = 0`` for any.

Observations ``y_j`` that are independent given ``x_0`` have the posterior ``p(x_0)^(1 - n) prod_j
p(x_0 | y_j)``: the fields of the posteriors with weights 1, and that of the prior with ``1 - n``.

Reference: Du et al. (2023), arXiv:2302.11552, of (1); Geffner et al. (2023), arXiv:2209.14249, of
posteriors; Linhart et al. (2024), arXiv:2404.07593, of (3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scorefield.field.analytic import columns
from scorefield.field.base import Estimate, Instant, ScoreField, check_score
from scorefield.process import mix


class Product(ScoreField):
    """A product of fields: exact for Gaussians with ``covariances``, for one factor without them.

    With covariances it is the field (3): samples have the product of the densities if these are
    Gaussian, and nearly if they are nearly Gaussian. Without them it is (1), whose samples depend
    on the solver: by the ODE they are narrower than the product, of posteriors of one measurement
    each by a hundred times and more; Langevin moves at each level (`PredictorCorrector`) come
    nearer. Neither has a likelihood. For several linear measurements, one posterior field with an
    operator of all of them is better.

    Args:
        fields: any.
        weights: ``w_k``, negative ones for what to leave; where they do not sum to 1, (1) has no
            value at ``alpha = 0``.
        mean, variance: of the samples, as for `ScoreField`; by default those of the product of
            Gaussians, or without covariances those of the first field.
        covariances: ``C_k`` of the data of each field, flattened, ``(K, d, d)``; such as the
            covariance of samples.

    Raises:
        ValueError: fields of different processes or shapes, another number of weights, none;
            covariances of another shape, or whose sum (2) is not positive definite.
    """

    precisions: Tensor
    _basis: Tensor
    _eigenvalues: Tensor

    def __init__(
        self,
        fields: Sequence[ScoreField],
        weights: Sequence[float],
        mean: float | Tensor | None = None,
        variance: float | Tensor | None = None,
        *,
        covariances: Tensor | None = None,
    ) -> None:
        if isinstance(fields, ScoreField) or isinstance(weights, ScoreField):
            raise ValueError("fields: give a list, as in Product([field, other], (1.0, 1.0)).")
        kinds = {(repr(field.process), field.shape) for field in fields}
        if len(kinds) != 1 or len(weights) != len(fields):
            raise ValueError(
                f"{len(weights)} weights for {len(fields)} fields of {sorted(kinds)}: give fields "
                "of one process (see ScoreField.under) and shape, and a weight for each."
            )
        check_score("Product", *fields)
        first = fields[0]
        super().__init__(first.process, first.shape, first.mean, first.variance)
        self.fields: Sequence[ScoreField] = nn.ModuleList(fields)  # type: ignore[assignment]
        self.weights = tuple(map(float, weights))
        self.rows = max(field.rows for field in fields)
        self.gaussian = covariances is not None
        if covariances is not None:
            self._multiply(covariances)
        self.mean = self.mean if mean is None else mean
        self.variance = self.variance if variance is None else variance

    def _multiply(self, covariances: Tensor) -> None:
        """Compute (2), and the moments of the product of Gaussians."""
        shape = torch.Size(self.shape)
        if covariances.shape != (len(self.fields), shape.numel(), shape.numel()):
            raise ValueError(
                f"covariances has shape {tuple(covariances.shape)}: give one for each field, "
                f"{(len(self.fields), shape.numel(), shape.numel())}."
            )
        factors, failed = torch.linalg.cholesky_ex(covariances.double())
        if bool(failed.any()):
            raise ValueError("covariances must be symmetric and positive definite.")
        precisions = torch.cholesky_inverse(factors)
        precisions = precisions * precisions.new_tensor(self.weights)[:, None, None]
        eigenvalues, basis = torch.linalg.eigh(precisions.sum(0))
        if not float(eigenvalues[0]) > 0:
            raise ValueError(
                "covariances: the precisions, times their weights, sum to a matrix with the "
                f"eigenvalue {float(eigenvalues[0]):.3g}, so that the product of Gaussians is not "
                "one. A factor with a negative weight must be wider than the others together."
            )
        means = [torch.as_tensor(field.mean).double().expand(shape) for field in self.fields]
        flat = torch.stack([mean.flatten().to(basis.device) for mean in means])
        covariance = basis / eigenvalues @ basis.T
        mean = torch.einsum("de,kef,kf->d", covariance, precisions, flat)
        self.mean, self.variance = mean.reshape(shape), covariance.diagonal().reshape(shape)
        self.register_buffer("precisions", precisions)
        self.register_buffer("_basis", basis)
        self.register_buffer("_eigenvalues", eigenvalues)

    @property
    def stackable(self) -> bool:
        return all(field.stackable for field in self.fields)

    @property
    def has_density(self) -> bool:
        return [w for w in self.weights if w] == [1.0] and super().has_density

    def prepare_times(
        self, t: Tensor, alpha: Tensor, sigma: Tensor
    ) -> Sequence[tuple[Instant, ...]]:
        return list(zip(*(field.instants(t) for field in self.fields), strict=True))

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        rest = 1 - sum(self.weights)
        estimates = [f(x, t, **condition) for f, t in zip(self.fields, at.prepared, strict=True)]
        parts = [e.x0 for e in estimates], [e.eps for e in estimates]
        if self.gaussian:
            x0, eps = self._weighted(x, at, parts, rest)
        else:
            x0, eps = (mix(*zip(self.weights, part, strict=True)) for part in parts)
            x0 = mix((1.0, x0), (rest / at.alpha, x)) if rest else x0
        return Estimate(x, at, (x0, eps))

    def _weighted(
        self, x: Tensor, at: Instant, parts: tuple[list[Tensor], list[Tensor]], rest: float
    ) -> tuple[Tensor, Tensor]:
        """Return ``x_0`` and ``eps`` by (3) and (4)."""
        alpha, sigma = columns(at, x)
        basis, precisions = self._basis.to(x), self.precisions.to(x)
        spread = sigma**2 * self._eigenvalues.to(x) + alpha**2

        def narrowed(part: list[Tensor], extra: Tensor | float) -> Tensor:
            flat = torch.stack(part).flatten(2)
            plain = torch.einsum("k,kbd->bd", x.new_tensor(self.weights), flat)
            inner = torch.einsum("kbd,kde->be", flat, precisions)
            total = sigma**2 * inner + alpha**2 * plain + extra
            return ((total @ basis / spread) @ basis.T).reshape(x.shape)

        x0, eps = parts
        return narrowed(x0, rest * alpha * x.flatten(1)), narrowed(eps, 0.0)
