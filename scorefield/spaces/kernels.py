r"""The heat kernels of spheres, as functions of the angle between two points.

Brownian motion ``dx = dw`` on the unit sphere of dimension ``d`` has, after the time ``t``, a
density that depends on the angle ``r`` alone. With Gegenbauer polynomials ``P_l``, 1 at ``r = 0``::

    p = 1 / |S^d| sum_l n_l e^{-l (l + d - 1) t / 2} P_l(cos r)                     (1)

which needs few terms for large ``t`` and loses all digits for small ``t``. Poisson's summation
turns (1) into sums over the images ``s_k = r + 2 pi k``, which need few terms for small ``t``::

    d = 1:  p = (2 pi t)^{-1/2} sum_k e^{-s_k^2 / 2t}                               (2)
    d = 3:  p = e^{t/2} (2 pi t)^{-3/2} sum_k s_k e^{-s_k^2 / 2t} / sin r           (3)
    d = 2:  p = 2 e^{t/8} (2 pi t)^{-3/2} int_0^{pi/2} G(s) / sin(s/2) d phi        (4)
            G(s) = sum_k (-1)^k s_k e^{-s_k^2 / 2t},    cos(s/2) = cos(r/2) cos(phi)

(4) follows from the Mehler-Dirichlet integral of the Legendre polynomials. Its integrand is smooth
and periodic in ``phi``, so that the midpoint rule converges exponentially, and ``tan(phi) =
t^{1/4} tan(psi)`` spreads the nodes ``psi`` where the integrand varies.

Reference: Camporesi (1990), Harmonic analysis and propagators on homogeneous spaces.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

SMALLEST = 1e-5  # the nodes of (4) suffice from here on
_SERIES_FROM = 1.0  # the time from which (1) is used where images are known
_SERIES_ALONE_FROM = 0.3  # the time from which (1) alone has eight digits at the antipode
_TERMS = 24
_NODES = 96
_PANELS = _ORDER = 12

Radial = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def sphere(d: int, r: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-density at an angle, and its derivative in the angle, in float64.

    Raises:
        ValueError: a time is too small for eight digits.
    """
    r, t = r.double(), t.to(r.device).double()
    r, t = r + torch.zeros_like(t), t + torch.zeros_like(r)
    lowest = earliest(d)
    if not bool((t >= lowest).all()):
        raise ValueError(
            f"t={float(t.min()):g}: heat kernels of Sphere({d}) are computed for times >= "
            f"{lowest:g}, where eight digits are right."
        )
    short: dict[int, Radial] = {1: _circle_images, 2: _integral, 3: _images}
    large = t >= (_SERIES_FROM if d <= 3 else lowest)
    value, slope = torch.empty_like(r), torch.empty_like(r)
    if bool(large.any()):
        value[large], slope[large] = _series(d, r[large], t[large])
    if not bool(large.all()):
        value[~large], slope[~large] = short[d](r[~large], t[~large])
    return value, slope


def earliest(d: int) -> float:
    """Return the time from which `sphere` has eight digits."""
    return SMALLEST if d <= 3 else _SERIES_ALONE_FROM


def log_area(d: int) -> float:
    """Return the logarithm of the area of the unit sphere of dimension ``d``."""
    return math.log(2) + (d + 1) / 2 * math.log(math.pi) - math.lgamma((d + 1) / 2)


class Table(NamedTuple):
    """Distributions of radii, from unnormalized densities.

    A density is taken as a polynomial of degree 11 on each of 12 intervals.

    Attributes:
        width: of an interval, ``(T, 1)``.
        f: the density at the nodes of each interval, ``(T, 12, 12)``.
        ends: its integral up to the end of each interval, ``(T, 12)``.
    """

    width: Tensor
    f: Tensor
    ends: Tensor

    @classmethod
    def of(cls, top: float, density: Callable[[Tensor], Tensor]) -> Table:
        """Return the table of one density of radii from 0 to ``top``."""
        nodes, weights = _gauss_legendre()
        width = top / _PANELS
        f = density(width * (torch.arange(_PANELS)[:, None] + (nodes + 1) / 2))[None]
        return cls(torch.full((1, 1), width, dtype=f.dtype), f, (f @ weights).cumsum(1))

    @classmethod
    def join(cls, tables: list[Table]) -> Table:
        """Return one table of several."""
        return cls(*map(torch.cat, zip(*tables, strict=True)))

    def draw(self, u: Tensor, which: Tensor) -> Tensor:
        """Return the radii at which distribution functions are ``u`` ``(B,)``, by bisection.

        ``which`` ``(B,)`` is the density of each radius.
        """
        width, f, ends = (part[which] for part in self)
        target = u * ends[:, -1]
        panel = torch.searchsorted(ends, target[:, None]).clamp(max=_PANELS - 1)
        below = torch.where(panel > 0, ends.gather(1, (panel - 1).clamp(min=0)), 0.0)
        degree = torch.arange(_ORDER) + 0.5
        nodes, weights = _gauss_legendre()
        basis = _legendre(nodes, _ORDER)[..., :-1].T * weights * degree[:, None]
        local = f.gather(1, panel[..., None].expand(-1, 1, _ORDER))[:, 0] @ basis.T
        low = -torch.ones_like(u)
        high = -low
        for _ in range(52):
            middle = (low + high) / 2
            p = _legendre(middle, _ORDER)
            integrals = torch.cat([p[:, :1] + p[:, 1:2], p[:, 2:] - p[:, :-2]], 1) / (2 * degree)
            more = (local * integrals).sum(1) < target - below[:, 0]
            low, high = torch.where(more, middle, low), torch.where(more, high, middle)
        return (width * (panel + (low[:, None] + 1) / 2))[:, 0]


