"""LD3, BNS and S4S: fitted samplers of the literature, written from their papers.

Each learns by Adam, with gradients through all calls of the field, to reach the ends of exact
paths, from the same noises and for the same number of evaluations of the field as `sf.tune`; an
evaluation with its gradient counts as three. All work in ``y = x / alpha`` and ``r = sigma /
alpha``, where a field is ``x0 = D(y, log r)`` and a path ``dy/dr = eps = (y - x0) / r``.

- LD3 (Tong et al., 2024, arXiv:2405.15506) moves the times of a solver, and apart from them the
  times that the network is given. The solvers here are iPNDM and DPM-Solver++ 3M.
- BNS (Shaul et al., 2024, arXiv:2403.01329) moves the times and every coefficient of
  ``y_{i+1} = a_i y_0 + sum_j b_ij x0_j``, from the steps of DDIM.
- S4S (Frankel et al., 2025, arXiv:2502.17423) moves the coefficients of a multistep method of order
  3 and, in turn with them, the times of both kinds.

The papers train for hours, with small rates. Here the rate falls from 0.02 to 0 by a cosine, the
best of a few tried. The papers' perceptual losses, and their balls around the noises, serve other
aims than the end of one's own path, and are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import scorefield as sf

RATE, EVERY = 0.02, 8  # of Adam; its steps before S4S takes turns
HIGHEST, LOWEST = 150.0, 0.02  # r of the first call and, at first, of the last
_H = 0.01  # of the central difference, in log r

Parameters = dict[str, Tensor]


class Sampler:
    """A sampler with parameters: levels of calls, levels that the network is given, coefficients.

    Args:
        field: the field, on a process with data at its end.
        calls: of the field.
        power: the first levels are equally spaced in ``r^(1/power)``; log r if it is 0.
    """

    def __init__(self, field: sf.ScoreField, calls: int, power: float) -> None:
        self.field, self.calls = field, calls
        highest = float(torch.exp(-torch.tensor(field.process.half_log_snr_range[0])))
        ends = math.log(min(HIGHEST, highest)), math.log(LOWEST)
        if power:
            roots = torch.linspace(*(math.exp(v / power) for v in ends), calls, dtype=torch.float64)
            self.start = power * roots.log()
        else:
            self.start = torch.linspace(*ends, calls, dtype=torch.float64)
        zeros = torch.zeros(calls, dtype=torch.float64)
        self.parameters: Parameters = {"falls": zeros.clone(), "offsets": zeros.clone()}

    def levels(self) -> tuple[Tensor, Tensor]:
        """Return ``log r`` of the states, in order from a fixed first one, and of the network."""
        falls = -self.start.diff() * self.parameters["falls"][1:].exp()
        states = torch.cat([self.start[:1], self.start[0] - falls.cumsum(0)])
        return states, states + self.parameters["offsets"]

    def ends(self, z: Tensor) -> Tensor:
        """Return the samples of standard normal ``z`` ``(N, d)``, with a gradient."""
        states, inner = self.levels()
        r = torch.cat([states.exp(), states.new_zeros(1)])
        field = self.field
        mean, variance = (
            torch.as_tensor(v, dtype=torch.float64).flatten() for v in (field.mean, field.variance)
        )
        y = first = mean + (variance + r[0] ** 2).sqrt() * z
        x0s: list[Tensor] = []
        for i in range(self.calls):
            x0s.insert(0, self.denoised(y, inner[i]))
            y = self.step(i, r, first, y, x0s)
        return y

    def denoised(self, y: Tensor, level: Tensor) -> Tensor:
        """Return ``D(y, level)``, with its derivative by the level from a difference."""
        low, high = (-v for v in reversed(self.field.process.half_log_snr_range))
        here = float(level.detach().clamp(low + _H, high - _H))

        def at(value: float) -> Tensor:
            t = self.field.process.time(torch.tensor(-value, dtype=torch.float64))
            alpha = float(self.field.process.alpha(t))
            return self.field((alpha * y).reshape(-1, *self.field.shape), t).x0.flatten(1)

        with torch.no_grad():
            slope = (at(here + _H) - at(here - _H)) / (2 * _H)
        return at(here) + (level - level.detach()) * slope

    def step(self, i: int, r: Tensor, first: Tensor, y: Tensor, x0s: list[Tensor]) -> Tensor:
        """Return ``y_{i+1}``, from the estimates so far, newest first."""
        raise NotImplementedError

    def turns(self, step: int) -> list[str]:
        """Return the names of the parameters that a step of Adam moves."""
        return list(self.parameters)


class IPNDM(Sampler):
    """LD3 with iPNDM: Adams-Bashforth steps in ``r``, of order 1 to 3."""

    def __init__(self, field: sf.ScoreField, calls: int, power: float) -> None:
        super().__init__(field, calls, power)
        self.slopes: list[Tensor] = []

    def step(self, i: int, r: Tensor, first: Tensor, y: Tensor, x0s: list[Tensor]) -> Tensor:
        self.slopes = [(y - x0s[0]) / r[i], *(self.slopes[:2] if i else [])]
        weights = ([1.0], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12])[len(self.slopes) - 1]
        slope = sum(w * s for w, s in zip(weights, self.slopes, strict=True))
        return y + (r[i + 1] - r[i]) * slope


class DPM(Sampler):
    """LD3 with DPM-Solver++ 3M, whose last step has order 1."""

    def step(self, i: int, r: Tensor, first: Tensor, y: Tensor, x0s: list[Tensor]) -> Tensor:
        keep = r[i + 1] / r[i]
        plain = keep * y + (1 - keep) * x0s[0]
        if i == 0 or i == self.calls - 1:
            return plain
        h, last = (r[i] / r[i + 1]).log(), (r[i - 1] / r[i]).log()
        slope = (x0s[0] - x0s[1]) * (h / last)
        if i == 1 or i == self.calls - 2:
            return plain + (1 - keep) / 2 * slope
        ratio, other = last / h, (r[i - 2] / r[i - 1]).log() / h
        before = (x0s[1] - x0s[2]) / other
        one = slope + (slope - before) * ratio / (ratio + other)
        two = (slope - before) / (ratio + other)
        return plain + ((keep - 1) / h + 1) * one - ((keep - 1 + h) / h**2 - 0.5) * two


class BNS(Sampler):
    """BNS, which starts at DDIM."""

    def __init__(self, field: sf.ScoreField, calls: int, power: float) -> None:
        super().__init__(field, calls, power)
        size = self.start[0].exp()
        rows, keep = [torch.ones(1, dtype=torch.float64)], self.start.new_zeros(calls)
        keep[:-1] = self.start.diff().exp()
        for i in range(calls):
            rows.append(torch.cat([keep[i] * rows[-1], (1 - keep[i])[None]]))
        for i, row in enumerate(rows[1:]):
            self.parameters[f"row{i}"] = row * torch.cat([size[None], torch.ones(i + 1)])
        del self.parameters["offsets"]
        self.size = size

    def levels(self) -> tuple[Tensor, Tensor]:
        self.parameters.setdefault("offsets", torch.zeros(self.calls, dtype=torch.float64))
        states, _ = super().levels()
        del self.parameters["offsets"]
        return states, states

    def step(self, i: int, r: Tensor, first: Tensor, y: Tensor, x0s: list[Tensor]) -> Tensor:
        of_first, *rest = self.parameters[f"row{i}"].unbind()
        return of_first / self.size * first + sum(
            b * x0 for b, x0 in zip(rest, reversed(x0s), strict=True)
        )


class S4S(Sampler):
    """S4S-Alt: a multistep method of order 3 whose coefficients and times move in turns."""

    def __init__(self, field: sf.ScoreField, calls: int, power: float) -> None:
        super().__init__(field, calls, power)
        weights = ([1.0], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12])
        for i in range(calls):
            order = 1 if i == calls - 1 else min(i, 2) + 1
            row = torch.zeros(min(i, 2) + 1, dtype=torch.float64)
            row[:order] = torch.tensor(weights[order - 1], dtype=torch.float64)
            self.parameters[f"row{i}"] = row

    def turns(self, step: int) -> list[str]:
        times = step // EVERY % 2 == 1
        return [k for k in self.parameters if k.startswith("row") is not times]

    def step(self, i: int, r: Tensor, first: Tensor, y: Tensor, x0s: list[Tensor]) -> Tensor:
        keep = r[i + 1] / r[i]
        data = sum(b * x0 for b, x0 in zip(self.parameters[f"row{i}"].unbind(), x0s, strict=False))
        return keep * y + (1 - keep) * data


METHODS: dict[str, Callable[[sf.ScoreField, int, float], Sampler]] = {
    "LD3, iPNDM": IPNDM,
    "LD3, DPM++3M": DPM,
    "BNS": BNS,
    "S4S": S4S,
}


def batches(count: int, size: int) -> Iterator[Tensor]:
    """Yield the places of batches, every noise once in turn."""
    generator = torch.Generator().manual_seed(0)
    while True:
        yield from torch.randperm(count, generator=generator).split(size)


def fitted(
    name: str, field: sf.ScoreField, calls: int, z: Tensor, end: Tensor, evaluations: int
) -> Callable[[Tensor], Tensor]:
    """Return a method's samples as a function of ``z`` ``(N, d)``, after it has learned.

    Args:
        z, end: noises and the ends of their paths, ``(N, d)``.
        evaluations: of single samples, that it may spend.
    """

    def error(sampler: Sampler) -> float:
        with torch.no_grad():
            value = float((sampler.ends(z) - end).norm(dim=1).mean())
        return value if math.isfinite(value) else math.inf

    starts = [METHODS[name](field, calls, power) for power in (0.0, 3.0, 5.0, 7.0)]
    sampler = min(starts, key=error)
    spent = len(starts) * calls * len(z)
    size = min(len(z), max(32, min(128, 8192 // z.shape[1])))
    steps = max(1, (evaluations - spent) // (3 * calls * size))
    for parameter in sampler.parameters.values():
        parameter.requires_grad_(True)
    best, first = error(sampler), {k: v.detach().clone() for k, v in sampler.parameters.items()}
    optimizer = torch.optim.Adam(sampler.parameters.values(), lr=RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step, place in zip(range(steps), batches(len(z), size), strict=False):
        optimizer.zero_grad()
        loss = (sampler.ends(z[place]) - end[place]).norm(dim=1).mean()
        loss.backward()
        moving = sampler.turns(step)
        for key, parameter in sampler.parameters.items():
            if key not in moving or parameter.grad is None:
                parameter.grad = None
            elif not bool(parameter.grad.isfinite().all()):
                parameter.grad.zero_()
        torch.nn.utils.clip_grad_norm_(sampler.parameters.values(), 1.0)
        optimizer.step()
        schedule.step()
    if error(sampler) > best:
        sampler.parameters = first

    def samples(z: Tensor) -> Tensor:
        with torch.no_grad():
            return sampler.ends(z)

    return samples
