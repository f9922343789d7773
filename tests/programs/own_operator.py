"""Solve an inverse problem with an operator of one's own."""

import torch

import scorefield as sf


class Difference(sf.LinearOperator):
    def forward(self, x):
        return x[:, :1] - x[:, 1:]


field = sf.Gaussian(sf.VP(), torch.zeros(2), torch.eye(2))
y = torch.tensor([1.0])
for posterior in (
    sf.MMPS(field, Difference(), y, noise_std=0.1),
    sf.DPS(field, Difference(), y, noise_std=0.1),
):
    x = sf.sample(posterior, 64, sf.DDIM(1.0), 50)
    assert (Difference().forward(x).mean() - 1).abs() < 0.3

restored = sf.restore(field, y[None], Difference(), noise_std=0.1, n=4)
assert restored.shape == (1, 4, 2)
