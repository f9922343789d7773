"""Codecs that are trained here: from data to a folder, and from a folder to latents.

A codec folder has a ``config.toml``, the weights in ``model.safetensors`` and ``SHA256SUMS``, as a
run folder has. It is checked as a run folder is before a byte of the weights is used.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tomli_w
import torch
from pydantic import FiniteFloat, ValidationError
from safetensors.torch import save as serialise
from torch import Tensor

from scorefield._internal import files, toml
from scorefield._internal.devices import find_device
from scorefield._internal.errors import CheckpointError, DataError, UsageError
from scorefield._internal.frozen import Frozen
from scorefield.data import Data
from scorefield.data.config import CodecKind, DataConfig, TrainedCodecConfig
from scorefield.data.contents import first_few
from scorefield.data.latents import check_counts
from scorefield.data.rows import Rows, chunks
from scorefield.networks.codecs import PCA, VAE, CountsVAE
from scorefield.runs import build, digests, weights
from scorefield.runs.folder import WEIGHTS, RunFolder, first_problem, new_folder
from scorefield.runs.weights import CONFIG
from scorefield.sampling.batching import as_numbers, as_state

_COMPARED = 1024  # items to measure the reconstruction on


class CodecFile(Frozen):
    """The configuration file of a codec.

    Attributes:
        data: that it was trained on, with the configuration of the codec.
        error, baseline, items, held_out: as `Reconstruction`.
    """

    format: Literal["codec"] = "codec"
    data: DataConfig
    error: FiniteFloat
    baseline: FiniteFloat
    items: int
    held_out: bool = True

    @property
    def text(self) -> str:
        """The content of the file."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))


@dataclass(frozen=True)
class Reconstruction:
    """The reconstruction of items from their mean latents.

    Attributes:
        kind: of the codec.
        error: the mean squared error divided by that of the mean of the items; for counts, the mean
            log-probability of a value in nats.
        baseline: the error without latents: 1, or the log-probability under the mean shares of
            the genes with the same dispersions.
        items: their number.
        held_out: whether the codec did not learn from them.
    """

    kind: CodecKind
    error: float
    baseline: float
    items: int
    held_out: bool = True

    def __str__(self) -> str:
        own = "" if self.held_out else " that it learned from"
        on = f"on {self.items} {'held-out ' * self.held_out}samples{own}"
        if self.kind == "nb":
            return (
                f"reconstruction {self.error:.4f} nats per value {on}, {self.baseline:.4f} with "
                "the library size alone"
            )
        return f"reconstruction error {self.error:.4f} {on}, relative to their variance"


