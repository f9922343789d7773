r"""The sensitivity of a solver: how far the errors of a network move its samples.

For a Gaussian field all is linear: an error ``d_i`` of eps at the call ``i`` moves the sample by
``w_i d_i``. The errors are those of a random smooth function of the noise level, of unit size::

    E[d_i d_j] = exp(-(v_i - v_j)^2 / 2),    v = log(sigma / alpha)                       (1)
    S^2 = mean over coordinates of sum_ij w_i w_j E[d_i d_j]                              (2)

The coordinates have the standard deviations 0.1, 0.5, 1 and 3, as ill-conditioned data has. A
solver multiplies the errors of early calls where ``x0 = (x - sigma eps) / alpha`` does, and again
where it extrapolates over long steps. ``S`` is given relative to that of DPM-Solver++(2M), the rule
that is most in use.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from scorefield.evaluate.certify.subjects import Make
from scorefield.field import Estimate, FieldWrapper, Gaussian, Instant
from scorefield.noise import Noise
from scorefield.process import VP, uniform
from scorefield.sampling import Plan, prepare
from scorefield.sampling.plan import count_calls_on
from scorefield.solvers import State, dpm_solver_pp

SENSITIVITY_CALLS = 10
_DEVIATIONS = (0.1, 0.5, 1.0, 3.0)
_EVERY = 0.0, float("inf")


class _Nudged(FieldWrapper):
    """Adds 1 to eps of row ``k`` at call ``k``; row 0 stays exact.

    Attributes:
        ratios: ``sigma / alpha`` of the calls.
    """

    def __init__(self, base: Gaussian) -> None:
        super().__init__(base)
        self.ratios: list[float] = []

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        eps = self.base(x, at.prepared, **condition).eps.clone()
        self.ratios.append(float(at.sigma / at.alpha))
        eps[len(self.ratios)] += 1
        return Estimate.from_eps(x, at, eps)


def measure_sensitivity(
    make: Make, calls: int = SENSITIVITY_CALLS, between: tuple[float, float] = _EVERY
) -> float:
    """Return (2) over that of DPM-Solver++(2M), with as many steps as make at most ``calls`` calls.

    The grid is uniform on `VP`, and the denoiser finishes.

    Args:
        make: the solver for a number of steps.
        calls: of the field, at least as many as a step makes.
        between: values of ``sigma / alpha``; calls outside have no error.

    Raises:
        ValueError: one step makes more calls; no call of DPM-Solver++(2M) is between the levels.
    """
    peer = _displacement(_plan(lambda steps: dpm_solver_pp(2, published=True), calls), between)
    if peer == 0:
        raise ValueError(f"between={between}: none of {calls} calls is at such a noise level.")
    return _displacement(_plan(make, calls), between) / peer


def _plan(make: Make, calls: int) -> Plan:
    for steps in range(calls - 1, 0, -1):
        plan = Plan(make(steps), uniform(VP(), steps, end=1 / (steps + 1)))
        if count_calls_on(VP(), plan) <= calls:
            return plan
    raise ValueError(f"calls={calls}: must be at least those of one step of {make(1)!r}.")


def _displacement(plan: Plan, between: tuple[float, float]) -> float:
    moved, ratios = _responses(plan)
    inside = (ratios >= between[0]) & (ratios <= between[1])
    moved, level = moved[inside], ratios[inside].log()
    together = (-0.5 * (level[:, None] - level) ** 2).exp()
    return float(torch.einsum("id,ij,jd->d", moved, together, moved).mean().sqrt())


@cache
def _responses(plan: Plan) -> tuple[Tensor, Tensor]:
    """Return ``w`` ``(calls, 4)`` and the noise levels of the calls."""
    process, times = VP(), torch.as_tensor(plan.times)
    calls = count_calls_on(process, plan)
    spread = torch.tensor(_DEVIATIONS, dtype=torch.float64)
    field = _Nudged(Gaussian(process, torch.zeros(len(spread)), spread.square().diag()))
    rows = torch.zeros(calls + 1, len(spread), dtype=torch.float64)
    noise = Noise(0, torch.zeros(calls + 1, dtype=torch.int64))  # the same for all rows
    with torch.no_grad():
        end = prepare(field, plan.solver, times)(State(rows, times[0], noise))
        x = field(end.x, end.t).x0
    return x[1:] - x[0], torch.tensor(field.ratios, dtype=torch.float64)
