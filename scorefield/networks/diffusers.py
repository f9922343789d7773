"""Networks of diffusers, called as ours are."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scorefield.networks.arguments import parse

ARCHITECTURES = ("UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel")
_LARGEST = 2**26  # numbers of an embedding of positions, which is no weight


def named(architecture: str) -> type[nn.Module]:
    """Return a class of diffusers.

    Raises:
        ImportError: diffusers is not installed.
    """
    try:
        import diffusers
    except ImportError:
        raise ImportError(
            "networks of diffusers need it: pip install 'scorefield[diffusers]'."
        ) from None
    found: type[nn.Module] = getattr(diffusers, architecture)
    return found


def made(architecture: str, arguments: str) -> nn.Module:
    """Return a network of diffusers, from arguments as JSON.

    Raises:
        ValueError: arguments that its class does not take.
        ImportError: diffusers is not installed.
    """
    cls = named(architecture)
    parameters = inspect.signature(cls).parameters
    values = parse(arguments, list(parameters), architecture)
    try:
        if values.get("out_channels") == 0:
            raise ValueError("out_channels is 0")
        _check_positions({name: p.default for name, p in parameters.items()} | values)
        return cls(**values)
    except Exception as error:  # whatever its checks, or torch, make of the values
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(f"{architecture} cannot be made with its arguments: {reason}") from None


def _check_positions(values: Mapping[str, Any]) -> None:
    if "patch_size" in values:
        width = values["num_attention_heads"] * values["attention_head_dim"]
        if width * (values["sample_size"] // values["patch_size"]) ** 2 > _LARGEST:
            raise ValueError("an embedding of more positions than there are in any image")


def embedded(architecture: str, settings: Mapping[str, Any]) -> int:
    """Return how many classes a network tells apart, one that stands for none included."""
    last_for_none = architecture == "DiTTransformer2DModel"
    held = settings.get("num_embeds_ada_norm" if last_for_none else "num_class_embeds")
    return held + last_for_none if isinstance(held, int) else 0


class Diffusers(nn.Module):
    """A network of diffusers for images ``(C, H, W)``.

    Of one that predicts a variance too, with twice the channels, the first half is taken.

    Args:
        channels: of the image.
        architecture: the name of its class in diffusers.
        arguments: of the class, as JSON.
        unconditional: the class that stands for none, if it has learned one.
        classes: 0, or the number of classes of ``y``, without that one.

    Raises:
        ValueError: arguments that the class does not take, or that contradict channels or classes.
        ImportError: diffusers is not installed.
    """

    def __init__(
        self,
        channels: int,
        architecture: str,
        arguments: str,
        unconditional: int | None = None,
        classes: int = 0,
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise ValueError(f"no architecture {architecture!r} of diffusers: give one of {known}.")
        # beside the weights, what tells two networks apart
        self.architecture, self.arguments = architecture, arguments
        self.unconditional, self.classes = unconditional, classes
        self.inner = made(architecture, arguments)
        self._check(channels)

    @property
    def multiple(self) -> int:
        """What the sides of its images must be multiples of."""
        settings: Any = self.inner.config
        if self.architecture == "UNet2DModel":
            return int(2 ** (len(settings.block_out_channels) - 1))
        return int(settings.get("patch_size") or 1)  # UNet2DConditionModel crops what it doubles

    def _check(self, channels: int) -> None:
        settings: Any = self.inner.config
        sides = settings.in_channels, settings.out_channels or settings.in_channels
        if sides not in ((channels, channels), (channels, 2 * channels)):
            raise ValueError(
                f"this {self.architecture} makes {sides[1]} channels of {sides[0]}, and the data "
                f"has {channels}."
            )
        if settings.get("time_embedding_type") == "learned":
            raise ValueError(
                f"this {self.architecture} has learned a vector for each of a table's steps "
                "(time_embedding_type 'learned'): it knows nothing between them."
            )
        for name in ("class_embed_type", "addition_embed_type", "encoder_hid_dim_type"):
            if settings.get(name) is not None:
                raise ValueError(
                    f"this {self.architecture} has {name} {settings[name]!r}: what it is told "
                    "besides the noise level, a class and encoder_hidden_states is not known."
                )
        held, known = embedded(self.architecture, settings), self.classes
        if held != known + (self.unconditional is not None):
            raise ValueError(
                f"this {self.architecture} has {held} classes, and the run {known}, with "
                f"{self.unconditional} for none."
            )
        if self.unconditional is not None and self.unconditional > known:
            raise ValueError(f"unconditional = {self.unconditional}: give one of 0 to {known}.")

    def forward(
        self, x: Tensor, label: Tensor, y: Tensor | None = None, **condition: Tensor
    ) -> Tensor:
        """Return ``(B, C, H, W)`` from ``x`` of that shape, labels and classes ``(B,)``.

        Args:
            y: -1 for no class.
            condition: what else the network takes, as ``encoder_hidden_states``, for each sample
                or once for all.

        Raises:
            ValueError: a class, or a condition, that the network does not know or cannot go
                without.
        """
        if self.classes:
            condition["class_labels"] = self._rows(label, y)
        elif y is not None:
            raise ValueError("this network was trained without classes: leave out y.")
        if self.architecture == "UNet2DConditionModel":
            if "encoder_hidden_states" not in condition:
                raise ValueError(
                    "this network is told what to make: bind it by "
                    "run.field.condition_on(encoder_hidden_states=...), and sample that field."
                )
            told = condition["encoder_hidden_states"]
            condition["encoder_hidden_states"] = told.expand(len(x), *told.shape[1:])
        out: Tensor = self.inner(x, label, **condition).sample
        return out[:, : x.shape[1]]

    def _rows(self, label: Tensor, y: Tensor | None) -> Tensor:
        """Return which rows of the network's embedding stand for classes."""
        first = 0 if self.unconditional is None else -1
        if y is None and not first:
            raise ValueError(
                "this network has learned nothing without a class: name one of 0 to "
                f"{self.classes - 1}, as y."
            )
        y = torch.full(label.shape, -1, device=label.device) if y is None else y
        if bool(((y < first) | (y >= self.classes)).any()):
            none = ", and -1 for none" if first else ""
            raise ValueError(
                f"y runs over [{int(y.min())}, {int(y.max())}]: this network knows the classes 0 "
                f"to {self.classes - 1}{none}."
            )
        if self.unconditional is not None:
            y = torch.where(y < 0, self.unconditional, y + (y >= self.unconditional))
        return y.expand(label.shape)
