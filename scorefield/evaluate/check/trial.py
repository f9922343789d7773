r"""Errors of interpretations of a network on data, by noise level.

The error of a denoiser on noised data ``x_0`` is measured relative to that of ``z``, the estimate
for a Gaussian with the data's mean ``m`` and variances ``v``::

    e = E |x_0 - E[x_0 | x]|^2  /  E |x_0 - z|^2                                            (1)
    z = m + alpha v / (alpha^2 v + sigma^2) (x - alpha m)

Both have the same noise, so most of its variance cancels in the quotient. A wrong interpretation
has many times that error. For any data, a posterior mean has at every noise level::

    E[score(x)] = 0                                                                         (2)
    E[(x_0 - E[x_0 | x]) . E[x_0 | x]] = 0                                                  (3)

(3) is reported as the slope of ``x_0`` on its estimate, which is then 1.

Reference: Efron (2011), Tweedie's formula and selection bias; Vincent (2011), A connection between
score matching and denoising autoencoders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorefield._internal.assignment import assignment
from scorefield.evaluate.check.interpretations import Clock, Prediction
from scorefield.evaluate.check.result import Interpretation, Level
from scorefield.field import Denoiser
from scorefield.noise import EVALUATION, Noise
from scorefield.process import Process, time_near, wide

LEVELS, BEYOND = 8, 3
# sigma / alpha over the standard deviation of the data
_LOWEST, _HIGHEST, _LIMIT = 0.05, 10.0, 200.0


@dataclass(frozen=True)
class Answer:
    """The estimates of an interpretation at one noise level.

    Attributes:
        ratio: ``sigma / alpha``.
        errors, plain: squared errors of the estimate and of ``z``, as in (1), ``(n,)``.
        across, along: inner product of ``x_0`` and its estimate, and the estimate's square,
            ``(n,)``; both relative to the mean.
        noise: error of the estimated noise, ``(n, d)``; its mean is that of (2).
    """

    ratio: float
    errors: Tensor
    plain: Tensor
    across: Tensor
    along: Tensor
    noise: Tensor


class Trial:
    """Data and noise, the same for all interpretations.

    The first `LEVELS` noise levels are those of the comparison. Up to `BEYOND` more reach to the
    end of the process, where little is left to learn but an error of eps is one of x0 many times
    as large.

    Args:
        x0: data in the units of the field, ``(n, *shape)``.
        moments: mean and variance of its coordinates, possibly from more data.
        process: determines the noise levels.
        seed: of the noise.
        coupled: exchange the noise by optimal transport, as for a network without a score.
    """

    def __init__(
        self,
        x0: Tensor,
        moments: tuple[Tensor, Tensor],
        process: Process,
        seed: int,
        coupled: bool = False,
    ) -> None:
        self._arguments = x0, moments, process, seed
        self.coupled = coupled
        self.x0, (self.mean, self.variance) = x0, moments
        self.data_std = float(self.variance.mean().sqrt())
        self.half_log_snr = noise_levels(process, self.data_std)
        noise = Noise(seed, torch.arange(len(x0), device=x0.device), stream=EVALUATION)
        self.eps = []
        for _ in self.half_log_snr:
            eps, noise = noise.normal(x0)
            if coupled:
                eps = eps[assignment(x0, eps, torch.zeros(len(x0))).to(eps.device)]
            self.eps.append(eps)

    def recoupled(self) -> Trial:
        """Return the trial with independent noise if this one is coupled, and coupled if not."""
        return Trial(*self._arguments, not self.coupled)

    def answers(
        self,
        denoiser: Denoiser,
        clock: Clock,
        level: int,
        kinds: Sequence[Prediction],
        condition: Mapping[str, Any],
    ) -> tuple[list[Answer | None], int]:
        """Return the estimates of each interpretation with a clock, and the number of calls.

        The estimates are None if the clock's process does not reach the noise level.
        """
        try:
            t = clock.process.time(self.half_log_snr[level])
        except ValueError:
            return [None] * len(kinds), 0
        alpha, sigma = clock.process.coefficients(t)
        x = alpha * self.x0 + sigma * self.eps[level]
        label = clock.label(clock.process, t)
        plain = _each((wide(self.x0) - self._gaussian(wide(x), alpha, sigma)) ** 2)
        outputs: dict[float, Tensor] = {}
        answers: list[Answer | None] = []
        for kind in kinds:
            skip, out, scale = kind.parametrization(alpha, sigma)
            if float(scale) not in outputs:
                outputs[float(scale)] = denoiser.ask(scale * x, label, **condition).to(x)
            of_x, of_eps = kind.parametrization.of_eps(alpha, sigma)
            output = kind.sign * outputs[float(scale)]
            x0, eps = skip * x + out * output, of_x * x + of_eps * output
            answers.append(self._answer(x0, eps - self.eps[level], plain, float(sigma / alpha)))
        return answers, len(outputs)

    def _gaussian(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return ``z`` of (1)."""
        gain = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
        return self.mean + gain * (x - alpha * self.mean)

    def _answer(self, x0: Tensor, noise: Tensor, plain: Tensor, ratio: float) -> Answer:
        truth, estimate = (wide(v) - self.mean for v in (self.x0, x0))
        return Answer(
            ratio,
            _each((truth - estimate) ** 2),
            plain,
            _each(truth * estimate),
            _each(estimate**2),
            wide(noise).flatten(1),
        )


