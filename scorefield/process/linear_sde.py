r"""Linear SDEs given by their coefficients: as a process, and their moments in general.

For ``dx = F(t) x dt + G(t) dw`` started at a point ``x_0``, ``x_t`` is Gaussian with mean
``Phi(t) x_0`` and covariance ``C(t)``, where::

    dPhi/dt = F Phi,                Phi(0) = I                                      (1)
    dC/dt = F C + C F^T + G G^T,    C(0) = 0                                        (2)

With scalars ``f`` and ``g`` the solution is a quadrature, and a `Process`::

    alpha = exp(int_0^t f),    sigma^2 = alpha^2 int_0^t g^2 / alpha^2              (3)

With vectors each coordinate is such a process: see `scorefield.PerCoordinate`. `moments` is for
designing and checking the others: correlated noise, rotations.

Reference: Särkkä and Solin (2019), Applied Stochastic Differential Equations, section 6.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from scorefield.process.base import Process, polynomial
from scorefield.process.grid import check_whole

Rate = Callable[[Tensor], Tensor]

_NODES, _WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(64))
_DEGREE = 19
_SHAPES = (
    "Return one number for each time, of the shape of t. For one value per coordinate give "
    "PerCoordinate a LinearSDE for each."
)


def _integral(f: Rate, t: Tensor) -> Tensor:
    """Return ``int_0^t f`` by Gauss-Legendre quadrature, differentiable in ``t``."""
    u = 0.5 * (1 + _NODES.to(t)) * t[..., None]
    return 0.5 * t * (_WEIGHTS.to(t) * f(u)).sum(-1)


@dataclass(frozen=True, eq=False)
class _Pieces:
    """A function of time as polynomials in ``log t``, on pieces of one length.

    Below ``low`` it is constant.
    """

    low: float
    width: float
    pieces: Tensor

    @classmethod
    def of(cls, f: Rate, low: float, high: float, tolerance: float) -> _Pieces:
        """Interpolate ``f`` on ``[low, high]``, on as many pieces as it takes.

        Raises:
            ValueError: on the most that it tries, it is still not within the tolerance.
        """
        count = math.ceil(math.log2(high / low))
        for finer in range(5):
            result = cls._at_chebyshev_points(f, low, high, count * 2**finer)
            edges = torch.linspace(0, 1, count * 2**finer + 1, dtype=torch.float64)
            t = low * torch.exp(math.log(high / low) * (edges[:-1] + 0.3 * edges[1]))
            error = (result(t) - f(t)).abs()
            if bool((error < 1e-11).all()):
                return result
        if not bool((error < tolerance).all()):
            worst = t[error.nan_to_num(math.inf).argmax()]
            raise ValueError(
                f"drift or diffusion is not smooth enough near t = {worst:g}: give functions that "
                "are smooth on [0, t_max]."
            )
        return result

    @classmethod
    def _at_chebyshev_points(cls, f: Rate, low: float, high: float, count: int) -> _Pieces:
        width = math.log(high / low) / count
        angle = (torch.arange(_DEGREE + 1, dtype=torch.float64) + 0.5) * math.pi / (_DEGREE + 1)
        middle = math.log(low) + width * (torch.arange(count, dtype=torch.float64)[:, None] + 0.5)
        values = f((middle + 0.5 * width * angle.cos()).exp())
        powers = angle.cos()[:, None] ** torch.arange(_DEGREE + 1)
        return cls(low, width, torch.linalg.solve(powers, values.T).T)

    def __call__(self, t: Tensor) -> Tensor:
        place = (t.clamp(min=self.low).log() - math.log(self.low)) / self.width
        k = place.detach().floor().long().clamp(0, len(self.pieces) - 1)
        return polynomial(self.pieces.to(t)[k], 2 * (place - k) - 1)


@dataclass(frozen=True)
class LinearSDE(Process):
    """The process of ``dx = drift(t) x dt + diffusion(t) dw``, started at ``t = 0``.

    ``alpha`` and ``sigma`` come from quadrature with 64 nodes, exact to 1e-8 and better for
    functions smooth on ``[0, t_max]``; it is done once, and its result kept as polynomials. Where
    closed forms are known, give them too: they are compared with the quadrature and then used in
    its place. Before ``t_min``, what came from quadrature goes in a straight line from the data.

    Both functions take and return a tensor of any shape and are made of torch operations. For
    coefficients that are vectors or matrices, see `moments`.

    Raises:
        ValueError: the given mean or variance disagrees with the SDE's, or the functions are not
            smooth enough for the quadrature. The message names the moment, the time and both
            values.
    """

    drift_fn: Rate
    diffusion_fn: Rate
    alpha_fn: Rate | None = None
    sigma_fn: Rate | None = None
    t_min: float = 1e-5
    t_max: float = 1.0
    rtol: float = 1e-6
    _log_alpha: _Pieces = field(init=False, repr=False, compare=False)
    _log_variance: _Pieces = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("drift_fn", "diffusion_fn"):
            if not callable(value := getattr(self, name)):
                raise ValueError(f"{name}={value!r}: must be a function of the time, by torch.")
            self._check_shape(name, value)
        if not 0 < self.t_min < self.t_max < math.inf:
            raise ValueError(
                f"t_min = {self.t_min:g}, t_max = {self.t_max:g}: the SDE starts at 0, give 0 < "
                "t_min < t_max."
            )
        for name, moment in (("_log_alpha", self._mean_log), ("_log_variance", self._variance_log)):
            object.__setattr__(self, name, _Pieces.of(moment, self.t_min, self.t_max, self.rtol))
        even = torch.linspace(self.t_min, self.t_max, 33, dtype=torch.float64)
        ends = math.log10(self.t_min), math.log10(self.t_max)
        early = torch.logspace(*ends, 65, dtype=torch.float64)
        t = torch.cat([even, early.clamp(self.t_min, self.t_max)])
        alpha, sigma = self.alpha(t), self.sigma(t)
        self._check("mean", "alpha", t, alpha, self._split_log_alpha(t).exp())
        self._check("variance", "sigma^2", t, sigma**2, self._split_variance(t))
        super().__post_init__()

    def _check_shape(self, name: str, rate: Rate) -> None:
        """Reject vectors and matrices, by their shapes at two numbers of times."""
        for count in (1, 5):
            t = torch.linspace(self.t_min, self.t_max, count, dtype=torch.float64)
            try:
                shape = torch.as_tensor(rate(t)).shape
            except RuntimeError as error:
                raise ValueError(f"{name}: of {count} times raises {error}. {_SHAPES}") from None
            if shape != t.shape:
                raise ValueError(
                    f"{name}: returns shape {tuple(shape)} for {count} times. {_SHAPES}"
                )

    def alpha(self, t: Tensor) -> Tensor:
        if self.alpha_fn is not None:
            return self.alpha_fn(t)
        alpha = self._log_alpha(t).exp()
        return torch.where(t < self.t_min, 1 - (1 - alpha) * t / self.t_min, alpha)

    def sigma(self, t: Tensor) -> Tensor:
        if self.sigma_fn is not None:
            return self.sigma_fn(t)
        sigma = (0.5 * self._log_variance(t)).exp()
        return torch.where(t < self.t_min, sigma * t / self.t_min, sigma)

    def _mean_log(self, t: Tensor) -> Tensor:
        return _integral(self.drift_fn, t)

    def _variance_log(self, t: Tensor) -> Tensor:
        return self._variance(t).log()

    def _variance(self, t: Tensor) -> Tensor:
        total = _integral(self.drift_fn, t)[..., None]
        u = 0.5 * (1 + _NODES.to(t)) * t[..., None]
        decay = torch.exp(2 * (total - _integral(self.drift_fn, u)))
        return 0.5 * t * (_WEIGHTS.to(t) * decay * self.diffusion_fn(u) ** 2).sum(-1)

    def _split_log_alpha(self, t: Tensor) -> Tensor:
        """The mean again, over two halves: the same if the rule has converged."""
        second = _integral(lambda u: self.drift_fn(t[..., None] / 2 + u), t / 2)
        return _integral(self.drift_fn, t / 2) + second

    def _split_variance(self, t: Tensor) -> Tensor:
        half = t / 2
        total = self._split_log_alpha(t)
        first = self._variance(half) * torch.exp(2 * (total - _integral(self.drift_fn, half)))
        u = half[..., None] + 0.5 * (1 + _NODES.to(t)) * half[..., None]
        decay = torch.exp(2 * (total[..., None] - self._split_log_alpha(u)))
        return first + 0.5 * half * (_WEIGHTS.to(t) * decay * self.diffusion_fn(u) ** 2).sum(-1)

    def _check(self, moment: str, symbol: str, t: Tensor, value: Tensor, sde: Tensor) -> None:
        wrong = ~((value - sde).abs() <= self.rtol * sde.abs())
        if wrong.any():
            k = int(wrong.nonzero()[0])
            raise ValueError(
                f"the {moment} disagrees at t = {t[k]:g}: {symbol} is {value[k]:.8g}, but drift "
                f"and diffusion give {sde[k]:.8g}. Correct one of the pair, or, if only drift and "
                "diffusion were given, make them smooth on [0, t_max]."
            )


def moments(
    drift: Rate, diffusion: Rate, t: float, *, dim: int, steps: int = 512
) -> tuple[Tensor, Tensor]:
    """Return ``Phi(t)`` and ``C(t)``, both ``(dim, dim)`` in float64.

    ``drift`` and ``diffusion`` map a 0-dimensional time to a scalar ``()``, a diagonal ``(dim,)``
    or a matrix ``(dim, dim)``; ``diffusion`` may also be ``(dim, m)`` for ``m`` Brownian motions.
    Equations (1) and (2) are solved by the classical Runge-Kutta method in ``steps`` steps, with
    error of order ``steps^-4``.

    Raises:
        ValueError: a coefficient has another shape, or ``steps < 1``.
    """
    check_whole(steps=steps)

    def rate(time: Tensor, phi: Tensor, cov: Tensor) -> tuple[Tensor, Tensor]:
        f = _matrix(drift(time), dim, "drift")
        g = _matrix(diffusion(time), dim, "diffusion")
        return f @ phi, f @ cov + cov @ f.T + g @ g.T

    phi, cov = torch.eye(dim, dtype=torch.float64), torch.zeros(dim, dim, dtype=torch.float64)
    h = t / steps
    for i in range(steps):
        time = torch.tensor(i * h, dtype=torch.float64)
        p1, c1 = rate(time, phi, cov)
        p2, c2 = rate(time + h / 2, phi + h / 2 * p1, cov + h / 2 * c1)
        p3, c3 = rate(time + h / 2, phi + h / 2 * p2, cov + h / 2 * c2)
        p4, c4 = rate(time + h, phi + h * p3, cov + h * c3)
        phi = phi + h / 6 * (p1 + 2 * p2 + 2 * p3 + p4)
        cov = cov + h / 6 * (c1 + 2 * c2 + 2 * c3 + c4)
    return phi, cov


def _matrix(value: Tensor, dim: int, name: str) -> Tensor:
    """Return a scalar, diagonal or matrix coefficient as a matrix."""
    value = torch.as_tensor(value, dtype=torch.float64)
    if value.ndim == 0:
        return value * torch.eye(dim, dtype=torch.float64)
    if value.shape == (dim,):
        return torch.diag(value)
    if value.ndim == 2 and value.shape[0] == dim and (name == "diffusion" or value.shape[1] == dim):
        return value
    raise ValueError(
        f"{name} has shape {tuple(value.shape)} in dimension {dim}: "
        f"give a scalar (), a diagonal ({dim},) or a matrix ({dim}, {dim})."
    )
