"""From a configuration to the objects it names."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from scorefield import networks
from scorefield._internal.errors import CheckpointError, UsageError
from scorefield._internal.frozen import Frozen
from scorefield.data.config import (
    Channel,
    ClassChannel,
    CodecConfig,
    DataConfig,
    ImageChannel,
    SetChannel,
    TrainedCodecConfig,
    value_shape,
)
from scorefield.data.encoding import Continuous, Encoding, Levels, Standardize
from scorefield.field import (
    Denoiser,
    Label,
    Scaled,
    noise_label,
    parametrization as p,
    ratio_label,
    time_label,
)
from scorefield.networks.conditions import (
    Classes,
    Condition,
    Images,
    Numbers,
    Spatial,
    Vectors,
)
from scorefield.process import Process, builtin as processes
from scorefield.training import config as c, objective as o

if TYPE_CHECKING:
    from scorefield.networks import Codec
    from scorefield.training.couplings import Coupling

MOST_COLUMNS = 2**24
_COARSEST = {1: 32, 3: 8}  # longest side of a U-Net's coarsest level, of signals and of volumes
_MULTIPLIERS = (1, 2, 2, *[4] * 13)  # of a U-Net's levels
MOST_TENSORS = 10_000  # of a network: each is an object, and an entry of a header


def _brownian(space: str, **times: float) -> Process:
    from scorefield.spaces import Brownian, parse  # for points of a space alone

    return Brownian(parse(space), **times)


PROCESSES: dict[str, Callable[..., Process]] = {
    "vp": processes.VP,
    "subvp": processes.SubVP,
    "ve": processes.VE,
    "cosine": processes.Cosine,
    "sigmoid": processes.Sigmoid,
    "flow": processes.Flow,
    "edm": processes.EDM,
    "tabulated": processes.Tabulated,
    "brownian": _brownian,
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
    "flow-matching": o.FlowMatching,
    "edm": o.EDMWeighting,
    "min-snr": o.MinSNR,
}
LABELS: dict[str, Label] = {"noise": noise_label, "ratio": ratio_label, "time": time_label}


class _Networks(Mapping[str, Callable[..., nn.Module]]):
    """The networks by their kinds; each is imported when it is used."""

    names: ClassVar = {
        "mlp": "MLP",
        "unet": "UNet",
        "song": "SongUNet",
        "adm": "ADM",
        "dit": "DiT",
        "diffusers": "Diffusers",
    }

    def __getitem__(self, kind: str) -> Callable[..., nn.Module]:
        constructor: Callable[..., nn.Module] = getattr(networks, self.names[kind])
        return constructor

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


NETWORKS = _Networks()
TIMES: dict[str, type[o.TimeDistribution]] = {
    "uniform": o.UniformTimes,
    "log-normal": o.LogNormalTimes,
    "logit-normal": o.LogitNormalTimes,
}
_KINDS: dict[str, Mapping[str, Any]] = {
    "network": NETWORKS,
    "process": PROCESSES,
    "parametrization": PARAMETRIZATIONS,
    "label": LABELS,
    "weighting": WEIGHTINGS,
    "times": TIMES,
}


@dataclass(frozen=True)
class Objects:
    """The user's own objects, which replace the objects of a configuration.

    Attributes:
        network: a module with the call of `scorefield.field.Denoiser`.
    """

    network: nn.Module | None = None
    process: Process | None = None
    parametrization: p.Parametrization | None = None
    label: Label | None = None
    weighting: o.Weighting | None = None
    times: o.TimeDistribution | None = None

    @classmethod
    def of(cls, network: nn.Module | Denoiser | None, **others: Any) -> Objects:
        """Return the objects of a bare network, or all those of a denoiser."""
        if isinstance(network, Denoiser):
            names = ("network", "process", "parametrization", "label")
            return cls(**{name: getattr(network, name) for name in names} | others)
        return cls(network, **others)

    def described(self, config: c.TrainConfig) -> c.TrainConfig:
        """Return the configuration with these objects in it: by their kinds, or as custom."""
        own = {name: getattr(self, name) for name in _KINDS}
        changes = {k: _description(v, _KINDS[k]) for k, v in own.items() if v is not None}
        return c.TrainConfig.model_validate({**dict(config), **changes}) if changes else config


NONE = Objects()


def objects_on(space: Any, objects: Objects) -> Objects:
    """Return the user's objects for a process on a space: a network is one of points.

    Raises:
        UsageError: a space of the user's own without a network.
    """
    from scorefield.spaces import SpaceNetwork, name_of

    network = objects.network
    if network is None and name_of(space) is None:
        raise UsageError(
            f"network=None: {space} is a space of your own; pass a network for the "
            f"{SpaceNetwork.count(space)} coordinates of its points."
        )
    if network is None or isinstance(network, SpaceNetwork):
        return objects
    return dataclasses.replace(objects, network=SpaceNetwork(network, space))


def _description(value: Any, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of an object of one of the kinds, or of the user's own."""
    scaled = isinstance(value, Scaled)
    for kind, constructor in kinds.items():
        if constructor is value or (scaled and kind == "time" and constructor is value.label):
            return {"kind": kind, **({"scale": value.factor} if scaled else {})}
        if type(value) is constructor and dataclasses.is_dataclass(value):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            return {"kind": kind, **{name: _plain(field) for name, field in fields.items()}}
    if isinstance(value, Process) and value.space is not None:
        from scorefield.spaces import Brownian, name_of

        if type(value) is Brownian and (name := name_of(value.space)):
            return {"kind": "brownian", "space": name, "t_min": value.t_min, "t_max": value.t_max}
    own = value if hasattr(value, "__qualname__") else type(value)
    return {"kind": "custom", "name": f"{own.__module__}.{own.__qualname__}"}


