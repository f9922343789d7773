"""`scorefield codec`: from data to a codec folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from scorefield._internal.errors import UsageError
from scorefield.cli.options import ITEMS, MODEL, OPTIMIZER, WHERE, Device, ReadOptions, option
from scorefield.data.config import CodecKind


def codec(
    data: str,
    /,
    *,
    reading: ReadOptions = ReadOptions(),
    kind: Annotated[CodecKind, option(MODEL)] = "pca",
    size: Annotated[int, option(MODEL)] = 16,
    width: Annotated[int, option(MODEL)] = 128,
    steps: Annotated[int, option(OPTIMIZER)] = 2000,
    batch_size: Annotated[int, option(OPTIMIZER)] = 128,
    lr: Annotated[float, option(OPTIMIZER)] = 1e-3,
    held_out: Annotated[float | None, option(ITEMS)] = None,
    seed: Annotated[int, option(OPTIMIZER)] = 0,
    out: Annotated[Path | None, option(WHERE)] = None,
    device: Device = "cpu",
) -> None:
    """Train a codec, which maps data to few latents and back, and write its folder.

    `scorefield train DATA --codec FOLDER` then learns the distribution of the latents.

    Parameters
    ----------
    data
        As for `scorefield train`, without tables: vectors, cells or images.
    kind
        pca: principal components. vae: a variational autoencoder. nb: one of counts, with a
        negative binomial decoder and the library size as one more latent.
    size
        Number of latents.
    width
        Width of the hidden layers (vae, nb).
    steps
        Steps of the optimizer (vae, nb).
    batch_size
        Samples per step (vae, nb).
    lr
        Learning rate of Adam, before a cosine decay to zero (vae, nb).
    held_out
        Share of the data that is never trained on, to measure the reconstruction there. The same
        share and seed hold out the same samples in `scorefield train`.
    seed
        Seed of the weights, the order of the data and the noise.
    out
        The codec folder to write. It must not exist, or be empty.
    """
    import scorefield as sf
    from scorefield.cli.console import say, track
    from scorefield.runs.folder import RunFolder

    if out is None:
        raise UsageError("--out: name the codec folder to write.")
    if reading.conditions:
        raise UsageError("--condition: a codec has none; give it to scorefield train.")
    if reading.space is not None:
        raise UsageError("--space: latents are vectors, and points of a space are not.")
    RunFolder(out).refuse_existing()
    items = sf.read(data, **vars(reading))
    say(f"{len(items.x)} samples of shape {items.shape} from {items.name}")
    for note in items.notes:
        say(f"note: {note}")

    def progress(sequence: Iterable[int]) -> Iterable[int]:
        return track(sequence, steps, "training")

    trained = sf.train_codec(
        items,
        kind,
        size=size,
        width=width,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        held_out=held_out,
        seed=seed,
        device=device,
        progress=progress,
    )
    trained.save(out)
    say(f"{kind}: {trained.reconstruction}")
    say(f"codec folder: {out}")
