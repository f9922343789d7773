"""The content of files of weights, by the names of their tensors: for detection and messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from scorefield._internal import files
from scorefield._internal.errors import CheckpointError
from scorefield.interop.weight_files import PICKLES, read_checkpoint

FIELD = "for another pipeline use scorefield.interop.diffusers.field(pipeline)"
MODULE = "build its module and pass it to scorefield.Denoiser (docs/interop.md, Any other network)"
_PART = "it is a part of a pipeline; give the folder of the pipeline, or of its network"


class Content(NamedTuple):
    """A kind of content.

    Attributes:
        pattern: a regular expression of a name that shows it.
        kind: the importer of the content, if one exists.
    """

    pattern: str
    name: str
    advice: str
    kind: str = ""


# the first that matches; names of entries of a checkpoint begin with that of the entry
CONTENTS = (
    Content(r"param_groups", "the state of an optimizer", "give the weights of its network"),
    Content(r"pytorch-lightning_version", "a checkpoint of Lightning", MODULE),
    Content(
        r".*(lora_[ABab]|lora_up|lora_down|\.lora|lora_unet_\w+|lora_te\w*)\..*",
        "a LoRA adapter",
        "load it into its pipeline with load_lora_weights, and import the pipeline",
    ),
    Content(r".*joint_blocks\..*", "an SD3 transformer", FIELD),
    Content(r".*(double_blocks|single_transformer_blocks)\..*", "a Flux transformer", FIELD),
    Content(r"conditioner\..*", "a checkpoint of Stable Diffusion XL", FIELD),
    Content(
        r"(state_dict\.)?model\.diffusion_model\..*",
        "a checkpoint of Stable Diffusion",
        "import it as diffusers",
        "diffusers",
    ),
    Content(r"(control_model|controlnet_\w+)\..*", "a ControlNet", FIELD),
    Content(r".*(text_model|text_projection|embed_tokens|shared)\..*", "a text encoder", _PART),
    Content(r"(quant_conv|(encoder|decoder)\.(conv_in|down|up_blocks))\..*", "a VAE", _PART),
    Content(
        r"(down_blocks|transformer_blocks)\..*",
        "a network of diffusers",
        "give its folder, with the config.json",
    ),
    Content(r".*(out_gain|emb_fourier\.freqs)", "a network of EDM2", MODULE),
    Content(r".*enc\.\d+x\d+_conv\.weight", "a network of EDM", "give its config", "edm"),
    Content(r".*all_modules\.\d+\..*", "a network of score_sde", "give its config", "score_sde"),
    Content(r"(ema|model)\.(.*\.)?init_conv\..*", "denoising-diffusion-pytorch", MODULE),
    Content(
        r"input_blocks\.\d+\..*",
        "a U-Net of guided-diffusion",
        "give its flags as config",
        "guided_diffusion",
    ),
    Content(r".*x_embedder\.proj\.weight", "a DiT or SiT", "give its model as config", "dit"),
)


def content_of(names: Iterable[str]) -> tuple[Content, str] | None:
    """Return the first kind of content that one of the names shows, and this name."""
    names = list(names)
    for content in CONTENTS:
        shown = next((name for name in names if re.fullmatch(content.pattern, name)), None)
        if shown is not None:
            return content, shown
    return None


def described(names: Iterable[str]) -> str:
    """Return a clause on the content with these names, for a message."""
    names = sorted(names)
    match content_of(names):
        case Content() as content, str(name):
            return f"it is {content.name} (with {name[:80]}): {content.advice}"
        case _:
            first = ", ".join(name[:60] for name in names[:3]) or "nothing"
            return f"its content is unknown (it begins with {first})"


def names_in(path: Path) -> list[str]:
    """Return the names in a file of weights; those inside an entry begin with the entry's.

    Raises:
        CheckpointError: another kind of file, or as `read_checkpoint`.
    """
    if path.suffix not in (kinds := (".safetensors", *PICKLES)):
        raise CheckpointError(f"{path} is not a file of weights, which end in {', '.join(kinds)}.")
    if path.suffix != ".safetensors":
        return _names(read_checkpoint(path))
    with files.reading(path, "", CheckpointError, SafetensorError):
        files.check(path)
        with safe_open(path, "pt") as file:
            return list(file.keys())


def _names(values: Mapping[str, Any], depth: int = 3) -> list[str]:
    result = []
    for name, value in values.items():
        inner = _names(value, depth - 1) if isinstance(value, Mapping) and depth else []
        result += [f"{name}.{one}" for one in inner] or [str(name)]
    return result