def _plain(value: Any) -> Any:
    return tuple(map(float, value)) if isinstance(value, Tensor | Sequence) else value


def process(config: c.ProcessConfig, own: Process | None = None) -> Process:
    """Return the user's own process, or the configured one.

    Raises:
        UsageError: Brownian motion without a space.
    """
    if own is None and config.kind == "brownian" and config.space is None:
        raise UsageError(
            "process=brownian: give the space of the data, as in space='sphere', or as "
            "--space sphere at the command line."
        )
    result: Process = _constructor("process", config)(**_options(config)) if own is None else own
    return result


def parametrization(
    config: c.ParametrizationConfig, own: p.Parametrization | None = None
) -> p.Parametrization:
    """Return the user's own parametrization, or the configured one."""
    if own is None:
        own = _constructor("parametrization", config)(**_options(config))
    return own


def label(config: c.LabelConfig, own: Label | None = None) -> Label:
    """Return the user's own noise label, or the configured one."""
    if own is not None:
        return own
    plain: Label = _constructor("label", config)
    return Scaled(plain, config.scale) if config.kind == "time" else plain


def objective(config: c.TrainConfig, objects: Objects = NONE) -> o.Objective:
    """Return the training objective."""
    weighting, times = (
        getattr(objects, name) or _constructor(name, each)(**_options(each))
        for name, each in (("weighting", config.weighting), ("times", config.times))
    )
    return o.Objective(weighting, times)


def coupling(config: c.TrainConfig) -> Coupling | None:
    """Return the coupling of data and noise; None if they are independent.

    Raises:
        UsageError: one that is for imported networks.
    """
    if config.coupling == "other":
        raise UsageError(
            "coupling='other': stands for pairs of an imported network; train with independent, "
            "ot or reflow."
        )
    from scorefield.training.couplings import Entropic, OptimalTransport, Reflow  # for training

    kinds: dict[str, Coupling] = {
        "ot": OptimalTransport(),
        "entropic": Entropic(config.bridge),
        "reflow": Reflow(config.coupling_seed),
    }
    return kinds.get(config.coupling)


