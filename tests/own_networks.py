"""A network and a process of one's own, as a user's module would define them."""

from dataclasses import dataclass

import torch
from torch import nn

import scorefield as sf


class Net(nn.Module):
    """A small network with tied weights and a counting buffer."""

    def __init__(self, width=16):
        super().__init__()
        self.enter, self.leave = nn.Linear(3, width), nn.Linear(width, 2)
        self.again = self.enter
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x, label):
        h = torch.cat([x, label[:, None]], 1)
        return self.leave(torch.tanh(self.enter(h)))


@dataclass(frozen=True)
class Straight(sf.Process):
    """alpha = 1 - t / 2, sigma = t."""

    t_min: float = 1e-3
    t_max: float = 1.0

    def alpha(self, t):
        return 1 - t / 2

    def sigma(self, t):
        return t


class Constant(nn.Module):
    """A network for samples of any shape."""

    def __init__(self):
        super().__init__()
        self.level = nn.Parameter(torch.zeros(()))

    def forward(self, x, label):
        return self.level.expand_as(x)


def denoiser():
    """Return an untrained denoiser, as a factory for the command line."""
    return sf.Denoiser(Net(), Straight(), sf.Preconditioned(), (2,))


def number():
    """Return something that is not a network."""
    return 3
