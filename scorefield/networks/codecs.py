r"""Codecs that are trained here: principal components, and variational autoencoders.

A variational autoencoder maximises a lower bound of the log-probability of data::

    E_q [log p(x | z)] - KL(q(z | x) || N(0, I)),    q(z | x) = N(m(x), diag s(x)^2)         (1)

Vectors are Gaussian given z, with one deviation for each coordinate. Counts are negative binomial::

    x_g ~ NB(mean l softmax(f(z))_g, inverse dispersion theta_g),    l = sum_g x_g           (2)

The logarithm of the library size l is one more latent, the last, so that it is sampled as well.

References: Kingma and Welling (2014), arXiv:1312.6114; Lopez et al. (2018), Nature Methods 15:1053.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import NegativeBinomial

from scorefield.networks.codec import Codec, Shape

_NUMBERS = 2**22  # of samples at a time
_LOG_THETA = 7.0  # beyond, counts are Poisson
_LOG_LIBRARY = 20.0
_ROUNDING = 1e-10  # of the largest variance of a component


class _OwnCodec(Codec):
    """A codec of samples of one shape, whose latents are vectors."""

    def __init__(self, sample: Shape, latents: int) -> None:
        super().__init__()
        self.sample, self.count, self.latents = tuple(sample), math.prod(sample), latents

    def shape(self, sample: Shape) -> Shape:
        if tuple(sample) != self.sample:
            raise ValueError(f"a sample has shape {sample}: the codec takes {self.sample}.")
        return (self.latents,)

    @torch.no_grad()
    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        both = self._by_rows("stacked", x.flatten(1))
        return both[:, 0], both[:, 1]

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        return self._by_rows("mean", z).reshape(-1, *self.sample)

    def stacked(self, x: Tensor) -> Tensor:
        """Return `latent` as one tensor ``(B, 2, latents)``."""
        return torch.stack(self.latent(x), 1)

    @abstractmethod
    def latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the latents of data ``(B, count)``."""

    @abstractmethod
    def mean(self, z: Tensor) -> Tensor:
        """Return the mean of the data given latents, ``(B, count)``."""

    @abstractmethod
    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the log-probability of data ``(B, count)`` given latents, of each value."""

    def _by_rows(self, name: str, batch: Tensor) -> Tensor:
        """Return a method's result for rows, in float64 so that no item depends on the others."""
        device = next(self.buffers()).device
        wide = torch.float32 if device.type == "mps" else torch.float64
        function = getattr(copy.deepcopy(self).to(wide), name)
        parts = torch.split(batch, max(1, _NUMBERS // self.count))
        return torch.cat([function(part.to(device, wide)).to(batch) for part in parts])


class PCA(_OwnCodec):
    """Principal components: ``z = (x - center) @ components.T``, in the order of their variance.

    Args:
        sample: the shape of a sample, which is flattened.
        size: the number of components.
    """

    center: Tensor
    components: Tensor

    def __init__(self, sample: Shape, size: int) -> None:
        super().__init__(sample, size)
        self.register_buffer("center", torch.zeros(self.count))
        self.register_buffer("components", torch.zeros(size, self.count))

    def set(self, center: Tensor, covariance: Tensor) -> None:
        """Set the components from moments in float64, each with a positive largest entry.

        Raises:
            ValueError: the data varies in fewer directions.
        """
        variances, vectors = torch.linalg.eigh(covariance)
        rank = int((variances > _ROUNDING * variances[-1]).sum())
        if self.latents > rank:
            raise ValueError(
                f"size={self.latents}: the data has {rank} principal components; use at most as "
                "many latents."
            )
        components = vectors.T.flip(0)[: self.latents]
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        self.center.copy_(center)
        self.components.copy_(components * largest.sign())

    def latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = (x - self.center) @ self.components.T
        return z, torch.zeros_like(z)

    def mean(self, z: Tensor) -> Tensor:
        return z @ self.components + self.center

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """Return minus the squared errors."""
        return -((x - self.mean(z)) ** 2)


class _Variational(_OwnCodec):
    """A variational autoencoder with layers of one width.

    Args:
        extra: latents besides those of the encoder.
    """

    def __init__(self, sample: Shape, size: int, width: int, extra: int = 0) -> None:
        super().__init__(sample, size + extra)
        self.size = size
        self.encoder = _layers(self.count, width, 2 * size)
        self.decoder = _layers(size, width, self.count)

    def loss(self, x: Tensor, eps: Tensor, weight: float = 1.0) -> Tensor:
        """Return minus the bound (1) of each item, by one draw of the latents.

        Args:
            eps: standard normal numbers ``(B, latents)``.
            weight: of the divergence, which is below 1 at the start of a training.
        """
        mean, std = self.latent(x)
        m, s = mean[:, : self.size], std[:, : self.size]
        divergence = 0.5 * (m**2 + s**2 - 2 * s.log() - 1).sum(1)
        return weight * divergence - self.log_prob(x, mean + std * eps).sum(1)

    def _encoded(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.encoder(inputs).chunk(2, 1)
        return mean, log_std.clamp(-7, 3).exp()


class VAE(_Variational):
    """A variational autoencoder of vectors, with Gaussian noise in the decoder.

    Args:
        sample: the shape of a sample, which is flattened.
        size: the number of latents.
        width: of the two hidden layers of encoder and decoder.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, sample: Shape, size: int, width: int = 128) -> None:
        super().__init__(sample, size, width)
        self.register_buffer("center", torch.zeros(self.count))
        self.register_buffer("scale", torch.ones(()))
        self.log_noise = nn.Parameter(torch.full((self.count,), -1.5))

    def set(self, center: Tensor, variance: Tensor) -> None:
        """Set the units from moments of the data."""
        self.center.copy_(center)
        self.scale.copy_(variance.mean().sqrt())

    def latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._encoded((x - self.center) / self.scale)

    def mean(self, z: Tensor) -> Tensor:
        out: Tensor = self.center + self.scale * self.decoder(z)
        return out

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        log_std = self.log_noise.clamp(-5, 3) + self.scale.log()
        errors = (x - self.mean(z)) * (-log_std).exp()
        return -0.5 * errors**2 - log_std - 0.5 * math.log(2 * math.pi)


class CountsVAE(_Variational):
    """A variational autoencoder of counts, with the decoder (2).

    The encoder takes ``log1p`` of counts that are scaled to the mean library size.

    Args:
        sample: the number of genes, ``(genes,)``.
        size: the number of latents without the library size.
        width: of the two hidden layers of encoder and decoder.
    """

    library: Tensor

    def __init__(self, sample: Shape, size: int, width: int = 128) -> None:
        super().__init__(sample, size, width, extra=1)
        self.register_buffer("library", torch.ones(()))
        self.log_theta = nn.Parameter(torch.ones(self.count))

    def set(self, center: Tensor, variance: Tensor) -> None:
        """Set the mean library size, and start at the mean shares of the genes."""
        self.library.copy_(center.sum())
        last = self.decoder[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias.copy_((center / center.sum() + 1e-6).log())

    def latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        library = x.sum(1, keepdim=True).clamp(min=1)
        mean, std = self._encoded((x * (self.library / library)).log1p())
        return torch.cat([mean, library.log()], 1), torch.cat([std, torch.zeros_like(library)], 1)

    def mean(self, z: Tensor) -> Tensor:
        library = z[:, -1:].clamp(max=_LOG_LIBRARY).exp()
        shares: Tensor = self.decoder(z[:, :-1]).softmax(1)
        return library * shares

    @property
    def theta(self) -> Tensor:
        """The inverse dispersion of each gene."""
        return self.log_theta.clamp(-_LOG_THETA, _LOG_THETA).exp()

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        return self.log_prob_of(x, self.mean(z))

    def log_prob_of(self, x: Tensor, mean: Tensor) -> Tensor:
        """Return the log-probability of counts with means, of each value."""
        logits = (mean + 1e-8).log() - self.theta.log()
        counts = NegativeBinomial(self.theta.expand_as(mean), logits=logits, validate_args=False)
        result: Tensor = counts.log_prob(x)  # type: ignore[no-untyped-call]
        return result


def _layers(inputs: int, width: int, outputs: int) -> nn.Sequential:
    hidden = nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
    return nn.Sequential(*hidden, nn.Linear(width, outputs))