def _constructor(name: str, config: Any) -> Any:
    """Return the constructor of a kind.

    Raises:
        UsageError: an object of the user's own.
    """
    if config.kind == "custom":
        raise UsageError(
            f"{name}={config.name or 'custom'}: a configuration cannot build an object of your "
            f"own; pass the object as {name}=."
        )
    return _KINDS[name][config.kind]


@torch.no_grad()
def check_network(denoiser: Denoiser, data: DataConfig, hidden: bool) -> None:
    """Call a network of the user's own once, as a field does.

    Args:
        data: with NaN after the ends of its signals, if they are of several lengths.
        hidden: whether conditions are hidden from it at times, by -1 or NaN.

    Raises:
        UsageError: it fails, or returns another shape than that of its input, or NaN before the end
            of a signal.
    """
    device = next((p.device for p in denoiser.network.parameters()), torch.device("cpu"))
    x = torch.zeros(2, *denoiser.shape, device=device)
    if data.lengths:
        x[1, :, -1] = torch.nan
    condition = {ch.key: _example(ch, hidden).to(device) for ch in data.conditions}
    was_training = denoiser.network.training
    denoiser.network.eval()
    names = "".join(f", {name}={name}" for name in condition)
    call = (
        f"network={type(denoiser.network).__name__}: network(x, label{names}) with "
        f"x of shape {tuple(x.shape)}"
    )
    try:
        result = denoiser.ask(x, x.new_zeros(()), **condition)
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        advice = ""
        if condition and hidden:
            advice = " A hidden class is -1, and NaN hides others; learn them, or set dropout=0."
        raise UsageError(f"{call} fails: {str(error).splitlines()[0]}.{advice}") from error
    finally:
        denoiser.network.train(was_training)
    expected = (2, (1 + (denoiser.bridge > 0)) * x.shape[1], *x.shape[2:])
    shape = tuple(result.shape)
    if shape != expected:
        twice = ", with twice the channels: velocity and noise" if denoiser.bridge else ""
        raise UsageError(f"{call} returns shape {shape}: return the shape of x{twice}.")
    if data.lengths and bool(result[..., :-1].isnan().any()):
        raise UsageError(
            f"{call}, and NaN after the end of the second signal, returns NaN before that end too: "
            "replace them in the network, as by x.nan_to_num()."
        )


def _example(channel: Channel, hidden: bool) -> Tensor:
    """Return two values of a condition, of which the second may be hidden."""
    if channel.kind == "class":
        return torch.tensor([0, -1 if hidden else 0])
    value = torch.zeros(2, *value_shape(channel))
    value[1] = torch.nan if hidden else 0.0
    return value


class Design(NamedTuple):
    """A network to build: its settings, and its samples and conditions.

    Attributes:
        config: the settings.
        shape: of a sample.
        channels: the conditions.
        ends: whether samples are signals that may end before the last place.
        heads: outputs for each channel of a sample.
        space: of the samples, by its name; None for vectors.
    """

    config: c.NetworkConfig
    shape: tuple[int, ...]
    channels: Sequence[Channel] = ()
    ends: bool = False
    heads: int = 1
    space: str | None = None

    @classmethod
    def of(cls, config: c.TrainConfig, data: DataConfig) -> Design:
        """Return the design of a run's network.

        Raises:
            ValueError: as `field_shape`.
        """
        heads, ends = 2 if config.bridge else 1, bool(data.lengths)
        shape, space = field_shape(config, data), space_of(config)
        return cls(config.network, shape, data.conditions, ends, heads, space)


