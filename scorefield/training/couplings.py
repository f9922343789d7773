r"""Couplings: which noise each sample of a batch is trained with.

Independent noise makes ``E[eps | x]`` a score. Any other joint distribution of data and noise with
the same marginals has the same endpoints of its flow, but other paths between them::

    x_t = alpha x_0 + sigma eps,    dx/dt = alpha' E[x_0 | x_t] + sigma' E[eps | x_t]     (1)

With optimal transport the paths are nearly straight, and few steps follow them well. Pairs are
exchanged within the whole batch of all workers, so that their number changes nothing, and within
equal conditions: otherwise the noise of one condition would not be normal.

Reference: Tong et al. (2023), arXiv:2302.00482 (minibatch optimal transport); Pooladian et al.
(2023), arXiv:2304.14772; Liu et al. (2022), arXiv:2209.03003 (reflow).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scorefield._internal.assignment import assignment
from scorefield._internal.errors import UsageError
from scorefield.data.lengths import shares_of
from scorefield.data.rows import Rows
from scorefield.noise import Noise

if TYPE_CHECKING:
    from scorefield.data import Data
    from scorefield.data.conditions import Conditions
    from scorefield.data.config import DataConfig
    from scorefield.training.config import TrainConfig


class Coupling(ABC):
    """A rule that gives each sample of a batch its noise."""

    @abstractmethod
    def noise(self, x0: Tensor, eps: Tensor, items: Tensor, groups: Tensor, draws: Noise) -> Tensor:
        """Return the noise of each sample, like ``x0``.

        Args:
            x0: the whole batch, ``(B, *shape)``, in the field's units.
            eps: independent standard normal noise, like ``x0``.
            items: the numbers of the samples, ``(B,)``.
            groups: a number for each sample that is equal where all conditions are, ``(B,)``.
            draws: more random numbers, independent of ``eps``.
        """


@dataclass(frozen=True)
class OptimalTransport(Coupling):
    """Exchange the noise within the batch for the least squared distance to the data."""

    def noise(self, x0: Tensor, eps: Tensor, items: Tensor, groups: Tensor, draws: Noise) -> Tensor:
        return eps[assignment(x0, eps, groups).to(eps.device)]


@dataclass(frozen=True)
class Reflow(Coupling):
    """The noise that a run made each sample of, for data that is samples ``0, 1, ...`` of the run.

    Args:
        seed: the seed of those samples.
    """

    seed: int = 0

    def noise(self, x0: Tensor, eps: Tensor, items: Tensor, groups: Tensor, draws: Noise) -> Tensor:
        z: Tensor = Noise(self.seed, items.to(x0.device)).draw(tuple(x0.shape[1:]), x0)[0]
        return z


@dataclass(frozen=True, eq=False)
class FromData(Coupling):
    """Samples of a second data set in the place of noise.

    Args:
        rows: that data, ``(M, ...)``.
        prepare: the function from it to the field's units.
        paired: sample ``k`` belongs to sample ``k`` of the data; otherwise they are drawn.
        inner: exchanges drawn samples within a batch, or None.
    """

    rows: Rows
    prepare: Callable[[Tensor], Tensor]
    paired: bool = False
    inner: Coupling | None = None

    def noise(self, x0: Tensor, eps: Tensor, items: Tensor, groups: Tensor, draws: Noise) -> Tensor:
        if not self.paired:
            u, draws = draws.uniform(torch.empty(0))
            items = (u * len(self.rows)).long()
        x1 = self.prepare(self.rows[items].to(x0.device))
        return x1 if self.inner is None else self.inner.noise(x0, x1, items, groups, draws)


def groups_of(conditions: Mapping[str, Tensor], count: int) -> Tensor:
    """Return a number for each of ``count`` samples, equal where all of their conditions are."""
    groups = torch.zeros(count, dtype=torch.int64)
    for value in conditions.values():
        flat = value.reshape(count, -1).double().nan_to_num(-1e300)
        both = torch.cat([groups[:, None].double(), flat], 1)
        groups = torch.unique(both, dim=0, return_inverse=True)[1]
    return groups


def check_coupling(config: TrainConfig, about: DataConfig, data: Data, source: Data | None) -> None:
    """Reject a coupling that does not fit the data, its conditions, or a second data set.

    Raises:
        UsageError: with the setting to change.
    """
    several = bool(about.lengths)
    if source is not None and len(source.shape) == 2:
        several |= bool(shares_of(source.x, source.name))
    if several and (source is not None or config.coupling != "independent"):
        raise UsageError(
            f"coupling={config.coupling}: {about.name} has signals of several lengths. Give "
            "signals of one length, or train on one data set with independent noise."
        )
    if source is not None:
        _check_ends(config, data, source)
    elif config.coupling == "paired":
        raise UsageError("coupling=paired: pairs the rows of two data sets; give both, as to=B.")
    if config.coupling == "ot" and config.conditional:
        _check_groups(data.conditions)


def _check_ends(config: TrainConfig, data: Data, source: Data) -> None:
    if config.coupling == "reflow":
        raise UsageError("coupling=reflow: is for noise; use independent, ot or paired.")
    if config.conditional:
        raise UsageError("conditional=True: a run between two data sets takes no conditions.")
    ends = [each.columns.names if each.columns is not None else () for each in (data, source)]
    if ends[0] != ends[1]:
        raise UsageError(
            f"{data.name} has the columns {', '.join(ends[0])}, and {source.name} "
            f"{', '.join(ends[1])}; give two sets of the same columns in one order."
        )
    if source.shape != data.shape:
        raise UsageError(
            f"{data.name} has samples of shape {data.shape}, and {source.name} of "
            f"{source.shape}; give two sets of one shape."
        )
    if config.coupling == "paired" and len(source.x) != len(data.x):
        raise UsageError(
            f"coupling=paired: {source.name} has {len(source.x)} samples and {data.name} "
            f"{len(data.x)}; give as many, in the same order, or use ot."
        )


def _check_groups(conditions: Conditions) -> None:
    """Reject conditions that no two samples share."""
    count = len(next(iter(conditions.values.values()), ()))
    if count > 1 and len(torch.unique(groups_of(conditions.values, count))) == count:
        names = ", ".join(channel.name for channel in conditions.channels)
        raise UsageError(
            f"coupling=ot: pairs are made within equal conditions, and no two samples have the "
            f"same {names}. Use independent noise, or conditions that repeat."
        )
