r"""Fields whose estimates of the data stay in the range of the data.

The posterior mean of data in ``[-r, r]`` lies there too, and so may be forced to. With the clipped
mean ``x0``, the noise follows from ``x = alpha x0 + sigma eps``.

Guidance with a large scale leaves the range on purpose. Dynamic thresholding then divides each
sample by the quantile ``q`` of its ``|x0|``, if that is above 1::

    x0 <- clamp(x0, -s, s) / s,    s = min(max(q, 1), largest)                      (1)

Reference: Ho et al. (2020), arXiv:2006.11239; Saharia et al. (2022), arXiv:2205.11487, section 2.3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scorefield.field.base import Estimate, FieldWrapper, Instant, ScoreField


class Clipped(FieldWrapper):
    """A field with ``E[x_0 | x]`` clipped to ``[-limit, limit]``.

    Args:
        base: the field.
        limit: of the data, in the field's units.

    Raises:
        ValueError: a limit that is not positive.
    """

    def __init__(self, base: ScoreField, limit: float = 1.0) -> None:
        if not limit > 0:
            raise ValueError(f"limit={limit}: must be positive.")
        super().__init__(base)
        self.limit = limit

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        x0 = self.base(x, at.prepared, **condition).x0
        return Estimate.from_x0(x, at, x0.clamp(-self.limit, self.limit))


class Thresholded(FieldWrapper):
    """A field with dynamic thresholding of ``E[x_0 | x]``, by (1).

    Args:
        base: the field.
        quantile: of each sample's ``|x0|``, in (0, 1].
        largest: the largest divisor; 1 is `Clipped`.

    Raises:
        ValueError: a quantile outside (0, 1]; a largest divisor below 1.
    """

    def __init__(self, base: ScoreField, quantile: float = 0.995, largest: float = 1.0) -> None:
        if not 0 < quantile <= 1 or not largest >= 1:
            raise ValueError(
                f"quantile={quantile}, largest={largest}: must be in (0, 1], and at least 1."
            )
        super().__init__(base)
        self.quantile, self.largest = quantile, largest

    def estimate(self, x: Tensor, at: Instant, **condition: Any) -> Estimate:
        x0 = self.base(x, at.prepared, **condition).x0
        sizes = x0.abs().flatten(1)
        wide = sizes if sizes.dtype is torch.float64 else sizes.float()
        s = wide.quantile(self.quantile, dim=1).clamp(1.0, self.largest).to(x0)
        s = s.reshape(-1, *[1] * (x0.ndim - 1))
        return Estimate.from_x0(x, at, x0.clamp(-s, s) / s)
