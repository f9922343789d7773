"""Networks trained with guided-diffusion's code: ADM with residual blocks that halve and double.

The network is called with steps ``0, 1, ...`` of a table, and predicts the noise or the data.

Reference: Dhariwal and Nichol (2021), arXiv:2105.05233; Nichol and Dhariwal (2021),
arXiv:2102.09672, for the tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from itertools import accumulate, count
from operator import mul
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, PositiveInt
from torch import Tensor

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.data.rows import Rows
from scorefield.interop.contents import MODULE, described
from scorefield.interop.conversion import (
    Names,
    Origin,
    Part as TrunkPart,
    Table,
    both,
    convert,
    layers,
    of_classes,
    of_trunk,
    outline,
    parts,
    same,
    swap_halves,
)
from scorefield.interop.edm_settings import Resolutions, Steps, scales
from scorefield.interop.foreign import DataOptions, ForeignNetwork, Noising
from scorefield.interop.settings import Part, one_line_errors, read_config, validate
from scorefield.interop.weight_files import state_of
from scorefield.networks import ADM
from scorefield.networks.residual import Block
from scorefield.runs.run import Run
from scorefield.training.config import (
    ADMConfig,
    Multipliers,
    PlainParametrization,
    TabulatedConfig,
    TimeLabelConfig,
)

_BLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "modulation": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "skip": "skip_connection",
}
_MULTIPLIERS = {64: (1, 2, 3, 4), 128: (1, 1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4)}
_WIDTH = 128  # with fewer channels, its norms have other groups
_LARGEST_BETA = 0.999


def _split(value: Any) -> Any:
    """Return the parts of a flag such as ``32,16,8``, and None for an empty one."""
    return (value.split(",") if value else None) if isinstance(value, str) else value


class _Settings(Part):
    """The flags of model and diffusion."""

    image_size: PositiveInt
    num_channels: PositiveInt = Field(default=128, ge=_WIDTH)
    num_res_blocks: PositiveInt = 2
    channel_mult: Annotated[Multipliers | None, BeforeValidator(_split)] = None
    attention_resolutions: Annotated[Resolutions, BeforeValidator(_split)] = (16, 8)
    num_heads: PositiveInt = 4
    num_head_channels: int = -1
    use_new_attention_order: bool = False
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    diffusion_steps: Steps = 1000
    noise_schedule: Literal["linear", "cosine"] = "linear"
    predict_xstart: bool = False
    rescale_timesteps: bool = False

    def noising(self) -> Noising:
        """Return the process, the prediction and our label."""
        steps = self.diffusion_steps
        kind: Literal["x0", "eps"] = "x0" if self.predict_xstart else "eps"
        return Noising(
            TabulatedConfig(alpha_bar=alpha_bar(self.noise_schedule, steps)),
            PlainParametrization(kind=kind),
            TimeLabelConfig(scale=1000 / steps if self.rescale_timesteps else 1.0),
        )

    def network(self, classes: int, variances: bool, where: str) -> ADMConfig:
        """Return our configuration of the network.

        Raises:
            UsageError: settings of another network than ADM.
        """
        for name in ("use_scale_shift_norm", "resblock_updown"):
            if not getattr(self, name):
                raise UsageError(f"{where}: {name}=False: must be True; for others, {MODULE}.")
        multipliers = self.channel_mult or _MULTIPLIERS.get(self.image_size)
        if multipliers is None:
            raise UsageError(
                f"{where}: channel_mult is missing for image_size={self.image_size}: give whole "
                "numbers, such as '1,2,2'."
            )
        return ADMConfig(
            width=self.num_channels,
            multipliers=multipliers,
            blocks=self.num_res_blocks,
            attention=scales(self.image_size, len(multipliers), self.attention_resolutions),
            head=max(1, self.num_head_channels),
            fixed_heads=self.num_heads if self.num_head_channels < 1 else 0,
            variances=variances,
            classless=not classes,
        )


def alpha_bar(schedule: Literal["linear", "cosine"], steps: int) -> tuple[float, ...]:
    """Return a table: the products of ``1 - beta``, with betas along a line, or of a cosine."""
    if schedule == "linear":
        betas = [(1e-4 + (0.02 - 1e-4) * k / (steps - 1)) * 1000 / steps for k in range(steps)]
    else:
        f = [math.cos((k / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for k in range(steps + 1)]
        betas = [min(1 - f[k + 1] / f[k], _LARGEST_BETA) for k in range(steps)]
    return tuple(accumulate((1 - beta for beta in betas), mul))


def load(
    weights: str | Path | Mapping[str, Tensor],
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    data_std: float | None = None,
    levels: int | None = None,
    data: Rows | None = None,
) -> Run:
    """Return the run of a network that was trained with guided-diffusion's code.

    Args:
        weights: the state dict of a ``UNetModel`` or its file, ``.pt`` or ``.safetensors``.
        config: the flags of model and diffusion by name, such as ``image_size`` and
            ``resblock_updown``, as a mapping or a JSON file.
        data_std, levels, data: as in `scorefield.interop.foreign.DataOptions`.

    Raises:
        UsageError: an unknown or missing configuration.
        CheckpointError: weights that cannot be read, or contradict the configuration.
        DataError: data of another shape, or outside the levels.
    """
    options = DataOptions(data_std, levels, data)
    tensors, where = state_of(weights)
    flags = "the flags of model and diffusion by name, such as image_size, as JSON"
    settings = validate(_Settings, *read_config(config, where, flags))
    with one_line_errors(where):
        foreign = _foreign(tensors, settings, where)
    return foreign.run(options)


def _foreign(tensors: Mapping[str, Tensor], settings: _Settings, where: str) -> ForeignNetwork:
    ends = [tensors.get(name) for name in ("input_blocks.0.0.weight", "out.2.weight")]
    if any(end is None or end.ndim != 4 for end in ends):
        raise CheckpointError(
            f"{where}: these are not weights of guided-diffusion's UNetModel, which have "
            f"input_blocks.0.0.weight and out.2.weight: {described(tensors)}."
        )
    channels, outputs = (cast(Tensor, end).shape[1 - k] for k, end in enumerate(ends))
    classes = len(tensors.get("label_emb.weight", ()))
    shape = (channels, settings.image_size, settings.image_size)
    config = settings.network(classes, outputs == 2 * channels, where)
    network = outline(config, shape, classes, where)
    table = _table(cast(ADM, network), settings.use_new_attention_order)
    return ForeignNetwork(
        source=f"{where}: UNetModel of guided-diffusion",
        name=Path(where).stem,
        shape=shape,
        noising=settings.noising(),
        network=config,
        weights=convert(tensors, table, network.state_dict(), "", where),
        classes=classes,
    )


def _table(network: ADM, new_order: bool) -> Table:
    """Return the origins of the weights."""
    names = Names(
        part=_places(network).__getitem__,
        leave=lambda part: ("out.0", "out.2"),
        block=_BLOCK,
        attention=partial(_attention, new_order),
    )
    table = layers([("embedding.mix.0", "time_embed.0"), ("embedding.mix.2", "time_embed.2")])
    table |= of_trunk(network.trunk, names)
    table["embedding.mix.0.weight"] = Origin(("time_embed.0.weight",), swap_halves)
    if "y" in network.embedding.conditions:
        rows = Origin(("label_emb.weight",), lambda weight: of_classes(weight.mT))
        table["embedding.conditions.y.weight"] = rows
    return table


def _places(network: ADM) -> dict[TrunkPart, str]:
    """Return the names of the parts: numbers in order, in three lists."""
    down, up, result, following = count(), count(), {}, ""
    for part in parts(network.trunk):
        if part.role == "middle":
            result[part] = f"middle_block.{2 * part.place}"  # attention has the number between
        elif part.role == "grow":
            result[part] = following
        elif part.role == "up":
            name = f"output_blocks.{next(up)}"
            following = f"{name}.{2 if cast(Block, part.module).attention else 1}"
            result[part] = f"{name}.0"
        else:
            result[part] = f"input_blocks.{next(down)}.0"
    return result


def _attention(new_order: bool, ours: str, theirs: str, heads: int) -> Table:
    """Return the table of the attention after a block, which is a module of its own."""
    path, number = theirs.rsplit(".", 1)
    own = f"{path}.{int(number) + 1}"
    order = same if new_order else partial(_separate, heads)
    return (
        layers([(f"{ours}.norm", f"{own}.norm")])
        | both(f"{ours}.enter", f"{own}.qkv", lambda t: order(_pixel(t)))
        | both(f"{ours}.leave", f"{own}.proj_out", _pixel)
    )


def _separate(heads: int, tensor: Tensor) -> Tensor:
    """Return queries, keys and values of all heads as blocks, from blocks of each head."""
    rows = tensor.reshape(heads, 3, -1, *tensor.shape[1:])
    return rows.movedim(1, 0).flatten(0, 2)


def _pixel(tensor: Tensor) -> Tensor:
    """Return a convolution of images from one of sequences; a bias stays as it is."""
    return tensor[..., None] if tensor.ndim == 3 else tensor
