"""The configuration of a run: plain values that files, flags and Python share.

Nothing here imports torch, so that a command line can print its help at once;
`scorefield.training.build` turns a configuration into the objects it names.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt


class Frozen(BaseModel):
    """A configuration: immutable, and strict about names."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class VPConfig(Frozen):
    kind: Literal["vp"] = "vp"
    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-5
    t_max: float = 1.0


class SubVPConfig(Frozen):
    kind: Literal["subvp"] = "subvp"
    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0


class VEConfig(Frozen):
    kind: Literal["ve"] = "ve"
    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min: float = 1e-5
    t_max: float = 1.0


class CosineConfig(Frozen):
    kind: Literal["cosine"] = "cosine"
    offset: float = 0.008
    t_min: float = 1e-4
    t_max: float = 0.999


class FlowConfig(Frozen):
    kind: Literal["flow"] = "flow"
    t_min: float = 1e-3
    t_max: float = 0.999


class EDMConfig(Frozen):
    kind: Literal["edm"] = "edm"
    t_min: float = 0.002
    t_max: float = 80.0


class TabulatedConfig(Frozen):
    kind: Literal["tabulated"] = "tabulated"
    alpha_bar: tuple[float, ...]
    t_min: float = 0.0
    t_max: float = float("inf")


ProcessConfig = Annotated[
    VPConfig | SubVPConfig | VEConfig | CosineConfig | FlowConfig | EDMConfig | TabulatedConfig,
    Field(discriminator="kind"),
]


class PlainParametrization(Frozen):
    kind: Literal["eps", "x0", "score", "v", "velocity"]


class PreconditionedConfig(Frozen):
    kind: Literal["preconditioned"] = "preconditioned"
    data_std: PositiveFloat = 1.0


ParametrizationConfig = Annotated[
    PlainParametrization | PreconditionedConfig, Field(discriminator="kind")
]


class PlainWeighting(Frozen):
    kind: Literal["simple", "likelihood"]


class EDMWeightingConfig(Frozen):
    kind: Literal["edm"] = "edm"
    data_std: PositiveFloat = 1.0


class MinSNRConfig(Frozen):
    kind: Literal["min-snr"] = "min-snr"
    gamma: PositiveFloat = 5.0


WeightingConfig = Annotated[
    PlainWeighting | EDMWeightingConfig | MinSNRConfig, Field(discriminator="kind")
]


class UniformConfig(Frozen):
    kind: Literal["uniform"] = "uniform"


class LogNormalConfig(Frozen):
    kind: Literal["log-normal"] = "log-normal"
    mean: float = -0.4
    std: PositiveFloat = 1.4


TimesConfig = Annotated[UniformConfig | LogNormalConfig, Field(discriminator="kind")]


class MLPConfig(Frozen):
    kind: Literal["mlp"] = "mlp"
    width: PositiveInt = 256
    depth: PositiveInt = 4


class UNetConfig(Frozen):
    kind: Literal["unet"] = "unet"
    width: PositiveInt = Field(default=32, multiple_of=8)
    multipliers: tuple[PositiveInt, ...] = Field(default=(1, 2), min_length=1)
    blocks: PositiveInt = 1
    heads: PositiveInt = 2


NetworkConfig = Annotated[MLPConfig | UNetConfig, Field(discriminator="kind")]


class OptimConfig(Frozen):
    """How the network is fitted.

    Attributes:
        steps: optimizer steps.
        batch: samples per step.
        lr: AdamW's peak rate; it warms up linearly, then falls to zero as a cosine.
        warmup: steps of the warm-up.
        weight_decay: AdamW's.
        clip: largest norm of the gradient.
        ema: decay of the average of the weights, which is what is kept.
        low_discrepancy: spread the noise levels evenly instead of drawing them independently.
        precision: of the network's arithmetic; weights stay float32.
    """

    steps: PositiveInt = 2000
    batch: PositiveInt = 128
    lr: PositiveFloat = 1e-3
    warmup: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    clip: PositiveFloat = 1.0
    ema: float = Field(default=0.999, ge=0, lt=1)
    low_discrepancy: bool = True
    precision: Literal["float32", "bfloat16"] = "float32"


class TrainConfig(Frozen):
    """All that decides a training run besides the data.

    Attributes:
        network: a U-Net for images and an MLP for the rest unless given.
        conditional: learn the classes too.
        dropout: how often a class is hidden, so that the unconditional field is learned as well.
    """

    process: ProcessConfig = VPConfig()
    parametrization: ParametrizationConfig = PreconditionedConfig()
    weighting: WeightingConfig = EDMWeightingConfig()
    times: TimesConfig = LogNormalConfig()
    network: NetworkConfig | None = None
    optim: OptimConfig = OptimConfig()
    conditional: bool = False
    dropout: float = Field(default=0.1, ge=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**64)


class DataConfig(Frozen):
    """What the network was trained on.

    Attributes:
        name: the source as it was given.
        shape: of one sample.
        count: of samples.
        classes: 0 unless the run is conditional.
    """

    name: str
    shape: tuple[PositiveInt, ...]
    count: PositiveInt
    classes: int = Field(default=0, ge=0)


class RunConfig(Frozen):
    """The readable half of a checkpoint; with the weights beside it, a run is complete."""

    version: Literal[1] = 1
    data: DataConfig
    train: TrainConfig
    loss: float
