"""Networks trained with EDM's code, as runs.

Reference: Karras et al. (2022), arXiv:2206.00364.
"""

from __future__ import annotations

import pickle as pickles
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.data.rows import Rows
from scorefield.interop import edm_names
from scorefield.interop.edm_settings import Images, Settings, read
from scorefield.interop.imported import Found, Known
from scorefield.interop.renaming import converted, negated, outline
from scorefield.interop.settings import given
from scorefield.interop.weights import by_name, read_weights
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
        config: ``class_name`` of the preconditioning and what it is made with, as EDM's
            ``network_kwargs``; or the file ``training_options.json``. A pickle has its own.
        data_std, levels, data: as in `scorefield.interop.imported.Known`.
        pickle: read a ``.pkl``, which runs the program that lies in it; EDM's own modules must be
            importable.

    Raises:
        UsageError: a configuration that is not known, or none; a pickle that nobody asked for.
        CheckpointError: weights that cannot be read, or contradict the configuration.
        DataError: data of another shape, or not in the levels.
    """
    known = Known(data_std, levels, data)
    if isinstance(weights, Mapping):
        held, where = by_name(weights, "weights"), "weights"
    elif Path(weights).suffix == ".pkl":
        held, own = _unpickled(Path(weights), pickle)
        config, where = own if config is None else config, str(weights)
    else:
        held, where = read_weights(Path(weights), pickle=True), str(weights)
    if config is None:
        raise UsageError(
            f"{where}: give config, EDM's network_kwargs or its training_options.json."
        )
    held = {name.removeprefix("model."): value for name, value in held.items()}
    return _found(held, read(*given(config, where)), where).run(known)


def _found(held: dict[str, Tensor], settings: Settings, where: str) -> Found:
    source = f"{where}: {settings.names[1]} with {settings.names[0]} of EDM"
    shape, classes = _samples(settings.images, held, where)
    noising, config = settings.told.noising, settings.network(shape[-1], classes)
    return Found(
        source=source,
        name=Path(where).stem,
        shape=shape,
        process=noising.process,
        parametrization=noising.parametrization,
        label=noising.label,
        network=config,
        weights=_renamed(held, settings, config, shape, classes, where),
        data_std=settings.told.data_std,
        classes=classes,
        unconditional=bool(classes) and config.classless,
    )


def _samples(
    images: Images, held: Mapping[str, Tensor], where: str
) -> tuple[tuple[int, int, int], int]:
    """Return the shape of a sample and the number of classes, by the weights.

    Raises:
        CheckpointError: weights of no such network, or for other images than the settings say.
    """
    entry = next((name for name in held if _ENTRY.fullmatch(name)), None)
    if entry is None or held[entry].ndim != 4:
        raise CheckpointError(
            f"{where}: no weights of EDM's networks, which begin with one for the image's "
            "resolution, as enc.32x32_conv.weight."
        )
    side = int(entry.split(".")[1].partition("x")[0])
    of_class = held.get("map_label.weight")
    if of_class is not None and of_class.ndim != 2:
        raise CheckpointError(
            f"{where}: map_label.weight has shape {tuple(of_class.shape)}, which is no layer's."
        )
    found = {
        "img_resolution": side,
        "img_channels": held[entry].shape[1],
        "label_dim": 0 if of_class is None else of_class.shape[-1],
    }
    for name, value in found.items():
        said = getattr(images, name)
        if said is not None and said != value:
            raise CheckpointError(
                f"{where}: the configuration says {name} = {said}, and the weights are for {value}."
            )
    return (found["img_channels"], side, side), found["label_dim"]


def _renamed(
    held: Mapping[str, Tensor],
    settings: Settings,
    config: SongConfig | ADMConfig,
    shape: tuple[int, ...],
    classes: int,
    where: str,
) -> dict[str, Tensor]:
    """Return weights of our network, by our names."""
    network, told = outline(config, shape, classes, where), settings.told
    if config.kind == "song":
        song = cast(SongUNet, network)
        table = edm_names.song(song, shape[-1], config.encoder, told.unit, told.zero)
    else:
        table = edm_names.adm(cast(ADM, network), shape[-1])
    found = converted(held, table, network.state_dict(), edm_names.IDLE, where)
    return negated(found) if told.sign < 0 else found


def _unpickled(path: Path, allowed: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights and the settings of a network in one of EDM's pickles."""
    if not allowed:
        raise UsageError(
            f"{path} is a pickle, which runs the program that lies in it when it is read: say "
            "pickle if you trust it, with EDM's own code on the PYTHONPATH."
        )
    try:
        with path.open("rb") as file:
            found = pickles.load(file)
        network = found["ema"] if isinstance(found, dict) else found
        settings = {"class_name": type(network).__name__, **network.init_kwargs}
        return network.state_dict(), settings
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{path} needs the module {error.name!r}: put EDM's own code on the PYTHONPATH."
        ) from None
    except Exception as error:  # whatever the program in it comes to
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} cannot be read: {reason[:200]}") from None
