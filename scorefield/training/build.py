"""From a configuration to the objects it names."""

from __future__ import annotations

import math

from torch import nn

from scorefield import config as c
from scorefield import parametrization as p
from scorefield import processes
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
    return PROCESSES[config.kind](**config.model_dump(exclude={"kind"}))


def parametrization(config: c.ParametrizationConfig) -> p.Parametrization:
    """Return the parametrization."""
    return PARAMETRIZATIONS[config.kind](**config.model_dump(exclude={"kind"}))


def objective(config: c.TrainConfig) -> o.Objective:
    """Return the training objective."""
    weighting = WEIGHTINGS[config.weighting.kind](**config.weighting.model_dump(exclude={"kind"}))
    times = TIMES[config.times.kind](**config.times.model_dump(exclude={"kind"}))
    return o.Objective(weighting, times)


def network(config: c.NetworkConfig, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return a fresh network for samples of a shape.

    Raises:
        ValueError: a U-Net for samples that are not images ``(C, H, W)``.
    """
    options = config.model_dump(exclude={"kind"})
    if config.kind == "mlp":
        return MLP(math.prod(shape), classes=classes, **options)
    if len(shape) != 3:
        raise ValueError(
            f"a U-Net takes images (C, H, W), but one sample has shape {shape}: use an MLP."
        )
    return UNet(shape[0], classes=classes, **options)


def default_network(shape: tuple[int, ...]) -> c.NetworkConfig:
    """Return a U-Net for images and an MLP for the rest."""
    return c.UNetConfig() if len(shape) == 3 else c.MLPConfig()
