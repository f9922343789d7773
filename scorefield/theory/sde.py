r"""Stochastic differential equations of any form, and Itô's lemma.

::

    dx = f(x, t) dt + G(x, t) dw                                                    (1)

Coefficients are functions of one point ``x`` ``(d,)`` and a time ``()``, made of torch operations:
``f`` returns ``(d,)``; ``G`` returns a scalar ``()``, a diagonal ``(d,)`` or a matrix ``(d, m)``
for ``m`` Brownian motions. `torch.func.vmap` applies them to a batch.

A smooth function ``phi(x, t)`` of the solution satisfies Itô's lemma::

    d phi = L phi dt + (grad phi)^T G dw                                            (2)
    L phi = d phi / dt + f . grad phi + 1/2 tr(G G^T hess phi)                      (3)

The chain rule of calculus lacks the last term: ``(G dw)^2`` is of the size of ``dt``.

Reference: Kloeden and Platen (1992), Numerical Solution of Stochastic Differential Equations,
sections 10.2 and 10.3; Särkkä and Solin (2019), Applied Stochastic Differential Equations, chapter
4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, vmap

from scorefield.noise import Noise

Coefficient = Callable[[Tensor, Tensor], Tensor]
Function = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Paths:
    """Simulated solutions of (1).

    Attributes:
        times: ``(N + 1,)``.
        x: the solutions at these times, ``(N + 1, B, d)``.
        dw: the increments of the Brownian motions between them, ``(N, B, m)``.
    """

    times: Tensor
    x: Tensor
    dw: Tensor


def simulate(
    drift: Coefficient,
    diffusion: Coefficient,
    x: Tensor,
    times: Tensor,
    *,
    milstein: bool = False,
    dw: Tensor | None = None,
    seed: int = 0,
) -> Paths:
    """Simulate (1) from ``x`` ``(B, d)`` along ``times`` ``(N + 1,)``, in the type of ``x``.

    The path of a row depends on ``seed`` and the number of the row only, not on the other rows.

    A step of the Euler-Maruyama method is ``x + f h + G dw``: of strong order 1/2, or 1 if ``G``
    does not depend on ``x``, and of weak order 1. Milstein's method adds
    ``1/2 sum_jk (G_j . grad) G_k (dw_j dw_k - h delta_jk)`` and has strong order 1.

    To compare step sizes on the same paths, add up neighbours of `Paths.dw` and pass the sums as
    ``dw``.

    Raises:
        ValueError: a shape does not fit, the times do not rise, or, with ``milstein=True``, the
            noise does not commute: then the method would need the areas between the motions.
    """
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"x has shape {tuple(x.shape)}: give floating-point points (B, d).")
    times = check_rising(times)
    motions = _matrix(diffusion, x[0], times[0]).shape[1]
    shape = (len(times) - 1, len(x), motions)
    if dw is None:
        normal = Noise(seed, torch.arange(len(x))).draw((shape[0], motions), x)[0]
        dw = normal.transpose(0, 1) * times.diff().sqrt().to(x)[:, None, None]
    if dw.shape != shape:
        raise ValueError(f"dw has shape {tuple(dw.shape)}: give (N, B, m), here {shape}.")

    def step(point: Tensor, noise: Tensor, t: Tensor, h: Tensor) -> Tensor:
        g = _matrix(diffusion, point, t)
        moved = point + _vector(drift, point, t) * h + g @ noise
        return moved + _double_integrals(diffusion, point, t, noise, h) if milstein else moved

    if milstein:
        _check_commutes(diffusion, x, times[0].to(x))
    states = [x]
    for t, h, noise in zip(times[:-1].to(x), times.diff().to(x), dw, strict=True):
        states.append(vmap(step, in_dims=(0, 0, None, None))(states[-1], noise, t, h))
    return Paths(times, torch.stack(states), dw)


def check_rising(times: Tensor) -> Tensor:
    """Return times ``(N,)`` in float64, two or more, that rise."""
    times = torch.as_tensor(times, dtype=torch.float64)
    if times.ndim != 1 or len(times) < 2 or not bool((times.diff() > 0).all()):
        raise ValueError("times: must be two or more rising numbers, as torch.linspace(0, 1, 101).")
    return times


def generator(phi: Function, drift: Coefficient, diffusion: Coefficient) -> Function:
    """Return ``L phi`` of (3), a function of points ``(B, d)`` and a time, of shape ``(B,)``.

    ``phi`` is a function of one point ``(d,)`` and a time ``()``, and returns a scalar ``()``.
    """

    def at(x: Tensor, t: Tensor) -> Tensor:
        g = _matrix(diffusion, x, t)
        curvature = (g @ g.T * hessian(phi)(x, t)).sum()
        along = (_vector(drift, x, t) * grad(phi)(x, t)).sum()
        value: Tensor = grad(phi, argnums=1)(x, t) + along + 0.5 * curvature
        return value

    return lambda x, t: vmap(at, in_dims=(0, None))(x, torch.as_tensor(t).to(x))


def ito_sum(phi: Function, drift: Coefficient, diffusion: Coefficient, paths: Paths) -> Tensor:
    """Return ``phi`` along paths by (2) from its value at their starts, ``(N + 1, B)``.

    The sums of ``L phi h + (grad phi)^T G dw`` at the left ends of the steps. They differ from
    ``phi(x_t, t)`` by an error that falls as the root of the step.
    """
    rate = generator(phi, drift, diffusion)

    def noise(x: Tensor, t: Tensor, dw: Tensor) -> Tensor:
        value: Tensor = grad(phi)(x, t) @ (_matrix(diffusion, x, t) @ dw)
        return value

    times = paths.times.to(paths.x)
    terms = [vmap(phi, in_dims=(0, None))(paths.x[0], times[0])]
    for x, t, h, dw in zip(paths.x[:-1], times[:-1], times.diff(), paths.dw, strict=True):
        terms.append(rate(x, t) * h + vmap(noise, in_dims=(0, None, 0))(x, t, dw))
    return torch.stack(terms).cumsum(0)


def _vector(drift: Coefficient, x: Tensor, t: Tensor) -> Tensor:
    value = drift(x, t)
    if value.shape != x.shape:
        raise ValueError(
            f"drift has shape {tuple(value.shape)} at a point {tuple(x.shape)}: give {len(x)} "
            "numbers for one point."
        )
    return value


def _matrix(diffusion: Coefficient, x: Tensor, t: Tensor) -> Tensor:
    """Return a scalar, diagonal or matrix coefficient at one point as a matrix ``(d, m)``."""
    value = torch.as_tensor(diffusion(x, t)).to(x)
    if value.ndim == 0:
        return value * torch.eye(len(x)).to(x)
    if value.shape == x.shape:
        return torch.diag(value)
    if value.ndim == 2 and value.shape[0] == len(x):
        return value
    raise ValueError(
        f"diffusion has shape {tuple(value.shape)} at a point {tuple(x.shape)}: give a scalar (), "
        f"a diagonal ({len(x)},) or a matrix ({len(x)}, m)."
    )


def _derivatives(diffusion: Coefficient, x: Tensor, t: Tensor) -> Tensor:
    """Return ``(G_j . grad) G_k`` at one point, ``(d, k, j)``."""
    g = _matrix(diffusion, x, t)
    slopes = jacfwd(lambda point: _matrix(diffusion, point, t))(x)
    return torch.einsum("ikl,lj->ikj", slopes, g)


def _double_integrals(
    diffusion: Coefficient, x: Tensor, t: Tensor, dw: Tensor, h: Tensor
) -> Tensor:
    products = dw[:, None] * dw - h * torch.eye(len(dw)).to(x)
    return 0.5 * (_derivatives(diffusion, x, t) * products).sum((1, 2))


def _check_commutes(diffusion: Coefficient, x: Tensor, t: Tensor) -> None:
    terms = vmap(lambda point: _derivatives(diffusion, point, t))(x)
    if not torch.allclose(terms, terms.mT, rtol=1e-4, atol=1e-6):
        raise ValueError(
            "milstein=True: (G_j . grad) G_k must not change when j and k are swapped. Leave it "
            "out: the Euler-Maruyama method takes any noise."
        )
