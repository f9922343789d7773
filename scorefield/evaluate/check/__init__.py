"""Checks of a network against its declaration, by comparing interpretations on data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from scorefield._internal.errors import NumericalError
from scorefield.evaluate.check.interpretations import Clock, Prediction, clocks, predictions
from scorefield.evaluate.check.result import Check, Interpretation, Level
from scorefield.evaluate.check.trial import LEVELS, Answer, Trial, level_of, rate
from scorefield.field import Denoiser, check_flat, check_starts_at_noise
from scorefield.process import check_one_level, check_whole, wide
from scorefield.sampling import check_evaluating, check_samples, default_plan, sample

__all__ = ["Check", "Interpretation", "Level", "check"]

_CALLS = 20  # network calls per sample, without data
_STRAIGHT = 0.05  # deviation of a slope from 1, above which pairs are of another kind
_SURE = 4.0  # its standard errors

Progress = Callable[[Sequence[Any]], Iterable[Any]]


def check(
    denoiser: Denoiser,
    x: Tensor | None = None,
    *,
    n: int = 64,
    seed: int = 0,
    progress: Progress = iter,
    **condition: Any,
) -> Check:
    """Compare the declared interpretation of a denoiser's network with others, on data.

    The others have another prediction, another process or table, or another label. Without data
    only predictions are compared, each on the samples that it generates.

    Args:
        denoiser: in evaluation mode.
        x: data in the units of the field, ``(B, *shape)``, of which ``n`` are used.
        n: the number of data, or of samples for each interpretation; at least 2.
        seed: of the noise.
        progress: wraps the list of steps, for example to show a progress bar.
        condition: conditions of the network; one for all, or with ``x`` one row for each.

    Raises:
        ValueError: ``n < 2``; for ``x`` as `scorefield.log_prob`; constant data; a condition with
            another number of rows; a network in training mode; errors of the network itself.
    """
    check_whole(2, n=n)
    check_flat("check", denoiser)
    check_starts_at_noise(denoiser)
    check_one_level("check", denoiser.process)
    if x is None:
        check_evaluating(denoiser)
        return _on_samples(denoiser, n, seed, progress, condition)
    if len(x) < 2 or bool((x == x[:1]).all()):
        raise ValueError(
            f"x has {len(x)} samples that do not vary: give at least 2 different ones."
        )
    check_samples(denoiser, x, None, 1)
    rows = torch.linspace(0, len(x) - 1, min(n, len(x))).long()
    rows_of = {name: _rows(value, rows, len(x)) for name, value in condition.items()}
    trial = Trial(x[rows], _moments(x), denoiser.process, seed, denoiser.coupled)
    return _on_data(denoiser, trial, progress, rows_of)


def _rows(value: Any, rows: Tensor, count: int) -> Any:
    """Return rows of a condition with one row for each sample; other conditions unchanged.

    Raises:
        ValueError: another number of rows.
    """
    if not isinstance(value, Tensor) or value.ndim == 0 or len(value) == 1:
        return value
    if len(value) != count:
        raise ValueError(
            f"a condition has {len(value)} rows for {count} samples: give one for each."
        )
    return value[rows]


@torch.no_grad()
def _on_data(
    denoiser: Denoiser, trial: Trial, progress: Progress, condition: Mapping[str, Any]
) -> Check:
    kinds, times = predictions(denoiser), clocks(denoiser)
    answers: dict[str, list[Answer | None]] = {name: [] for name in _names(kinds, times)}
    calls = 0
    for clock, level in progress(list(product(times, range(LEVELS)))):
        try:
            results, count = trial.answers(denoiser, clock, level, kinds, condition)
        except (ValueError, LookupError, RuntimeError):
            if clock is times[0]:
                raise
            results, count = [None] * len(kinds), 0  # the network rejects the label
        calls += count
        for kind, answer in zip(kinds, results, strict=True):
            answers[_name(kind, clock)].append(answer)
    # errors on other pairs are not comparable, so these are for a network that fits none of its own
    if find_spec("scipy") and not any(map(_is_straight, answers.values())):
        names, pairs = _with_other_pairs(kinds, denoiser.coupled), trial.recoupled()
        others: dict[str, list[Answer | None]] = {name: [] for name in names}
        for level in range(LEVELS):
            results, count = pairs.answers(denoiser, times[0], level, kinds, condition)
            for name, answer in zip(names, results, strict=True):
                others[name].append(answer)
            calls += count
        answers |= {name: own for name, own in others.items() if _is_straight(own)}
    beyond: list[Answer | None] = []
    for level in range(LEVELS, len(trial.half_log_snr)):
        results, count = trial.answers(denoiser, times[0], level, kinds[:1], condition)
        beyond, calls = beyond + results, calls + count
    return _check(answers, len(trial.x0), calls, trial.data_std, beyond)


def _is_straight(answers: Sequence[Answer | None]) -> bool:
    """Return whether the slope of the data on its estimate is 1 within its errors at each level.

    A posterior mean has the slope 1 on pairs of its own kind alone.
    """
    levels = [level_of(answer) for answer in answers if answer is not None]
    off = [abs(level.slope - 1) - _SURE * level.stderr for level in levels]
    return max(off, default=math.inf) <= _STRAIGHT


def _names(kinds: Sequence[Prediction], times: Sequence[Clock]) -> list[str]:
    """Return the names of all interpretations, first those with a single change."""
    pairs = [(kind, times[0]) for kind in kinds]
    pairs += [(kinds[0], clock) for clock in times[1:]]
    pairs += list(product(kinds[1:], times[1:]))
    return [_name(kind, clock) for kind, clock in pairs]


def _with_other_pairs(kinds: Sequence[Prediction], coupled: bool) -> list[str]:
    """Return the names of predictions of a network whose noise was coupled, or was not."""
    pairs = "independent noise" if coupled else "coupled pairs of data and noise"
    return [f"{kind.name} with {pairs}" for kind in kinds]


def _name(kind: Prediction, clock: Clock) -> str:
    return f"{kind.name} with {clock.name}" if clock.name else kind.name


@torch.no_grad()
def _on_samples(
    denoiser: Denoiser, n: int, seed: int, progress: Progress, condition: Mapping[str, Any]
) -> Check:
    answers: dict[str, list[Answer | None]] = {}
    clock, kinds = clocks(denoiser)[0], predictions(denoiser)
    for kind in progress(kinds):
        try:
            x = _samples(denoiser, kind, n, seed, condition)
        except NumericalError:
            x = None
        except ValueError:  # the parametrization is infinite at an end of the process
            if kind is kinds[0]:
                raise
            x = None
        answers[kind.name] = []
        if x is not None:
            trial = Trial(x, _moments(x), denoiser.process, seed)
            results = [trial.answers(denoiser, clock, k, [kind], condition) for k in range(LEVELS)]
            answers[kind.name] = [answer for (answer,), _ in results]
    return _check(answers, n, _CALLS + LEVELS, denoiser.data_std)


def _samples(
    denoiser: Denoiser, kind: Prediction, n: int, seed: int, condition: Mapping[str, Any]
) -> Tensor | None:
    """Return samples generated by a prediction, or None if they are all equal.

    Raises:
        ValueError: it has no coefficients at an end of the process; errors of the network.
        NumericalError: the samples are not finite.
    """
    network = _Signed(denoiser.network, kind.sign)
    parts = denoiser.shape, denoiser.mean, denoiser.variance, denoiser.label
    field = Denoiser(network, denoiser.process, kind.parametrization, *parts, denoiser.coupled)
    x = sample(field.condition_on(**condition), n, default_plan(field, _CALLS), seed=seed)
    return None if bool((x == x[:1]).all()) else x


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return wide(x).mean(0), wide(x).var(0)


class _Signed(nn.Module):
    """A network times a sign."""

    def __init__(self, network: nn.Module, sign: float) -> None:
        super().__init__()
        self.network, self.sign = network, sign

    def forward(self, x: Tensor, label: Tensor, **condition: Any) -> Tensor:
        output: Tensor = self.network(x, label, **condition)
        return self.sign * output


def _check(
    answers: Mapping[str, Sequence[Answer | None]],
    samples: int,
    calls: int,
    data_std: float,
    beyond: Sequence[Answer | None] = (),
) -> Check:
    interpretations = rate(answers)
    ranked = tuple(sorted(interpretations, key=lambda one: one.error))
    declared = next(iter(answers.values()))
    levels = tuple(level_of(answer) for answer in (*declared, *beyond) if answer is not None)
    return Check(interpretations[0], ranked, levels, samples, calls, data_std)
