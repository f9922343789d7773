"""Training with settings by flat names."""

from __future__ import annotations

from typing import Any

import torch

from scorefield._internal.devices import find_device
from scorefield.data.source import as_data
from scorefield.runs.run import Run
from scorefield.runs.settings import configured
from scorefield.runs.trainer import Training
from scorefield.training.config import TrainConfig


def train(
    data: Any,
    y: Any = None,
    *,
    config: TrainConfig | None = None,
    device: str | torch.device = "cpu",
    **settings: Any,
) -> Run:
    """Train a field on data and return the finished run.

    Args:
        data: a tensor or array ``(N, D)``, ``(N, C, L)`` or ``(N, C, H, W)``; a pandas or polars
            table; an AnnData object; a path or the name of a built-in set; a `scorefield.Data`.
        y: classes to learn too: a tensor, an array or a list of integers or texts, or the name of
            a column of the table or of ``obs``. With it ``conditional`` is True by default.
        config: the settings as one object, such as that of another run.
        device: where to train: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        settings: the fields of `scorefield.TrainConfig` and `scorefield.OptimConfig`, which
            override those of ``config``: ``steps``, ``minutes``, ``lr``, ``batch_size``,
            ``network``, ``process``, ``parametrization``, ``conditional``, ``held_out``, ``seed``
            and others.
            A network, process, parametrization, label, weighting or distribution of times is the
            name of a kind, a configuration, or an object, for example of a class of your own. A
            network is a module called as ``network(x, label)``, or ``network(x, label, y=y)`` with
            ``y = -1`` where a class is hidden; it is trained in place.

    Raises:
        TypeError: an unknown setting.
        DataError: as `scorefield.read`.
        UsageError: a device that is not available here.
        ValueError: as `Training` and `scorefield.training.loop.fit`.
    """
    if isinstance(y, TrainConfig):
        raise TypeError("y is a TrainConfig: pass it as config=.")
    if y is not None and "conditional" not in (config.model_fields_set if config else ()):
        settings = {"conditional": True, **settings}
    where = find_device(device)
    built, objects = configured(config, settings)
    training = Training(as_data(data, y), built, device=where, objects=objects)
    for _ in training:
        pass
    return training.run
