"""Training of codecs: principal components, and autoencoders by their bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor

from scorefield._internal.devices import find_device
from scorefield._internal.errors import DataError, NumericalError, UsageError
from scorefield.data.config import CodecKind, ColumnsConfig, DataConfig, TrainedCodecConfig
from scorefield.data.latents import check_counts
from scorefield.data.rows import Rows, chunks, moments_of
from scorefield.data.source import as_data
from scorefield.networks.codecs import PCA, VAE, CountsVAE
from scorefield.runs import build
from scorefield.runs.codecs import CodecFile, Reconstruction, TrainedCodec, check_plain
from scorefield.runs.folder import check_text
from scorefield.runs.settings import configured
from scorefield.training.course import completed
from scorefield.training.held_out import split

_WARMUP = 0.3  # of the steps, in which the weight of the divergence rises to 1
_MOST = {"size": 2**12, "width": 2**14}
_LARGEST = 8192  # numbers of a sample for principal components, whose covariance is a square


def train_codec(
    data: Any,
    kind: CodecKind = "pca",
    *,
    size: int = 16,
    width: int = 128,
    steps: int = 2000,
    batch_size: int = 128,
    lr: float = 1e-3,
    held_out: float | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> TrainedCodec:
    """Train a codec on data: vectors, cells or images.

    Args:
        data: as for `scorefield.train`.
        kind: ``pca``, principal components; ``vae``, a variational autoencoder; ``nb``, one of
            counts, with a negative binomial decoder and the library size as one more latent.
        size: the number of latents.
        width: of the hidden layers of autoencoders.
        steps, batch_size, lr: of their training, by Adam with a cosine decay of the rate.
        held_out, seed: as in `TrainConfig`; the same values hold out the same samples.
        device: where to train.
        progress: called with the steps, and iterated.

    Raises:
        UsageError: a size, kind or share that does not fit the data; another bad setting.
        DataError: as `scorefield.read`; for ``nb``, values that are not counts; a table;
            samples that are all equal.
        NumericalError: the training diverges.
    """
    items = as_data(data)
    count = math.prod(items.shape)
    _check_arguments(kind, size, count, {"width": width, "steps": steps, "batch_size": batch_size})
    settings, _ = configured(None, {"held_out": held_out, "lr": lr, "seed": seed})
    check_plain(items)
    if kind == "nb":
        if len(items.shape) > 1:
            raise UsageError(f"kind='nb': needs vectors of counts, not shape {items.shape}.")
        for chunk in chunks(items.x):
            check_counts(chunk, items.name)
    where = find_device(device)
    share = completed(settings, items.shape, len(items.x)).held_out or 0.0
    learned, rest = split(len(items.x), share, seed)
    if len(rest) == 1:
        raise UsageError(
            f"held_out={held_out}: holds out 1 of {len(items.x)} samples; hold out 0, or 2 or more."
        )
    config = TrainedCodecConfig(kind=kind, size=size, width=width)
    about = DataConfig(
        name=items.name,
        shape=items.shape,
        count=len(items.x),
        columns=ColumnsConfig(names=items.columns.names),
        reading=items.reading,
        codec=config,
    )
    check_text(CodecFile(data=about, error=0.0, baseline=1.0, items=1).text, CodecFile, items.name)
    with torch.inference_mode(False), torch.enable_grad():  # as they may be off around a call
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module: Any = build.codec(config, items.shape)
        rows = _Flat(items.x, learned)
        moments = moments_of(rows, lambda x: x)
        if not moments.variance.any():
            raise DataError(f"{items.name}: all samples are equal; a codec has nothing to learn.")
        if isinstance(module, PCA):
            try:
                module.set(moments.mean, _covariance(rows, moments.mean))
            except ValueError as error:
                raise UsageError(str(error)) from None
        else:
            module.set(moments.mean, moments.variance)
            module.to(where)
            _fit(module, rows, steps, batch_size, lr, seed, progress)
        module.eval().requires_grad_(False)
    codec = TrainedCodec(module, about, Reconstruction(kind, 0.0, 1.0, 0))
    measured = codec.measure(items.x, rest if len(rest) else learned)
    if not math.isfinite(measured.error):
        raise NumericalError(
            f"reconstruction: the error is {measured.error} on {measured.items} samples; use a "
            "lower lr, or hold out others."
        )
    return replace(codec, reconstruction=replace(measured, held_out=bool(len(rest))))


@dataclass(frozen=True)
class _Flat(Rows):
    """Some items of rows, as vectors."""

    rows: Rows
    items: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.items), math.prod(self.rows.shape[1:]))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, items: Tensor, /) -> Tensor:
        return self.rows[self.items[items]].flatten(1)


def _check_arguments(kind: str, size: int, count: int, numbers: dict[str, int]) -> None:
    if kind not in get_args(CodecKind):
        raise UsageError(f"kind={kind!r}: must be one of {', '.join(get_args(CodecKind))}.")
    for name, value in {"size": size, **numbers}.items():
        if not 1 <= value <= _MOST.get(name, value):
            most = f" and at most {_MOST[name]:,}" if name in _MOST else ""
            raise UsageError(f"{name}={value}: must be at least 1{most}.")
    if size > count:
        raise UsageError(f"size={size}: must be at most the numbers of a sample, here {count}.")
    if kind == "pca" and count > _LARGEST:
        raise UsageError(
            f"kind='pca': samples have {count:,} numbers, and at most {_LARGEST:,} are allowed. "
            "Choose columns, such as highly variable genes, or use vae or nb."
        )


def _covariance(rows: Rows, mean: Tensor) -> Tensor:
    total = mean.new_zeros(len(mean), len(mean))
    for chunk in chunks(rows):
        centered = chunk.double() - mean
        total += centered.T @ centered
    return total / len(rows)


def _fit(
    module: VAE | CountsVAE,
    rows: Rows,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
    progress: Callable[[Iterable[int]], Iterable[int]],
) -> None:
    """Train an autoencoder by its bound; the items of a step are a function of the seed."""
    optimizer = torch.optim.Adam(module.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    buffer = next(module.buffers())
    for step in progress(range(steps)):
        items = torch.randint(len(rows), (batch_size,), generator=generator)
        eps = torch.randn(batch_size, module.latents, generator=generator).to(buffer)
        weight = min(1.0, (step + 1) / (_WARMUP * steps))
        loss = module.loss(rows[items].to(buffer), eps, weight).mean()
        if not loss.isfinite():
            raise NumericalError(f"step {step + 1}: the loss is {loss:g}; use a lower lr.")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(module.parameters(), 100.0)
        optimizer.step()
        schedule.step()
