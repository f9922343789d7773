"""The configuration of a run: plain values that files, flags and Python share.

Nothing here imports torch, so that a command line can print its help at once;
`scorefield.runs.build` turns a configuration into the objects it names.

Where the members of a union share a name (``t_min``, ``width``), None stands for the default of the
class that is named; the configuration saved with a run has every value filled in.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from scorefield._internal.frozen import Frozen
from scorefield.data.config import DataConfig


class CustomConfig(Frozen):
    """An object of the user's own, which no configuration builds: the user brings it again.

    Attributes:
        name: class of an own object, for readers: nothing is imported by this name.
    """

    kind: Literal["custom"] = "custom"
    name: str = Field(default="", max_length=1000)


class VPConfig(Frozen):
    """Variance preserving.

    Attributes:
        beta_min: of vp and subvp, beta at time 0.
        beta_max: of vp and subvp, beta at time 1.
        t_min: where generation ends; the process's own default unless given.
        t_max: where generation starts; the process's own default unless given.
    """

    kind: Literal["vp"] = "vp"
    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float | None = None
    t_max: float | None = None


class SubVPConfig(Frozen):
    kind: Literal["subvp"] = "subvp"
    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float | None = None
    t_max: float | None = None


class VEConfig(Frozen):
    """Variance exploding.

    Attributes:
        sigma_min: of ve, the first rung of the noise ladder.
        sigma_max: of ve, the last rung.
    """

    kind: Literal["ve"] = "ve"
    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min: float | None = None
    t_max: float | None = None


class CosineConfig(Frozen):
    """Cosine.

    Attributes:
        offset: of cosine, the angle's head start.
    """

    kind: Literal["cosine"] = "cosine"
    offset: float = 0.008
    t_min: float | None = None
    t_max: float | None = None


class FlowConfig(Frozen):
    kind: Literal["flow"] = "flow"
    t_min: float | None = None
    t_max: float | None = None


class EDMConfig(Frozen):
    kind: Literal["edm"] = "edm"
    t_min: float | None = None
    t_max: float | None = None


class TabulatedConfig(Frozen):
    """A discrete table.

    Attributes:
        alpha_bar: of tabulated, the table of cumulative products.
    """

    kind: Literal["tabulated"] = "tabulated"
    alpha_bar: tuple[float, ...] = Field(max_length=10_000)
    t_min: float | None = None
    t_max: float | None = None


ProcessConfig = Annotated[
    VPConfig
    | SubVPConfig
    | VEConfig
    | CosineConfig
    | FlowConfig
    | EDMConfig
    | TabulatedConfig
    | CustomConfig,
    Field(discriminator="kind"),
]


class PlainParametrization(Frozen):
    kind: Literal["eps", "x0", "score", "v", "velocity"]


class PreconditionedConfig(Frozen):
    """EDM's preconditioning.

    Attributes:
        data_std: of preconditioned, the deviation of the data as the network sees it.
    """

    kind: Literal["preconditioned"] = "preconditioned"
    data_std: PositiveFloat = 1.0


ParametrizationConfig = Annotated[
    PlainParametrization | PreconditionedConfig | CustomConfig, Field(discriminator="kind")
]


class PlainLabel(Frozen):
    kind: Literal["noise", "ratio"] = "noise"


class TimeLabelConfig(Frozen):
    """The time.

    Attributes:
        scale: of time, what it is multiplied with.
    """

    kind: Literal["time"] = "time"
    scale: PositiveFloat = 1.0


LabelConfig = Annotated[PlainLabel | TimeLabelConfig | CustomConfig, Field(discriminator="kind")]


class PlainWeighting(Frozen):
    kind: Literal["simple", "likelihood"]


class EDMWeightingConfig(Frozen):
    """EDM's weighting.

    Attributes:
        data_std: of edm, the deviation of the data as the network sees it.
    """

    kind: Literal["edm"] = "edm"
    data_std: PositiveFloat = 1.0


class MinSNRConfig(Frozen):
    """Min-SNR weighting.

    Attributes:
        gamma: of min-snr, the signal-to-noise ratio above which errors count less.
    """

    kind: Literal["min-snr"] = "min-snr"
    gamma: PositiveFloat = 5.0


WeightingConfig = Annotated[
    PlainWeighting | EDMWeightingConfig | MinSNRConfig | CustomConfig, Field(discriminator="kind")
]


class UniformConfig(Frozen):
    kind: Literal["uniform"] = "uniform"


class LogNormalConfig(Frozen):
    """Log-normal noise levels.

    Attributes:
        mean: of log-normal, the mean of log(sigma / alpha).
        std: of log-normal, the deviation of log(sigma / alpha).
    """

    kind: Literal["log-normal"] = "log-normal"
    mean: float = -0.4
    std: PositiveFloat = 1.4


TimesConfig = Annotated[UniformConfig | LogNormalConfig | CustomConfig, Field(discriminator="kind")]


class MLPConfig(Frozen):
    """A residual perceptron.

    Attributes:
        width: of the hidden layers; the network's own default unless given.
        depth: of mlp, the residual blocks.
        recompute: keep nothing inside the blocks for the backward pass and compute it again there:
            less memory, about a third more time, the same gradients.
    """

    kind: Literal["mlp"] = "mlp"
    width: PositiveInt | None = None
    depth: PositiveInt = 4
    recompute: bool = False


Multipliers = Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=16)]
Levels = Annotated[tuple[NonNegativeInt, ...], Field(max_length=16)]
Taps = Annotated[tuple[float, ...], Field(min_length=2, max_length=16)]


class UNetConfig(Frozen):
    """A U-Net.

    Attributes:
        width: of the hidden layers; the network's own default unless given.
        multipliers: of unet, song and adm, each level's channels in multiples of the width.
        blocks: of unet, song and adm, the residual blocks per level.
        heads: of unet, the attention's heads.
        recompute: keep nothing inside the blocks for the backward pass and compute it again there:
            less memory, about a third more time, the same gradients.
    """

    kind: Literal["unet"] = "unet"
    width: PositiveInt | None = None
    multipliers: Multipliers = (1, 2)
    blocks: PositiveInt = 1
    heads: PositiveInt = 2
    recompute: bool = False


class SongConfig(Frozen):
    """DDPM++ and NCSN++.

    Attributes:
        width: of the hidden layers; the network's own default unless given.
        multipliers: of unet, song and adm, each level's channels in multiples of the width.
        blocks: of unet, song and adm, the residual blocks per level.
        attention: of song and adm, the levels with self-attention, 0 for the finest.
        embedding: of song, of the label: sinusoids of a position, or random Fourier features.
        widening: of song, the width of that embedding in multiples of the width.
        encoder: of song, what comes from beside on the way down.
        decoder: of song, whether the result comes from the finest level or from all.
        taps: of song, of the filter that images are halved and doubled through.
        rescaled: of song, divide sums of two branches by the root of 2.
        classless: of song and adm with classes, whether it learns what there is without one.
    """

    kind: Literal["song"] = "song"
    width: PositiveInt | None = None
    multipliers: Multipliers = (1, 2)
    blocks: PositiveInt = 1
    attention: Levels = ()
    embedding: Literal["positional", "fourier"] = "positional"
    widening: PositiveInt = 1
    encoder: Literal["standard", "skip", "residual"] = "standard"
    decoder: Literal["standard", "skip"] = "standard"
    taps: Taps = (1.0, 1.0)
    rescaled: bool = True
    classless: bool = True


class ADMConfig(Frozen):
    """ADM.

    Attributes:
        width: of the hidden layers; the network's own default unless given.
        multipliers: of unet, song and adm, each level's channels in multiples of the width.
        blocks: of unet, song and adm, the residual blocks per level.
        attention: of song and adm, the levels with self-attention, 0 for the finest.
        head: of adm, the channels of each head of the attention.
        variances: of adm, a second output for each channel is there, and left out.
        classless: of song and adm with classes, whether it learns what there is without one.
    """

    kind: Literal["adm"] = "adm"
    width: PositiveInt | None = None
    multipliers: Multipliers = (1, 2)
    blocks: PositiveInt = 1
    attention: Levels = ()
    head: PositiveInt = 64
    variances: bool = False
    classless: bool = True


class DiffusersConfig(Frozen):
    """A network of diffusers.

    Attributes:
        architecture: of diffusers, the name of its class there.
        arguments: of diffusers, what its class is made with, as the JSON text of an object.
        unconditional: of diffusers, the class that stands for none, if it has learned one.
    """

    kind: Literal["diffusers"] = "diffusers"
    architecture: Literal["UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel"]
    arguments: str = Field(max_length=65536)
    unconditional: int | None = Field(default=None, ge=0)


class AutoNetwork(Frozen):
    """A U-Net for images and an MLP for the rest, each with its defaults."""

    kind: Literal["auto"] = "auto"


NetworkConfig = Annotated[
    AutoNetwork | MLPConfig | UNetConfig | SongConfig | ADMConfig | DiffusersConfig | CustomConfig,
    Field(discriminator="kind"),
]


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, float | int) else value


def _some(value: tuple[float, ...]) -> tuple[float, ...]:
    if not value:
        raise ValueError("name a decay")
    return value


Decays = Annotated[
    tuple[Annotated[float, Field(ge=0, lt=1)], ...],
    BeforeValidator(_as_tuple),
    AfterValidator(_some),
]


class OptimConfig(Frozen):
    """How the network is fitted.

    Attributes:
        steps: optimizer steps.
        minutes: instead of steps, how long to train: after a trial the number of steps is fixed
            once, and the learning rate follows it; evaluations and samples come on top. 0 to go by
            steps.
        batch_size: samples per step.
        lr: AdamW's peak rate; it warms up linearly, then falls to zero as a cosine.
        warmup: steps of the warm-up.
        weight_decay: AdamW's.
        clip: largest norm of the gradient.
        accumulate: parts that a batch is taken in, one after another; less memory, the same steps.
        ema: decay of the average of the weights, which is what is kept; after n steps the decay is
            min(ema, (1 + n) / (10 + n)), so that early weights are forgotten. Of several, the first
            is the run's and the others are saved beside it.
        low_discrepancy: spread the noise levels evenly instead of drawing them independently.
        precision: of the network's arithmetic; weights stay float32.
        compile: compile the network for training.
    """

    steps: PositiveInt = 2000
    minutes: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    batch_size: PositiveInt = 128
    lr: PositiveFloat = 1e-3
    warmup: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    clip: PositiveFloat = 1.0
    accumulate: PositiveInt = 1
    ema: Decays = (0.999,)
    low_discrepancy: bool = True
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    compile: bool = False


class TrainConfig(Frozen):
    """All that decides a training run besides the data.

    Attributes:
        process: the forward process.
        parametrization: what the network predicts.
        label: how the network is told the noise level: noise is log(sigma / alpha) / 4, ratio is
            sigma / alpha, and time the process's own time.
        weighting: of the loss over noise levels.
        times: how noise levels are drawn.
        network: the kind of network and its size.
        optim: the optimizer.
        levels: of whole numbers from 0, how many values there are: noise between them makes the
            data continuous in training, samples are whole numbers again, and likelihoods are bits
            per dimension; 0 for data that is continuous.
        conditional: learn the classes too.
        dropout: how often a class is hidden, so that the unconditional field is learned as well.
        held_out: the share of the data that is never trained on, to measure the error there; which
            samples these are depends on the seed.
        seed: of the weights, the order of the data and the noise.
    """

    process: ProcessConfig = VPConfig()
    parametrization: ParametrizationConfig = PreconditionedConfig()
    label: LabelConfig = PlainLabel()
    weighting: WeightingConfig = EDMWeightingConfig()
    times: TimesConfig = LogNormalConfig()
    network: NetworkConfig = AutoNetwork()
    optim: OptimConfig = OptimConfig()
    levels: int = Field(default=0, ge=0, le=65536)
    conditional: bool = False
    dropout: float = Field(default=0.1, ge=0, le=1)
    held_out: float = Field(default=0.0, ge=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=2**64)


class RunConfig(Frozen):
    """The readable half of a checkpoint; with the weights beside it, a run is complete.

    Attributes:
        loss: at the end of training; None for a run that was imported.
        source: where it was imported from; None for one that was trained here.
    """

    version: Literal[1] = 1
    data: DataConfig
    train: TrainConfig
    loss: float | None = None
    source: str | None = None
