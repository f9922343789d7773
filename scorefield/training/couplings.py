r"""Couplings: which noise each sample of a batch is trained with.

Independent noise makes ``E[eps | x]`` a score. Any other joint distribution of data and noise with
the same marginals has the same endpoints of its flow, but other paths between them::

    x_t = alpha x_0 + sigma eps,    dx/dt = alpha' E[x_0 | x_t] + sigma' E[eps | x_t]     (1)

With optimal transport the paths are nearly straight, and few steps follow them well. Pairs are
exchanged within the whole batch of all workers, so that their number changes nothing, and within
equal conditions: otherwise the noise of one condition would not be normal.

Reference: Tong et al. (2023), arXiv:2302.00482 (minibatch optimal transport); Pooladian et al.
(2023), arXiv:2304.14772; Tong et al. (2023), arXiv:2307.03672 (entropic, with noise between the
ends); Liu et al. (2022), arXiv:2209.03003 (reflow).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scorefield._internal.assignment import assignment, entropic
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
class Entropic(Coupling):
    """Draw the other end within the batch, by the entropic coupling: pairs of a Schrödinger bridge.

    Args:
        sigma: the diffusion of the bridge; its square is the regularisation of the cost
            ``|x_0 - x_1|^2 / 2``.
    """

    sigma: float

    def noise(self, x0: Tensor, eps: Tensor, items: Tensor, groups: Tensor, draws: Noise) -> Tensor:
        u, _ = draws.uniform(torch.empty(0))
        return eps[entropic(x0, eps, groups, self.sigma, u).to(eps.device)]


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
class Matches:
    """The samples of a second data set with the same conditions, for each sample of the first.

    Attributes:
        order: the numbers of the samples of the second set, sorted by their conditions, ``(M,)``.
        first, count: the place of the first of them, and how many there are, ``(N,)``.
    """

    order: Tensor
    first: Tensor
    count: Tensor

    @classmethod
    def of(cls, data: Data, source: Data, conditional: bool) -> Matches:
        """Return the matches; all samples match without conditions.

        Raises:
            UsageError: none for one of the samples.
        """
        ends = data.conditions.values, source.conditions.values
        values = {k: torch.cat([v, ends[1][k]]) for k, v in ends[0].items() if conditional}
        groups = groups_of(values, len(data.x) + len(source.x))
        ours, theirs = groups[: len(data.x)], groups[len(data.x) :]
        counts = theirs.bincount(minlength=int(ours.max()) + 1)
        if bool((missing := counts[ours] == 0).any()):
            names = ", ".join(channel.name for channel in data.conditions.channels)
            raise UsageError(
                f"to: pairs are made within equal conditions, and no sample of {source.name} has "
                f"the {names} of sample {int(missing.nonzero()[0])} of {data.name}."
            )
        first = counts.cumsum(0) - counts
        return cls(theirs.argsort(stable=True), first[ours], counts[ours])

    def draw(self, items: Tensor, u: Tensor) -> Tensor:
        """Return a match of each item, by uniform numbers ``(B,)``."""
        return self.order[self.first[items] + (u * self.count[items]).long()]


@dataclass(frozen=True, eq=False)
class FromData(Coupling):
    """Samples of a second data set in the place of noise.

    Args:
        rows: that data, ``(M, ...)``.
        prepare: the function from it to the field's units.
        matches: those to draw from; None if sample ``k`` belongs to sample ``k`` of the data.
        inner: exchanges drawn samples within a batch, or None.
    """

    rows: Rows
    prepare: Callable[[Tensor], Tensor]
    matches: Matches | None
    inner: Coupling | None = None

    def noise(self, x0: Tensor, eps: Tensor, items: Tensor, groups: Tensor, draws: Noise) -> Tensor:
        if self.matches is not None:
            u, draws = draws.uniform(torch.empty(0))
            items = self.matches.draw(items, u)
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
    elif config.bridge or config.coupling in ("paired", "entropic"):
        setting = f"bridge={config.bridge:g}" if config.bridge else f"coupling={config.coupling}"
        raise UsageError(f"{setting}: is for two data sets; give the second one, as to=B.")
    if config.coupling in ("ot", "entropic") and config.conditional:
        _check_groups(config.coupling, data.conditions)


def _check_ends(config: TrainConfig, data: Data, source: Data) -> None:
    if config.coupling == "reflow":
        raise UsageError("coupling=reflow: is for noise; use independent, ot or paired.")
    if config.coupling == "entropic" and not config.bridge:
        raise UsageError("coupling=entropic: needs noise between the sets, such as bridge=1.")
    if config.bridge and (config.process.kind, config.parametrization.kind) != ("flow", "velocity"):
        raise UsageError(
            f"bridge={config.bridge:g}: needs process=flow and parametrization=velocity, which are "
            "the defaults for two data sets."
        )
    if config.conditional:
        of_set = {"shares", "low", "high", "column"}  # of a channel, which may differ
        one, other = (
            [channel.model_dump(exclude=of_set) for channel in each.conditions.channels]
            for each in (data, source)
        )
        if one != other:
            raise UsageError(
                f"conditional=True: the conditions of {data.name} and {source.name} differ. Give "
                "both sets the same ones, of the same classes, or of the same mean and deviation."
            )
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


def _check_groups(coupling: str, conditions: Conditions) -> None:
    """Reject conditions that no two samples share."""
    count = len(next(iter(conditions.values.values()), ()))
    if count > 1 and len(torch.unique(groups_of(conditions.values, count))) == count:
        names = ", ".join(channel.name for channel in conditions.channels)
        raise UsageError(
            f"coupling={coupling}: pairs are made within equal conditions, and no two samples have "
            f"the same {names}. Use independent noise, or conditions that repeat."
        )
