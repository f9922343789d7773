r"""Interpretations of a network tried on data: how far from it they are, level by level.

For data ``x_0`` noised to a level, a denoiser that has learned something is nearer to it than the
answer ``z`` of a Gaussian with the data's mean ``m`` and variances ``v``::

    e = E |x_0 - E[x_0 | x]|^2  /  E |x_0 - z|^2                                            (1)
    z = m + alpha v / (alpha^2 v + sigma^2) (x - alpha m)

Both see the same noise, so most of its variance cancels in the quotient. A wrong interpretation has
many times that error. Whatever the data, a posterior mean has at every level::

    E[score(x)] = 0                                                                         (2)
    E[(x_0 - E[x_0 | x]) . E[x_0 | x]] = 0                                                  (3)

of which (3) is told as the slope of ``x_0`` on its estimate, which is then 1.

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

from scorefield.evaluate.check.interpretations import Clock, Prediction
from scorefield.evaluate.check.result import Interpretation, Level
from scorefield.field import Denoiser
from scorefield.noise import EVALUATION, Noise
from scorefield.process import Process, time_near

LEVELS = 8
_LOWEST, _HIGHEST = 0.05, 10.0  # of sigma / alpha over the data's deviation


@dataclass(frozen=True)
class Answer:
    """What an interpretation says of data at one level.

    Attributes:
        ratio: ``sigma / alpha``.
        errors, plain: of each sample, and of the Gaussian for it, as in (1), ``(n,)``.
        across, along: ``x_0`` times its estimate, and that times itself, ``(n,)``; both about the
            mean.
        noise: by how much the noise is mistaken, ``(n, d)``; its mean is that of (2).
    """

    ratio: float
    errors: Tensor
    plain: Tensor
    across: Tensor
    along: Tensor
    noise: Tensor


class Trial:
    """Data, and the noise it is tried with: the same for all interpretations.

    Args:
        x0: data as the field sees it, ``(n, *shape)``.
        moments: mean and variance of its coordinates, known from more of it.
        process: whose noise levels the data is tried at.
        seed: of the noise.
    """

    def __init__(
        self, x0: Tensor, moments: tuple[Tensor, Tensor], process: Process, seed: int
    ) -> None:
        self.x0, (self.mean, self.variance) = x0, moments
        deviation = float(self.variance.mean().sqrt())
        ends = [time_near(process, end * deviation) for end in (_LOWEST, _HIGHEST)]
        low, high = process.half_log_snr(torch.tensor(ends, dtype=torch.float64)).tolist()
        self.half_log_snr = torch.linspace(low, high, LEVELS, dtype=torch.float64)
        noise = Noise(seed, torch.arange(len(x0), device=x0.device), stream=EVALUATION)
        self.eps = []
        for _ in range(LEVELS):
            eps, noise = noise.normal(x0)
            self.eps.append(eps)

    def answers(
        self,
        denoiser: Denoiser,
        clock: Clock,
        level: int,
        kinds: Sequence[Prediction],
        condition: Mapping[str, Any],
    ) -> tuple[list[Answer | None], int]:
        """Return what each interpretation with a clock says at a level, and the calls that took.

        None where the clock's process does not reach that level.
        """
        try:
            t = clock.process.time(self.half_log_snr[level])
        except ValueError:
            return [None] * len(kinds), 0
        alpha, sigma = clock.process.coefficients(t)
        x = alpha * self.x0 + sigma * self.eps[level]
        label = clock.label(clock.process, t)
        plain = _each((self.x0 - self._gaussian(x, alpha, sigma)).double() ** 2)
        outputs: dict[float, Tensor] = {}
        found: list[Answer | None] = []
        for kind in kinds:
            skip, out, scale = kind.parametrization(alpha, sigma)
            if float(scale) not in outputs:
                outputs[float(scale)] = denoiser.ask(scale * x, label, **condition).to(x)
            of_x, of_eps = kind.parametrization.of_eps(alpha, sigma)
            output = kind.sign * outputs[float(scale)]
            x0, eps = skip * x + out * output, of_x * x + of_eps * output
            found.append(self._answer(x0, eps - self.eps[level], plain, float(sigma / alpha)))
        return found, len(outputs)

    def _gaussian(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return what a Gaussian of the data's moments answers."""
        gain = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
        return self.mean + gain * (x - alpha * self.mean)

    def _answer(self, x0: Tensor, noise: Tensor, plain: Tensor, ratio: float) -> Answer:
        truth, estimate = (v.double() - self.mean for v in (self.x0, x0))
        return Answer(
            ratio,
            _each((truth - estimate) ** 2),
            plain,
            _each(truth * estimate),
            _each(estimate**2),
            noise.double().flatten(1),
        )


