"""Likelihoods: log-densities and bounds of them, with what is uncertain in the numbers."""

from scorefield.likelihood.bound import Bound, elbo
from scorefield.likelihood.density import log_prob
from scorefield.likelihood.moments import Moments
from scorefield.likelihood.result import Likelihood, combined

__all__ = ["Bound", "Likelihood", "Moments", "combined", "elbo", "log_prob"]
