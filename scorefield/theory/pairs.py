r"""Bridges between two finite data sets, and the coupling of the Schrödinger bridge.

Of all diffusions from ``a`` to ``b``, the Schrödinger bridge is nearest to Brownian motion ``sigma
w`` in Kullback-Leibler divergence. It is the mixture of Brownian bridges over the entropic coupling
``P``, which Sinkhorn's iterations compute: a scaled kernel with the weights ``p``, ``q`` as its
marginals::

    P_ij = exp(f_i + g_j - |a_i - b_j|^2 / (2 sigma^2))                                 (1)
    f_i = log p_i - log sum_j exp(g_j - |a_i - b_j|^2 / (2 sigma^2)),  and g_j likewise  (2)

For the entropic coupling and ``eta = 1`` the SDE itself joins ``a_i`` and ``b_j`` with probability
``P_ij``. For any other it has the distributions of the mixture, and joins other pairs.

For a finite set of pairs with ``m = (1 - t) a + t b``, means are weighted by ``P_ij N(x; m_ij,
gamma^2 I)``::

    score = -E[x - m | x] / gamma^2,    gamma^2 = sigma^2 t (1 - t)                     (3)
    velocity = E[b - a | x] + (1 - 2 t) / (2 t (1 - t)) E[x - m | x]                    (4)

Reference: Cuturi (2013), arXiv:1306.0895; Léonard (2014), arXiv:1308.0215; Tong et al. (2023),
arXiv:2307.03672; Pooladian and Niles-Weed (2024), arXiv:2408.11686.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scorefield._internal.assignment import sinkhorn as _sinkhorn
from scorefield.theory.interpolant import Interpolant

_EARLIEST = 1e-6  # the time at which the ends are evaluated, where (4) is 0 / 0


def sinkhorn(
    a: Tensor,
    b: Tensor,
    sigma: float,
    *,
    weights: tuple[Tensor, Tensor] | None = None,
    tolerance: float = 1e-4,
    iterations: int = 10_000,
) -> Tensor:
    """Return the entropic coupling (1) of points ``(N, d)`` and ``(M, d)``, ``(N, M)`` in float64.

    Args:
        sigma: the diffusion of the bridge; ``sigma^2`` is the entropic regularisation of the cost
            ``|a - b|^2 / 2``.
        weights: ``p`` ``(N,)`` and ``q`` ``(M,)``, positive; equal ones by default.
        tolerance: the error of the marginals, as a sum over the points.
        iterations: the largest number of them; one updates ``f`` and ``g``.

    Raises:
        ValueError: a shape or weight does not fit, ``sigma <= 0``, or no convergence.
    """
    _check_points(a, b)
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma={sigma:g}: must be positive.")
    p, q = _weights(weights, len(a), len(b))
    cost = (a.double()[:, None] - b.double()).square().sum(-1) / 2
    plan, error = _sinkhorn(cost, sigma, p, q, tolerance, iterations)
    if error <= tolerance:
        return plan
    raise ValueError(
        f"sigma={sigma:g}: the marginals differ by more than tolerance={tolerance:g} after "
        f"iterations={iterations}. Use a larger sigma, or more iterations."
    )


class PairInterpolant(Interpolant):
    """The interpolant between two finite sets: the mixture of bridges over weighted pairs, (3).

    The distributions at both ends are points. Simulations with ``eta=1`` may start at the points
    themselves; with another ``eta`` they start inside, at samples of ``x_t``.

    Args:
        a, b: points ``(N, d)`` and ``(M, d)``. A batch of B takes memory for ``B N M d`` numbers.
        plan: the coupling ``(N, M)``, such as that of `sinkhorn`; its sum is 1.
        sigma: the diffusion of the bridges.

    Raises:
        ValueError: a shape does not fit, the plan is not a distribution, or ``sigma <= 0``.
    """

    def __init__(self, a: Tensor, b: Tensor, plan: Tensor, sigma: float) -> None:
        super().__init__(sigma)
        _check_points(a, b)
        if sigma == 0:
            raise ValueError("sigma=0: must be positive.")
        if plan.shape != (len(a), len(b)):
            raise ValueError(
                f"plan has shape {tuple(plan.shape)}: give ({len(a)}, {len(b)}) for these points."
            )
        if bool((plan < 0).any()) or abs(float(plan.sum()) - 1) > 1e-4:
            raise ValueError("plan: must be probabilities that sum to 1.")
        self._a, self._b, self._log_plan = a.double(), b.double(), plan.double().log()

    def velocity(self, x: Tensor, t: float | Tensor) -> Tensor:
        t = _inside(t)
        shift, offset = self._means(x, t)
        return (shift + (1 - 2 * t) / (2 * t * (1 - t)) * offset).to(x)

    def score(self, x: Tensor, t: float | Tensor) -> Tensor:
        t = _inside(t)
        return (-self._means(x, t)[1] / (self.sigma**2 * t * (1 - t))).to(x)

    def _means(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``E[b - a | x]`` and ``E[x - m | x]``, like ``x``."""
        a, b = self._a[:, None], self._b
        offsets = x.double()[..., None, None, :] - (1 - t) * a - t * b
        log_share = self._log_plan - offsets.square().sum(-1) / (2 * self.sigma**2 * t * (1 - t))
        share = log_share.flatten(-2).softmax(-1)
        shift = share @ (b - a).flatten(0, 1)
        return shift, (share[..., None] * offsets.flatten(-3, -2)).sum(-2)


def _inside(t: float | Tensor) -> Tensor:
    return torch.as_tensor(t, dtype=torch.float64).clamp(_EARLIEST, 1 - _EARLIEST)


def _check_points(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not len(a) or not len(b):
        raise ValueError(
            f"a has shape {tuple(a.shape)} and b {tuple(b.shape)}: give points (N, d) and (M, d)."
        )


def _weights(weights: tuple[Tensor, Tensor] | None, n: int, m: int) -> list[Tensor]:
    """Return the weights of both sets, each with the sum 1."""
    both = (torch.ones(n), torch.ones(m)) if weights is None else weights
    wide = [w.double() for w in both]
    if [w.shape for w in wide] != [(n,), (m,)] or not all(bool((w > 0).all()) for w in wide):
        raise ValueError(f"weights: must be positive, of shapes ({n},) and ({m},).")
    return [w / w.sum() for w in wide]
