r"""Paths of the probability-flow ODE in many small steps, to fit plans to.

In ``z = x / n``, ``n = sqrt(c^2 alpha^2 + sigma^2)``, and the angle ``u = atan(sigma / (c alpha))``
of data of standard deviation ``c``, a path is smooth from noise to data::

    dz/du = (c alpha eps - sigma x0 / c) / n                                        (1)

so cubic interpolation of values and slopes is accurate between the nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.field import Estimate, ScoreField
from scorefield.noise import Noise
from scorefield.process import Process, balanced, wide
from scorefield.sampling import from_normal, integrate, noisiest
from scorefield.solvers import AnglePrediction, Exact, Growth, Multistep, State
from scorefield.tuning.noises import Noises

NODES = 192


@dataclass(frozen=True)
class Teacher:
    """Paths of ``N`` noises, in some of their coordinates.

    Attributes:
        z: at the nodes, from noise to data, float64 ``(nodes, N, M)``.
        slope: (1) there.
        angle: of the nodes, decreasing, float64 ``(nodes,)``.
        data_std: ``c``.
        end: ``x / alpha`` of the data in all coordinates, float64 ``(N, d)``.
    """

    z: Tensor
    slope: Tensor
    angle: Tensor
    data_std: float
    end: Tensor

    def at(self, level: float) -> Tensor:
        """Return ``x / alpha`` where ``log(sigma / alpha)`` is ``level``, ``(N, M)``."""
        u = math.atan2(math.exp(level), self.data_std)
        k = int(torch.searchsorted(-self.angle, -u).clamp(1, len(self.angle) - 1))
        h = float(self.angle[k] - self.angle[k - 1])
        w = (u - float(self.angle[k - 1])) / h
        before, after = (1 + 2 * w) * (1 - w) ** 2, w**2 * (3 - 2 * w)
        out, into = h * w * (1 - w) ** 2, h * w**2 * (w - 1)
        z = before * self.z[k - 1] + after * self.z[k]
        z = z + out * self.slope[k - 1] + into * self.slope[k]
        return z * self.data_std / math.cos(u)


def teach(noises: Noises, chosen: Tensor) -> Teacher:
    """Return the paths of noises to the data, in the ``chosen`` coordinates ``(M,)``.

    Needs a call of the field for each of 192 nodes; see `ends`.
    """
    times = _times(noises.field, NODES)
    count, keep = len(noises), (len(chosen), len(times))
    like = wide(noises.z[:0])
    z = like.new_empty(keep[1], count, keep[0])
    slope = torch.empty_like(z)
    end = like.new_empty(count, noises.dim)
    for place, field in noises.batches():
        path = _follow(field, noises.z[place], times, chosen)
        z[:, place], slope[:, place], end[place] = path
    c = noises.field.data_std
    angle = (-noises.field.process.half_log_snr(times)).exp().div(c).atan()
    return Teacher(z, slope, angle.to(z.device), c, end)


def ends(noises: Noises, nodes: int = NODES) -> Tensor:
    """Return ``x / alpha`` at the data of the paths of noises, float64 ``(N, d)``.

    The paths begin at `scorefield.sampling.noisiest`. If the process does not reach the data, the
    last step is that of the denoiser, from ``t_min``. Needs a call of the field for each of the
    ``nodes``.
    """
    times = _times(noises.field, nodes)
    none = torch.empty(0, dtype=torch.int64)
    paths = [_follow(field, noises.z[place], times, none) for place, field in noises.batches()]
    return torch.cat([path.end for path in paths])


class _Path(NamedTuple):
    z: Tensor
    slope: Tensor
    end: Tensor


def _times(field: ScoreField, nodes: int) -> Tensor:
    process, c = field.process, field.data_std
    whole = process.t_data is not None
    last = None if whole else process.t_min
    return balanced(process, nodes, start=noisiest(field), end=last, data_std=c, to_data=whole)


@torch.no_grad()
def _follow(field: ScoreField, noise: Tensor, times: Tensor, chosen: Tensor) -> _Path:
    process, c = field.process, field.data_std
    solver = Multistep(3, AnglePrediction(c), Exact(Growth(c, 0.25)), start="rising")
    x = from_normal(field, noise, times[0])
    begin = State(x, times[0], Noise(0, torch.arange(len(x), device=x.device)))
    z, slopes = [], []
    for k, state in enumerate(integrate(field, solver, begin, times)):
        z.append(_smooth(process, times[k], c, state.x.flatten(1)[:, chosen]))
        if state.memory is not None:  # whose newest estimate is that of the node before
            slopes.append(_slope(process, times[k - 1], c, state.memory.tensors[0], chosen))
    slopes.append(slopes[-1])  # that of the last node would need another call
    last = state.x if process.t_data is not None else field(state.x, state.t).x0
    return _Path(torch.stack(z), torch.stack(slopes), wide(last).flatten(1))


def _smooth(process: Process, t: Tensor, c: float, x: Tensor) -> Tensor:
    alpha, sigma = (float(v) for v in process.coefficients(t))
    return wide(x) / math.hypot(c * alpha, sigma)


def _slope(process: Process, t: Tensor, c: float, estimate: Estimate, chosen: Tensor) -> Tensor:
    alpha, sigma = (float(v) for v in process.coefficients(t))
    eps, x0 = (wide(w.flatten(1)[:, chosen]) for w in (estimate.eps, estimate.x0))
    return (c * alpha * eps - sigma / c * x0) / math.hypot(c * alpha, sigma)
