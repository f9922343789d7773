"""The measured frontier: what plans are worth on one field, against what they cost."""

from scorefield.frontiers.measure import METRICS, frontier
from scorefield.frontiers.result import Frontier, Point

__all__ = ["METRICS", "Frontier", "Point", "frontier"]