def network(design: Design) -> nn.Module:
    """Return a fresh network.

    Raises:
        ValueError: samples of a shape that the network does not take, or that do not halve between
            its levels; components of signals of several lengths; images as conditions of an MLP;
            other settings that the network rejects.
    """
    config, shape, channels, ends, heads, space = design
    if space is not None:
        from scorefield.spaces import SpaceNetwork, parse

        points = parse(space)
        inner = network(Design(config, (SpaceNetwork.count(points),), channels))
        return SpaceNetwork(inner, points)
    if ends:
        if getattr(config, "components", 0):
            raise ValueError("network.components: not for signals of several lengths; use 0.")
        channels_in, places = shape
        inner = network(Design(config, (channels_in + 1, places), channels))
        from scorefield.networks.masked import Masked  # for signals of several lengths alone

        return Masked(inner, channels_in, places)
    if heads > 1:
        inner = network(Design(config, (heads * shape[0], *shape[1:]), channels))
        from scorefield.networks.heads import TwoHeads  # for noise between two data sets alone

        return TwoHeads(inner)
    config = concrete_network(config, shape)
    if components := getattr(config, "components", 0):
        plain = config.model_copy(update={"components": 0})
        inner = network(Design(plain, shape, channels))
        return networks.Wiener(inner, math.prod(shape), components)
    constructor = _constructor("network", config)
    options = _options(config)
    options.pop("components", None)
    optional = options.pop("classless", True)
    images = {ch.key: Images(ch.shape[0]) for ch in channels if isinstance(ch, ImageChannel)}
    conditions = {
        ch.key: _condition(ch, optional) for ch in channels if not isinstance(ch, ImageChannel)
    }
    if config.kind == "mlp":
        if images:
            raise ValueError(
                f"condition {next(iter(images))} is an image: an MLP takes none; use a U-Net."
            )
        return networks.MLP(math.prod(shape), conditions=conditions, **options)
    dims = len(shape) - 1
    if config.kind in ("unet", "dit"):
        if dims not in (1, 2, 3):
            raise ValueError(
                f"network {config.kind} takes signals (C, L), images (C, H, W) and volumes "
                f"(C, D, H, W), but one sample has shape {shape}: use an MLP."
            )
        options["dims"] = dims
    elif dims != 2:
        raise ValueError(
            f"network {config.kind} takes images (C, H, W), but one sample has shape {shape}: "
            "use an MLP or a U-Net."
        )
    if config.kind in ("song", "adm"):
        levels = len(options["multipliers"])
        halved = f"to be halved between the {levels} levels of the network"
        _check_sides(shape, 2 ** (levels - 1), halved)
    if images and config.kind == "diffusers":
        raise ValueError(
            f"condition {next(iter(images))} is an image: a network of diffusers takes none."
        )
    inputs = shape[0] + Spatial.extra(images)
    result: nn.Module = constructor(inputs, conditions=conditions, **options)
    if config.kind == "diffusers":
        assert isinstance(result, networks.Diffusers)
        _check_sides(shape, result.multiple, f"for {result.architecture} to divide them")
    return Spatial(result, images, shape[0]) if images else result


def _condition(channel: Channel, optional: bool) -> Condition:
    if isinstance(channel, ClassChannel):
        return Classes(channel.count, optional)
    assert not isinstance(channel, ImageChannel)
    return Vectors(channel.size) if isinstance(channel, SetChannel) else Numbers(channel.size)


def _check_sides(shape: tuple[int, ...], multiple: int, why: str) -> None:
    if any(side % multiple for side in shape[1:]):
        raise ValueError(
            f"images of {shape[1]} by {shape[2]} pixels: both sides must be multiples of "
            f"{multiple}, {why}."
        )


def is_classless(config: c.NetworkConfig) -> bool:
    """Return whether a conditional network also takes no class, -1."""
    if config.kind in ("song", "adm", "dit"):
        return config.classless
    return config.kind != "diffusers" or config.unconditional is not None


