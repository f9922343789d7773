"""Write a solver: DDIM with the estimate of the data clipped."""

from dataclasses import dataclass

import torch

import scorefield as sf


@dataclass(frozen=True)
class Clipped(sf.OneStep):
    limit: float = 1.0

    def step(self, field, state, s):
        estimate = field(state.x, state.t)
        x0 = estimate.x0.clamp(-self.limit, self.limit)
        eps = (state.x - estimate.at.alpha * x0) / estimate.at.sigma
        return field.process.perturb(x0, s, eps)


field = sf.Gaussian(sf.VP(), torch.zeros(2), torch.eye(2))
x = sf.sample(field, 16, Clipped(99.0), 20)
assert (x - sf.sample(field, 16, sf.DDIM(), 20)).abs().max() < 1e-6

clipped = sf.sample(field, 16, Clipped(1.0), 20)
assert clipped.abs().max() < 1.1
assert torch.equal(sf.sample(field, [7], Clipped(1.0), 20, batch_size=16), clipped[7:8])
churned = sf.sample(field, 16, sf.Churn(Clipped(1.0), 1.0, 20), 20)
assert churned.abs().max() < 1.1
assert sf.certify(Clipped(99.0)).passed
