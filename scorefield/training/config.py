"""The configuration of a run: plain values that files, flags and Python share.

Nothing here imports torch, so that a command line can print its help at once;
`scorefield.runs.build` turns a configuration into objects. The parameters and defaults of each kind
are those of the class that it names, with limits for values from files; a test compares them.

Where the members of a union share a name (``t_min``, ``width``), None stands for the default of the
class. The configuration saved with a run has every value filled in.
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
    """An object of the user's own, which no configuration can build.

    Attributes:
        name: Class of your own object, for information only; nothing is imported by it (custom).
    """

    kind: Literal["custom"] = "custom"
    name: str = Field(default="", max_length=1000)


class _Process(Frozen):
    kind: str
    t_min: float | None = None
    t_max: float | None = None


class VPConfig(_Process):
    """Variance preserving.

    Attributes:
        beta_min: Beta at time 0 (vp, subvp).
        beta_max: Beta at time 1 (vp, subvp).
        t_min: Time at which generation ends; the default depends on the process.
        t_max: Time at which generation starts; the default depends on the process.
    """

    kind: Literal["vp"] = "vp"
    beta_min: float = 0.1
    beta_max: float = 20.0


class SubVPConfig(_Process):
    kind: Literal["subvp"] = "subvp"
    beta_min: float = 0.1
    beta_max: float = 20.0


class VEConfig(_Process):
    """Variance exploding.

    Attributes:
        sigma_min: Smallest noise level (ve).
        sigma_max: Largest noise level (ve).
    """

    kind: Literal["ve"] = "ve"
    sigma_min: float = 0.01
    sigma_max: float = 50.0


class CosineConfig(_Process):
    """Cosine.

    Attributes:
        offset: Offset of the angle at time 0 (cosine).
    """

    kind: Literal["cosine"] = "cosine"
    offset: float = 0.008


class SigmoidConfig(_Process):
    """Sigmoid.

    Attributes:
        start: Place on the logistic curve at time 0 (sigmoid).
        end: Place on the logistic curve at time 1 (sigmoid).
        tau: Width of the logistic curve (sigmoid).
    """

    kind: Literal["sigmoid"] = "sigmoid"
    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0


class FlowConfig(_Process):
    kind: Literal["flow"] = "flow"


class EDMConfig(_Process):
    kind: Literal["edm"] = "edm"


class BrownianConfig(_Process):
    """Brownian motion on a space.

    Attributes:
        space: Space of the points, such as sphere or so3,euclidean:3 (brownian); the default is
            that of the data.
    """

    kind: Literal["brownian"] = "brownian"
    space: str | None = Field(default=None, max_length=1000)


class TabulatedConfig(_Process):
    """A discrete table.

    Attributes:
        alpha_bar: Table of cumulative products (tabulated).
    """

    kind: Literal["tabulated"] = "tabulated"
    alpha_bar: tuple[float, ...] = Field(max_length=10_000)


ProcessConfig = Annotated[
    VPConfig
    | SubVPConfig
    | VEConfig
    | CosineConfig
    | SigmoidConfig
    | FlowConfig
    | EDMConfig
    | TabulatedConfig
    | BrownianConfig
    | CustomConfig,
    Field(discriminator="kind"),
]


class PlainParametrization(Frozen):
    kind: Literal["eps", "x0", "score", "v", "velocity"]


class PreconditionedConfig(Frozen):
    """EDM's preconditioning.

    Attributes:
        data_std: Standard deviation of the field's data (preconditioned).
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
        scale: Factor of the time (time).
    """

    kind: Literal["time"] = "time"
    scale: PositiveFloat = 1.0


LabelConfig = Annotated[PlainLabel | TimeLabelConfig | CustomConfig, Field(discriminator="kind")]


class PlainWeighting(Frozen):
    kind: Literal["simple", "likelihood", "flow-matching"]


class EDMWeightingConfig(Frozen):
    """EDM's weighting.

    Attributes:
        data_std: Standard deviation of the field's data (edm).
    """

    kind: Literal["edm"] = "edm"
    data_std: PositiveFloat = 1.0


class MinSNRConfig(Frozen):
    """Min-SNR weighting.

    Attributes:
        gamma: Signal-to-noise ratio above which errors count less (min-snr).
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
        mean: Mean of log(sigma / alpha) (log-normal).
        std: Standard deviation of log(sigma / alpha) (log-normal).
    """

    kind: Literal["log-normal"] = "log-normal"
    mean: float = -0.4
    std: PositiveFloat = 1.4


class LogitNormalConfig(Frozen):
    """Logit-normal times.

    Attributes:
        logit_mean: Mean of the logit of the time (logit-normal).
        logit_std: Standard deviation of the logit of the time (logit-normal).
    """

    kind: Literal["logit-normal"] = "logit-normal"
    logit_mean: float = 0.0
    logit_std: PositiveFloat = 1.0


TimesConfig = Annotated[
    UniformConfig | LogNormalConfig | LogitNormalConfig | CustomConfig, Field(discriminator="kind")
]
CouplingKind = Literal["independent", "ot", "entropic", "reflow", "paired", "other"]
Multipliers = Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=16)]
Levels = Annotated[tuple[NonNegativeInt, ...], Field(max_length=16)]
Taps = Annotated[tuple[float, ...], Field(min_length=2, max_length=16)]


class MLPConfig(Frozen):
    """A residual perceptron.

    Attributes:
        width: Width of the hidden layers; the default depends on the network.
        depth: Residual blocks (mlp).
        recompute: Recompute the inside of the blocks in the backward pass instead of storing it
            (mlp, unet). That takes less memory and about a third more time, for the same gradients.
        components: Principal components of the data in the Wiener filter, the best linear denoiser,
            which the network then corrects; 0 for none (mlp, unet, song, adm, dit).
    """

    kind: Literal["mlp"] = "mlp"
    width: PositiveInt | None = None
    depth: PositiveInt = 4
    recompute: bool = False
    components: NonNegativeInt = 0


class _Levels(Frozen):
    kind: str
    width: PositiveInt | None = None
    multipliers: Multipliers | None = None
    blocks: PositiveInt = 1
    components: NonNegativeInt = 0


class UNetConfig(_Levels):
    """A U-Net.

    Attributes:
        multipliers: Channel multiplier of each resolution level (unet, song, adm). The default of
            unet is 1, 2 for images, and has more levels for long signals and large volumes.
        blocks: Residual blocks of each level (unet, song, adm).
        heads: Attention heads (unet).
        positions: Add waves along each axis to the input (unet); the default is to do so for
            signals only.
        cross_attention: Attend to the vectors of conditions that are sets, from the places of the
            coarsest level (unet) or from the patches (dit).
    """

    kind: Literal["unet"] = "unet"
    heads: PositiveInt = 2
    recompute: bool = False
    positions: bool | None = None
    cross_attention: bool = False


class SongConfig(_Levels):
    """DDPM++ and NCSN++.

    Attributes:
        attention: Levels with self-attention, 0 for the finest (song, adm).
        embedding: Embedding of the noise level: sinusoids, or random Fourier features (song).
        widening: Width of that embedding, in multiples of the width (song).
        encoder: Connection of each encoder level to the input (song).
        decoder: Whether the output comes from the finest level or from all levels (song).
        taps: Filter through which images are halved and doubled (song).
        rescaled: Divide sums of two branches by the root of 2 (song).
        classless: Learn the unconditional field too, in a conditional run (song, adm, dit).
    """

    kind: Literal["song"] = "song"
    attention: Levels = ()
    embedding: Literal["positional", "fourier"] = "positional"
    widening: PositiveInt = 1
    encoder: Literal["standard", "skip", "residual"] = "standard"
    decoder: Literal["standard", "skip"] = "standard"
    taps: Taps = (1.0, 1.0)
    rescaled: bool = True
    classless: bool = True


class ADMConfig(_Levels):
    """ADM.

    Attributes:
        head: Channels per head (adm, dit).
        fixed_heads: Heads of every level instead, if not 0 (adm).
        variances: Expect a second output for each channel, which is ignored (adm, dit).
    """

    kind: Literal["adm"] = "adm"
    attention: Levels = ()
    head: PositiveInt = 64
    fixed_heads: NonNegativeInt = 0
    variances: bool = False
    classless: bool = True


class DiTConfig(Frozen):
    """DiT, a transformer.

    Attributes:
        layers: Blocks of attention and perceptron (dit).
        patch: Side of a patch, in pixels or in places of a signal (dit).
    """

    kind: Literal["dit"] = "dit"
    width: PositiveInt | None = None
    layers: PositiveInt = 6
    head: PositiveInt = 64
    patch: PositiveInt = 2
    variances: bool = False
    classless: bool = True
    cross_attention: bool = False
    components: NonNegativeInt = 0


class DiffusersConfig(Frozen):
    """A network of diffusers.

    Attributes:
        architecture: Name of the class in diffusers (diffusers).
        arguments: Arguments of that class, as the JSON text of an object (diffusers).
        unconditional: Class that stands for "no class", if it was learned (diffusers).
    """

    kind: Literal["diffusers"] = "diffusers"
    architecture: Literal["UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel"]
    arguments: str = Field(max_length=65536)
    unconditional: int | None = Field(default=None, ge=0)


class AutoNetwork(Frozen):
    """A U-Net for signals, images and volumes, and an MLP for vectors, each with its defaults."""

    kind: Literal["auto"] = "auto"
    components: NonNegativeInt = 0


NetworkConfig = Annotated[
    AutoNetwork
    | MLPConfig
    | UNetConfig
    | SongConfig
    | ADMConfig
    | DiTConfig
    | DiffusersConfig
    | CustomConfig,
    Field(discriminator="kind"),
]


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, float | int) else value


def _some(value: tuple[float, ...]) -> tuple[float, ...]:
    if not value:
        raise ValueError("ema=(): give at least one decay")
    return value


Decays = Annotated[
    tuple[Annotated[float, Field(ge=0, lt=1)], ...],
    BeforeValidator(_as_tuple),
    AfterValidator(_some),
]


class OptimConfig(Frozen):
    """The optimizer and its schedule.

    Attributes:
        steps: Optimizer steps; the default depends on the number of samples.
        minutes: Training time, instead of a number of steps; 0 to use steps. A short trial measures
            the time of a step and fixes their number. Evaluations and samples take extra time.
        batch_size: Samples per step.
        lr: Peak learning rate of AdamW, after a linear warm-up and before a cosine decay to zero.
        warmup: Steps of the warm-up.
        weight_decay: Weight decay of AdamW.
        clip: Largest norm of the gradient.
        accumulate: Parts of a batch that are computed one after another, to save memory.
        ema: Decay of the average of the weights, which the run uses. After n steps the decay is
            min(ema, (1 + n) / (10 + n)), so that early weights are forgotten. With several decays
            the run uses the first, and the other averages are saved too.
        low_discrepancy: Spread the noise levels evenly instead of drawing them independently.
        precision: Number format of the network's arithmetic; weights stay float32.
        compile: Compile the network for training.
    """

    steps: PositiveInt | None = None
    minutes: float = Field(default=0.0, ge=0, le=525_600)  # of a year
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
    """All settings of a training run.

    Attributes:
        process: The forward process.
        parametrization: Quantity that the network predicts.
        label: The network's input for the noise level: noise is log(sigma / alpha) / 4, ratio is
            sigma / alpha, and time is the time of the process.
        weighting: Weight of the loss at each noise level.
        times: Distribution of the training times.
        network: Kind of network and its size.
        coupling: Noise of each sample. independent makes a score field. ot exchanges the noise in
            each batch by optimal transport, and reflow takes the noise that a run made the sample
            of, for straighter paths; such runs have a velocity and no score, so that only solvers
            of the ODE sample them. For two data sets, paired joins them row by row, and entropic is
            that of a Schrödinger bridge. other is for imported networks.
        bridge: Noise between two data sets: the diffusion of Brownian bridges between the pairs, in
            the units of the field; 0 for none. Its square is the regularisation of the entropic
            coupling. The network then learns a score too, for translations with noise.
        coupling_seed: Seed of the samples that a reflow learns from, samples 0, 1, ... of a run.
        optim: The optimizer.
        levels: Number of values, for data of whole numbers from 0, such as 256 for bytes; 0 for
            continuous data. Training adds noise to make such data continuous, samples are whole
            numbers again, and likelihoods are in bits per dimension.
        conditional: Learn the classes too.
        dropout: Probability that a class is hidden, so that the unconditional field is learned too.
        held_out: Share of the data that is never trained on, to measure the error there. The seed
            decides which samples these are. The default is 0.1 of 200 samples or more, at most 1024
            samples, and 0 of fewer.
        evaluate_every: Steps between measurements of the error on held-out data; 0 for steps that
            grow by a fifth, 25, 30, 36 and so on, at most 500 apart. Also after the last step.
        end: Weights that the run ends with. last are those after all steps, best are those of the
            smallest error on held-out data, and early is the same but stops when that error has
            risen for long. The default is early, and best with a number of steps or minutes.
        seed: Seed of the weights, the order of the data and the noise.
    """

    process: ProcessConfig = VPConfig()
    parametrization: ParametrizationConfig = PreconditionedConfig()
    label: LabelConfig = PlainLabel()
    weighting: WeightingConfig = EDMWeightingConfig()
    times: TimesConfig = LogNormalConfig()
    network: NetworkConfig = AutoNetwork()
    coupling: CouplingKind = "independent"
    coupling_seed: int = Field(default=0, ge=0, lt=2**64)
    bridge: float = Field(default=0.0, ge=0, le=1000)
    optim: OptimConfig = OptimConfig()
    levels: int = Field(default=0, ge=0, le=65536)
    conditional: bool = False
    dropout: float = Field(default=0.1, ge=0, le=1)
    held_out: float | None = Field(default=None, ge=0, lt=1)
    evaluate_every: int = Field(default=0, ge=0)
    end: Literal["early", "best", "last"] | None = None
    seed: int = Field(default=0, ge=0, lt=2**64)


class RunConfig(Frozen):
    """The configuration file of a run, which is complete with its weights.

    Attributes:
        loss: At the end of training; None for an imported run.
        step: The step of the weights; None for the last one.
        source: Origin of an imported run; None for one that was trained here.
    """

    version: Literal[1] = 1
    data: DataConfig
    train: TrainConfig
    loss: float | None = None
    step: int | None = None
    source: str | None = None
