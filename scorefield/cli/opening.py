"""Opening a run for a command: its network, its conditions, its guidance."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from scorefield._internal import sizes
from scorefield._internal.errors import UsageError
from scorefield.cli.options import ExamineOptions, ItemOptions
from scorefield.data.config import Channel
from scorefield.runs.folder import RunFolder
from scorefield.runs.jobs.engines import Source
from scorefield.runs.run import Run
from scorefield.runs.units import Given as Values
from scorefield.sampling import batch_rows

_COPIES = 8  # of a batch, at least: state, noise, estimates and inside the network


@dataclass(frozen=True)
class Opened:
    """A run as a command uses it.

    Attributes:
        run, source: the run, and where it comes from.
        options: those of the command.
        given: the conditions of the items.
    """

    run: Run
    source: Source
    options: ItemOptions
    given: GivenItems

    @property
    def folder(self) -> RunFolder:
        """The folder of the run."""
        return RunFolder(self.source.folder)

    def batch_size(self, count: int) -> int:
        """Return the rows of a batch of ``count`` samples.

        Raises:
            UsageError: the memory does not hold as many.
        """
        groups = max(1, len(self.run.config.data.lengths))  # of signals of one length
        rows = batch_rows(-(-count // groups), self.options.batch_size)
        needs = _COPIES * 4 * rows * math.prod(self.run.config.data.shape)
        if needs > sizes.memory():
            raise UsageError(
                f"--batch-size {rows}: a batch takes {sizes.words(needs)}, and there are "
                f"{sizes.words(sizes.memory())} of memory."
            )
        return rows


def parse_guidance(text: str) -> float | dict[str, float]:
    """Return the scale in a text such as ``2``, or the scales in one such as ``dose=2,drug=1.5``.

    Raises:
        UsageError: something else; a condition twice.
    """
    parts = [part.rpartition("=") for part in text.split(",")]
    try:
        scales = {name.strip(): float(value) for name, _, value in parts}
    except ValueError:
        scales = {}
    if len(scales) < len(parts) or ("" in scales and len(parts) > 1):
        raise UsageError(f"--guidance {text}: give a number, or one a condition, as dose=2,drug=1.")
    return scales.get("", scales)


def open_run(
    folder: Path, options: ItemOptions, guidance: float | Mapping[str, float] = 1.0
) -> Opened:
    """Open a run, with guidance towards the conditions of the options.

    Raises:
        UsageError: a batch size, a device or a condition that does not exist; guidance without a
            condition.
        CheckpointError: as `scorefield.load`.
    """
    if options.batch_size is not None and options.batch_size < 1:
        raise UsageError(f"--batch-size {options.batch_size}: give at least 1.")
    if guidance != 1 and not options.given and options.given_from is None:
        shown = f"{guidance:g}" if isinstance(guidance, float) else ",".join(guidance)
        raise UsageError(f"--guidance {shown}: name the condition with --given.")
    source = Source(folder, options.network, options.device, options.length)
    run = source.load().guided(guidance)
    opened = Opened(run, source, options, given_items(run, options.given, options.given_from))
    opened.batch_size(1)  # raises if that of the options is too large
    return opened


def examined(folder: Path, options: ExamineOptions) -> tuple[Run, GivenItems]:
    """Return a run to measure, and the conditions of its items.

    Raises:
        CheckpointError, UsageError: as `Source.load`; as `embedding` and `given_items`.
    """
    condition = embedding(options.embeddings, options.prompt)
    source = Source(folder, options.network, options.device, options.length)
    run = source.load().condition_on(**condition)
    return run, given_items(run, options.given, options.given_from)


def with_columns(opened: Opened, data: str) -> Opened:
    """Return a run with the conditions that are columns of its items, if the options give none.

    Raises:
        DataError: data that cannot be read.
        UsageError: values that a condition does not take.
    """
    if opened.given.values or not opened.run.config.data.conditions:
        return opened
    from scorefield.data.conditions import read_own

    values = read_own(opened.run.config.data.conditions, data)
    return replace(opened, given=GivenItems(values, opened.run.given_name(Values(values))))


def embedding(embeddings: Path | None, prompt: int | None) -> dict[str, Tensor]:
    """Return the condition of a text in a file of embeddings, ``(1, tokens, width)``, by its name.

    Raises:
        UsageError: a text that the file does not have.
        DataError: as `scorefield.data.embeddings.read_embeddings`.
    """
    if embeddings is None:
        if prompt is not None:
            raise UsageError(f"--prompt {prompt}: has no effect without --embeddings.")
        return {}
    from scorefield.data.embeddings import CONDITION, read_embeddings

    every, k = read_embeddings(embeddings), prompt or 0
    if not 0 <= k < len(every):
        raise UsageError(f"--prompt {k}: {embeddings} has the texts 0 to {len(every) - 1}.")
    return {CONDITION: every[k : k + 1]}


@dataclass(frozen=True)
class GivenItems:
    """The conditions of the items of a command.

    Attributes:
        values: for all items, or with a row for each, as a network takes them.
        name: of the conditions, for files and for the settings of a job; empty without any.
        together: whether all rows are for every item.
    """

    values: Mapping[str, Tensor]
    name: str
    together: bool = False

    @property
    def rows(self) -> int:
        """The number of items that they are for; 1 if they are for any."""
        if self.together:
            return 1
        return max((len(v) for v in self.values.values() if v.ndim), default=1)

    def check(self, ids: range, items: int | None) -> None:
        """Reject items without a row, and rows without an item.

        Args:
            items: the number of items in the data; None for samples.

        Raises:
            UsageError: with both numbers.
        """
        self.of(ids[-1:])
        if items is not None and self.rows > max(1, items):
            raise UsageError(f"--given-from: {self.rows} rows for {items} items.")

    def of(self, ids: Sequence[int] | range) -> Values | None:
        """Return the conditions of some items, or None without any.

        Raises:
            UsageError: items without a row.
        """
        rows = list(ids)
        if self.rows > 1 and rows and max(rows) >= self.rows:
            raise UsageError(
                f"--given-from: {self.rows} rows, and item {max(rows)} needs one of its own."
            )
        if self.together:
            return Values(self.values)
        some = {k: v[rows] if v.ndim and len(v) > 1 else v for k, v in self.values.items()}
        return Values(some) if some else None


def given_items(run: Run, given: Sequence[str], given_from: Path | None) -> GivenItems:
    """Return the conditions of the options ``--given`` and ``--given-from``.

    Raises:
        UsageError: conditions that the run does not have, or values that it does not take.
        DataError: a file that cannot be read.
    """
    channels = run.config.data.conditions
    if (given or given_from is not None) and not channels:
        option = " ".join(["--given", *given]) if given else f"--given-from {given_from}"
        raise UsageError(f"{option}: this run has no conditions; train with --condition.")
    values = dict(run.given(_of_texts(channels, given)))
    if given_from is not None:
        from scorefield.data.conditions import read_given

        rows = read_given(channels, given_from)
        if both := [name for name in rows if name in values]:
            raise UsageError(f"--given-from {given_from}: {both[0]} is given by --given, too.")
        values |= rows
    return GivenItems(values, run.given_name(Values(values)))


def _of_texts(channels: Sequence[Channel], given: Sequence[str]) -> dict[str, Any]:
    """Return the values in texts such as ``dose=0.3`` and ``x=0.3,-1``, by the conditions."""
    names, values = [channel.name for channel in channels], dict[str, Any]()
    sizes = {channel.name: getattr(channel, "size", 1) for channel in channels}
    name = names[0] if len(names) == 1 else ""
    labels = {name for channel in channels for name in getattr(channel, "names", ())}
    for text in given:
        for part in [text] if text in labels else text.split(","):
            before, (name, sign, value) = name, part.partition("=")
            if before in values and not sign and sizes.get(before, 1) > 1:
                values[before] = [*values[before], part]
                name = before
                continue
            if part in labels or not sign:
                if len(names) != 1:
                    raise UsageError(
                        f"--given {part}: this run has the conditions {', '.join(names)}; write "
                        f"{names[0]}=VALUE."
                    )
                name, value = names[0], part
            if name in values:
                raise UsageError(f"--given {part}: {name} is given twice.")
            values[name] = [value] if sizes.get(name, 1) > 1 else value
    return {name: v[0] if isinstance(v, list) and len(v) == 1 else v for name, v in values.items()}


def file_part(options: ItemOptions) -> str:
    """Return the part of a file's name for the conditions of the options."""
    texts = [*options.given, *([options.given_from.stem] if options.given_from else [])]
    texts += [] if options.length is None else [f"length{options.length}"]
    return "".join("-" + re.sub(r"[^\w.=-]", "_", text) for text in texts)
