r"""Plans fitted to a field: the levels and the steps that a budget of calls is best spent on.

Some starting noises are followed finely to the data, by a `Teacher`. A `Student` then fits the
steps between given levels in closed form, and a `Search` moves the levels to the least mean
distance from the teacher's ends, of noises that had no part in the fit. Whether the plan is better
than the default one is decided by noises that had no part in either.

Reference: Powell (1964), The Computer Journal 7; Zhou et al. (2024), arXiv:2312.00094, and Xue et
al. (2024), arXiv:2402.17376, of levels fitted to a network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from scorefield.field import ScoreField
from scorefield.sampling import Plan
from scorefield.tuning.tuner import Tuner

__all__ = ["Tuner", "tune"]


def tune(
    field: ScoreField,
    nfe: int,
    *,
    noises: int | None = None,
    conditions: Mapping[str, Tensor] | None = None,
    tries: int | None = None,
    polish: int = 0,
    seed: int = 0,
    batch_size: int | None = None,
    progress: Callable[[float], None] = lambda error: None,
) -> Plan:
    """Fit a plan of ``nfe`` calls to a field; the default one is kept where it is better.

    `Tuner` fits several to the same noises.

    Args:
        noises, conditions, seed, batch_size: those of `Tuner`.
        tries, polish, progress: those of `Tuner.tune`.

    Raises:
        UsageError: SciPy is missing.
        ValueError: as `Tuner` and `Tuner.tune`.
    """
    tuner = Tuner(field, noises=noises, conditions=conditions, seed=seed, batch_size=batch_size)
    return tuner.tune(nfe, tries=tries, polish=polish, progress=progress)
