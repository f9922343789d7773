"""From a configuration to the objects it names."""

from __future__ import annotations

import inspect
import math
from typing import Any

from torch import nn

from scorefield import config as c, parametrization as p, processes
from scorefield.data.columns import Columns
from scorefield.data.encoding import Continuous, Encoding, Levels
from scorefield.networks import MLP, UNet
from scorefield.process import Process
from scorefield.training import objective as o

PROCESSES: dict[str, type[Process]] = {
    "vp": processes.VP,
    "subvp": processes.SubVP,
    "ve": processes.VE,
    "cosine": processes.Cosine,
    "flow": processes.Flow,
    "edm": processes.EDM,
    "tabulated": processes.Tabulated,
}
PARAMETRIZATIONS: dict[str, type[p.Parametrization]] = {
    "eps": p.Eps,
    "x0": p.X0,
    "score": p.Score,
    "v": p.V,
    "velocity": p.Velocity,
    "preconditioned": p.Preconditioned,
}
WEIGHTINGS: dict[str, type[o.Weighting]] = {
    "simple": o.Simple,
    "likelihood": o.LikelihoodWeighting,
    "edm": o.EDMWeighting,
    "min-snr": o.MinSNR,
}
TIMES: dict[str, type[o.TimeDistribution]] = {
    "uniform": o.UniformTimes,
    "log-normal": o.LogNormalTimes,
}


def process(config: c.ProcessConfig) -> Process:
    """Return the process."""
    return PROCESSES[config.kind](**_options(config))


def parametrization(config: c.ParametrizationConfig) -> p.Parametrization:
    """Return the parametrization."""
    return PARAMETRIZATIONS[config.kind](**_options(config))


def objective(config: c.TrainConfig) -> o.Objective:
    """Return the training objective."""
    weighting = WEIGHTINGS[config.weighting.kind](**_options(config.weighting))
    times = TIMES[config.times.kind](**_options(config.times))
    return o.Objective(weighting, times)


def network(config: c.NetworkConfig, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return a fresh network for samples of a shape.

    Raises:
        ValueError: a U-Net for samples that are not images ``(C, H, W)``.
    """
    config = concrete_network(config, shape)
    options = _options(config)
    if config.kind == "mlp":
        return MLP(math.prod(shape), classes=classes, **options)
    if len(shape) != 3:
        raise ValueError(
            f"a U-Net takes images (C, H, W), but one sample has shape {shape}: use an MLP."
        )
    return UNet(shape[0], classes=classes, **options)


def encoding(config: c.TrainConfig, data: c.DataConfig) -> Encoding:
    """Return the encoding of a run's data.

    Raises:
        ValueError: columns that do not fit the data.
    """
    if config.levels:
        return Levels(config.levels)
    columns = data.columns
    if len(data.shape) == 1 and columns != c.ColumnsConfig(names=columns.names):
        return Columns(columns, data.shape[0])
    return Continuous()


def _options(config: c.Frozen) -> dict[str, Any]:
    return config.model_dump(exclude={"kind"}, exclude_none=True)


def resolved(config: c.TrainConfig, shape: tuple[int, ...]) -> c.TrainConfig:
    """Return the configuration with every default filled in, for samples of a shape."""
    chosen = concrete_network(config.network, shape)
    built = process(config.process)
    interval = {"t_min": built.t_min, "t_max": built.t_max}
    return config.model_copy(
        update={
            "process": config.process.model_copy(update=interval),
            "network": chosen,
        }
    )


def concrete_network(config: c.NetworkConfig, shape: tuple[int, ...]) -> c.MLPConfig | c.UNetConfig:
    """Return the kind and width of network that a configuration stands for."""
    if config.kind == "auto":
        config = c.UNetConfig() if len(shape) == 3 else c.MLPConfig()
    if config.width is not None:
        return config
    kind = MLP if config.kind == "mlp" else UNet
    return config.model_copy(update={"width": inspect.signature(kind).parameters["width"].default})
