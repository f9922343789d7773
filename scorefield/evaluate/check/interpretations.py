r"""Interpretations of a network: its prediction, its noise levels, and its label.

A network is a function of an array and a number. An *interpretation* states which quantity its
output is, which noise level the number stands for, and how the array is scaled. The alternatives
here are those of released networks.
"""

from __future__ import annotations

from dataclasses import dataclass

from scorefield.evaluate.check.tables import TABLES, without_signal
from scorefield.field import (
    X0,
    Denoiser,
    Eps,
    Label,
    Parametrization,
    Preconditioned,
    Scaled,
    Score,
    V,
    Velocity,
    noise_label,
    ratio_label,
    time_label,
)
from scorefield.process import EDM, VE, VP, Cosine, Flow, Process, SubVP, Tabulated


@dataclass(frozen=True)
class Prediction:
    """A possible output of a network: that of a parametrization, times ``sign``."""

    name: str
    parametrization: Parametrization
    sign: float = 1.0


@dataclass(frozen=True)
class Clock:
    """A possible meaning of a network's label: a process and a label of its times.

    The declared one has no name.
    """

    name: str
    process: Process
    label: Label


_PREDICTIONS = (
    Prediction("eps-prediction", Eps()),
    Prediction("x0-prediction", X0()),
    Prediction("score-prediction", Score()),
    Prediction("v-prediction", V()),
    Prediction("velocity-prediction (eps - x0)", Velocity()),
    Prediction("prediction of x0 - eps, whose time runs to data", Velocity(), -1.0),
)


def predictions(denoiser: Denoiser) -> list[Prediction]:
    """Return possible predictions of a denoiser's network, first the declared one."""
    declared = denoiser.parametrization
    deviations = {f"{d:g}": d for d in (denoiser.data_std, 0.5, 1.0)}
    if isinstance(declared, Preconditioned):
        deviations[f"{declared.data_std:g}"] = declared.data_std
    options = [*_PREDICTIONS, *map(_preconditioned, deviations.values())]
    first = [p for p in options if p.parametrization == declared and p.sign == 1]
    first = first[:1] or [Prediction(repr(declared), declared)]
    return [*first, *(p for p in options if p not in first)]


def _preconditioned(data_std: float) -> Prediction:
    name = f"EDM's prediction with data_std = {data_std:g}"
    return Prediction(name, Preconditioned(data_std))


def clocks(denoiser: Denoiser) -> list[Clock]:
    """Return possible meanings of a network's label: the declared one, then other ones.

    Those are other processes with the same label, and other labels of the same process.
    """
    process, label = denoiser.process, denoiser.label
    kinds = _tables(process) if isinstance(process, Tabulated) else _PROCESSES
    labels = _labels(process)
    return [
        Clock("", process, label),
        *(Clock(name, other, label) for name, other in kinds.items() if other != process),
        *(Clock(name, process, other) for name, other in labels.items() if other != label),
    ]


_PROCESSES: dict[str, Process] = {
    "the process VP": VP(),
    "the process sub-VP": SubVP(),
    "the process VE": VE(),
    "the cosine process": Cosine(),
    "the process of flow matching": Flow(),
    "the process of EDM": EDM(),
}


def _tables(process: Tabulated) -> dict[str, Process]:
    count = len(process.alpha_bar)
    tables = {f"the {name} table": make(count) for name, make in TABLES.items()}
    for name in ("the linear table", "the scaled-linear table"):
        tables[f"{name} with no signal at its end"] = without_signal(tables[name])
    return {name: Tabulated(table) for name, table in tables.items()}


def _labels(process: Process) -> dict[str, Label]:
    last = process.t_max
    return {
        "the label log(sigma / alpha) / 4": noise_label,
        "the label log(sigma / alpha)": Scaled(noise_label, 4.0),
        "the label sigma / alpha": ratio_label,
        "the label t": time_label,
        "the label 1000 t": Scaled(time_label, 1000.0),
        f"the label t / {last + 1:g}": Scaled(time_label, 1 / (last + 1)),
        "the label t counted from the noise": lambda p, t: last - t,
    }
