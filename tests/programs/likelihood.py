"""Compute log-densities by a solver, with adaptive steps, and for a number of calls."""

import torch

import scorefield as sf

field = sf.Gaussian(sf.VP(), torch.zeros(2), torch.eye(2) / 4)
x = torch.randn(5, 2) / 2
truth = field.log_prob(x, field.process.t_min)

adaptive = sf.log_prob(field, x, sf.Dopri5(), sf.Adaptive(1e-4))
assert (adaptive.value - truth).abs().max() < 1e-2
steps = sf.log_prob(field, x, solver=sf.Heun(), times=200)
assert (steps.value - truth).abs().max() < 1e-2
calls = sf.log_prob(field, x, nfe=40)
assert (calls.value - truth).abs().max() < 1e-2
