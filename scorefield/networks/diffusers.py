"""Networks of diffusers with the interface of this package."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scorefield.networks.arguments import parse
from scorefield.networks.conditions import NONE, Classes, Conditions, unknown_class

ARCHITECTURES = ("UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel")
_TEXT = "encoder_hidden_states"
_ADDED = "text_embeds", "time_ids"  # of text_time, as in SDXL
_LARGEST = 2**26  # numbers in an embedding of positions, which is not counted as a weight


def network_class(architecture: str) -> type[nn.Module]:
    """Return a class of diffusers.

    Raises:
        ImportError: diffusers is not installed.
    """
    try:
        import diffusers
    except ImportError:
        raise ImportError(
            "networks of diffusers need the package: pip install 'scorefield[diffusers]'."
        ) from None
    cls: type[nn.Module] = getattr(diffusers, architecture)
    return cls


def build(architecture: str, arguments: str) -> nn.Module:
    """Return a network of diffusers from arguments as JSON.

    Raises:
        ValueError: arguments that the class does not accept.
        ImportError: diffusers is not installed.
    """
    cls = network_class(architecture)
    parameters = inspect.signature(cls).parameters
    values = parse(arguments, list(parameters), architecture)
    try:
        if values.get("out_channels") == 0:
            raise ValueError("out_channels=0")
        _check_positions({name: p.default for name, p in parameters.items()} | values)
        return cls(**values)
    except Exception as error:  # diffusers and torch raise anything for bad values
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(f"{architecture} cannot be built from its arguments: {reason}") from None


def _check_positions(values: Mapping[str, Any]) -> None:
    if "patch_size" in values:
        width = values["num_attention_heads"] * values["attention_head_dim"]
        if width * (values["sample_size"] // values["patch_size"]) ** 2 > _LARGEST:
            raise ValueError("the embedding has more positions than any image")


def class_count(architecture: str, settings: Mapping[str, Any]) -> int:
    """Return the number of classes of a network, including one that stands for no class."""
    last_for_none = architecture == "DiTTransformer2DModel"
    count = settings.get("num_embeds_ada_norm" if last_for_none else "num_class_embeds")
    return count + last_for_none if isinstance(count, int) else 0


_KINDS: dict[str, tuple[str | None, ...]] = {
    "class_embed_type": (None, "timestep", "identity", "projection", "simple_projection"),
    "addition_embed_type": (None, "text", "text_time"),
    "encoder_hid_dim_type": (None,),
}


def _inputs(architecture: str, settings: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the axes of the conditions of one sample that are not those of the data."""
    inputs: dict[str, tuple[str, ...]] = {}
    if architecture == "UNet2DConditionModel":
        inputs[_TEXT] = "tokens", "width"
    if (kind := settings.get("class_embed_type")) is not None:
        inputs["class_labels"] = () if kind == "timestep" else ("width",)
    if settings.get("addition_embed_type") == "text_time":
        inputs |= {_ADDED[0]: ("width",), _ADDED[1]: ("numbers",)}
    return inputs


def _width(name: str, settings: Mapping[str, Any]) -> int | None:
    """Return the width of an embedding, if the settings have it."""
    if name == _TEXT:
        width = settings["cross_attention_dim"]
        return width if isinstance(width, int) else None
    if name == "class_labels" and settings["class_embed_type"] == "identity":
        return int(settings.get("time_embedding_dim") or 4 * settings["block_out_channels"][0])
    projected = settings.get("projection_class_embeddings_input_dim")
    return int(projected) if name == "class_labels" and projected else None


def _class_count(conditions: Conditions) -> int:
    """Return the number of classes ``y``.

    Raises:
        ValueError: other conditions.
    """
    other = [name for name, c in conditions.items() if name != "y" or not isinstance(c, Classes)]
    if other:
        raise ValueError(
            f"conditions={', '.join(other)}: a network of diffusers learns one class, y, here."
        )
    return sum(c.count for c in conditions.values() if isinstance(c, Classes))


