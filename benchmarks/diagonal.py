"""One noise level per coordinate against one for all, at equal calls, on exact fields.

    python benchmarks/diagonal.py        half a minute on one core

The data is a mixture of four Gaussians in eight dimensions, in the frame of its principal axes,
whose deviations go from 1 down to 1 over a ratio. In units of these deviations the whole has the
identity as covariance, and the components are turned and narrow. Such a mixture is sampled under
`VP` with the data scaled to a mean variance of one, and under `Whitening` of `VP` with the
deviations, by the default plan of some calls.

The error is that of a sample to the end of its exact path, by 200 steps of `RK4` from the same
start: the root mean square over samples and coordinates, in deviations of each coordinate, and in
the units of the data relative to its root mean square deviation.
"""

from __future__ import annotations

import torch
from torch import Tensor

import scorefield as sf

RATIOS, CALLS = (1, 10, 100), (4, 6, 8, 12, 20)
DIM, PARTS, SAMPLES, STEPS = 8, 4, 256, 200


def whitened(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights, means and covariances of a mixture with mean 0 and covariance 1."""
    draw = torch.Generator().manual_seed(seed)
    shape = (PARTS, DIM, DIM)
    frames = torch.linalg.qr(torch.randn(shape, generator=draw, dtype=torch.float64))[0]
    spread = torch.logspace(-2, 0, DIM, dtype=torch.float64)
    covariances = frames @ torch.diag(spread) @ frames.mT
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    means = torch.randn(PARTS, DIM, generator=draw, dtype=torch.float64)
    means = means - weights @ means
    total = torch.einsum("k,kij->ij", weights, covariances + means[:, :, None] * means[:, None])
    scale = torch.linalg.inv(torch.linalg.cholesky(total))
    return weights, means @ scale.T, scale @ covariances @ scale.T


def error(field: sf.Mixture, calls: int, unit: Tensor) -> tuple[float, float]:
    """Return the errors of the default plan in deviations, and relative to the whole."""
    plan = sf.default_plan(field, calls)
    start = float(torch.as_tensor(plan.times)[0])
    times = sf.even_log_snr(field.process, STEPS, start=start)
    got, exact = (
        sf.sample(field, SAMPLES, each, dtype=torch.float64, batch_size=SAMPLES)
        for each in (plan, sf.Plan(sf.RK4(), times))
    )
    gaps = (got - exact).square()
    each = (gaps / unit**2).mean().sqrt()
    return float(each), float((gaps.mean() / unit.square().mean()).sqrt())


def main() -> None:
    weights, means, covariances = whitened()
    print("| ratio | calls | VP | Whitening | VP, whole | Whitening, whole |")
    print("|---|---|---|---|---|---|")
    for ratio in RATIOS:
        unit = torch.logspace(0, -1, DIM, base=ratio, dtype=torch.float64)
        unit = unit / unit.square().mean().sqrt()
        processes = sf.VP(), sf.Whitening(sf.VP(), unit)
        fields = [
            sf.Mixture(one, weights, unit * means, unit[:, None] * covariances * unit)
            for one in processes
        ]
        for calls in CALLS:
            one, other = (error(field, calls, unit) for field in fields)
            numbers = one[0], other[0], one[1], other[1]
            print(f"| {ratio} | {calls} | {' | '.join(f'{v:.3f}' for v in numbers)} |", flush=True)


if __name__ == "__main__":
    main()