def noise_levels(process: Process, data_std: float) -> Tensor:
    """Return ``log(alpha / sigma)`` of the levels, from low noise to high."""
    ends = [time_near(process, end * data_std) for end in (_LOWEST, _HIGHEST, _LIMIT)]
    low, high, last = process.half_log_snr(torch.tensor(ends, dtype=torch.float64)).tolist()
    levels = torch.linspace(low, high, LEVELS, dtype=torch.float64)
    if last < high:
        beyond = torch.linspace(high, last, BEYOND + 1, dtype=torch.float64)[1:]
        levels = torch.cat([levels, beyond])
    return levels


def mean_in_errors(values: Tensor) -> float:
    """Return the root mean square of the means of columns ``(n, d)``, each in standard errors."""
    means = values.mean(0) / (values.std(0) / math.sqrt(len(values)))
    return float(means.square().mean().sqrt())


def _each(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)


def rate(answers: Mapping[str, Sequence[Answer | None]]) -> list[Interpretation]:
    """Return the interpretations with their errors; the first is the declared one.

    For one that does not reach all levels, the error at the others is extrapolated with a constant
    ratio to the best complete one. One that reaches fewer than half of them, or is not finite, has
    an infinite error.
    """
    complete = [own for own in answers.values() if own and None not in own]
    declared = next(iter(answers.values()))
    best = min(complete, key=lambda own: _log_error(own)[0], default=declared)
    return [_rate(name, k, answers[name], declared, best) for k, name in enumerate(answers)]


def _rate(
    name: str,
    order: int,
    answers: Sequence[Answer | None],
    declared: Sequence[Answer | None],
    best: Sequence[Answer | None],
) -> Interpretation:
    reached = [k for k, answer in enumerate(answers) if answer is not None]
    log_error, own = _log_error([answers[k] for k in reached])
    if math.isinf(log_error) or len(reached) < LEVELS / 2:
        return Interpretation(name, math.inf, -math.inf, 0.0, 0.0, order)
    beyond = _log_error(best)[0] - _log_error([best[k] for k in reached])[0]
    error = math.exp(log_error + (beyond if len(reached) < len(answers) else 0.0))
    spread = _jackknife(own)
    if math.isinf(_log_error(declared)[0]):
        return Interpretation(name, error, math.inf, 0.0, spread, order)
    declared_error, other = _log_error([declared[k] for k in reached])
    gain = declared_error - log_error
    return Interpretation(name, error, gain, _jackknife(other - own), spread, order)


def _log_error(answers: Sequence[Answer | None]) -> tuple[float, Tensor]:
    """Return the mean logarithm of (1) over levels, and the same without each of the samples."""
    pairs = [(answer.errors, answer.plain) for answer in answers if answer is not None]
    if not pairs:
        return math.inf, torch.empty(0)
    errors, plain = map(torch.stack, zip(*pairs, strict=True))
    mean = float((errors.sum(1) / plain.sum(1)).log().mean())
    without = [part.sum(1, keepdim=True) - part for part in (errors, plain)]
    return (mean if math.isfinite(mean) else math.inf), (without[0] / without[1]).log().mean(0)


def _jackknife(without: Tensor) -> float:
    """Return the standard error from the values ``(n,)`` without each of the samples."""
    n = len(without)
    return float(((n - 1) / n * (without - without.mean()).square().sum()).sqrt())


def level_of(answer: Answer) -> Level:
    """Return the statistics of an interpretation at one noise level."""
    across, along = answer.across.sum(), answer.along.sum()
    slopes = (across - answer.across) / (along - answer.along)
    slope, stderr = float(across / along), _jackknife(slopes)
    error = float(answer.errors.sum() / answer.plain.sum())
    return Level(answer.ratio, error, mean_in_errors(answer.noise), slope, stderr)
