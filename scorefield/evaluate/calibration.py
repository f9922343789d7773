r"""Calibration and sharpness of a conditional density: coverage, ranks of the truth, and CRPS.

For pairs ``(theta_k, x_k)`` of the joint distribution, and draws of ``p(theta | x_k)``, each
coordinate of ``theta_k`` is as likely to be at any rank among its draws. So its rank is uniform,
and a central interval of level ``q`` holds it in a share ``q`` of the pairs.

Uniform ranks are necessary, not sufficient: the prior has them too. The continuous ranked
probability score (CRPS) also measures how narrow the density is, in the units of ``theta``::

    E |theta_k - X| - E |X - X'| / 2,    X, X' independent draws                    (1)

The true density has the smallest mean. That of a point is its absolute error. Both means are
estimated from the draws without bias.

Ranks are of each coordinate alone. With the conditions, a classifier compares whole pairs: the
truth of one half of the pairs, ``(theta_k, x_k)``, with one draw for each of the other half,
``(X_j, x_j)``. Both have one distribution if the density is the true one, and the accuracy of the
classifier is 1/2; more is an error of the density, in any direction.

Reference: Talts et al. (2018), arXiv:1804.06788, simulation-based calibration; Cook, Gelman and
Rubin (2006); Gneiting and Raftery (2007), Strictly proper scoring rules; Lueckmann et al. (2021),
arXiv:2101.04653, classifiers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scorefield.sampling import as_numbers

if TYPE_CHECKING:
    from scorefield.evaluate.metrics import Measurement

LEVELS = (0.5, 0.8, 0.95)
_CONFIDENCE = 1.959964  # deviations of a normal distribution for 95 %
_CLASSIFIED = 64  # pairs, at least, for a classifier


@dataclass(frozen=True)
class Coverage:
    """The share of pairs whose truth lies in the central interval of a level.

    Attributes:
        level: of the interval.
        share: the mean over the coordinates.
        low, high: the 95 % interval of each coordinate's share, the least and the greatest.
    """

    level: float
    share: float
    low: float
    high: float

    def __str__(self) -> str:
        ends = f"{100 * self.low:.0f} to {100 * self.high:.0f}"
        return f"{100 * self.level:g} %: {100 * self.share:.1f} % ({ends})"


@dataclass(frozen=True)
class Calibration:
    """The calibration of draws of a conditional density.

    Attributes:
        ranks: of the truth among its draws, from 0 to their number, int64 ``(N, D)``.
        draws: the number of draws of each pair.
        coverage: by the level.
        p_value: the probability of ranks that are as far from uniform, the least of the coordinates
            times their number.
        crps: the mean of (1) over the pairs, of each coordinate, float64 ``(D,)``.
        accuracy: of the classifier between pairs with the truth and with draws, 0.5 at best; None
            without conditions, or with fewer than 64 pairs.
    """

    ranks: Tensor
    draws: int
    coverage: tuple[Coverage, ...]
    p_value: float
    crps: Tensor
    accuracy: Measurement | None = None

    def __str__(self) -> str:
        covered = ", ".join(map(str, self.coverage))
        crps = float(self.crps.mean())
        accuracy = "" if self.accuracy is None else f"; classifier {self.accuracy}, best 0.5"
        return f"coverage {covered}; ranks p = {self.p_value:.2g}; CRPS {crps:.3g}{accuracy}"


def calibration(
    samples: Any, truth: Any, levels: Sequence[float] = LEVELS, *, given: Any = None
) -> Calibration:
    """Return the calibration of draws, by the ranks of the truth.

    Args:
        samples: draws given each condition, ``(N, n, D)``, a tensor or an array. Levels are exact
            where ``n + 1`` is a multiple of 40, and nearly so for 99 draws.
        truth: of each condition, ``(N, D)``.
        levels: of the intervals, between 0 and 1.
        given: the conditions as numbers, ``(N, C)``, for the classifier.

    Raises:
        ValueError: other shapes, fewer than 20 pairs or 19 draws, a level out of range, values that
            are not finite.
    """
    samples, truth = as_numbers("samples", samples), as_numbers("truth", truth)
    shape = tuple(samples.shape)
    if samples.ndim != 3 or (shape[0], shape[2]) != tuple(truth.shape):
        raise ValueError(
            f"samples has shape {shape} and truth {tuple(truth.shape)}: give (N, n, D) and (N, D)."
        )
    count, draws, _ = shape
    if count < 20 or draws < 19:
        raise ValueError(
            f"{count} pairs with {draws} draws each: give at least 20 pairs and 19 draws."
        )
    if not all(0 < level < 1 for level in levels):
        raise ValueError(f"levels={levels}: give numbers between 0 and 1.")
    if not bool(samples.isfinite().all()) or not bool(truth.isfinite().all()):
        raise ValueError("samples, truth: some values are not finite.")
    less = (samples < truth[:, None]).sum(1)
    equal = (samples == truth[:, None]).sum(1)
    ranks = less + equal // 2
    inside = ((ranks + 0.5) / (draws + 1) - 0.5).abs()
    covered = tuple(_coverage(level, inside <= level / 2) for level in levels)
    accuracy = (
        None if given is None else _accuracy(samples[:, 0], truth, as_numbers("given", given))
    )
    return Calibration(
        ranks, draws, covered, _p_value(ranks, draws), _crps(samples, truth), accuracy
    )


def _accuracy(draws: Tensor, truth: Tensor, given: Tensor) -> Measurement | None:
    """Return the accuracy of a classifier between halves of the pairs, ``(N, D)`` each.

    Raises:
        ValueError: conditions of another number of rows, or that are not finite.
    """
    if given.ndim != 2 or len(given) != len(truth) or not bool(given.isfinite().all()):
        raise ValueError(
            f"given has shape {tuple(given.shape)}: give finite numbers, a row for each of the "
            f"{len(truth)} pairs."
        )
    if len(truth) < _CLASSIFIED:
        return None
    from scorefield.evaluate.metrics import c2st

    real = torch.cat([truth.double(), given.double().to(truth.device)], 1)
    drawn = torch.cat([draws.double(), real[:, truth.shape[1] :]], 1)
    scale = real.std(0)
    scale = torch.where(scale > 0, scale, 1.0)
    return c2st(real[::2] / scale, drawn[1::2] / scale)


def _crps(samples: Tensor, truth: Tensor) -> Tensor:
    """Return the mean of (1) over the pairs, ``(D,)``."""
    draws = samples.double().sort(1).values
    n = draws.shape[1]
    error = (draws - truth[:, None].double()).abs().mean(1)
    # in order, draw i is above i - 1 others and below n - i
    sign = 2 * torch.arange(1, n + 1, device=draws.device).double() - n - 1
    apart = 2 / (n * (n - 1)) * torch.einsum("n,knd->kd", sign, draws)
    return (error - apart / 2).mean(0)


def _coverage(level: float, inside: Tensor) -> Coverage:
    """Return the coverage from whether each coordinate is in its interval, ``(N, D)``."""
    count, shares = len(inside), inside.double().mean(0)
    # Wilson's interval
    z = _CONFIDENCE**2 / count
    middle = (shares + z / 2) / (1 + z)
    half = (z * (shares * (1 - shares) + z / 4)).sqrt() / (1 + z)
    low, high = float((middle - half).min()), float((middle + half).max())
    return Coverage(level, float(shares.mean()), low, high)


def _p_value(ranks: Tensor, draws: int) -> float:
    """Return the p-value of Pearson's test that all ranks are equally frequent, by Bonferroni."""
    count, dim = ranks.shape
    bins = max(2, min(20, count // 20))
    expected = torch.bincount(torch.arange(draws + 1) * bins // (draws + 1), minlength=bins)
    expected = count * expected.double() / (draws + 1)
    least = 1.0
    for column in ranks.T:
        counts = torch.bincount(column.cpu() * bins // (draws + 1), minlength=bins).double()
        statistic = ((counts - expected) ** 2 / expected).sum()
        half = torch.tensor((bins - 1) / 2, dtype=torch.float64)
        least = min(least, float(torch.special.gammaincc(half, statistic / 2)))
    return min(1.0, dim * least) if math.isfinite(least) else 0.0
