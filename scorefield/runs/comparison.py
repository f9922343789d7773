"""Plans compared on a run, and its network checked, with data of the run's kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from scorefield import solvers
from scorefield._internal.errors import DataError, UsageError
from scorefield.data import Data
from scorefield.evaluate.audit import Audit, audit as audit_field
from scorefield.evaluate.check import Check, check as check_network
from scorefield.field import ScoreField
from scorefield.process import balanced
from scorefield.runs.folder import held_out_items
from scorefield.runs.quality import records_of
from scorefield.runs.units import Given
from scorefield.sampling import Adaptive, Plan, default_plan
from scorefield.training.held_out import split
from scorefield.tuning.frontier.measure import SMALLEST

if TYPE_CHECKING:
    from scorefield.runs.run import Run

SAMPLES = 512  # of a plan, if there are as many data
_MOST = 2048  # items of data
_CHECKED = 2048  # items of data whose variances the check measures
_TOLERANCES = (1e-2, 1e-3)  # of solvers that choose their own steps


class References(NamedTuple):
    """Real data in the units of the field.

    Attributes:
        real: to compare samples with, ``(m, *shape)``.
        other: for the distance of data to data, ``(n, *shape)``, as many as there are samples.
        records: the training records, if the data holds them.
    """

    real: Tensor
    other: Tensor
    records: Tensor | None


def references(
    run: Run,
    source: Any,
    given: Any = None,
    *,
    conditions: Any = None,
    held_out: bool = False,
    n: int | None = None,
    seed: int = 0,
) -> References:
    """Return data to compare samples with, and as much for the distance of data to data.

    Args:
        given: a condition that is one class, of which the data is; None for all.
        conditions: of the items, as for `scorefield.read`.
        held_out: the data is that of the training: use only the items that were held out.
        n: the number of samples; by default 512, or as many as there are data for.
        seed: of the split of the data.

    Raises:
        UsageError: the training data without ``held_out``; a run without held-out data; too few
            items.
        DataError: as `Run.read`; data without classes.
    """
    if not held_out and isinstance(source, str | PathLike):
        _check_other(str(source), run.config.data.name)
    data = run.read(source, conditions)
    items = held_out_items(run.config, data) if held_out else torch.arange(len(data.x))
    if given is not None:
        items = items[_under(run, data, given)[items]]
    least = SMALLEST if n is None else n
    if len(items) < 2 * least:
        of_class = "" if given is None else f" given {given}"
        wanted = "" if n is None else f" for n={n}"
        raise UsageError(
            f"{data.name} has {len(items)} items{of_class} to compare with: pass {2 * least} or "
            f"more{wanted}, because half of them measure the distance of data to data."
        )
    one, two = split(len(items), 0.5, seed)  # sorted data is shuffled, too
    one = one[torch.linspace(0, len(one) - 1, min(len(one), _MOST)).long()]
    two = two[: SAMPLES if n is None else n]
    real, other = (run.to_field(data.x[items[rows]]) for rows in (one, two))
    if not held_out:
        return References(real, other, None)
    learned = split(len(data.x), run.config.train.held_out or 0.0, run.config.train.seed)[0]
    return References(real, other, run.to_field(data.x[records_of(run, learned)]))


def _check_other(source: str, trained: str) -> None:
    """Reject the training data, by name or by file."""
    one, two = Path(source), Path(trained)
    if source == trained or (one.exists() and two.exists() and one.samefile(two)):
        raise UsageError(
            f"data={source}: this is the training data of the run; pass other data, or "
            "held_out=True for the items that were held out."
        )


def _under(run: Run, data: Data, given: Any) -> Tensor:
    """Return whether each item has the given conditions.

    Raises:
        DataError: data without them.
    """
    result = torch.ones(len(data.x), dtype=torch.bool)
    for key, value in run.given(given).items():
        if value.ndim and len(value) > 1:
            raise UsageError(f"given: {len(value)} rows of {key}; give one value to compare with.")
        if key not in data.conditions.values:
            raise DataError(f"conditions=None: {data.name} has none; pass the {key} of its items.")
        rows = data.conditions.values[key]
        result &= (rows == value).reshape(len(rows), -1).all(1)
    return result


def solver_plans(field: ScoreField, solver: solvers.Solver, budgets: Sequence[int]) -> list[Plan]:
    """Return a solver's plans with as many steps as fit each budget of network calls."""
    counts = sorted({(calls - 1) // solver.calls for calls in budgets} - {0})
    c = field.data_std
    return [Plan(solver, balanced(field.process, count, data_std=c)) for count in counts]


def adaptive_plans(solver: solvers.Solver) -> list[Plan]:
    """Return a solver's plans that choose their own steps, with tolerances 0.01 and 0.001."""
    return [Plan(solver, Adaptive(rtol, rtol)) for rtol in _TOLERANCES]


def usual_plans(run: Run, budgets: Sequence[int]) -> dict[str, list[Plan]]:
    """Return the plans that `Run.compare` measures: default, tuned, and those of known solvers.

    Raises:
        ValueError: as `scorefield.default_plan`.
    """
    rules = {
        "ddim": solvers.DDIM(),
        "heun": solvers.Heun(),
        "dpm-solver++": solvers.dpm_solver_pp(),
        "unipc": solvers.unipc(),
        "ddpm": solvers.DDPM(),
        "euler-maruyama": solvers.EulerMaruyama(),
    }
    if not run.field.has_score:
        rules = {name: rule for name, rule in rules.items() if rule.weak_order is None}
    plans = {
        "default": [default_plan(run.field, calls) for calls in budgets],
        "tuned": list(run.plans.values()),
        **{name: solver_plans(run.field, solver, budgets) for name, solver in rules.items()},
        "dopri5": adaptive_plans(solvers.Dopri5()),
    }
    return {name: several for name, several in plans.items() if several}


def check(
    run: Run, data: Any, given: Any, *, conditions: Any = None, n: int = 64, **settings: Any
) -> Check:
    """Compare interpretations of a run's network; see `Run.check`."""
    run.check_one_length()
    if data is None:
        x, condition = None, _bound(run, run.given(given))
    else:
        x, condition = _measured(run, data, given, conditions, max(n, _CHECKED))
    return check_network(run.field, x, n=n, **settings, **condition)


def audit(run: Run, data: Any, given: Any, *, conditions: Any, n: int, **settings: Any) -> Audit:
    """Test a run's field on data; see `Run.audit`."""
    run.check_one_length()
    x, condition = _measured(run, data, given, conditions, n)
    return audit_field(run.field.condition_on(**condition), x, n=n, **settings)


def _measured(
    run: Run, data: Any, given: Any, conditions: Any, n: int
) -> tuple[Tensor, dict[str, Any]]:
    """Return up to ``n`` items in the units of the field, and their conditions."""
    items = run.read(data, conditions)
    rows = torch.linspace(0, len(items.x) - 1, min(len(items.x), n)).long()
    every = Given(items.conditions.values if given is None else run.given(given))
    values = every.rows(rows, len(items.x))
    return run.to_field(items.x[rows]), _bound(run, values)


def _bound(run: Run, values: Mapping[str, Tensor]) -> dict[str, Any]:
    return dict(run.condition) | {key: value.to(run.device) for key, value in values.items()}
