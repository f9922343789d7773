r"""Plans: a solver and its times; and what to do with a field that nobody has measured yet.

`default_plan` is one rule for every field. With ``N`` calls and the data's deviation ``c``, in
``r = sigma / alpha`` and its growth ``g = log(1 + (r / c)^2)``:

- it starts at ``r = 0.75 N^2 c``, if the process goes higher, from the Gaussian of the data's mean
  and variance: above, the path is nearly that of the Gaussian, and so few calls do not see more;
- its times are equally spaced in ``g^(1/q)``, with ``q`` from 3 to 4, and its last step goes to the
  data, with no call at its end;
- it follows the probability-flow ODE by `Multistep` on the noise angle, the order rising with ``N``
  from 2 to 5, by polynomials in a power of ``g``.

The constants were chosen by the distance to the ends of exact paths on four fields, three mixtures
and a network, and checked on two others: ``benchmarks/solvers.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from scorefield.adaptive import Adaptive
from scorefield.field import ScoreField
from scorefield.grid import balanced, time_near
from scorefield.solvers import AnglePrediction, Exact, Growth, Multistep, Solver

DEFAULT_CALLS = DEFAULT_STEPS = 20


@dataclass(frozen=True, eq=False)
class Plan:
    """A solver and the times it visits.

    Attributes:
        solver: the rule of a step.
        times: the grid, falling, ``(N + 1,)``; or `Adaptive`.
    """

    solver: Solver
    times: Tensor | Adaptive


def default_plan(field: ScoreField, nfe: int = DEFAULT_CALLS) -> Plan:
    """Return the general plan of ``nfe`` calls of a field.

    Below 5 calls, and where a process cannot be continued to the data, the last call is that of
    the denoiser which finishes a run (``finish`` of `scorefield.sample`).

    Raises:
        ValueError: ``nfe < 2``.
    """
    if nfe < 2:
        raise ValueError(f"nfe = {nfe}: a plan needs at least 2 calls of the field.")
    process, c = field.process, field.data_std
    start = time_near(process, 0.75 * nfe**2 * c)
    spacing = 3.0 if nfe < 5 else 3.5 if nfe < 8 else 4.0
    order = 2 if nfe < 5 else 3 if nfe < 12 else 4 if nfe < 20 else 5
    power = 0.25 if 8 <= nfe < 12 else 0.375
    exact = Exact() if nfe < 5 else Exact(Growth(c, power))
    solver = Multistep(order, AnglePrediction(c), exact, start="rising")
    if process.t_data is None:
        times = balanced(process, nfe - 1, start=start, data_std=c, power=spacing)
        return Plan(solver, times)
    times = balanced(process, nfe, start=start, end=process.t_data, data_std=c, power=spacing)
    return Plan(solver, times[:-1] if nfe < 5 else times)


def resolve(
    field: ScoreField, solver: Solver | Plan | None, times: Tensor | Adaptive | None
) -> Plan:
    """Return the plan that the arguments of `scorefield.sample` stand for.

    Raises:
        ValueError: times beside a plan.
    """
    if isinstance(solver, Plan):
        if times is not None:
            raise ValueError("a plan has its own times: leave one of them out.")
        return solver
    if solver is None and times is None:
        return default_plan(field)
    c = field.data_std
    solver = Multistep(3, AnglePrediction(c)) if solver is None else solver
    times = balanced(field.process, DEFAULT_STEPS, data_std=c) if times is None else times
    return Plan(solver, times)
