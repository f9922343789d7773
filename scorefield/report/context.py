"""What several sections share: samples, and the way they are looked at."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from scorefield.field import ScoreField
from scorefield.noise import Noise
from scorefield.report.blocks import Panel
from scorefield.report.inputs import ReportInputs
from scorefield.report.text import short_name
from scorefield.report.view import View
from scorefield.report.view_choice import view_of
from scorefield.sampling import default_plan

_VECTORS, _OTHERS = 512, 64  # samples
_ITEMS, _LEAST, _NUMBERS = 64, 8, 2**16  # whose likelihood is told
_FEW = 32  # items of data, too few to take limits from


class ReportContext:
    """What sections are made of.

    Args:
        inputs: run, data and what lies in the run's folder.
        n: how many samples a panel of a slider shows; as suits the data unless given.
        items: how many items of the data the likelihood is told of, fewer large ones unless given.
    """

    def __init__(self, inputs: ReportInputs, n: int | None, items: int | None) -> None:
        self.inputs, self.run, self.n = inputs, inputs.run, n
        size = math.prod(self.run.config.data.shape)
        self.items = items or min(_ITEMS, max(_LEAST, _NUMBERS // size))

    @property
    def field(self) -> ScoreField:
        """The run's field, with a class where it was not learned without one."""
        y = self.inputs.y
        return self.run.field if y is None else self.run.field.condition_on(y=torch.tensor(y))

    @property
    def settings(self) -> dict[str, Any]:
        """The seed and the class of all samples that are not asked for by class."""
        return {"seed": self.inputs.seed, "y": self.inputs.y}

    @cached_property
    def samples(self) -> Tensor:
        """Samples by the default plan, in the data's units: as many as a view may want."""
        vectors = len(self.run.config.data.shape) == 1
        count = _VECTORS if vectors else _OTHERS
        return self.run.sample(count, default_plan(self.run.field), **self.settings)

    @cached_property
    def view(self) -> View:
        """How they are looked at, with limits that are those of data where there are some."""
        x = self.inputs.x
        return view_of(self.run, self.samples if x is None or len(x) < _FEW else x[:_VECTORS])

    def seen(self, x: Tensor, noise: Noise) -> tuple[Tensor, Noise]:
        """Return data as the field sees it, with noise where its encoding has some."""
        v, _, noise = self.run.encoding.forward(x, noise)
        return self.run.transform.forward(v), noise

    def few(self, frames: int, most: int = 12) -> int:
        """Return how many samples a panel of so many frames shows, ``most`` of them images."""
        return self.n or self.view.few(frames, most)

    def panel(self, name: str, note: str, frames: Sequence[Tensor], followed: bool = True) -> Panel:
        """Return a panel of pictures of samples."""
        alt = f"{len(frames[0])} {self.view.noun}, {name}"
        return Panel(name, note, alt, self.view.picture(frames, followed))

    @property
    def folder(self) -> str:
        """The run's folder, to stand in a command."""
        return short_name(shlex.quote(str(self.inputs.folder)))

    @property
    def source(self) -> str:
        """The name of the data, to stand in a sentence."""
        return short_name(self.inputs.source or "")

    @property
    def data(self) -> str:
        """The data, to stand in a command; DATA if there are none."""
        source = self.inputs.source
        return "DATA" if source is None else short_name(shlex.quote(source))

    @property
    def class_of_items(self) -> str:
        """What to say of the class that items of data are taken to have, if there are classes."""
        if self.run.config.data.classes and self.inputs.y is None:
            return " The class of an item is left open."
        return self.class_note

    @property
    def class_note(self) -> str:
        """What to say if samples are of one class."""
        y, names = self.inputs.y, self.run.config.data.class_names
        if y is None:
            return ""
        return f" All are of the class {short_name(names[y]) if names else y}."
