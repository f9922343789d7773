"""Look at a training and at a sampling while they run."""

import torch

import scorefield as sf

config = sf.TrainConfig(optim=sf.OptimConfig(steps=20, batch_size=32))
training = sf.Training(sf.Data(torch.randn(200, 2)), config)
losses = [progress.loss for progress in training]
assert len(losses) == 20
run = training.run

start = sf.prior(run.field, 16)
states = list(sf.integrate(run.field, sf.Heun(), start, 20))
noise_levels = [run.field.process.sigma(state.t).item() for state in states]
assert len(states) >= 20
assert noise_levels == sorted(noise_levels, reverse=True)
