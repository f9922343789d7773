r"""The best linear denoiser, which a network corrects.

For data of mean ``m`` and covariance ``U diag(v) U^T``, the linear estimate of ``x_0`` with the
smallest squared error is the Wiener filter::

    m + U diag(v / (v + r^2)) U^T (x / alpha - m),    r = sigma / alpha                      (1)

the posterior mean of a Gaussian with these moments. A network that starts from it has to learn only
how the data differ from that Gaussian.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MOST = 4096  # numbers in a sample, of which the covariance is computed


class Wiener(nn.Module):
    r"""A preconditioned network whose output is added to the Wiener filter (1).

    The result is the output of `scorefield.Preconditioned` for the sum of (1) and ``network`` times
    the root-mean-square error that (1) has for a Gaussian. Of the covariance, ``components``
    eigenvectors are represented, and one variance stands for all other directions.

    Args:
        network: a network called with ``x`` and the label ``log(sigma / alpha) / 4``.
        size: the number of coordinates of a sample.
        components: the number of eigenvectors, at most ``size``.

    Raises:
        ValueError: more components than coordinates, or more than 4,096 coordinates.
    """

    mean: Tensor
    vectors: Tensor
    variances: Tensor
    rest: Tensor

    def __init__(self, network: nn.Module, size: int, components: int) -> None:
        super().__init__()
        if not components <= size <= MOST:
            raise ValueError(
                f"network.components={components}: at most the {size:,} numbers of a sample, of "
                f"which there may be {MOST:,}."
            )
        self.network = network
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("vectors", torch.eye(size, components))
        self.register_buffer("variances", torch.ones(components))
        self.register_buffer("rest", torch.ones(()))

    @torch.no_grad()
    def fit(self, samples: Iterable[Tensor]) -> None:
        """Compute the moments of data given in batches ``(B, *shape)``."""
        size, rank = self.vectors.shape
        count, mean = 0, torch.zeros(size, dtype=torch.float64)
        square = torch.zeros(size, size, dtype=torch.float64)
        for batch in samples:
            rows = batch.flatten(1).double().cpu()
            count, mean, square = count + len(rows), mean + rows.sum(0), square + rows.T @ rows
        mean = mean / count
        values, vectors = torch.linalg.eigh(square / count - torch.outer(mean, mean))
        values = values.clamp(min=1e-6)
        self.mean.copy_(mean)
        self.vectors.copy_(vectors[:, size - rank :])
        self.variances.copy_(values[size - rank :])
        if rank < size:
            self.rest.copy_(values[: size - rank].mean())

    def forward(self, x: Tensor, label: Tensor, **condition: Tensor | None) -> Tensor:
        """Return the output ``(B, *shape)`` for ``x`` and labels ``(B,)``."""
        flat, r = x.flatten(1), torch.exp(4 * label)[:, None]
        root = (1 + r**2).sqrt()
        # (1) in terms of input and output: (v - 1) r / (v + r^2) x + r root / (v + r^2) m
        gain, other = r / (self.variances + r**2), r / (self.rest + r**2)
        slopes = gain * (self.variances - 1), other * (self.rest - 1)
        inner = (slopes[0] - slopes[1]) * (flat @ self.vectors)
        inner = inner + root * (gain - other) * (self.mean @ self.vectors)
        linear = slopes[1] * flat + root * other * self.mean + inner @ self.vectors.T
        size, rank = self.vectors.shape
        errors = (gain * self.variances).sum(1, keepdim=True) + (size - rank) * other * self.rest
        scale = root * (errors / (size * r)).sqrt()
        out: Tensor = self.network(x, label, **condition)
        return (linear + scale * out.flatten(1)).reshape(x.shape)
