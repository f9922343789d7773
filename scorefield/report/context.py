"""The inputs that the sections of a report share: the run, its folder, data and samples."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorefield._internal.errors import CheckpointError, UsageError
from scorefield._internal.text import short_name
from scorefield.data import Data
from scorefield.data.config import DataConfig
from scorefield.data.source import as_data
from scorefield.field import ScoreField, check_score
from scorefield.noise import Noise
from scorefield.process import check_one_level
from scorefield.report.blocks import Missing, Panel
from scorefield.report.frontier import check_drawable
from scorefield.report.view import View, limits
from scorefield.report.view_images import Images, Signals, Slices
from scorefield.report.view_vectors import Bars, Points, projection
from scorefield.runs.folder import held_out_items
from scorefield.runs.loading import load
from scorefield.runs.run import Run
from scorefield.runs.units import Given
from scorefield.sampling import default_plan

_MOST_PLANS, _MOST_CALLS = 16, 1000
_ITEMS, _NUMBERS = 2000, 2**25  # items of data, and values in all of them
_VECTORS, _OTHERS = 512, 64  # samples
_LIKELIHOODS, _LEAST, _VALUES = 64, 8, 2**16  # items, and values in all of them
_AUDITED = 64  # items, at least
_FEW = 32  # items of data, too few to take limits from


class ReportContext:
    """The inputs of all sections; they are checked before any work.

    Attributes:
        run: the run.
        items_of_data: the first items of the data, or of the held-out data; None without data.
        source: the name of the data, to stand in a sentence.
        held_out: whether only held-out data is used.
        seed: of all noise.
        n: number of samples in a panel of a slider, or None for the number of the view.
        items: number of items whose likelihood is computed.
        audit: whether the field is audited on the data.
        given: conditions, if the run did not learn to generate without any, or None.
        folder, data: the run folder and the data, to stand in a command.
        log, plans, frontier: the records of the training, the tuned plans by their calls, and the
            measurements of solvers.

    Args:
        run: a run or a run folder; the other arguments are those of `write_report`.

    Raises:
        ValueError: a number out of range; ``held_out`` without data; an audit without enough data,
            or of a field that cannot be audited.
        DataError: data that cannot be read, or is not of the run's kind.
        CheckpointError: a file of the run folder that cannot be used.
    """

    def __init__(
        self,
        run: Run | str | PathLike[str],
        data: Any = None,
        *,
        held_out: bool = False,
        seed: int = 0,
        n: int | None = None,
        items: int | None = None,
        conditions: Any = None,
        audit: bool = False,
    ) -> None:
        Noise(seed, torch.arange(0))  # rejects a seed out of range
        for name, value, most in (("n", n, 64), ("items", items, 2000)):
            if value is not None and not 1 <= value <= most:
                raise UsageError(f"{name}={value}: must be from 1 to {most}.")
        if held_out and data is None:
            raise UsageError("held_out=True: pass the data that the run was trained on as data.")
        self.run = run if isinstance(run, Run) else load(Path(run))
        config, folder = self.run.config, self.run.folder
        size = math.prod(config.data.shape)
        self.seed, self.held_out, self.n, self.audit = seed, held_out, n, audit
        self.items = items or min(_LIKELIHOODS, max(_LEAST, _VALUES // size))
        self.given = None if config.train.dropout else self._first(config.data)
        if conditions is not None and data is None:
            raise UsageError("conditions: are those of data; pass data, too.")
        self.items_of_data: Data | None = None
        self.source, self.data = "", "DATA"
        if data is not None:
            every = as_data(data, conditions, learn=False, like=config.data)
            self.items_of_data, self.source = self._items(every), short_name(every.name)
            if isinstance(data, str | PathLike):
                self.data = quoted(data)
        if audit:
            if self.items_of_data is None or len(self.items_of_data.x) < _AUDITED:
                raise UsageError(
                    f"audit=True: pass at least {_AUDITED} items that the run was not trained on."
                )
            check_score("audit", self.run.field)
            check_one_level("audit", self.run.field.process)
        self.folder = "RUN" if folder is None else quoted(folder.path)
        self.log = [] if folder is None else folder.log
        self.frontier = None if folder is None else folder.frontier()
        if self.frontier is not None:
            check_drawable(self.frontier, self.folder)
        self.plans = dict(list(self.run.plans.items())[:_MOST_PLANS])
        for nfe, plan in self.plans.items():
            if isinstance(plan.times, Tensor) and max(nfe, len(plan.times)) > _MOST_CALLS:
                raise CheckpointError(
                    f"{self.folder}: a tuned plan of more than {_MOST_CALLS} calls; remove it."
                )

    def _first(self, data: DataConfig) -> Given | None:
        """Return the first class, or the first conditions of the data."""
        if data.classes is not None:
            return Given({data.classes.key: torch.tensor(0)})
        rows = {key: self.run.examples[key][:1] for key in data.examples}
        return Given(rows) if rows else None

    def _items(self, data: Data) -> Data:
        """Return the first items of data, or of its held-out items."""
        count = min(_ITEMS, max(2, _NUMBERS // math.prod(self.run.config.data.shape)))
        rows = held_out_items(self.run.config, data) if self.held_out else torch.arange(len(data.x))
        x = data.x[rows[:count]]
        self.run.check_data(x, data.name)
        return replace(data, x=x, conditions=data.conditions.rows(rows[:count]))

    @cached_property
    def x(self) -> Tensor | None:
        """The first items of the data, or of the held-out data; None without data."""
        items = self.items_of_data
        return None if items is None else items.x[torch.arange(len(items.x))]

    @property
    def has_conditions(self) -> bool:
        """Whether the data has all conditions of the run."""
        items = self.items_of_data
        own = set() if items is None else {*items.conditions.values}
        return own >= {channel.key for channel in self.run.config.data.conditions}

    @property
    def field(self) -> ScoreField:
        """The run's field, under conditions if it did not learn to generate without any."""
        return self.run.toward(self.given)

    @property
    def settings(self) -> dict[str, Any]:
        """The seed and the conditions of all samples, except in the panels of classes."""
        return {"seed": self.seed, "given": self.given}

    @cached_property
    def samples(self) -> Tensor:
        """Samples by the default plan, in the data's units: as many as the largest view shows."""
        count = _VECTORS if len(self.run.config.data.shape) == 1 else _OTHERS
        return self.run.sample(count, default_plan(self.run.field), **self.settings)

    @cached_property
    def view(self) -> View:
        """The view of samples; its limits are those of the data, or of samples without data."""
        x = self.samples if self.x is None or len(self.x) < _FEW else self.x[:_VECTORS]
        shape, levels = x.shape[1:], self.run.config.train.levels
        if len(shape) in (3, 4):
            ends = (0.0, levels - 1.0) if levels else limits(x)
            return (Images if len(shape) == 3 else Slices)(tuple(shape), *ends)
        if len(shape) == 2:
            return Signals(x)
        project, names = projection(self.run, x)
        return (Bars if len(names) == 1 else Points)(project, names, x)

    def noised(self, x: Tensor, noise: Noise) -> tuple[Tensor, Noise]:
        """Return data in the field's units, with the noise of its encoding, as in training."""
        v, _, noise = self.run.encoding.forward(x, noise)
        return self.run.standardized(v), noise

    def few(self, frames: int, most: int = 12) -> int:
        """Return the number of samples in a panel of so many frames, at most ``most`` images."""
        return self.n or self.view.few(frames, most)

    def panel(self, name: str, note: str, frames: Sequence[Tensor], followed: bool = True) -> Panel:
        """Return a panel with a picture of samples."""
        alt = f"{len(frames[0])} {self.view.noun}, {name}"
        return Panel(name, note, alt, self.view.picture(frames, followed))

    @property
    def missing_data(self) -> Missing:
        """The placeholder of a section that needs data."""
        command = f"scorefield report {self.folder} {self.data}"
        return Missing("This section needs data. To add it, run", command)

    @property
    def class_of_items(self) -> str:
        """A remark on the conditions that items of data are taken to have, if the run has any."""
        if self.run.config.data.conditions and self.given is None:
            return " They are taken as items of any condition."
        return self.class_note

    @property
    def class_note(self) -> str:
        """A remark if all samples are under one condition."""
        if self.given is None:
            return ""
        channel = self.run.config.data.classes
        if channel is None:
            return " All are under the conditions of the first item."
        return f" All are of the class {short_name(channel.names[0]) if channel.names else 0}."


def quoted(path: str | PathLike[str]) -> str:
    """Return a path to stand in a command."""
    return short_name(shlex.quote(str(path)))
