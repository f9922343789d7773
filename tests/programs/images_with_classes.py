"""Train on images of one's own, with classes, and sample one class."""

import torch

import scorefield as sf

x = torch.rand(200, 1, 8, 8)
y = torch.arange(200) % 3

run = sf.train(x, y, network="unet", steps=5, batch_size=16)
run.save("runs/mine")

images = sf.load("runs/mine").sample(4, given=2, nfe=5)
assert images.shape == (4, 1, 8, 8)
assert images.isfinite().all()
