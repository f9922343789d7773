"""Posteriors of a run given several observations together, composed of those of each.

Reference: Linhart et al. (2024), arXiv:2404.07593; see `scorefield.Product`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scorefield._internal.errors import UsageError
from scorefield.field import Product, ScoreField
from scorefield.sampling import default_plan, sample

if TYPE_CHECKING:
    from scorefield.runs.units import DataField

_DRAWS = 512  # of the prior and of each posterior, for their covariances
_NFE = 10
_BATCH = 256
_RIDGE = 1e-6  # of the prior's variance


def posterior_of_all(run: DataField, given: Any) -> Product:
    """Return the field of ``p(x | all rows of given)``, of observations independent given ``x``.

    The covariances of the prior and of the posterior of each row are those of 512 draws by 10
    calls, with the same noise. A posterior that is wider than the prior in a direction counts as
    wide as it there.

    Args:
        given: as for `scorefield.runs.Run.sample`, with a row for each observation.

    Raises:
        UsageError: as `DataField.given`; no condition; guidance; a run that has not learned the
            field without conditions; samples of more than 128 numbers.
    """
    from scorefield.runs.units import Given

    values, dim = run.given(given), math.prod(run.field.shape)
    if not values:
        raise UsageError("together: give the observations, as in given={'x': rows}.")
    if run.guidance != 1 or run.scales:
        raise UsageError("together: posteriors of a guided run do not compose; use guidance=1.")
    if not run.config.train.dropout:
        raise UsageError(
            "together: this run was trained with dropout=0, so it did not learn the prior; train "
            "with dropout above 0."
        )
    if dim > _DRAWS // 4:
        raise UsageError(
            f"together: samples of {dim} numbers; covariances are computed for {_DRAWS // 4} at "
            "most."
        )
    count = max(len(v) if v.ndim else 1 for v in values.values())
    rows = [
        Given({k: v if not v.ndim or len(v) == 1 else v[j : j + 1] for k, v in values.items()})
        for j in range(count)
    ]
    prior = run.toward()
    wide = _covariance(prior)
    factor = torch.linalg.cholesky(wide + _RIDGE * wide.diagonal().mean() * torch.eye(dim).to(wide))
    fields = [run.toward(row) for row in rows]
    narrow = [_narrowed(_covariance(field), factor) for field in fields]
    covariances = torch.stack([*narrow, factor @ factor.T])
    return Product([*fields, prior], [1.0] * count + [1.0 - count], covariances=covariances)


def _covariance(field: ScoreField) -> Tensor:
    z = sample(field, _DRAWS, default_plan(field, _NFE), batch_size=_BATCH)
    return torch.cov(z.double().flatten(1).T).reshape(math.prod(field.shape), -1)


def _narrowed(covariance: Tensor, factor: Tensor) -> Tensor:
    """Return a covariance, at most that of the prior, ``factor factor^T``, in any direction."""
    inner = torch.linalg.solve_triangular(factor, covariance, upper=False)
    inner = torch.linalg.solve_triangular(factor, inner.mT, upper=False)
    share, basis = torch.linalg.eigh(inner)
    turned = factor @ basis
    narrow: Tensor = turned * share.clamp(_RIDGE, 1.0) @ turned.mT
    return narrow