class Diffusers(nn.Module):
    """A network of diffusers for images ``(C, H, W)``.

    If it also predicts variances, with twice the channels, the first half is returned.

    Args:
        channels: of the image.
        architecture: the name of its class in diffusers.
        arguments: of the class, as JSON.
        unconditional: the class that stands for no class, if the network was trained with one.
        conditions: at most one, classes ``y``, without that one.

    Raises:
        ValueError: arguments that the class does not accept, or that contradict channels or
            classes.
        ImportError: diffusers is not installed.
    """

    def __init__(
        self,
        channels: int,
        architecture: str,
        arguments: str,
        unconditional: int | None = None,
        conditions: Conditions = NONE,
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise ValueError(
                f"architecture={architecture!r}: must be one of {', '.join(ARCHITECTURES)}."
            )
        # with the weights, these identify the network
        self.architecture, self.arguments = architecture, arguments
        self.unconditional, self.classes = unconditional, _class_count(conditions)
        self.inner = build(architecture, arguments)
        self._check(channels)
        self.inputs = _inputs(architecture, self.inner.config)  # type: ignore[arg-type]

    @property
    def multiple(self) -> int:
        """The number that the sides of its images must be multiples of."""
        settings: Any = self.inner.config
        if self.architecture == "UNet2DModel":
            return int(2 ** (len(settings.block_out_channels) - 1))
        return int(settings.get("patch_size") or 1)  # UNet2DConditionModel crops after doubling

    def _check(self, channels: int) -> None:
        settings: Any = self.inner.config
        sides = settings.in_channels, settings.out_channels or settings.in_channels
        if sides not in ((channels, channels), (channels, 2 * channels)):
            raise ValueError(
                f"{sides[0]} input and {sides[1]} output channels: the data has {channels}."
            )
        if settings.get("time_embedding_type") == "learned":
            raise ValueError(
                "time_embedding_type='learned': not defined between the steps of a table."
            )
        for name, kinds in _KINDS.items():
            if settings.get(name) not in kinds:
                raise ValueError(
                    f"{self.architecture} has {name}={settings[name]!r}: such a condition is not "
                    "supported; for its pipeline use scorefield.interop.diffusers.field(pipeline)."
                )
        count, classes = class_count(self.architecture, settings), self.classes
        if count != classes + (self.unconditional is not None):
            raise ValueError(
                f"{self.architecture} has {count} classes, and the data has {classes}, with "
                f"unconditional={self.unconditional}."
            )
        if self.unconditional is not None and self.unconditional > classes:
            raise ValueError(f"unconditional={self.unconditional}: must be from 0 to {classes}.")

    def forward(
        self, x: Tensor, label: Tensor, y: Tensor | None = None, **condition: Tensor
    ) -> Tensor:
        """Return ``(B, C, H, W)`` from ``x`` of that shape, labels and classes ``(B,)``.

        Args:
            y: -1 for no class.
            condition: those of ``inputs``, such as ``encoder_hidden_states``, for each sample or
                one for all.

        Raises:
            ValueError: an unknown class, or a missing class or condition.
        """
        if self.classes:
            condition["class_labels"] = self._rows(label, y)
        elif y is not None:
            raise ValueError("y: this network has no classes; leave it out.")
        for name, axes in self.inputs.items():
            value = self._input(name, axes, condition.get(name))
            condition[name] = value.expand(len(x), *value.shape[1:])
        if _ADDED[0] in self.inputs:
            added: Any = {name: condition.pop(name) for name in _ADDED}
            self._check_added(**added)
            condition["added_cond_kwargs"] = added
        out: Tensor = self.inner(x, label, **condition).sample
        return out[:, : x.shape[1]]

    def _input(self, name: str, axes: tuple[str, ...], value: Tensor | None) -> Tensor:
        """Return a condition of `inputs`, if its shape is right."""
        shape = ", ".join(["N", *axes])
        if value is None:
            meaning, more = f"a condition of shape ({shape})", ""
            if name == _TEXT:
                meaning, more = "the embedding of a text", ", or give a file of embeddings"
            raise ValueError(
                f"{name}=None: this network needs {meaning}; bind it with "
                f"run.condition_on({name}=...){more}."
            )
        if value.ndim != 1 + len(axes):
            raise ValueError(f"{name} has shape {tuple(value.shape)}: give ({shape}), N may be 1.")
        settings: Any = self.inner.config
        width = _width(name, settings)
        if axes and width is not None and value.shape[-1] != width:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}: the embeddings of this network have the "
                f"width {width}."
            )
        return value

    def _check_added(self, text_embeds: Tensor, time_ids: Tensor) -> None:
        settings: Any = self.inner.config
        each, whole = (
            settings.addition_time_embed_dim,
            settings.projection_class_embeddings_input_dim,
        )
        if text_embeds.shape[-1] + each * time_ids.shape[-1] != whole:
            raise ValueError(
                f"text_embeds and time_ids have the shapes {tuple(text_embeds.shape)} and "
                f"{tuple(time_ids.shape)}: the width of the first and {each} times that of the "
                f"second must add up to {whole}."
            )

    def _rows(self, label: Tensor, y: Tensor | None) -> Tensor:
        """Return the rows of the network's embedding for classes."""
        first = 0 if self.unconditional is None else -1
        if y is None and not first:
            raise ValueError(
                f"y: this network needs a class; give one from 0 to {self.classes - 1}."
            )
        y = torch.full(label.shape, -1, device=label.device) if y is None else y
        if bool(((y < first) | (y >= self.classes)).any()):
            raise unknown_class(y, self.classes, optional=bool(first))
        if self.unconditional is not None:
            y = torch.where(y < 0, self.unconditional, y + (y >= self.unconditional))
        return y.expand(label.shape)
