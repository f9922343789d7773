"""What EDM's settings say of the process, and of what a network predicts.

With its networks called ``F``, and ``norm^2 = 1 + sigma^2``:

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

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from scorefield._internal.errors import UsageError
from scorefield._internal.frozen import Frozen
from scorefield.interop.schedulers import Noising
from scorefield.interop.settings import agreeing, checked
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

_SIGMA_MIN, _SIGMA_MAX = 0.002, 80.0  # that EDM's sampler goes between

Steps = Annotated[int, Field(ge=2, le=10_000)]
Resolutions = Annotated[tuple[NonNegativeInt, ...], Field(max_length=64)]


class Told(NamedTuple):
    """What a network was told and predicts.

    Attributes:
        noising: the process, the prediction and our label.
        unit, zero: the network's own label is ``unit label + zero``.
        sign: of its output, to be that of the prediction.
        data_std: the deviation of the data, as far as it was told.
    """

    noising: Noising
    unit: float = 1.0
    zero: float = 0.0
    sign: int = 1
    data_std: float = 0.5


class Part(Frozen):
    """A part of the settings, which leaves the others aside."""

    model_config = ConfigDict(extra="ignore")


class EDMPrecond(Part):
    sigma_min: NonNegativeFloat = 0.0
    sigma_max: PositiveFloat | None = None
    sigma_data: float = Field(default=0.5, ge=1e-6, le=1e6)

    def told(self) -> Told:
        """Return what the network was told and predicts."""
        highest = _SIGMA_MAX if self.sigma_max is None else min(_SIGMA_MAX, self.sigma_max)
        process = EDMConfig(t_min=max(_SIGMA_MIN, self.sigma_min), t_max=highest)
        parametrization = PreconditionedConfig(data_std=self.sigma_data)
        noising = Noising(process, parametrization, PlainLabel())
        return Told(noising, data_std=self.sigma_data)


class VPPrecond(Part):
    beta_d: PositiveFloat = 19.9
    beta_min: NonNegativeFloat = 0.1
    M: Steps = 1000
    epsilon_t: PositiveFloat = 1e-5

    def told(self) -> Told:
        """Return what the network was told and predicts."""
        process = VPConfig(
            beta_min=self.beta_min, beta_max=self.beta_min + self.beta_d, t_min=self.epsilon_t
        )
        label = TimeLabelConfig(scale=self.M - 1.0)
        return Told(Noising(process, PlainParametrization(kind="eps"), label))


class VEPrecond(Part):
    sigma_min: PositiveFloat = 0.02
    sigma_max: PositiveFloat = 100.0

    def told(self) -> Told:
        """Return what the network was told and predicts."""
        process = EDMConfig(t_min=self.sigma_min, t_max=self.sigma_max)
        noising = Noising(process, PlainParametrization(kind="eps"), PlainLabel())
        return Told(noising, unit=4.0, zero=-math.log(2), sign=-1)


class IDDPMPrecond(Part):
    C_1: float = Field(default=0.001, gt=0, lt=1)
    C_2: float = Field(default=0.008, gt=0, le=1e3)
    M: Steps = 1000

    def told(self) -> Told:
        """Return what the network was told and predicts."""
        process = TabulatedConfig(alpha_bar=self._alpha_bar())
        return Told(Noising(process, PlainParametrization(kind="eps"), TimeLabelConfig()))

    def _alpha_bar(self) -> tuple[float, ...]:
        """Return the table: a squared cosine's, none of whose factors is below ``C_1``."""
        rises = [
            math.sin(0.5 * math.pi * j / self.M / (self.C_2 + 1)) ** 2 for j in range(self.M + 1)
        ]
        table = [1.0]
        for j in range(self.M, 0, -1):
            table.append(table[-1] * max(rises[j - 1] / rises[j], self.C_1))
        return tuple(table[1:])


class Images(Part):
    """What a network is for; what is not said is told by the weights."""

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
            attention=levels(resolution, len(self.channel_mult), self.attn_resolutions),
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
            attention=levels(resolution, len(self.channel_mult), self.attn_resolutions),
            classless=not classes or self.label_dropout > 0,
        )


def levels(resolution: int, count: int, attention: tuple[int, ...]) -> tuple[int, ...]:
    """Return the levels whose images have one of some resolutions."""
    return tuple(level for level in range(count) if resolution >> level in attention)


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
    """All that EDM's settings say.

    Attributes:
        names: of the preconditioning and of the network.
        told: what the network was told and predicts.
        unet: what the network is made with.
        images: what it is for.
    """

    names: tuple[str, str]
    told: Told
    unet: SongUNet | DhariwalUNet
    images: Images

    def network(self, resolution: int, classes: int) -> SongConfig | ADMConfig:
        """Return our configuration of the network."""
        found = self.unet.network(resolution, classes)
        doubled = self.names[0] == "iDDPMPrecond"
        return found.model_copy(update={"variances": True}) if doubled else found


def read(values: Mapping[str, Any], where: str) -> Settings:
    """Return what settings say: EDM's ``network_kwargs``, or the training options they are in.

    Raises:
        UsageError: a name or a value that is not known, or a combination that ours cannot express.
    """
    values, data = values.get("network_kwargs", values), values.get("dataset_kwargs")
    if not isinstance(values, Mapping):
        raise UsageError(f"{where}: network_kwargs hold {str(values)[:60]!r}, and no settings.")
    values = dict(values)
    if isinstance(data, Mapping) and "resolution" in data:
        values.setdefault("img_resolution", data["resolution"])
    name = str(values.pop("class_name", None)).rpartition(".")[2]
    precond = _one(PRECONDITIONINGS, name, "class_name", where)
    older = name in ("VPPrecond", "VEPrecond")
    kind = str(values.pop("model_type", "SongUNet" if older else "DhariwalUNet"))
    unet = _one(UNETS, kind, "model_type", where)
    known = {*precond.model_fields, *unet.model_fields, *Images.model_fields}
    if strange := sorted(set(values) - known):
        raise UsageError(f"{where}: {name} with {kind} has no setting {strange[0][:60]!r}.")
    with agreeing(where):
        told = checked(precond, values, where).told()
    found = Settings(
        (name, kind), told, checked(unet, values, where), checked(Images, values, where)
    )
    _check(found, values.get("embedding_type", "positional"), where)
    return found


def _check(found: Settings, embedding: str, where: str) -> None:
    name, kind = found.names
    if name == "VEPrecond" and embedding != "fourier":
        raise UsageError(
            f"{where}: VEPrecond with {kind} whose embedding_type is {embedding!r}: its label, "
            "log(sigma / 2), can be told to 'fourier' alone."
        )
    if name == "iDDPMPrecond" and kind != "DhariwalUNet":
        raise UsageError(f"{where}: iDDPMPrecond with {kind}: known with DhariwalUNet alone.")


def _one(known: Mapping[str, Any], name: str, what: str, where: str) -> Any:
    if name not in known:
        raise UsageError(
            f"{where}: {what} {name[:60]!r} is not known: give one of {', '.join(known)}."
        )
    return known[name]
