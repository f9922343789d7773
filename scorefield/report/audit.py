"""The section on the audit of the field: a lower bound of its error, and its consistency."""

from __future__ import annotations

from collections.abc import Sequence

from scorefield.evaluate.audit import Audit, AuditLevel
from scorefield.report.blocks import Charts, Section
from scorefield.report.chart import Axis, Chart, Point, Series
from scorefield.report.context import ReportContext


def audit_section(context: ReportContext) -> Section:
    """Return the section on the readings of `scorefield.audit` at each noise level."""
    text = (
        "The estimate of the noise is wrong by at least the bound on the left, if the field was "
        "not trained on these data. The residual on the right is 0 for the score of any noised "
        "data. A field without a violation may still be wrong."
    )
    result = context.run.audit(
        context.items_of_data,
        given=None if context.has_conditions else context.given,
        seed=context.seed,
    )
    charts = [
        _chart(result, "Error of eps, at least", "at_least"),
        _chart(result, "Relative residual", "residual"),
    ]
    held_out = "held-out " * context.held_out
    note = f"{result.samples} {held_out}items of {context.source}: {result}."
    return Section("audit", "Audit of the field", text, [Charts(charts, note)])


def _chart(result: Audit, label: str, name: str) -> Chart:
    """Return the chart of one reading against the noise level, with that of an exact field."""

    def points(levels: Sequence[AuditLevel]) -> list[Point]:
        return [(level.ratio, float(getattr(level, name))) for level in levels]

    own, exact = points(result.levels), points(result.exact)
    series = [Series("the run", own, 0), Series("an exact field", exact, 1, dashed=True)]
    ends = own[0][0], own[-1][0]
    top = 1.05 * max(1e-3, *(y for _, y in own + exact))
    alt = f"{label}, from the least to the most noise: {', '.join(f'{y:.2g}' for _, y in own)}"
    x = Axis("noise-to-signal ratio σ/α", *ends, log=True)
    return Chart(alt, x, Axis(label, 0.0, top), series)
