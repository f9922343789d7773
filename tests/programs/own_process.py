"""Define a process by alpha and sigma, and use it exactly and for training."""

from dataclasses import dataclass

import torch

import scorefield as sf


@dataclass(frozen=True)
class Circle(sf.Process):
    def alpha(self, t):
        return torch.cos(torch.pi / 2 * t)

    def sigma(self, t):
        return torch.sin(torch.pi / 2 * t)


process = Circle()
exact = sf.Gaussian(process, torch.zeros(2), torch.eye(2) / 4)
x = sf.sample(exact, 512, nfe=12)
assert (x.std(0) - 0.5).abs().max() < 0.06

run = sf.train("moons", process=process, steps=5)
assert run.field.process == process
assert run.sample(4, nfe=5).shape == (4, 2)
