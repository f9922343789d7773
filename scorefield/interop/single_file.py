"""Single files of Stable Diffusion: network and autoencoder by the names of the original code.

diffusers converts the names, with configurations that are written here or those of a pipeline's
folder, so that nothing is downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.interop.contents import content_of, described
from scorefield.interop.folders import read_scheduler, resolve
from scorefield.interop.pipelines import Part, Source, part_of, settings_of
from scorefield.interop.scheduler_process import build_scheduler
from scorefield.interop.settings import read_json
from scorefield.interop.weight_files import read_weights
from scorefield.networks.arguments import parse
from scorefield.networks.diffusers import network_class

_UNET, _VAE = "UNet2DConditionModel", "AutoencoderKL"
_CONTEXT = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_FIRST = 768  # width of the texts in the first version of Stable Diffusion
_NETWORK = {"sample_size": 64, "cross_attention_dim": _FIRST}
_AUTOENCODER = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
_SCHEDULER = {
    "_class_name": "DDPMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


def read_file(path: Path, scheduler: Any, pipeline: str | Path | None, pickle: bool) -> Source:
    """Return the parts of a single file of Stable Diffusion.

    Args:
        path: the file.
        scheduler: instead of that of the pipeline, if not None.
        pipeline: the folder of a pipeline of the same networks, with or without weights; it may be
            missing for version 1.
        pickle: allow a pickle.

    Raises:
        CheckpointError: an unreadable file, or weights that contradict the configuration.
        UsageError: another content; a version that needs a pipeline.
        ImportError: diffusers is not installed.
    """
    tensors = read_weights(path, pickle)
    content = content_of(tensors)
    if content is None or content[0].kind != "diffusers":
        raise UsageError(f"{path} is not supported: {described(tensors)}.")
    first = _CONTEXT in tensors and tensors[_CONTEXT].shape[-1] == _FIRST
    if pipeline is None and not first:
        raise UsageError(
            f"pipeline=None: {path} is not of version 1 of Stable Diffusion: give the folder of a "
            "pipeline with the same networks and their scheduler."
        )
    folder = None if pipeline is None else resolve(Path(pipeline))
    if scheduler is None and folder is not None:
        scheduler = read_scheduler(folder)
    scheduler = scheduler or build_scheduler(_SCHEDULER, str(path))
    network, codec = (
        _part(name, tensors, read_json(folder / part / "config.json") if folder else own, path)
        for name, part, own in ((_UNET, "unet", _NETWORK), (_VAE, "vae", _AUTOENCODER))
    )
    return Source(str(path), network, scheduler, codec)


def _part(name: str, tensors: Mapping[str, Tensor], values: Mapping[str, Any], path: Path) -> Part:
    """Return a part of the file, by the names of diffusers."""
    settings = settings_of(name, values)
    try:
        parse(json.dumps(settings), list(settings), name)
        with TemporaryDirectory() as folder:
            Path(folder, "config.json").write_text(json.dumps({"_class_name": name, **settings}))
            module = network_class(name).from_single_file(  # type: ignore[attr-defined]
                dict(tensors), config=folder, local_files_only=True
            )
    except Exception as error:  # diffusers raises anything for other weights
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path} does not have the {name} of the configuration: {reason[:200]}"
        ) from None
    if missing := [key for key, value in module.state_dict().items() if value.is_meta]:
        raise CheckpointError(f"{path} has no weights for {missing[0]} of {name}.")
    return part_of(module, (name,), str(path))
