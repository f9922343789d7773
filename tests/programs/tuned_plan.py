"""Tune a plan to a field, and ask it for its number of calls."""

import torch

import scorefield as sf

means = torch.tensor([[-1.0, 0.0], [1.0, 0.5]])
field = sf.Mixture(sf.VP(), torch.ones(2), means, 0.1 * torch.eye(2).expand(2, 2, 2))

plan = sf.tune(field, nfe=5, noises=16, tries=3)
assert plan.nfe == 5
assert sf.default_plan(field, nfe=6).nfe == 6
x = sf.sample(field, 8, plan)
assert x.shape == (8, 2)
