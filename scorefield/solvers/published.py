r"""Methods under the names of their papers: settings of `Multistep`.

By default the integrals are exact. ``published=True`` reproduces the recurrences of papers and
libraries, which differ in three ways; ``v`` is the log-SNR, scaled to 0 to 1 over the step:

- two nodes: the value of the line at the middle of the step, ``M0 / 2`` instead of ``int v``;
  UniPC's "bh1" replaces ``M0`` by the step size. The order is that of the exact integral.
- three nodes: half the exact ``int v^2``, which lowers the order of the step from 3 to 2.
- the first steps have the orders 1, 2, 3, ...

Reference: Lu et al. (2022), arXiv:2206.00927, arXiv:2211.01095; Zhang and Chen (2022),
arXiv:2204.13902; Zhao et al. (2023), arXiv:2302.04867.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scorefield.process import total
from scorefield.solvers.linear import Level
from scorefield.solvers.multistep import Multistep
from scorefield.solvers.prediction import (
    DataPrediction,
    Exact,
    NoisePrediction,
    OwnTime,
    Prediction,
    Quadrature,
    gauss,
)


@dataclass(frozen=True)
class Published(Quadrature):
    """The weights of the published recurrences, for `DataPrediction` and `NoisePrediction`.

    Args:
        family: ``"dpm"`` for the multistep DPM-Solvers, ``"bh1"`` or ``"bh2"`` for UniPC.

    Raises:
        ValueError: another family; another prediction in use.
    """

    family: Literal["dpm", "bh1", "bh2"]

    def __post_init__(self) -> None:
        if self.family not in ("dpm", "bh1", "bh2"):
            raise ValueError(f'family={self.family!r}: give "dpm", "bh1" or "bh2".')

    def __call__(
        self, prediction: Prediction, nodes: Sequence[Level], t: Level, s: Level, eta: float
    ) -> list[Tensor]:
        parabola = len(nodes) == 3 and self.family == "dpm" and nodes[0] is not s
        if len(nodes) != 2 and not parabola:
            return Exact()(prediction, nodes, t, s, eta)
        u, measure = gauss(prediction, t, s, eta)
        start, end = -t.log_ratio, -s.log_ratio
        if not torch.equal(prediction.variable(-start), start):
            raise ValueError(
                f"prediction={prediction!r}: the published recurrences interpolate in log-SNR; use "
                "DataPrediction or NoisePrediction, or the quadrature Exact()."
            )
        v = [(-node.log_ratio - start) / (end - start) for node in nodes]
        whole = total(measure)
        if len(nodes) == 2:
            if self.family == "bh1":
                whole = (end - start) * prediction.weight(end)
            return _line(v, whole)
        return _parabola(v, whole, (u - start[..., None]) / (end - start)[..., None], measure)


def _line(v: Sequence[Tensor], whole: Tensor) -> list[Tensor]:
    """Return the weights of the value at the step's middle of a line through two nodes."""
    weights = [0.5 * whole / (a - b) for a, b in zip(v, reversed(v), strict=True)]
    here = 0 if bool((v[0] == 0).all()) else 1
    weights[here] = whole - weights[1 - here]
    return weights


def _parabola(v: Sequence[Tensor], whole: Tensor, at: Tensor, measure: Tensor) -> list[Tensor]:
    """Return the weights of a parabola through three nodes, with half its second moment."""
    first, second = total(measure * at), 0.5 * total(measure * at**2)
    r0, r1 = -v[1], v[1] - v[2]
    # D2 = (D10 - D11) / (r0 + r1) and D1 = D10 + r0 D2, with divided differences of the nodes
    bend = first * r0 + second
    ten = first / r0 + bend / (r0 + r1) / r0
    eleven = -bend / (r0 + r1) / r1
    return [whole + ten, eleven - ten, -eleven]


def dpm_solver(order: int = 2, *, published: bool = False) -> Multistep:
    """Return multistep DPM-Solver: the noise interpolated in log-SNR."""
    return _dpm(NoisePrediction(), order, 0.0, published)


def dpm_solver_pp(order: int = 2, *, sde: bool = False, published: bool = False) -> Multistep:
    """Return DPM-Solver++(nM), or SDE-DPM-Solver++: the data interpolated in log-SNR."""
    return _dpm(DataPrediction(), order, float(sde), published)


def deis(order: int = 3) -> Multistep:
    """Return DEIS-tAB: the noise interpolated in the process's time, through ``order`` values."""
    return Multistep(order, NoisePrediction(), Exact(OwnTime()))


def unipc(
    order: int = 2,
    *,
    variant: Literal["bh1", "bh2"] | None = None,
    prediction: Prediction | None = None,
    published: bool = False,
) -> Multistep:
    """Return UniPC of a predictor of this order; with its corrector, the order is one higher.

    ``prediction`` is that of the data by default. ``variant`` exists in the published form only,
    ``"bh2"`` by default.

    Raises:
        ValueError: a variant of the exact form; as `Multistep`.
    """
    if variant is not None and not published:
        raise ValueError(
            f"variant={variant!r}: has no effect on exact weights; leave it out, or give "
            "published=True."
        )
    predicted = DataPrediction() if prediction is None else prediction
    if published:
        quadrature: Quadrature = Published(variant or "bh2")
        return Multistep(order + 1, predicted, quadrature, corrector=True, start="rising")
    return Multistep(order + 1, predicted, corrector=True)


def _dpm(prediction: Prediction, order: int, eta: float, published: bool) -> Multistep:
    if published:
        return Multistep(order, prediction, Published("dpm"), eta=eta, start="rising")
    return Multistep(order, prediction, eta=eta)
