r"""Plans tuned to a field: the noise levels and steps that make the best use of a number of calls.

A `Teacher` follows some starting noises to the data, in many small steps. A `Student` then fits
the steps between given noise levels in closed form, and a `Search` moves the levels to the least
mean distance from the ends of the teacher's paths, measured on noises that the steps were not
fitted to. `polished` then moves levels and steps together. A third set of noises
measures the plan, and decides whether it is better than the default plan.

Reference: Powell (1964), The Computer Journal 7; Zhou et al. (2024), arXiv:2312.00094, Xue et
al. (2024), arXiv:2402.17376, and Tong et al. (2024), arXiv:2405.15506 (levels fitted to a network).
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
    rounds: int | None = None,
    noises: int | None = None,
    conditions: Mapping[str, Tensor] | None = None,
    tries: int | None = None,
    polish: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: Callable[[float], None] = lambda error: None,
) -> Plan:
    """Fit a plan of ``nfe`` network calls to a field; return the default plan if that is better.

    The plan's ``tuning`` holds the measured errors. `Tuner` fits several plans to the same noises.

    Args:
        noises, conditions, seed, batch_size: those of `Tuner`.
        rounds, tries, polish, progress: those of `Tuner.tune`.

    Raises:
        UsageError: SciPy is missing.
        ValueError: as `Tuner` and `Tuner.tune`.
    """
    tuner = Tuner(field, noises=noises, conditions=conditions, seed=seed, batch_size=batch_size)
    return tuner.tune(nfe, rounds=rounds, tries=tries, polish=polish, progress=progress)