@cache
def _gauss_legendre() -> tuple[Tensor, Tensor]:
    """Return the nodes and weights on ``[-1, 1]``, by the eigenvectors of Jacobi's matrix."""
    k = torch.arange(1, _ORDER, dtype=torch.float64)
    off = k / (4 * k**2 - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return nodes, 2 * vectors[0] ** 2


def _legendre(x: Tensor, degree: int) -> Tensor:
    """Return the Legendre polynomials up to a degree, stacked in the last dimension."""
    p = [torch.ones_like(x), x]
    for k in range(1, degree):
        p.append(((2 * k + 1) * x * p[k] - k * p[k - 1]) / (k + 1))
    return torch.stack(p, -1)


def _series(d: int, r: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Compute (1) by the recurrence of the polynomials and of their derivatives."""
    x = r.cos()
    before, p = torch.ones_like(x), x
    slope_before, slope = torch.zeros_like(x), torch.ones_like(x)
    total, derivative = torch.ones_like(x), torch.zeros_like(x)
    for k in range(1, _TERMS + 1):
        count = math.comb(k + d, k) - (math.comb(k + d - 2, k - 2) if k > 1 else 0)
        weight = count * (-k * (k + d - 1) * t / 2).exp()
        total, derivative = total + weight * p, derivative + weight * slope
        a, b, c = 2 * k + d - 1, k, k + d - 1
        slope_before, slope = slope, (a * (p + x * slope) - b * slope_before) / c
        before, p = p, (a * x * p - b * before) / c
    return total.log() - log_area(d), -r.sin() * derivative / total


def _circle_images(r: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Compute (2)."""
    s = r[..., None] + 2 * math.pi * torch.arange(-2, 3, device=r.device).to(r)
    t = t[..., None]
    exponents = -s.square() / (2 * t)
    value = exponents.logsumexp(-1) - 0.5 * (2 * math.pi * t[..., 0]).log()
    return value, -(exponents.softmax(-1) * s / t).sum(-1)


def _images(r: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Compute (3); images are paired around ``pi``, where they cancel."""
    angle, r = r, torch.minimum(torch.maximum(r, 1e-6 * t.sqrt()), math.pi - 1e-5 * t)
    gap = math.pi - r
    total, bend = torch.zeros_like(r), -(r**3) / t
    for k in (0, 1):
        s, mirror = r + 2 * math.pi * k, r - 2 * math.pi * (k + 1)
        center = (2 * k + 1) * math.pi
        weight = ((r - s) * (r + s) / (2 * t)).exp()
        ratio = (-2 * center * gap / t).exp()
        loss = -torch.expm1(-2 * center * gap / t)
        total = total + weight * (s * loss - 2 * gap * ratio)
        bend = bend + weight * ratio * (r * (1 - mirror**2 / t) - mirror)
        if k:
            bend = bend + weight * (r * (1 - s**2 / t) - s)
    value = t / 2 - 1.5 * (2 * math.pi * t).log() - r**2 / (2 * t) + (total / gap.sin()).log()
    even = r**2  # 1 / r - cot(r), by its series where the two cancel
    powers = 1 / 3 + even * (1 / 45 + even * (2 / 945 + even * (1 / 4725 + even * 2 / 93555)))
    cot = torch.where(r < 0.1, r * powers, 1 / r - r.cos() / gap.sin())
    slope = bend / (r * total) + cot
    return value, slope * angle.sin() / gap.sin()


def _integral(r: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Compute (4) and its derivative in ``r``, under the integral."""
    r, t = r[..., None], t[..., None]
    psi = (torch.arange(_NODES, dtype=r.dtype, device=r.device) + 0.5) * (math.pi / 2 / _NODES)
    stretch = t**0.25
    hypotenuse = (psi.cos().square() + (stretch * psi.sin()).square()).sqrt()
    cos, sin = psi.cos() / hypotenuse, stretch * psi.sin() / hypotenuse
    weight = stretch / hypotenuse.square() * (math.pi / 2 / _NODES)
    half = ((r / 2).sin().square() + ((r / 2).cos() * sin).square()).sqrt()  # sin(s / 2)
    other = (r / 2).cos() * cos  # cos(s / 2)
    s = 2 * torch.atan2(half, other)
    g, slope = torch.zeros_like(s), torch.zeros_like(s)
    for k in (0, -1, 1, -2):
        image = s + 2 * math.pi * k
        e = (-1) ** k * ((r - image) * (r + image) / (2 * t)).exp()
        g, slope = g + image * e, slope + (1 - image**2 / t) * e
    total = (weight * g / half).sum(-1)
    inner = (slope - g * other / (2 * half)) * cos * weight / half.square()
    r, t = r[..., 0], t[..., 0]
    value = math.log(2) + t / 8 - 1.5 * (2 * math.pi * t).log() - r**2 / (2 * t) + total.log()
    return value, (r / 2).sin() * inner.sum(-1) / total
