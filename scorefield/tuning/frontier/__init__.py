"""The measured frontier: what plans are worth on one field, against what they cost."""

from scorefield.tuning.frontier.measure import METRICS, frontier
from scorefield.tuning.frontier.result import Frontier, Point

__all__ = ["METRICS", "Frontier", "Point", "frontier"]
