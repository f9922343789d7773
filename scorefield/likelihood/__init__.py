"""Likelihoods: log-densities and bounds of them, with estimates of their errors."""

from scorefield.likelihood.bound import Bound as Bound, elbo as elbo
from scorefield.likelihood.density import log_prob as log_prob
from scorefield.likelihood.moments import Moments as Moments
from scorefield.likelihood.result import Likelihood as Likelihood, combined as combined
