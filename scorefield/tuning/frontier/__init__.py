"""The measured frontier: error and sample quality of plans on one field, against their cost."""

from scorefield.tuning.frontier.measure import METRICS, frontier
from scorefield.tuning.frontier.result import Frontier, Point

__all__ = ["METRICS", "Frontier", "Point", "frontier"]
