"""Data as latents of a codec, which have a density."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from scorefield._internal.errors import DataError, UsageError
from scorefield.data.encoding import Encoded, Encoding, Shape, Standardize
from scorefield.data.rows import Rows, moments_of
from scorefield.networks.codec import Codec
from scorefield.networks.codecs import CountsVAE
from scorefield.noise import Noise

_NEEDED = "counts need SciPy; pip install 'scorefield[tune]'."


@dataclass(frozen=True)
class Latents(Encoding):
    """The encoding of data by a codec, with a draw from the distribution of the latents.

    Attributes:
        codec: the codec.
        pixels: the encoding of the data as continuous vectors.
        transform: from these to the codec's input.
        counts: whether the data are counts.

    Raises:
        UsageError: SciPy is missing, which counts need.
    """

    codec: Codec
    pixels: Encoding
    transform: Standardize
    counts: bool = False

    def __post_init__(self) -> None:
        if self.counts and find_spec("scipy") is None:
            raise UsageError(_NEEDED)

    width = torch.zeros(())
    absent = torch.zeros((), dtype=torch.bool)

    @property
    def present(self) -> Tensor:  # type: ignore[override]
        return self.pixels.present

    def shape(self, sample: Shape) -> Shape:
        return self.codec.shape(sample)

    def base(self, x: Tensor) -> Tensor:
        return self._posterior(x)[0]

    def forward(self, x: Tensor, noise: Noise) -> Encoded:
        mean, std = self._posterior(x)
        eps, noise = noise.normal(mean)
        return Encoded(mean + std * eps, torch.zeros(len(x), device=x.device), noise)

    def moments(self, rows: Rows) -> tuple[Tensor, Tensor]:
        def both(x: Tensor) -> Tensor:
            mean, std = self._posterior(x)
            return torch.stack([mean, std**2], 1)

        moments = moments_of(rows, both)
        return moments.mean[0], moments.variance[0] + moments.mean[1]

    @torch.no_grad()
    def inverse(self, v: Tensor) -> Tensor:
        return self.pixels.inverse(self.transform.inverse(self.codec.decode(v)))

    @torch.no_grad()
    def drawn(self, v: Tensor, noise: Noise) -> Tensor:
        if not self.counts:
            return self.inverse(v)
        assert isinstance(self.codec, CountsVAE)
        mean = self.codec.decode(v)
        u, _ = noise.uniform_like(mean.cpu().double())  # float32 would round some to 1
        return quantiles(u, mean, self.codec.theta)

    @torch.no_grad()
    def _posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.codec.posterior(self.transform.forward(self.pixels.middle(x)))

    def observed(self, missing: Tensor) -> Tensor:
        # every latent depends on many values
        whole = ~missing.flatten(1).any(1)
        shape = self.shape(tuple(missing.shape[1:]))
        return whole.reshape(-1, *[1] * len(shape)).expand(-1, *shape)

    def check(self, x: Tensor, name: str) -> None:
        self.pixels.check(x, name)
        if self.counts:
            check_counts(x, name)


def quantiles(u: Tensor, mean: Tensor, theta: Tensor) -> Tensor:
    """Return negative binomial counts at probabilities ``u`` in (0, 1).

    Args:
        mean, theta: the expected counts and the inverse dispersions.

    Raises:
        UsageError: SciPy is missing.
    """
    try:
        from scipy.stats import nbinom
    except ImportError:
        raise UsageError(_NEEDED) from None
    p, center, spread = (each.double().numpy(force=True) for each in (u, mean, theta))
    counts = nbinom.ppf(p, spread, spread / (spread + center))
    return torch.from_numpy(counts).clamp(min=0).to(mean)


def check_counts(x: Tensor, name: str) -> None:
    """Reject data ``(B, genes)`` that are not counts.

    Raises:
        DataError: a negative value, or one that is not a whole number.
    """
    bad = ((x < 0) | (x != x.floor()) | x.isinf()).nonzero()
    if len(bad):
        first = tuple(bad[0].tolist())
        raise DataError(
            f"{name} has {len(bad)} value(s) that are not counts, the first at index {first}: "
            f"{float(x[first]):g}. Give whole numbers from 0, such as the matrix raw or "
            "layers/counts of cells, or use the codec pca or vae."
        )
