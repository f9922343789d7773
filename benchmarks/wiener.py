"""What a Wiener filter in the network's place before training is worth, at equal steps.

    python benchmarks/wiener.py                                    8 x 8 digits
    python benchmarks/wiener.py train-images.gz test-images.gz     images, halved once

For each number of steps and components: the loss, and the Fréchet distance of the pixels of 2,000
samples to the test images, less that of 2,000 training images. Without files, the test images are
the last fifth of the digits.
"""

from __future__ import annotations

import argparse
import time

import torch

import scorefield as sf
from scorefield.evaluate.metrics import frechet_distance


def halved(images: torch.Tensor) -> torch.Tensor:
    """Return images of half the sides, from -1 to 1."""
    return torch.nn.functional.avg_pool2d(images.float(), 2) / 127.5 - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="training and test images")
    parser.add_argument("--steps", nargs="+", type=int, default=[300, 1500])
    parser.add_argument("--components", nargs="+", type=int, default=[0, 32, 196])
    parser.add_argument("--count", type=int, default=2000)
    options = parser.parse_args()
    if options.files:
        train, test = (halved(sf.read(path).x[torch.arange(10_000)]) for path in options.files)
    else:
        data = sf.read("digits").x
        x = data[torch.arange(len(data))] / 8 - 1
        train, test = x[: len(x) * 4 // 5], x[len(x) * 4 // 5 :]
    some = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    floor = frechet_distance(train[some[: options.count]].flatten(1), test.flatten(1))
    print(f"training images: {floor:.4f}", flush=True)
    size = train[0].numel()
    for steps in options.steps:
        for components in sorted({min(c, size) for c in options.components}):
            began = time.process_time()
            network = {"kind": "unet", "width": 16, "components": components}
            run = sf.train(train, network=network, steps=steps, batch_size=64, lr=2e-3, end="last")
            seconds = time.process_time() - began
            samples = torch.as_tensor(run.sample(options.count, nfe=20))
            value = frechet_distance(samples.flatten(1), test.flatten(1))
            print(
                f"{steps:5} steps, {components:3} components: excess {value - floor:.4f}, loss "
                f"{run.config.loss:.4f}, {seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
