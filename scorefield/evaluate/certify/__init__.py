r"""Certificates: a solver's order, distribution and calls, measured against exact truths.

`certify` takes any solver, your own ones too. The table of docs/certificates.md has those of the
library on every process: `choose` finds them by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from scorefield.evaluate.certify.distribution import (
    affine_moments as affine_moments,
    langevin,
    measure_weak_orders as measure_weak_orders,
    p_value as p_value,
)
from scorefield.evaluate.certify.order import (
    calls_per_step as calls_per_step,
    exact_ends as exact_ends,
    measure_order as measure_order,
    product as product,
)
from scorefield.evaluate.certify.sensitivity import (
    SENSITIVITY_CALLS as SENSITIVITY_CALLS,
    measure_sensitivity as measure_sensitivity,
)
from scorefield.evaluate.certify.subjects import (
    EVERY_PROCESS as EVERY_PROCESS,
    ODE_SOLVERS as ODE_SOLVERS,
    PROCESSES as PROCESSES,
    SDE_SOLVERS as SDE_SOLVERS,
    Make,
    choose as choose,
    for_steps,
    load_solver as load_solver,
)
from scorefield.process import VP, Process
from scorefield.solvers import Solver, check_solver

ORDER_TOLERANCE, WEAK_TOLERANCE, LEVEL = 0.15, 0.25, 1e-3


@dataclass(frozen=True)
class Certificate:
    """The claims of a solver on a process, and the measurements.

    Attributes:
        solver, process: their names.
        claim: the order of convergence, weak for a solver that adds noise.
        observed: the measured orders: to data and to noise, or of mean and covariance; infinite if
            all error is rounding.
        calls: of the field, per step.
        sensitivity: how far an error of the network moves samples of 10 calls, on `VP`, relative
            to DPM-Solver++(2M); see `measure_sensitivity`.
        p_values: of the tests of the distribution; empty for solvers of the ODE.
        biased: a Langevin corrector converges to a distribution of its own.
        passed: the observed orders are within 0.15 of the claim (0.25 for a weak order), and all
            p-values, corrected for the number of directions, are above 0.001.
    """

    solver: str
    process: str
    claim: int
    observed: tuple[float, ...]
    calls: float
    sensitivity: float
    p_values: tuple[float, ...] = ()
    biased: bool = False
    tolerance: float = field(default=ORDER_TOLERANCE, repr=False)

    @property
    def cell(self) -> str:
        """The measurements in short: both orders, or the orders and the smallest p-value."""
        orders = " ".join("exact" if o == math.inf else f"{o:.2f}" for o in self.observed)
        p = f", p {min(self.p_values):.2g}" if self.p_values else ""
        return orders + p + ("" if self.passed else " FAIL")

    @property
    def passed(self) -> bool:
        near = all(abs(o - self.claim) <= self.tolerance or o == math.inf for o in self.observed)
        return near and all(p > LEVEL for p in self.p_values)

    def __str__(self) -> str:
        kind, of = ("weak order", "mean, covariance") if self.p_values else ("order", "both ways")
        verdict = "passes" if self.passed else "fails"
        return (
            f"{self.solver} on {self.process} {verdict}: claimed {kind} {self.claim}, measured "
            f"{self.cell.removesuffix(' FAIL')} ({of}), {self.calls:g} calls a step, "
            f"{float(f'{self.sensitivity:.2g}'):g} of the sensitivity of DPM-Solver++(2M)"
        )


def certify(
    solver: Solver | Make, process: Process | None = None, *, name: str | None = None
) -> Certificate:
    """Measure a solver on exact fields and compare with its claims.

    A solver of the ODE is certified for its `Solver.order`, to data and to noise. One that adds
    noise is certified for its `Solver.weak_order` towards data and for the distribution of its
    samples; its step must be affine in ``x`` and the noise where the field is. ::

        print(sf.certify(Clipped(limit=99.0)))

    Args:
        solver: a solver; or a function that returns it for a number of steps, such as ``lambda
            steps: Churn(Heun(), 1.0, steps)``.
        process: the process of the exact fields, `VP` by default.
        name: the name in the certificate.

    Raises:
        ValueError: not a solver; one that cannot go the way it is to be measured, or needs one
            noise level and the process has one per coordinate.
    """
    if isinstance(solver, type) or not callable(solver):
        check_solver("solver", solver)
    make, on = for_steps(solver), VP() if process is None else process
    first = make(1)
    check_solver("solver", first)
    title, place = name or repr(first), type(on).__name__
    costs = calls_per_step(make, on), measure_sensitivity(make)
    if first.weak_order is None:
        orders = tuple(measure_order(make, on, to_noise=up) for up in (False, True))
        return Certificate(title, place, first.order, orders, *costs)
    cases = [(kind, steps) for kind in ("gaussian", "mixture") for steps in (20, 1)]
    return Certificate(
        title,
        place,
        first.weak_order,
        measure_weak_orders(make, on),
        *costs,
        tuple(p_value(make, on, kind, steps) for kind, steps in cases),
        langevin(first) is not None,
        WEAK_TOLERANCE,
    )


def takes(make: Make, process: Process) -> bool:
    """Return whether a solver takes a process: some reject one noise level per coordinate."""
    try:
        calls_per_step(make, process)
    except ValueError:
        return False
    return True


def header(process_names: Sequence[str]) -> list[str]:
    """Return the two lines that begin a Markdown table of certificates."""
    titles = ["solver", "order", "calls", "sensitivity", *process_names]
    return [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]


def line(certificates: Sequence[Certificate]) -> str:
    """Return one solver's line of the table, from its certificates on the processes in turn."""
    first = certificates[0]
    claim = f"{first.claim}" + (" weak" if first.p_values else "")
    claim += ", its own distribution" if first.biased else ""
    numbers = f"{first.calls:g}", f"{float(f'{first.sensitivity:.2g}'):g}"
    cells = [first.solver, claim, *numbers, *(c.cell for c in certificates)]
    return f"| {' | '.join(cells)} |"