@dataclass(eq=False)
class TrainedCodec:
    """A codec and the description of the data that it was trained on.

    Attributes:
        module: the codec.
        data: the data, with the configuration of the codec.
        reconstruction: of held-out items, or of those it learned from if none are held out.
    """

    module: PCA | VAE | CountsVAE
    data: DataConfig
    reconstruction: Reconstruction

    @property
    def config(self) -> TrainedCodecConfig:
        """The configuration of the codec."""
        assert isinstance(self.data.codec, TrainedCodecConfig)
        return self.data.codec

    def encode(self, x: Tensor | np.ndarray) -> Tensor:
        """Return the mean latents of data ``(B, *shape)``: ``(B, latents)``.

        Raises:
            DataError: data that is not of the codec's kind.
        """
        x = as_state(as_numbers("x", x))
        self._check(x, "x")
        return self.module.posterior(x)[0]

    def decode(self, z: Tensor | np.ndarray) -> Tensor:
        """Return the data of latents, of counts their expected values.

        Raises:
            DataError: another number of latents.
        """
        z = as_state(as_numbers("z", z))
        if z.shape[1:] != (self.module.latents,):
            raise DataError(
                f"z has shape {tuple(z.shape)}; give (B, {self.module.latents}) latents."
            )
        return self.module.decode(z)

    @property
    def digest(self) -> str:
        """A digest of the weights."""
        result = hashlib.sha256()
        for name, value in self.module.state_dict().items():
            result.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return result.hexdigest()

    def aligned(self, data: Data) -> Data:
        """Return data with the columns of the codec, by their names, in its order.

        Raises:
            UsageError: cells of another matrix.
            DataError: missing or repeated columns; another shape; values that the codec does not
                take.
        """
        own, names, notes = self.data.columns.names, data.columns.names, data.notes
        mine, theirs = (each.reading.matrix or "X" for each in (self.data, data))
        if own and names and mine != theirs:
            raise UsageError(
                f"matrix={theirs}: the codec was trained on {mine} of {self.data.name}; read "
                f"{data.name} with matrix={mine}, as --matrix {mine}."
            )
        rows = data.x
        if own and names and own != names:
            for each, where in ((own, self.data.name), (names, data.name)):
                if repeated := [name for name, count in Counter(each).items() if count > 1]:
                    raise DataError(
                        f"{where} has several columns of one name, so none can be matched by it: "
                        f"{first_few(repeated)}."
                    )
            missing, extra = set(own) - set(names), [name for name in names if name not in own]
            if missing:
                listed = first_few([name for name in own if name in missing])
                others = f"; it has {len(extra)} others: {first_few(extra)}" if extra else ""
                raise DataError(
                    f"{data.name} lacks {len(missing)} of the {len(own)} columns of the codec: "
                    f"{listed}{others}."
                )
            if extra:
                notes = (*notes, f"{len(extra)} columns are left out: {first_few(extra)}")
            places = {name: k for k, name in enumerate(names)}
            order = torch.tensor([places[name] for name in own])
            rows = rows[:, order] if isinstance(rows, Tensor) else _Columns(rows, order)
        check_plain(data)
        for chunk in chunks(rows):
            self._check(chunk, data.name)
        columns = self.data.columns.model_copy(update={"names": own or names})
        return replace(data, x=rows, columns=columns, notes=notes)

    def measure(self, rows: Rows, items: Tensor) -> Reconstruction:
        """Return the reconstruction of some items, by their numbers; at most 1,024 of them."""
        x = rows[items[:_COMPARED]].to(next(self.module.buffers()).device)
        flat, z = x.flatten(1), self.module.posterior(x)[0]
        with torch.no_grad():
            if isinstance(self.module, CountsVAE):
                alone = flat.sum(1, keepdim=True).clamp(min=1) * flat.mean(0) / flat.mean(0).sum()
                plain = self.module.log_prob_of(flat, alone)
                error = float(self.module.log_prob(flat, z).mean())
                return Reconstruction("nb", error, float(plain.mean()), len(x))
            squares = (flat - flat.mean(0)).double().square().sum()
            error = float((flat - self.module.mean(z)).double().square().sum() / squares)
        return Reconstruction(self.config.kind, error, 1.0, len(x))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the codec to a new folder, at once or not at all.

        Raises:
            UsageError: the folder exists and is not empty.
            StorageError: no room on the disk.
        """
        RunFolder(folder).refuse_existing()
        path = Path(os.path.realpath(folder))
        facts = self.reconstruction
        about = CodecFile(
            data=self.data,
            error=facts.error,
            baseline=facts.baseline,
            items=facts.items,
            held_out=facts.held_out,
        )
        content = serialise({f"codec.{k}": v for k, v in self.module.state_dict().items()})
        with new_folder(path, len(content)) as aside:
            (aside / WEIGHTS).write_bytes(content)
            (aside / CONFIG).write_text(about.text, encoding="utf-8")

    def _check(self, x: Tensor, name: str) -> None:
        if tuple(x.shape[1:]) != self.data.shape:
            raise DataError(
                f"{name} has samples of shape {tuple(x.shape[1:])}; the codec was trained on "
                f"samples of shape {self.data.shape}."
            )
        if self.config.kind == "nb":
            check_counts(x, name)


@dataclass(frozen=True)
class _Columns(Rows):
    """Some columns of rows that are read when they are needed."""

    rows: Rows
    order: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), len(self.order))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, items: Tensor, /) -> Tensor:
        return self.rows[items][:, self.order]


def check_plain(data: Data) -> None:
    """Reject the columns of a table, points of a space, and missing values.

    Raises:
        DataError: naming the data.
    """
    if data.points.space:
        raise DataError(
            f"{data.name} has points of {data.points.space}, and latents are vectors: read it "
            "without space."
        )
    if data.columns.arrow:
        raise DataError(
            f"{data.name} is a table, whose columns have types: give a codec an array or cells."
        )
    if data.incomplete:
        raise DataError(f"{data.name} has missing values in {data.incomplete} samples: drop them.")
    if any(not chunk.isfinite().all() for chunk in chunks(data.x)):
        raise DataError(
            f"{data.name} has values that are not finite, as signals of several lengths have: "
            "give a codec samples of one shape."
        )


def load_codec(folder: str | os.PathLike[str], device: str | torch.device = "cpu") -> TrainedCodec:
    """Return the codec of a folder.

    Raises:
        CheckpointError: a file is missing, unreadable or changed, or the folder is not of a codec.
        UsageError: a device that is not available here.
    """
    where, place = find_device(device), Path(folder)
    path = place / CONFIG
    if not place.is_dir():
        raise CheckpointError(f"{place}: this codec folder does not exist; train a codec first.")
    with files.reading(path, "", CheckpointError):
        values = toml.read(path, place)
    if "train" in values:
        raise CheckpointError(f"{path} is the configuration of a run, not of a codec.")
    try:
        about = CodecFile.model_validate(values)
        config = about.data.codec
        if not isinstance(config, TrainedCodecConfig):
            raise ValueError("its codec was not trained here")
        outline = build.codec_outline(config, about.data.shape).state_dict()
    except ValueError as error:
        detail = first_problem(error) if isinstance(error, ValidationError) else error
        raise CheckpointError(f"{path} is not the configuration of a codec: {detail}.") from None
    expected = {f"codec.{k}": v for k, v in outline.items()}
    tensors = weights.read_tensors(weights.plain_file(place, WEIGHTS), expected)
    digests.check(place, (CONFIG, WEIGHTS))
    module: Any = build.codec_of(config, about.data.shape, tensors)
    module.to(where).eval().requires_grad_(False)
    facts = about.error, about.baseline, about.items, about.held_out
    measured = Reconstruction(config.kind, *facts)
    return TrainedCodec(module, about.data, measured)
