"""Whether a network is what it is declared to be: other interpretations of it, tried on data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from scorefield._internal.errors import NumericalError
from scorefield.evaluate.check.interpretations import Clock, Prediction, clocks, predictions
from scorefield.evaluate.check.result import Check, Interpretation, Level
from scorefield.evaluate.check.trial import LEVELS, Answer, Trial, level, rate
from scorefield.field import Denoiser
from scorefield.sampling import check_evaluating, check_samples, default_plan, sample

__all__ = ["Check", "Interpretation", "Level", "check"]

_CALLS = 20  # of the network for a sample, where there is no data

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
    """Return which interpretation of a denoiser's network data speaks for, and how clearly.

    Other predictions, other processes and tables, and other labels are tried. Without data other
    predictions are, each on the samples that it generates.

    Args:
        x: data as the field sees it, ``(B, *shape)``, of which ``n`` are tried.
        n: of data, or of samples for each interpretation; 2 at least.
        seed: of the noise.
        progress: gives back the pieces of work it is given, and may show how far it is.
        condition: what the network is called with; one for all, or with ``x`` a row for each.

    Raises:
        ValueError: ``n < 2``; for ``x`` as `scorefield.log_prob`; data that does not vary, another
            number of rows of a condition; a network in training; what the network itself refuses.
    """
    if n < 2:
        raise ValueError(f"n = {n}: give at least 2.")
    if x is None:
        check_evaluating(denoiser)
        return _by_itself(denoiser, n, seed, progress, condition)
    if len(x) < 2 or bool((x == x[:1]).all()):
        raise ValueError(f"{len(x)} samples that do not vary: give at least 2 that do.")
    check_samples(denoiser, x, None, 1)
    rows = torch.linspace(0, len(x) - 1, min(n, len(x))).long()
    chosen = {name: _chosen(value, rows, len(x)) for name, value in condition.items()}
    return _on_data(denoiser, Trial(x[rows], _moments(x), denoiser.process, seed), progress, chosen)


def _chosen(value: Any, rows: Tensor, count: int) -> Any:
    """Return the rows of a condition that has one for each of the data.

    Raises:
        ValueError: it has another number of them.
    """
    if not isinstance(value, Tensor) or value.ndim == 0 or len(value) == 1:
        return value
    if len(value) != count:
        raise ValueError(
            f"a condition of {len(value)} rows for {count} samples: give one for each."
        )
    return value[rows]


@torch.no_grad()
def _on_data(
    denoiser: Denoiser, trial: Trial, progress: Progress, condition: Mapping[str, Any]
) -> Check:
    kinds, times = predictions(denoiser), clocks(denoiser)
    tried: dict[str, list[Answer | None]] = {name: [] for name in _names(kinds, times)}
    calls = 0
    for clock, place in progress(list(product(times, range(LEVELS)))):
        try:
            answers, made = trial.answers(denoiser, clock, place, kinds, condition)
        except (ValueError, LookupError, RuntimeError):
            if clock is times[0]:
                raise
            answers, made = [None] * len(kinds), 0  # a label that the network does not take
        calls += made
        for kind, answer in zip(kinds, answers, strict=True):
            tried[_name(kind, clock)].append(answer)
    return _found(tried, len(trial.x0), calls)


def _names(kinds: Sequence[Prediction], times: Sequence[Clock]) -> list[str]:
    """Return the names of all interpretations, first those with a single change."""
    pairs = [(kind, times[0]) for kind in kinds]
    pairs += [(kinds[0], clock) for clock in times[1:]]
    pairs += list(product(kinds[1:], times[1:]))
    return [_name(kind, clock) for kind, clock in pairs]


def _name(kind: Prediction, clock: Clock) -> str:
    return f"{kind.name} with {clock.name}" if clock.name else kind.name


@torch.no_grad()
def _by_itself(
    denoiser: Denoiser, n: int, seed: int, progress: Progress, condition: Mapping[str, Any]
) -> Check:
    tried: dict[str, list[Answer | None]] = {}
    clock, kinds = clocks(denoiser)[0], predictions(denoiser)
    for kind in progress(kinds):
        try:
            x = _generated(denoiser, kind, n, seed, condition)
        except NumericalError:
            x = None
        except ValueError:  # a parametrization that ends before the process does
            if kind is kinds[0]:
                raise
            x = None
        tried[kind.name] = []
        if x is not None:
            trial = Trial(x, _moments(x), denoiser.process, seed)
            found = [trial.answers(denoiser, clock, k, [kind], condition) for k in range(LEVELS)]
            tried[kind.name] = [answer for (answer,), _ in found]
    return _found(tried, n, _CALLS + LEVELS)


def _generated(
    denoiser: Denoiser, kind: Prediction, n: int, seed: int, condition: Mapping[str, Any]
) -> Tensor | None:
    """Return samples that an interpretation generates, if they differ.

    Raises:
        ValueError: it has no coefficients at an end of the process; what the network refuses.
        NumericalError: they are not finite.
    """
    network = _Times(denoiser.network, kind.sign)
    parts = denoiser.shape, denoiser.mean, denoiser.variance, denoiser.label
    read = Denoiser(network, denoiser.process, kind.parametrization, *parts)
    x = sample(read.condition_on(**condition), n, default_plan(read, _CALLS), seed=seed)
    return None if bool((x == x[:1]).all()) else x


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.double().mean(0), x.double().var(0)


class _Times(nn.Module):
    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, x: Tensor, label: Tensor, **condition: Any) -> Tensor:
        output: Tensor = self.network(x, label, **condition)
        return self.factor * output


def _found(tried: Mapping[str, Sequence[Answer | None]], samples: int, calls: int) -> Check:
    found = rate(tried)
    ranked = tuple(sorted(found, key=lambda one: one.error))
    declared = next(iter(tried.values()))
    levels = tuple(level(answer) for answer in declared if answer is not None)
    return Check(found[0], ranked, levels, samples, calls)