def _each(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)


def rate(tried: Mapping[str, Sequence[Answer | None]]) -> list[Interpretation]:
    """Return the interpretations with their errors; the first is the declared one.

    Where one does not reach all levels, its error is what it would be if beyond them it stood to
    the best of those that do as it stands in the rest. One that does not reach half of them, or has
    no finite answers, is infinitely wrong.
    """
    whole = [answers for answers in tried.values() if answers and None not in answers]
    declared = next(iter(tried.values()))
    best = min(whole, key=lambda answers: _log_error(answers)[0], default=declared)
    sides = declared, best
    return [_rate(name, k, tried[name], *sides) for k, name in enumerate(tried)]


def _rate(
    name: str,
    place: int,
    answers: Sequence[Answer | None],
    declared: Sequence[Answer | None],
    best: Sequence[Answer | None],
) -> Interpretation:
    held = [k for k, answer in enumerate(answers) if answer is not None]
    log_error, own = _log_error([answers[k] for k in held])
    if math.isinf(log_error) or len(held) < LEVELS / 2:
        return Interpretation(name, math.inf, -math.inf, 0.0, 0.0, place)
    beyond = _log_error(best)[0] - _log_error([best[k] for k in held])[0]
    error = math.exp(log_error + (beyond if len(held) < len(answers) else 0.0))
    spread = _jackknife(own)
    if math.isinf(_log_error(declared)[0]):
        return Interpretation(name, error, math.inf, 0.0, spread, place)
    said, other = _log_error([declared[k] for k in held])
    return Interpretation(name, error, said - log_error, _jackknife(other - own), spread, place)


def _log_error(answers: Sequence[Answer | None]) -> tuple[float, Tensor]:
    """Return the mean logarithm of (1) over levels, and that without each of the samples."""
    found = [(answer.errors, answer.plain) for answer in answers if answer is not None]
    if not found:
        return math.inf, torch.empty(0)
    errors, plain = map(torch.stack, zip(*found, strict=True))
    mean = float((errors.sum(1) / plain.sum(1)).log().mean())
    without = [part.sum(1, keepdim=True) - part for part in (errors, plain)]
    return (mean if math.isfinite(mean) else math.inf), (without[0] / without[1]).log().mean(0)


def _jackknife(without: Tensor) -> float:
    """Return the standard error of what has these values ``(n,)`` without each of the samples."""
    n = len(without)
    return float(((n - 1) / n * (without - without.mean()).square().sum()).sqrt())


def level(answer: Answer) -> Level:
    """Return what is told of an interpretation at one level."""
    n = len(answer.errors)
    biases = answer.noise.mean(0) / (answer.noise.std(0) / math.sqrt(n))
    across, along = answer.across.sum(), answer.along.sum()
    slopes = (across - answer.across) / (along - answer.along)
    bias = float(biases.square().mean().sqrt())
    slope, stderr = float(across / along), _jackknife(slopes)
    error = float(answer.errors.sum() / answer.plain.sum())
    return Level(answer.ratio, error, bias, slope, stderr)
