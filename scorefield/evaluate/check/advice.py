"""Which solvers a network is too inexact for.

The error of a network at some noise levels moves samples by an amount that depends on the solver:
`measure_sensitivity`, with errors at those levels alone.
"""

from __future__ import annotations

from scorefield.evaluate.certify import ODE_SOLVERS, SENSITIVITY_CALLS, measure_sensitivity
from scorefield.evaluate.check.result import Check

_HIGH = 2.0  # times the sensitivity of DPM-Solver++(2M)
_SHOWN = 4
_AROUND = 1.6  # a noise level stands for those within this factor


def advice(check: Check) -> str:
    """Return where a network is worse than a Gaussian and the solvers that suffer most, or ""."""
    poor = check.poor
    if not poor:
        return ""
    low, high = poor[0].ratio, poor[-1].ratio
    where = f"from {low:.2g} to {high:.2g}" if len(poor) > 1 else f"{low:.2g}"
    text = (
        f"at sigma/alpha {where} the network is worse than a Gaussian, with up to "
        f"{max(level.error for level in poor):.2g} of its error"
    )
    scale = check.data_std
    hurt = _sensitive(low / _AROUND / scale, high * _AROUND / scale)
    if not hurt:
        return text
    names = ", ".join(f"{name} ({times:.2g})" for name, times in hurt[:_SHOWN])
    more = f" and {len(hurt) - _SHOWN} more" if len(hurt) > _SHOWN else ""
    return (
        f"{text}; with {SENSITIVITY_CALLS} calls, this moves samples of {names}{more} more than "
        f"{_HIGH:g} times as far as those of DPM-Solver++(2M)"
    )


def _sensitive(low: float, high: float) -> list[tuple[str, float]]:
    """Return solvers of high sensitivity to errors between two noise levels, the worst first."""
    try:
        rows = [
            (name, measure_sensitivity(make, between=(low, high)))
            for name, make in ODE_SOLVERS.items()
        ]
    except ValueError:  # no call is between them
        return []
    return sorted((row for row in rows if row[1] > _HIGH), key=lambda row: -row[1])