def codec(config: CodecConfig | TrainedCodecConfig, sample: tuple[int, ...] = ()) -> Codec:
    """Return a fresh codec.

    Args:
        sample: the shape of the samples of a codec that is trained here.

    Raises:
        ValueError: as `scorefield.networks.DiffusersCodec`; samples that are too large.
    """
    if isinstance(config, CodecConfig):
        return networks.DiffusersCodec(**config.model_dump())
    if math.prod(sample) > MOST_COLUMNS:
        raise ValueError(f"a sample of {math.prod(sample):,} numbers; at most {MOST_COLUMNS:,}.")
    if config.kind == "pca":
        return networks.PCA(sample, config.size)
    own = networks.CountsVAE if config.kind == "nb" else networks.VAE
    return own(sample, config.size, config.width)


def codec_of(
    config: CodecConfig | TrainedCodecConfig,
    sample: tuple[int, ...],
    tensors: Mapping[str, Tensor],
) -> Codec:
    """Return a codec with the weights of a folder; no random numbers are drawn.

    Raises:
        CheckpointError: a unit of a trained codec that is not above 0.
    """
    for name in ("scale", "library"):
        if not (unit := tensors.get(f"codec.{name}", torch.ones(()))) > 0:
            raise CheckpointError(f"codec.{name}={float(unit):g}: must be above 0; train it again.")
    with torch.random.fork_rng(devices=[]):
        result = codec(config, sample)
    result.load_state_dict({k: tensors[f"codec.{k}"] for k in result.state_dict()})
    return result


def codec_outline(config: CodecConfig | TrainedCodecConfig, sample: tuple[int, ...] = ()) -> Codec:
    """Return a codec on the meta device, which takes no memory.

    Raises:
        ValueError: as `codec`.
    """
    with torch.device("meta"), _Undrawn():
        return codec(config, sample)


def encoding(config: c.TrainConfig, data: DataConfig, by: Codec | None = None) -> Encoding:
    """Return the encoding of a run's data.

    Args:
        by: the run's codec, if it has one.

    Raises:
        ValueError: columns that do not fit the data.
    """
    if by is not None and isinstance(data.codec, TrainedCodecConfig):
        from scorefield.data.latents import Latents

        plain = Standardize.of_levels(0, 0.0, 1.0, data.shape)
        return Latents(by, Continuous(), plain, data.codec.kind == "nb")
    if by is not None:
        pixels = Standardize.of_levels(config.levels, -1.0, 1.0, data.shape)
        from scorefield.data.latents import Latents

        return Latents(by, Levels(config.levels) if config.levels else Continuous(), pixels)
    if config.levels:
        return Levels(config.levels)
    if (space := space_of(config)) is not None:
        if data.points.space != space:
            raise ValueError(f"the process is on {space}, and the data on {data.points.space!r}.")
        from scorefield.data.points import Points

        return Points(data.points, data.shape, data.columns.names)
    columns = data.columns
    if len(data.shape) > 1 or not columns.kinds:
        return Continuous()
    if data.shape[0] > MOST_COLUMNS:
        raise ValueError(f"{data.shape[0]:,} columns: at most {MOST_COLUMNS:,} are allowed.")
    from scorefield.data.columns import Columns

    return Columns(columns, data.shape[0])


def space_of(config: c.TrainConfig) -> str | None:
    """Return the name of the space of a run's process; None for vectors, and for your own."""
    return config.process.space if config.process.kind == "brownian" else None


def field_shape(config: c.TrainConfig, data: DataConfig) -> tuple[int, ...]:
    """Return the shape of a sample in the field's input.

    Raises:
        ValueError: as `encoding`, `codec` or `scorefield.networks.Codec.shape`.
    """
    if data.codec is not None:
        return codec_outline(data.codec, data.shape).shape(data.shape)
    return encoding(config, data).shape(data.shape)


def outline(design: Design) -> nn.Module:
    """Return a network on the meta device, which takes no memory.

    Raises:
        ValueError: as `network`.
    """
    with torch.device("meta"), _Undrawn():
        return network(design)


