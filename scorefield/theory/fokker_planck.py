r"""The Fokker-Planck equation on a grid, in one and two dimensions.

The density of ``dx = f(x, t) dt + G(x, t) dw`` with a diagonal ``G`` satisfies::

    dp/dt = -div J,    J_i = (f_i - dD_i/dx_i) p - D_i dp/dx_i,    D_i = G_i^2 / 2      (1)

The cells of the grid exchange mass through their faces. For constant coefficients between the
centres of two cells, the flux is, with the Bernoulli function ``B(z) = z / (e^z - 1)``::

    J = D/h (B(-z) p_left - B(z) p_right),    z = (f - D') h / D                        (2)

It is exact where the density is stationary, tends to upwind differences for strong drifts, and its
weights are not negative. So mass is constant, densities stay positive and the error is of order
``h^2``. No mass crosses the boundary. Time goes in steps of the two-stage method of Shu and Osher,
short enough that no cell loses
more than half of its mass.

Reference: Scharfetter and Gummel (1969); Chang and Cooper (1970), J. Comput. Phys. 6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import jvp, vmap

from scorefield.theory.sde import Coefficient, check_rising

Bounds = Sequence[tuple[float, float]]

_MOST_STEPS = 1_000_000


def cell_centers(bounds: Bounds, shape: Sequence[int]) -> Tensor:
    """Return the centres of the cells of a grid, ``(*shape, d)`` in float64."""
    _check_bounds(bounds, len(shape))
    axes = [
        low + (torch.arange(n, dtype=torch.float64) + 0.5) * (high - low) / n
        for (low, high), n in zip(bounds, shape, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def fokker_planck(
    density: Tensor, drift: Coefficient, diffusion: Coefficient, times: Tensor, *, bounds: Bounds
) -> Tensor:
    """Return the density at each of ``times`` ``(N,)``, as ``(N, *density.shape)`` in float64.

    Args:
        density: the averages over the cells at ``times[0]``, ``(n,)`` or ``(n, m)``.
        drift, diffusion: as for `simulate`; the diffusion is a scalar or a diagonal.
        bounds: ``(low, high)`` of each coordinate. Nothing leaves this box: make it large enough
            for the density.

    Raises:
        ValueError: the density has another shape or a negative value, the bounds are empty, the
            times do not rise, the diffusion is a matrix, or the steps would be more than a million.
    """
    density = density.double()
    if density.ndim not in (1, 2) or not bool((density.isfinite() & (density >= 0)).all()):
        raise ValueError(
            f"density has shape {tuple(density.shape)} and values from {density.min():g}: give "
            "(n,) or (n, m) without negative values."
        )
    _check_bounds(bounds, density.ndim)
    times = check_rising(times)
    faces = [_faces(bounds, density.shape, axis) for axis in range(density.ndim)]
    widths = [(high - low) / n for (low, high), n in zip(bounds, density.shape, strict=True)]
    results, steps = [density], 0
    for start, end in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        t = start
        while t < end:
            # steps are of the order of h^2, so coefficients at their beginning keep the order
            rates = _rates(faces, widths, drift, diffusion, t)
            h = min(end - t, 0.5 / max(_largest(rates, density), 1e-300))
            if not all(bool(part.isfinite().all()) for pair in rates for part in pair):
                raise ValueError(f"drift or diffusion is not finite at t={t:g} within bounds.")
            once = density + h * _change(density, rates)
            density = 0.5 * (density + once + h * _change(once, rates))
            t, steps = t + h if end - t > h else end, steps + 1
            if not h > 0 or steps + (end - t) / h > _MOST_STEPS:
                raise ValueError(
                    f"density has shape {tuple(density.shape)}: steps of {h:.2g} would take more "
                    f"than {_MOST_STEPS:,} of them; give fewer cells or a smaller diffusion."
                )
        results.append(density)
    return torch.stack(results)


def _check_bounds(bounds: Bounds, dim: int) -> None:
    if len(bounds) != dim or not all(-math.inf < low < high < math.inf for low, high in bounds):
        raise ValueError(f"bounds={bounds!r}: must be {dim} pairs (low, high) with low < high.")


def _faces(bounds: Bounds, shape: Sequence[int], axis: int) -> Tensor:
    """Return the centres of the inner faces across one axis, ``(..., d)``."""
    centers = cell_centers(bounds, shape)
    n = shape[axis]
    return (centers.narrow(axis, 0, n - 1) + centers.narrow(axis, 1, n - 1)) / 2


Rates = list[tuple[Tensor, Tensor]]


def _rates(
    faces: list[Tensor], widths: list[float], drift: Coefficient, diffusion: Coefficient, t: float
) -> Rates:
    """Return, for each axis, the rates at which mass goes up and down through its faces."""
    time = torch.tensor(t, dtype=torch.float64)
    result = []
    for axis, (points, width) in enumerate(zip(faces, widths, strict=True)):
        direction = torch.eye(len(widths), dtype=torch.float64)[axis]

        def half_square(x: Tensor, axis: int = axis) -> Tensor:
            g = torch.as_tensor(diffusion(x, time), dtype=torch.float64)
            if g.ndim and g.shape != x.shape:
                raise ValueError(
                    f"diffusion has shape {tuple(g.shape)} at a point {tuple(x.shape)}: must be "
                    "a scalar or a diagonal on a grid."
                )
            return 0.5 * (g[axis] if g.ndim else g) ** 2

        def at(x: Tensor, axis: int = axis, direction: Tensor = direction) -> tuple[Tensor, Tensor]:
            d, slope = jvp(half_square, (x,), (direction,))[:2]
            return drift(x, time)[axis] - slope, d

        velocity, d = vmap(at)(points.reshape(-1, len(widths)))
        velocity, d = velocity.reshape(points.shape[:-1]), d.reshape(points.shape[:-1])
        d = d.clamp(min=1e-30)
        z = velocity * width / d
        result.append((d / width**2 * _bernoulli(-z), d / width**2 * _bernoulli(z)))
    return result


def _bernoulli(z: Tensor) -> Tensor:
    near = z.abs() < 1e-4
    safe = torch.where(near, 1.0, z)
    return torch.where(near, 1 - z / 2 + z**2 / 12, safe / torch.expm1(safe))


def _change(density: Tensor, rates: Rates) -> Tensor:
    """Return ``dp/dt``: what comes through the faces of each cell minus what goes."""
    total = torch.zeros_like(density)
    for axis, (up, down) in enumerate(rates):
        n = density.shape[axis] - 1
        flux = up * density.narrow(axis, 0, n) - down * density.narrow(axis, 1, n)
        total.narrow(axis, 0, n).sub_(flux)
        total.narrow(axis, 1, n).add_(flux)
    return total


def _largest(rates: Rates, density: Tensor) -> float:
    """Return the largest rate at which a cell loses its mass."""
    loss = torch.zeros_like(density)
    for axis, (up, down) in enumerate(rates):
        n = density.shape[axis] - 1
        loss.narrow(axis, 0, n).add_(up)
        loss.narrow(axis, 1, n).add_(down)
    return float(loss.max())
