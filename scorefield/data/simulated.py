r"""Simulated cells under drugs, whose distribution and counterfactuals are known.

A cell of type k in batch b, with programs h ~ N(0, I), has expected counts under a drug at a dose:

    log rate_g = base_g + type_kg + programs_g . h + batch_bg + r E(dose) effect_g           (1)
    E(dose) = dose^s / (dose^s + ec50^s),     mean = library softmax(log rate)               (2)

It responds, r = 1, if its threshold u ~ U(0, 1) is below the share of responders of the drug and
the type. The effect of a drug is that on all types plus that on the type. Counts are negative
binomial with inverse dispersion theta, and each is lost with the probability of dropout:

    P(count = 0) = dropout + (1 - dropout) (theta / (theta + mean))^theta                    (3)

All counts are quantiles of uniform numbers that a cell keeps under every drug and dose.

Reference: Zappia, Phipson and Oshlack (2017), Genome Biology 18:174, for the kinds of noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scorefield._internal.errors import UsageError
from scorefield.data.latents import quantiles

CONTROL = "control"


class SimulatedCells(NamedTuple):
    """Cells, and the hidden causes of their counts.

    Attributes:
        counts: ``(N, genes)``, whole numbers as float32.
        obs: the columns ``type``, ``drug`` and ``batch``, texts; ``dose``, 0 for controls; and
            ``library``, the expected sum of counts without dropout; each ``(N,)``.
        responds: whether a cell responds to its drug, ``(N,)``.
        mean: the expected counts of each cell without dropout, float64 ``(N, genes)``.
        hidden: programs, thresholds and uniform numbers, by name.
    """

    counts: Tensor
    obs: Mapping[str, np.ndarray]
    responds: np.ndarray
    mean: np.ndarray
    hidden: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class CellSimulator:
    """The distribution of simulated cells; the seed decides its parameters.

    Args:
        genes, types, drugs, batches: their numbers. The drugs are ``drug 1``, ``drug 2`` and so on,
            besides the control.
        doses: that cells are drawn with.
        programs: the number of hidden programs that make genes correlate.
        theta: the inverse dispersion of counts.
        dropout: the probability that a count is lost.
        library, library_std: the median of the library sizes, and the deviation of their logarithm.
        batch_std: of the effects of batches on the logarithm of a rate.

    Raises:
        UsageError: a number out of its range.
    """

    genes: int = 300
    types: int = 3
    drugs: int = 4
    batches: int = 2
    doses: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    programs: int = 4
    theta: float = 5.0
    dropout: float = 0.05
    library: float = 2000.0
    library_std: float = 0.3
    batch_std: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        at_least = {"genes": 2, "types": 1, "drugs": 1, "batches": 1, "programs": 0}
        for name, least in (at_least | {"library_std": 0, "batch_std": 0}).items():
            if not least <= getattr(self, name) < math.inf:
                raise UsageError(f"{name}={getattr(self, name)}: must be at least {least}.")
        if not self.doses or not all(0 < dose < math.inf for dose in self.doses):
            raise UsageError(f"doses={self.doses}: give at least one, all above 0.")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout={self.dropout}: must be at least 0 and below 1.")
        if not all(0 < each < math.inf for each in (self.theta, self.library)):
            raise UsageError("theta and library must be above 0.")

    @property
    def drug_names(self) -> tuple[str, ...]:
        """The names of the drugs, the control first."""
        return (CONTROL, *(f"drug {k}" for k in range(1, self.drugs + 1)))

    @property
    def gene_names(self) -> tuple[str, ...]:
        """The names of the genes."""
        return tuple(f"gene {k}" for k in range(1, self.genes + 1))

    def draw(self, n: int, seed: int = 0) -> SimulatedCells:
        """Return ``n`` cells of equally frequent types, batches, drugs and doses.

        A cell in ``drugs + 1`` is a control.
        """
        rng = np.random.default_rng((self.seed, seed, 1))
        kind, batch = rng.integers(self.types, size=n), rng.integers(self.batches, size=n)
        drug = rng.integers(self.drugs + 1, size=n)
        hidden: dict[str, np.ndarray] = {
            "type": kind,
            "batch": batch,
            "programs": rng.standard_normal((n, self.programs)),
            "threshold": rng.random(n),
            "library": self.library * np.exp(self.library_std * rng.standard_normal(n)),
            "count": rng.random((n, self.genes), dtype=np.float32),
            "lost": rng.random((n, self.genes), dtype=np.float32),
        }
        return self._observed(hidden, drug, np.where(drug, rng.choice(self.doses, n), 0.0))

    def under(self, cells: SimulatedCells, drug: str, dose: float = 0.0) -> SimulatedCells:
        """Return the same cells under another drug and dose: their exact counterfactual.

        Raises:
            UsageError: an unknown drug; a dose below 0, or above 0 for the control.
        """
        if drug not in self.drug_names:
            raise UsageError(f"drug={drug!r}: must be one of {', '.join(self.drug_names)}.")
        if not 0 <= dose < math.inf or (dose and drug == CONTROL):
            raise UsageError(f"dose={dose!r}: must be at least 0, and 0 for the control.")
        n = len(cells.counts)
        code = self.drug_names.index(drug)
        return self._observed(cells.hidden, np.full(n, code), np.full(n, float(dose)))

    def _observed(
        self, hidden: Mapping[str, np.ndarray], drug: np.ndarray, dose: np.ndarray
    ) -> SimulatedCells:
        kind, batch, parts = hidden["type"], hidden["batch"], self._parts
        responds = (drug > 0) & (hidden["threshold"] < parts["share"][drug, kind])
        with np.errstate(divide="ignore", over="ignore"):  # of no dose, or almost none
            strength = responds / (1 + (parts["ec50"][drug] / dose) ** parts["slope"][drug])
        log_rate = parts["base"] + parts["type"][kind] + parts["batch"][batch]
        log_rate += hidden["programs"] @ parts["programs"]
        log_rate += strength[:, None] * parts["effect"][drug, kind]
        rate = np.exp(log_rate - log_rate.max(1, keepdims=True))
        mean = hidden["library"][:, None] * rate / rate.sum(1, keepdims=True)
        u, theta = torch.from_numpy(hidden["count"]), torch.tensor(self.theta)
        counts = quantiles(u, torch.from_numpy(mean), theta).numpy()
        counts[hidden["lost"] < self.dropout] = 0
        obs = {
            "type": np.array([f"type {k}" for k in range(1, self.types + 1)])[kind],
            "drug": np.array(self.drug_names)[drug],
            "dose": dose,
            "batch": np.array([f"batch {k}" for k in range(1, self.batches + 1)])[batch],
            "library": hidden["library"],
        }
        return SimulatedCells(torch.from_numpy(counts).float(), obs, responds, mean, hidden)

    @cached_property
    def _parts(self) -> dict[str, np.ndarray]:
        """The parameters of (1) and (2); drug 0 is the control, without effect."""
        rng = np.random.default_rng((self.seed, 0))
        shape = (self.drugs + 1, self.types, self.genes)
        drawn = rng.random(shape) < 0.1, rng.standard_normal(shape)
        alike = rng.random((shape[0], 1, shape[2])) < 0.15, rng.standard_normal(shape)[:, :1]
        effect = 1.5 * alike[0] * alike[1] + drawn[0] * drawn[1]
        effect[0] = 0.0
        return {
            "base": 1.2 * rng.standard_normal(self.genes),
            "type": rng.standard_normal((self.types, self.genes))
            * (rng.random((self.types, self.genes)) < 0.3),
            "batch": self.batch_std * rng.standard_normal((self.batches, self.genes)),
            "programs": 0.4
            * rng.standard_normal((self.programs, self.genes))
            / math.sqrt(max(self.programs, 1)),
            "effect": effect,
            "share": rng.uniform(0.4, 0.9, (self.drugs + 1, self.types)),
            "ec50": np.exp(rng.uniform(math.log(0.2), 0.0, self.drugs + 1)),
            "slope": rng.uniform(1.0, 2.0, self.drugs + 1),
        }
