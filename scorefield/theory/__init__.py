"""Compute with the theory: SDEs of any form, Itô's lemma, the Fokker-Planck equation, bridges.

Sampling, training and likelihoods do not use this package. The lessons of the documentation do.
"""

from scorefield.theory.bridge import bridge as bridge
from scorefield.theory.fokker_planck import (
    cell_centers as cell_centers,
    fokker_planck as fokker_planck,
)
from scorefield.theory.interpolant import (
    GaussianInterpolant as GaussianInterpolant,
    Interpolant as Interpolant,
)
from scorefield.theory.pairs import PairInterpolant as PairInterpolant, sinkhorn as sinkhorn
from scorefield.theory.sde import (
    Paths as Paths,
    generator as generator,
    ito_sum as ito_sum,
    simulate as simulate,
)

__all__ = [
    "GaussianInterpolant",
    "Interpolant",
    "PairInterpolant",
    "Paths",
    "bridge",
    "cell_centers",
    "fokker_planck",
    "generator",
    "ito_sum",
    "simulate",
    "sinkhorn",
]
