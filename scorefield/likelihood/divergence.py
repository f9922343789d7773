r"""The trace of a field's Jacobian, exact or by probes.

``tr J`` is exact by one product with ``J`` per coordinate, or the mean over probes ``v`` with
random signs of ``v . J v``. Products are taken backwards, a few at once. On a space the vectors are
projected to tangent vectors, and the trace of ``eps`` is its divergence.

Reference: Hutchinson (1990), A stochastic estimator of the trace; Grathwohl et al. (2019),
arXiv:1810.01367.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.field import Instant, ScoreField
from scorefield.noise import Noise

PROBE_BITS = 14  # of the number of a probe at one node
_AT_ONCE = 8


@dataclass(frozen=True)
class Directions:
    """Vectors to multiply a Jacobian by: unit vectors, or the probes ``first ... last - 1``.

    Attributes:
        last: how many probes there are; 0 for unit vectors.
        first: the probe to begin with.
    """

    last: int
    first: int = 0

    @property
    def exact(self) -> bool:
        """Whether the trace is exact."""
        return self.last == 0

    def products(self, dim: int) -> int:
        """Return how many there are, for samples of ``dim`` coordinates."""
        return dim if self.exact else self.last - self.first

    def vectors(self, x: Tensor, noise: Noise, node: int) -> Iterator[Tensor]:
        """Yield them a few at once, ``(k, B, ...)``, for a batch like ``x`` at one node."""
        if self.exact:
            unit = torch.eye(x[0].numel(), dtype=x.dtype, device=x.device)
            for k in range(0, len(unit), _AT_ONCE):
                yield unit[k : k + _AT_ONCE, None].expand(-1, len(x), -1).reshape(-1, *x.shape)
            return
        for k in range(self.first, self.last, _AT_ONCE):
            places = range(k, min(k + _AT_ONCE, self.last))
            yield torch.stack([noise.signs(x, place=(node << PROBE_BITS) + p) for p in places])


def trace(
    field: ScoreField,
    x: Tensor,
    at: Instant,
    directions: Directions,
    noise: Noise,
    node: int = 0,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return ``eps`` ``(B, ...)`` and ``sigma tr(d eps / d x)``, by each probe ``(K, B)``.

    An exact trace is one row, ``(1, B)``. With ``weights``, that broadcast with ``x``, it is
    ``sum_i weights_i d eps_i / d x_i``.

    Raises:
        ValueError: the field's output carries no gradient.
    """
    with torch.enable_grad():
        inputs = x.clone().requires_grad_()
        estimate = field(inputs, at)
        if not all(part.requires_grad for part in estimate.basis):
            raise ValueError(
                "the field's output carries no gradient, as under torch.no_grad() or detach(), and "
                "a log-density needs its Jacobian: let it through, or use elbo, which needs none."
            )
        eps = estimate.eps
        vectors = directions.vectors(inputs.detach(), noise, node)
        if space := field.process.space:
            vectors = (space.tangent(inputs.detach(), v) for v in vectors)
        scale = 1.0 if weights is None else weights
        products = [(_pull(eps, inputs, v) * v * scale).flatten(2).sum(2) for v in vectors]
    traces = torch.cat(products)
    if weights is None:
        traces = torch.as_tensor(at.sigma, dtype=torch.float64).to(x).reshape(-1) * traces
    return eps.detach(), traces.sum(0, keepdim=True) if directions.exact else traces


def _pull(eps: Tensor, x: Tensor, v: Tensor) -> Tensor:
    """Return ``v J`` for each of a few ``v`` ``(k, B, ...)``."""
    keep = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    try:
        return torch.autograd.grad(eps, x, v, is_grads_batched=True, **keep)[0]
    except RuntimeError:  # a network with operations that know no batches of gradients
        return torch.stack([torch.autograd.grad(eps, x, one, **keep)[0] for one in v])
