r"""Parametrizations: the prediction of a network, as three coefficients of the noise level.

Whatever its head outputs, a denoiser is linear in it::

    E[x_0 | x] = skip x + out network(scale x, label)                               (1)
    E[eps | x] = (1 - alpha skip) / sigma x - alpha out / sigma network(...)        (2)

A parametrization maps ``(alpha, sigma)`` to ``(skip, out, scale)``; targets, estimates and loss
weights follow. Coefficients are formed in float64, where (2) loses nothing that matters.

==================  =======================  ===========================  ====================
parametrization     the network predicts     skip, out                    scale
==================  =======================  ===========================  ====================
`Eps`               eps                      1/alpha, -sigma/alpha        1
`X0`                x_0                      0, 1                         1
`Score`             -eps / sigma             1/alpha, sigma^2/alpha       1
`V`                 alpha eps - sigma x_0    (alpha, -sigma)/norm^2       1
`Velocity`          eps - x_0                (1, -sigma)/(alpha + sigma)  1
`Preconditioned`    unit variance, any t     (alpha d^2, sigma d n)/n^2   1/n
==================  =======================  ===========================  ====================

with ``norm^2 = alpha^2 + sigma^2``, ``n^2 = alpha^2 d^2 + sigma^2`` and the data's deviation ``d``.

Reference: Salimans and Ho (2022), arXiv:2202.00512 (v); Karras et al. (2022), arXiv:2206.00364,
table 1 (preconditioning).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.process import cast


class Coefficients(NamedTuple):
    """``skip``, ``out`` and ``scale`` of (1), each with the shape of ``alpha``."""

    skip: Tensor
    out: Tensor
    scale: Tensor


class Parametrization(ABC):
    """Maps ``(alpha, sigma)`` to the coefficients of (1).

    For one of your own, write the mean of the data as ``skip x + out network(scale x)``. Of a
    network that predicts ``x_0 - x / alpha``::

        @dataclass(frozen=True)
        class Correction(sf.Parametrization):
            def __call__(self, alpha, sigma):
                one = torch.ones_like(alpha)
                return sf.Coefficients(1 / alpha, one, one)

    The target of the training follows from it.
    """

    @abstractmethod
    def __call__(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        """Return the coefficients at a noise level."""

    def of_eps(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return the coefficients of ``x`` and of the network's output in (2)."""
        skip, out, _ = self(alpha, sigma)
        return (1 - alpha * skip) / sigma, -alpha * out / sigma

    def target(self, alpha: Tensor, sigma: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        """Return the output that is right for data ``x0`` noised by ``eps``."""
        skip, out, _ = self(alpha, sigma)
        of_x0, of_eps = (1 - skip * alpha) / out, -skip * sigma / out
        return cast(of_x0, x0) * x0 + cast(of_eps, x0) * eps


@dataclass(frozen=True)
class Eps(Parametrization):
    """The noise. Undefined where ``alpha = 0``: there the noise does not determine the data."""

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        return Coefficients(1 / alpha, -sigma / alpha, torch.ones_like(alpha))


@dataclass(frozen=True)
class X0(Parametrization):
    """The data. Ill-conditioned where ``sigma`` is small: errors in eps grow as ``1 / sigma``."""

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        return Coefficients(torch.zeros_like(alpha), torch.ones_like(alpha), torch.ones_like(alpha))


@dataclass(frozen=True)
class Score(Parametrization):
    """The score itself, whose size is ``1 / sigma``."""

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        return Coefficients(1 / alpha, sigma**2 / alpha, torch.ones_like(alpha))


@dataclass(frozen=True)
class V(Parametrization):
    """``v = alpha eps - sigma x_0``: regular at every noise level."""

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        norm2 = alpha**2 + sigma**2
        return Coefficients(alpha / norm2, -sigma / norm2, torch.ones_like(alpha))


@dataclass(frozen=True)
class Velocity(Parametrization):
    """``eps - x_0``, the velocity of rectified flow; regular at every noise level."""

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        total = alpha + sigma
        return Coefficients(1 / total, -sigma / total, torch.ones_like(alpha))


@dataclass(frozen=True)
class Preconditioned(Parametrization):
    """EDM's preconditioning for any process: inputs and targets of unit variance at every level.

    Args:
        data_std: the data's root-mean-square deviation; 1 for standardised data.
    """

    data_std: float = 1.0

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        var = (alpha * self.data_std) ** 2 + sigma**2
        skip = alpha * self.data_std**2 / var
        return Coefficients(skip, sigma * self.data_std / var.sqrt(), 1 / var.sqrt())
