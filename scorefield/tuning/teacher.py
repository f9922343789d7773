r"""Fine paths of the probability-flow ODE, to learn from.

In ``z = x / n``, ``n = sqrt(c^2 alpha^2 + sigma^2)``, and the angle ``u = atan(sigma / (c alpha))``
of data of deviation ``c``, a path is smooth from noise to data::

    dz/du = (c alpha eps - sigma x0 / c) / n                                        (1)

so a cubic through values and slopes tells it anywhere between the nodes of a fine run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.field import ScoreField
from scorefield.grid import balanced, time_near
from scorefield.noise import Noise
from scorefield.process import Process
from scorefield.sampling import from_normal, integrate
from scorefield.solvers import AnglePrediction, Exact, Growth, Multistep, State

NODES = 192


@dataclass(frozen=True)
class Teacher:
    """Paths of ``N`` noises.

    Attributes:
        z: at the nodes, from noise to data, float64 ``(nodes, N, d)``.
        slope: (1) there.
        angle: of the nodes, falling, float64 ``(nodes,)``.
        data_std: ``c``.
        end: ``x / alpha`` of the data, ``(N, d)``.
    """

    z: Tensor
    slope: Tensor
    angle: Tensor
    data_std: float
    end: Tensor

    def at(self, level: float) -> Tensor:
        """Return ``x / alpha`` where ``log(sigma / alpha)`` is ``level``, ``(N, d)``."""
        u = math.atan2(math.exp(level), self.data_std)
        k = int(torch.searchsorted(-self.angle, -u).clamp(1, len(self.angle) - 1))
        h = float(self.angle[k] - self.angle[k - 1])
        w = (u - float(self.angle[k - 1])) / h
        before, after = (1 + 2 * w) * (1 - w) ** 2, w**2 * (3 - 2 * w)
        out, into = h * w * (1 - w) ** 2, h * w**2 * (w - 1)
        z = before * self.z[k - 1] + after * self.z[k]
        z = z + out * self.slope[k - 1] + into * self.slope[k]
        return z * self.data_std / math.cos(u)


@torch.no_grad()
def teach(field: ScoreField, noise: Tensor, nodes: int = NODES) -> Teacher:
    """Follow the paths from standard normal ``noise`` ``(N, *shape)``, a call of the field a node.

    From ``t_max``, or where no signal is left there from a noise of 200 deviations of the data, to
    the data; where the process cannot be continued to it, the denoiser goes there from ``t_min``.
    """
    process, c = field.process, field.data_std
    lost = bool(process.alpha(torch.tensor(process.t_max, dtype=torch.float64)) == 0)
    first = time_near(process, 200 * c) if lost else process.t_max
    whole = process.t_data is not None
    times = balanced(
        process,
        nodes,
        start=first,
        end=None if whole else process.t_min,
        data_std=c,
        to_data=whole,
    )
    solver = Multistep(3, AnglePrediction(c), Exact(Growth(c, 0.25)), start="rising")
    x = from_normal(field, noise, times[0])
    begin = State(x, times[0], Noise(0, torch.arange(len(x), device=x.device)))
    z, slopes = [], []
    for k, state in enumerate(integrate(field, solver, begin, times)):
        z.append(_smooth(process, times[k], c, state.x))
        if state.memory is not None:  # whose newest estimate is that of the node before
            found = state.memory.kept[0]
            slopes.append(_slope(process, times[k - 1], c, found.x0, found.eps))
    slopes.append(slopes[-1])  # what an unneeded call would tell
    last = state.x if whole else field(state.x, state.t).x0
    end = last.flatten(1).double()
    depth = -process.half_log_snr(times[:-1] if whole else times)
    angle = torch.atan(depth.exp() / c)
    if whole:
        angle = torch.cat([angle, angle.new_zeros(1)])
    return Teacher(torch.stack(z), torch.stack(slopes), angle, c, end)


def _smooth(process: Process, t: Tensor, c: float, x: Tensor) -> Tensor:
    alpha, sigma = (float(v) for v in process.coefficients(t))
    return x.flatten(1).double() / math.hypot(c * alpha, sigma)


def _slope(process: Process, t: Tensor, c: float, x0: Tensor, eps: Tensor) -> Tensor:
    alpha, sigma = (float(v) for v in process.coefficients(t))
    found = c * alpha * eps.flatten(1).double() - sigma / c * x0.flatten(1).double()
    return found / math.hypot(c * alpha, sigma)
