"""A log-density, and a budget of its errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from scorefield._internal.statistics import student


@dataclass(frozen=True)
class Likelihood:
    """Log-densities in nats, and a budget of their errors; float64 tensors ``(B,)``.

    Attributes:
        value: the log-density of ``x`` with the process's lowest noise on it.
        stderr: the standard error of ``value`` from the probes; 0 for an exact trace.
        solver_error: an estimate of the steps' error, from rules that differ in order and from how
            far the path strays, that is meant to cover the error of nearly every item; NaN if the
            solver does not estimate its error.
        truncation: an estimate of the effect of the noise left at ``t_min``: add it for the density
            of the data itself, where that is smooth at this scale.
        prior_mismatch: an estimate of the error where the distribution at the other end is not
            the prior's Gaussian: add it for the density of a field that is exact.
        nfe: calls of the field for each sample.
        products: products with its Jacobian for each sample.
        probes: how many the value is a mean of; 0 for an exact trace.
    """

    value: Tensor
    stderr: Tensor
    solver_error: Tensor
    truncation: Tensor
    prior_mismatch: Tensor
    nfe: Tensor
    products: Tensor
    probes: Tensor

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Return the ends of Student's confidence interval, for the noise of the probes.

        Raises:
            ValueError: ``level`` outside (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"level={level:g}: give a number between 0 and 1, such as 0.95.")
        half = student(level, (self.probes - 1).clamp(min=1)) * self.stderr
        return self.value - half, self.value + half

    def bits_per_dim(self, dim: int) -> Tensor:
        """Return ``-value / (d log 2)`` of samples with ``d`` coordinates."""
        return -self.value / (dim * math.log(2))


def combined(result: Likelihood, draws: int) -> Likelihood:
    """Return the importance-weighted bound from several draws for each sample, one after another.

    The logarithm of the mean density, less the second order of the probes' noise in it.

    Reference: Burda et al. (2016), arXiv:1509.00519.
    """
    value, error = (v.reshape(-1, draws) for v in (result.value, result.stderr))
    weights = value.softmax(1)
    noise = 0.5 * (weights * (1 - weights) * error**2).sum(1)

    def mean(of: Tensor) -> Tensor:
        return (weights * of.reshape(-1, draws)).sum(1)

    return Likelihood(
        value.logsumexp(1) - math.log(draws) - noise,
        ((weights * error) ** 2).sum(1).sqrt(),
        mean(result.solver_error),
        mean(result.truncation),
        mean(result.prior_mismatch),
        result.nfe.reshape(-1, draws).sum(1),
        result.products.reshape(-1, draws).sum(1),
        result.probes.reshape(-1, draws).amin(1),
    )
