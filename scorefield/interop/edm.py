"""Networks trained with EDM's code.

Reference: Karras et al. (2022), arXiv:2206.00364.
"""

from __future__ import annotations

import pickle as pickles
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from scorefield._internal import files
from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.data.rows import Rows
from scorefield.interop import edm_weights
from scorefield.interop.contents import described
from scorefield.interop.conversion import convert, negate, outline
from scorefield.interop.edm_settings import Images, Settings, read_settings
from scorefield.interop.foreign import DataOptions, ForeignNetwork
from scorefield.interop.settings import read_config
from scorefield.interop.weight_files import state_of
from scorefield.networks import ADM, SongUNet
from scorefield.runs.run import Run
from scorefield.training.config import ADMConfig, SongConfig

_ENTRY = re.compile(r"enc\.(\d+)x\1_conv\.weight")


def load(
    weights: str | Path | Mapping[str, Tensor],
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    data_std: float | None = None,
    levels: int | None = None,
    data: Rows | None = None,
    pickle: bool = False,
) -> Run:
    """Return the run of a network that was trained with EDM's code.

    Args:
        weights: the state dict of a preconditioned network or its file, ``.safetensors`` or
            ``.pt``; or one of the released pickles, ``.pkl``.
        config: ``class_name`` of the preconditioning and its arguments, as EDM's
            ``network_kwargs``; or the file ``training_options.json``. A pickle has its own.
        data_std, levels, data: as in `scorefield.interop.foreign.DataOptions`.
        pickle: allow a ``.pkl``, which runs the program inside it; EDM's own modules must be
            importable.

    Raises:
        UsageError: an unknown or missing configuration; a pickle that is not allowed.
        CheckpointError: weights that cannot be read, or contradict the configuration.
        DataError: data of another shape, or outside the levels.
    """
    options = DataOptions(data_std, levels, data)
    if isinstance(weights, Mapping) or Path(weights).suffix != ".pkl":
        tensors, where = state_of(weights)
    else:
        tensors, own = _unpickle(Path(weights), pickle)
        config, where = own if config is None else config, str(weights)
    tensors = {name.removeprefix("model."): value for name, value in tensors.items()}
    place = read_config(config, where, "EDM's network_kwargs or its training_options.json")
    settings = read_settings(*place)
    return _foreign(tensors, settings, where).run(options)


def _foreign(tensors: dict[str, Tensor], settings: Settings, where: str) -> ForeignNetwork:
    source = f"{where}: {settings.names[1]} with {settings.names[0]} of EDM"
    shape, classes = _samples(settings.images, tensors, where)
    config = settings.network(shape[-1], classes)
    return ForeignNetwork(
        source=source,
        name=Path(where).stem,
        shape=shape,
        noising=settings.meaning.noising,
        network=config,
        weights=_convert(tensors, settings, config, shape, classes, where),
        data_std=settings.meaning.data_std,
        classes=classes,
        unconditional=bool(classes) and config.classless,
    )


def _samples(
    images: Images, tensors: Mapping[str, Tensor], where: str
) -> tuple[tuple[int, int, int], int]:
    """Return the shape of a sample and the number of classes, from the weights.

    Raises:
        CheckpointError: weights of another network, or for other images than in the settings.
    """
    entry = next((name for name in tensors if _ENTRY.fullmatch(name)), None)
    if entry is None or tensors[entry].ndim != 4:
        raise CheckpointError(
            f"{where}: these are not weights of EDM's networks, which have enc.32x32_conv.weight: "
            f"{described(tensors)}."
        )
    side = int(entry.split(".")[1].partition("x")[0])
    of_class = tensors.get("map_label.weight")
    if of_class is not None and of_class.ndim != 2:
        raise CheckpointError(
            f"{where}: map_label.weight has shape {tuple(of_class.shape)}: must have two axes."
        )
    result = {
        "img_resolution": side,
        "img_channels": tensors[entry].shape[1],
        "label_dim": 0 if of_class is None else of_class.shape[-1],
    }
    for name, value in result.items():
        setting = getattr(images, name)
        if setting is not None and setting != value:
            raise CheckpointError(
                f"{where}: the configuration has {name}={setting}, and the weights {value}."
            )
    return (result["img_channels"], side, side), result["label_dim"]


def _convert(
    tensors: Mapping[str, Tensor],
    settings: Settings,
    config: SongConfig | ADMConfig,
    shape: tuple[int, ...],
    classes: int,
    where: str,
) -> dict[str, Tensor]:
    """Return the weights of our network, by our names."""
    network, meaning = outline(config, shape, classes, where), settings.meaning
    if config.kind == "song":
        song = cast(SongUNet, network)
        table = edm_weights.song(song, shape[-1], config.encoder, meaning.unit, meaning.zero)
    else:
        table = edm_weights.adm(cast(ADM, network), shape[-1])
    weights = convert(tensors, table, network.state_dict(), edm_weights.IDLE, where)
    return negate(weights) if meaning.sign < 0 else weights


def _unpickle(path: Path, allowed: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights and the settings of a network in one of EDM's pickles."""
    if not allowed:
        raise UsageError(
            f"{path} is a pickle, which runs the program inside it when it is read: set "
            "pickle=True if you trust it, with EDM's own code on the PYTHONPATH."
        )
    try:
        with files.opened(path) as file:
            content = pickles.load(file)
        network = content["ema"] if isinstance(content, dict) else content
        settings = {"class_name": type(network).__name__, **network.init_kwargs}
        return network.state_dict(), settings
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{path} needs the module {error.name!r}: put EDM's own code on the PYTHONPATH."
        ) from None
    except Exception as error:  # the program inside raises anything
        raise CheckpointError(f"{path} cannot be read: {files.reason(error)[:200]}") from None