def network_size(design: Design) -> tuple[int, float]:
    """Return the number of tensors and of parameters of a network, without building it.

    In our own networks every block after the first adds the same, so two small outlines suffice;
    other networks check their own size. Numbers beyond those of any tensor are infinite.

    Raises:
        ValueError: as `network`.
    """
    config = concrete_network(design.config, design.shape)
    if config.kind in ("diffusers", "custom"):
        return _outline_size(design)
    repeated = {"mlp": "depth", "dit": "layers"}.get(config.kind, "blocks")
    (tensors_1, numbers_1), (tensors_2, numbers_2) = (
        _outline_size(design._replace(config=config.model_copy(update={repeated: count})))
        for count in (1, 2)
    )
    more = getattr(config, repeated) - 1
    if math.isinf(numbers_1):
        return 0, math.inf
    return tensors_1 + more * (tensors_2 - tensors_1), numbers_1 + more * (numbers_2 - numbers_1)


def _outline_size(design: Design) -> tuple[int, float]:
    try:
        tensors = outline(design).state_dict().values()
    except (RuntimeError, OverflowError, TypeError):  # by what torch makes of a side
        return 0, math.inf
    return len(tensors), sum(tensor.numel() for tensor in tensors)


class _Undrawn(TorchFunctionMode):
    """Skips normal initialization: on "meta", torch would load half a compiler for it."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return None if func is nn.init.normal_ else func(*args, **(kwargs or {}))


def _options(config: Frozen) -> dict[str, Any]:
    return config.model_dump(exclude={"kind"}, exclude_none=True)


def resolved(
    config: c.TrainConfig, shape: tuple[int, ...], count: int | None = None
) -> c.TrainConfig:
    """Return the configuration with every default filled in, for ``count`` samples of a shape.

    Without a count, those of the length of a training are left as they are.
    """
    chosen = concrete_network(config.network, (1,) if space_of(config) else shape)
    ours = config.process
    if ours.kind != "custom":
        built = process(ours)
        ours = ours.model_copy(update={"t_min": built.t_min, "t_max": built.t_max})
    config = config.model_copy(update={"process": ours, "network": chosen})
    if count is None:
        return config
    from scorefield.training.course import completed  # sampling does not need it

    return completed(config, shape, count)


def concrete_network(
    config: c.NetworkConfig, shape: tuple[int, ...]
) -> (
    c.MLPConfig
    | c.UNetConfig
    | c.SongConfig
    | c.ADMConfig
    | c.DiTConfig
    | c.DiffusersConfig
    | c.CustomConfig
):
    """Return the configuration of a network with its kind and width filled in."""
    if config.kind == "auto":
        ours = c.UNetConfig if len(shape) > 1 else c.MLPConfig
        config = ours(components=config.components)
    if config.kind == "unet":
        config = _unet(config, shape)
    elif isinstance(config, c.SongConfig | c.ADMConfig) and config.multipliers is None:
        config = config.model_copy(update={"multipliers": (1, 2)})
    if config.kind == "diffusers" or config.kind == "custom" or config.width is not None:
        return config
    parameters = inspect.signature(NETWORKS[config.kind]).parameters
    return config.model_copy(update={"width": parameters["width"].default})


def _unet(config: c.UNetConfig, shape: tuple[int, ...]) -> c.UNetConfig:
    """Return the configuration of a U-Net with its width, levels and positions filled in.

    Its attention is between all places of the coarsest level, so long signals and large volumes
    have more levels. They are narrow, because they have many places.
    """
    dims, levels = len(shape) - 1, 2
    if coarsest := _COARSEST.get(dims):
        halvings = math.ceil(math.log2(max(*shape[1:], 1) / coarsest))
        levels = min(max(levels, 1 + halvings), len(_MULTIPLIERS))
    defaults = {
        "width": 32 if dims == 2 else 16,
        "multipliers": _MULTIPLIERS[:levels],
        "positions": dims == 1,
    }
    missing = {name for name in defaults if getattr(config, name) is None}
    return config.model_copy(update={name: defaults[name] for name in missing})
