"""Digits to bold digits, from pairs of the same digit and from two unpaired sets.

    python benchmarks/bold_digits.py [--steps 1500] [--out docs/images/bold-digits.png]

A bold digit is the maximum of each pixel and its neighbours to the right and below. Measured on
held-out digits: the root mean square distance to the bold version of the same digit, in deviations
of a pixel, and the energy distance to other bold digits, next to that of data to data.
"""

import argparse

import torch

import scorefield as sf
from scorefield.report import image_grid

NETWORK = {"kind": "mlp", "width": 256, "depth": 4}


def bold(x):
    """Return images ``(N, 1, 8, 8)`` with wider lines."""
    padded = torch.nn.functional.pad(x, (0, 1, 0, 1))
    shifted = (padded[..., i : i + 8, j : j + 8] for i, j in ((0, 0), (0, 1), (1, 0)))
    return torch.stack(list(shifted)).amax(0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out")
    options = parser.parse_args()
    x = sf.read("digits").x.float().reshape(-1, 1, 8, 8)
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    learned, test, other = x[:1000], x[1000:1200], bold(x[1200:])
    truth, std = bold(test), float(bold(x).std())
    thin, thick = learned, bold(learned)
    settings = {"steps": options.steps, "batch_size": 256, "network": NETWORK, "held_out": 0.0}
    half = len(thin) // 2
    # unpaired: the thin digits of one half, and the bold ones of the other
    cases = {
        "paired": (thin, thick, {"coupling": "paired"}),
        "unpaired, ot": (thin[:half], thick[half:], {"coupling": "ot"}),
        "unpaired, entropic": (thin[:half], thick[half:], {"coupling": "entropic", "bridge": 1.0}),
    }
    start, distance = test, sf.metrics.energy_distance
    count = min(len(truth), len(other))
    rows = {"digits": start, "bold": truth}
    print(f"data to data: energy distance {distance(truth[:count], other[:count]):.4f}")
    for name, (a, b, own) in cases.items():
        run = sf.train(a, to=b, **settings, **own)
        for eta in (0.0, 1.0) if own.get("bridge") else (0.0,):
            y = run.translate(start, times=20, eta=eta, batch_size=len(start), check=False).x
            label = f"{name}, eta {eta:g}"
            error = float((y - truth).square().mean().sqrt()) / std
            energy = distance(y[:count], other[:count])
            print(f"{label}: error {error:.3f}, energy distance {energy:.4f}", flush=True)
            rows[label] = y
    none = float((start - truth).square().mean().sqrt()) / std
    print(f"no translation: error {none:.3f}, ", end="")
    print(f"energy distance {distance(start[:count], other[:count]):.4f}")
    if options.out:
        images = torch.cat([row[:12] for row in rows.values()])
        image_grid(images, options.out, columns=12, value_range=(0.0, float(x.max())))


if __name__ == "__main__":
    main()
