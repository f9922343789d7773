"""Distances between two samples: how far generated data is from data.

Neither number means much alone. Report beside it the floor: the same distance between two
independent samples of the data itself, of the same sizes.
"""

from scorefield.metrics.energy import energy_distance
from scorefield.metrics.sliced import sliced_wasserstein

__all__ = ["energy_distance", "sliced_wasserstein"]
