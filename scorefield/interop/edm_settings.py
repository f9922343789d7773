"""The process, the prediction and the network of EDM's settings.

With EDM's networks called ``F``, and ``norm^2 = 1 + sigma^2``:

=============  ==============================  ===================================================
theirs         denoises ``x0 + sigma eps`` by  ours
=============  ==============================  ===================================================
EDMPrecond     ``skip x + out F(in x, c)``     `EDM`, preconditioned; c = log(sigma) / 4
VPPrecond      ``x - sigma F(x / norm, c)``    `VP` of the state x / norm, eps; c = (M - 1) t
VEPrecond      ``x + sigma F(x, c)``           `EDM`, eps of a network -F; c = log(sigma / 2)
iDDPMPrecond   ``x - sigma F(x / norm, c)``    `Tabulated` of the state x / norm, eps; c = index
=============  ==============================  ===================================================

Reference: Karras et al. (2022), arXiv:2206.00364, table 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from scorefield._internal.errors import UsageError
from scorefield.interop.contents import MODULE
from scorefield.interop.foreign import Noising
from scorefield.interop.settings import Part, one_line_errors, validate
from scorefield.training.config import (
    ADMConfig,
    EDMConfig,
    Multipliers,
    PlainLabel,
    PlainParametrization,
    PreconditionedConfig,
    SongConfig,
    TabulatedConfig,
    Taps,
    TimeLabelConfig,
    VPConfig,
)

_SIGMA_MIN, _SIGMA_MAX = 0.002, 80.0  # the range of EDM's sampler

Steps = Annotated[int, Field(ge=2, le=10_000)]
Resolutions = Annotated[tuple[NonNegativeInt, ...], Field(max_length=64)]


class Meaning(NamedTuple):
    """The input and the output of a network.

    Attributes:
        noising: the process, the prediction and our label.
        unit, zero: EDM's label is ``unit label + zero``.
        sign: the output times this is the prediction.
        data_std: standard deviation of the data.
    """

    noising: Noising
    unit: float = 1.0
    zero: float = 0.0
    sign: int = 1
    data_std: float = 0.5


class EDMPrecond(Part):
    sigma_min: NonNegativeFloat = 0.0
    sigma_max: PositiveFloat | None = None
    sigma_data: float = Field(default=0.5, ge=1e-6, le=1e6)

    def meaning(self) -> Meaning:
        """Return the input and the output of the network."""
        highest = _SIGMA_MAX if self.sigma_max is None else min(_SIGMA_MAX, self.sigma_max)
        process = EDMConfig(t_min=max(_SIGMA_MIN, self.sigma_min), t_max=highest)
        parametrization = PreconditionedConfig(data_std=self.sigma_data)
        noising = Noising(process, parametrization, PlainLabel())
        return Meaning(noising, data_std=self.sigma_data)


class VPPrecond(Part):
    beta_d: PositiveFloat = 19.9
    beta_min: NonNegativeFloat = 0.1
    M: Steps = 1000
    epsilon_t: PositiveFloat = 1e-5

    def meaning(self) -> Meaning:
        """Return the input and the output of the network."""
        process = VPConfig(
            beta_min=self.beta_min, beta_max=self.beta_min + self.beta_d, t_min=self.epsilon_t
        )
        label = TimeLabelConfig(scale=self.M - 1.0)
        return Meaning(Noising(process, PlainParametrization(kind="eps"), label))


class VEPrecond(Part):
    sigma_min: PositiveFloat = 0.02
    sigma_max: PositiveFloat = 100.0

    def meaning(self) -> Meaning:
        """Return the input and the output of the network."""
        process = EDMConfig(t_min=self.sigma_min, t_max=self.sigma_max)
        noising = Noising(process, PlainParametrization(kind="eps"), PlainLabel())
        return Meaning(noising, unit=4.0, zero=-math.log(2), sign=-1)


class IDDPMPrecond(Part):
    C_1: float = Field(default=0.001, gt=0, lt=1)
    C_2: float = Field(default=0.008, gt=0, le=1e3)
    M: Steps = 1000

    def meaning(self) -> Meaning:
        """Return the input and the output of the network."""
        process = TabulatedConfig(alpha_bar=self._alpha_bar())
        return Meaning(Noising(process, PlainParametrization(kind="eps"), TimeLabelConfig()))

    def _alpha_bar(self) -> tuple[float, ...]:
        """Return the table: a squared cosine whose factors are at least ``C_1``."""
        rises = [
            math.sin(0.5 * math.pi * j / self.M / (self.C_2 + 1)) ** 2 for j in range(self.M + 1)
        ]
        table = [1.0]
        for j in range(self.M, 0, -1):
            table.append(table[-1] * max(rises[j - 1] / rises[j], self.C_1))
        return tuple(table[1:])


class Images(Part):
    """The images of a network; missing entries follow from the weights."""

    img_resolution: PositiveInt | None = None
    img_channels: PositiveInt | None = None
    label_dim: NonNegativeInt | None = None
    use_fp16: bool = False


class _UNet(Part):
    augment_dim: NonNegativeInt = 0
    channel_mult_emb: Literal[4] = 4
    dropout: float = 0.0
    label_dropout: float = 0.0


class SongUNet(_UNet):
    """DDPM++ and NCSN++."""

    model_channels: PositiveInt = 128
    channel_mult: Multipliers = (1, 2, 2, 2)
    num_blocks: PositiveInt = 4
    attn_resolutions: Resolutions = (16,)
    embedding_type: Literal["positional", "fourier"] = "positional"
    channel_mult_noise: PositiveInt = 1
    encoder_type: Literal["standard", "skip", "residual"] = "standard"
    decoder_type: Literal["standard", "skip"] = "standard"
    resample_filter: Taps = (1.0, 1.0)

    def network(self, resolution: int, classes: int) -> SongConfig:
        """Return our configuration."""
        return SongConfig(
            width=self.model_channels,
            multipliers=self.channel_mult,
            blocks=self.num_blocks,
            attention=scales(resolution, len(self.channel_mult), self.attn_resolutions),
            embedding=self.embedding_type,
            widening=self.channel_mult_noise,
            encoder=self.encoder_type,
            decoder=self.decoder_type,
            taps=self.resample_filter,
            classless=not classes or self.label_dropout > 0,
        )


class DhariwalUNet(_UNet):
    """ADM."""

    model_channels: PositiveInt = 192
    channel_mult: Multipliers = (1, 2, 3, 4)
    num_blocks: PositiveInt = 3
    attn_resolutions: Resolutions = (32, 16, 8)

    def network(self, resolution: int, classes: int) -> ADMConfig:
        """Return our configuration."""
        return ADMConfig(
            width=self.model_channels,
            multipliers=self.channel_mult,
            blocks=self.num_blocks,
            attention=scales(resolution, len(self.channel_mult), self.attn_resolutions),
            classless=not classes or self.label_dropout > 0,
        )


def scales(resolution: int, count: int, attention: tuple[int, ...]) -> tuple[int, ...]:
    """Return the scales whose images have one of the resolutions."""
    return tuple(scale for scale in range(count) if resolution >> scale in attention)


PRECONDITIONINGS: dict[
    str, type[EDMPrecond] | type[VPPrecond] | type[VEPrecond] | type[IDDPMPrecond]
] = {
    "EDMPrecond": EDMPrecond,
    "VPPrecond": VPPrecond,
    "VEPrecond": VEPrecond,
    "iDDPMPrecond": IDDPMPrecond,
}
UNETS: dict[str, type[SongUNet] | type[DhariwalUNet]] = {
    "SongUNet": SongUNet,
    "DhariwalUNet": DhariwalUNet,
}


class Settings(NamedTuple):
    """EDM's settings.

    Attributes:
        names: of the preconditioning and of the network.
        meaning: the input and the output of the network.
        unet: the arguments of the network.
        images: the images of the network.
    """

    names: tuple[str, str]
    meaning: Meaning
    unet: SongUNet | DhariwalUNet
    images: Images

    def network(self, resolution: int, classes: int) -> SongConfig | ADMConfig:
        """Return our configuration of the network."""
        config = self.unet.network(resolution, classes)
        doubled = self.names[0] == "iDDPMPrecond"
        return config.model_copy(update={"variances": True}) if doubled else config


def read_settings(values: Mapping[str, Any], where: str) -> Settings:
    """Return the settings of EDM's ``network_kwargs``, or of the training options around them.

    Raises:
        UsageError: an unknown name or value, or an unsupported combination.
    """
    values, data = values.get("network_kwargs", values), values.get("dataset_kwargs")
    if not isinstance(values, Mapping):
        raise UsageError(f"{where}: network_kwargs={str(values)[:60]!r}: must be an object.")
    values = dict(values)
    if isinstance(data, Mapping) and "resolution" in data:
        values.setdefault("img_resolution", data["resolution"])
    name = str(values.pop("class_name", None)).rpartition(".")[2]
    precond = _one(PRECONDITIONINGS, name, "class_name", where)
    older = name in ("VPPrecond", "VEPrecond")
    kind = str(values.pop("model_type", "SongUNet" if older else "DhariwalUNet"))
    unet = _one(UNETS, kind, "model_type", where)
    names = {*precond.model_fields, *unet.model_fields, *Images.model_fields}
    if unknown := sorted(set(values) - names):
        raise UsageError(f"{where}: {name} with {kind} has no setting {unknown[0][:60]!r}.")
    with one_line_errors(where):
        meaning = validate(precond, values, where).meaning()
    _check(name, kind, values.get("embedding_type", "positional"), where)
    parts = validate(unet, values, where), validate(Images, values, where)
    return Settings((name, kind), meaning, *parts)


def _check(name: str, kind: str, embedding: str, where: str) -> None:
    if name == "VEPrecond" and embedding != "fourier":
        raise UsageError(
            f"{where}: VEPrecond with {kind} and embedding_type={embedding!r}: must be 'fourier', "
            "the only embedding of its label log(sigma / 2)."
        )
    if name == "iDDPMPrecond" and kind != "DhariwalUNet":
        raise UsageError(f"{where}: iDDPMPrecond with {kind}: must be with DhariwalUNet.")


def _one(options: Mapping[str, Any], name: str, setting: str, where: str) -> Any:
    if name not in options:
        raise UsageError(
            f"{where}: {setting}={name[:60]!r}: must be one of {', '.join(options)}; for others, "
            f"{MODULE}."
        )
    return options[name]
