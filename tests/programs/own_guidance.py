"""Write a guidance: a field that changes the estimate of another field."""

import torch

import scorefield as sf


class Pulled(sf.ScoreField):
    def __init__(self, base, point, strength):
        super().__init__(base.process, base.shape)
        self.base, self.point, self.strength = base, point, strength

    def estimate(self, x, at, **condition):
        x0 = self.base.estimate(x, at, **condition).x0
        return sf.Estimate.from_x0(x, at, x0 + self.strength * (self.point - x0))


field = sf.Gaussian(sf.VP(), torch.zeros(2), torch.eye(2))
pulled = Pulled(field, torch.tensor([2.0, 0.0]), 0.5)
x = sf.sample(pulled, 256, sf.Heun(), 10)
assert x[:, 0].mean() > 1.0 > x[:, 1].mean().abs()
