"""Train a network of one's own, keep it as a run, and use the run."""

import torch

import scorefield as sf


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(3, 32)
        self.outer = torch.nn.Linear(32, 2)

    def forward(self, x, label):
        return self.outer(torch.relu(self.inner(torch.cat([x, label[:, None]], 1))))


x = 3 + 2 * torch.randn(300, 2)
run = sf.train(x, network=Network(), steps=200, batch_size=64)
samples = run.sample(64, nfe=8)
assert (samples.mean(0) - 3).abs().max() < 1.5  # in the units of the data

run.save("runs/own")
again = sf.load("runs/own", network=Network())
assert torch.equal(again.sample(64, nfe=8), samples)
assert again.log_prob(x[:4], nfe=8).value.isfinite().all()
