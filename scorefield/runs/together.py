"""Posteriors of a run given several observations together, composed of those of each.

Reference: Linhart et al. (2024), arXiv:2404.07593; see `scorefield.Product`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from scorefield._internal.errors import UsageError
from scorefield.field import Product, ScoreField, digest
from scorefield.sampling import default_plan, sample

if TYPE_CHECKING:
    from scorefield.runs.units import DataField

_DRAWS = 512  # of the prior and of each posterior, for their moments
_NFE = 10
_BATCH = 256
_RIDGE = 1e-6  # of the prior's variance


class _Moments(NamedTuple):
    """Means ``(K, d)`` and covariances ``(K, d, d)`` of the posteriors and of the prior, last."""

    means: Tensor
    covariances: Tensor


# those of the last observations of each field, which the parts of a job share
_LAST: WeakKeyDictionary[ScoreField, tuple[str, _Moments]] = WeakKeyDictionary()


def check_together(run: DataField, given: Any) -> dict[str, Tensor]:
    """Return the observations as a network takes them.

    Raises:
        UsageError: as `posterior_of_all`.
    """
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
    run.check_one_length()
    return values


def posterior_of_all(run: DataField, given: Any) -> Product:
    """Return the field of ``p(x | all rows of given)``, of observations independent given ``x``.

    Means and covariances of the prior and of the posterior of each row are those of 512 draws by
    10 calls, with the same noise. A posterior that is wider than the prior in a direction counts as
    wide as it there.

    Args:
        given: as for `scorefield.runs.Run.sample`, with a row for each observation.

    Raises:
        UsageError: as `DataField.given`; no condition; guidance; a run that has not learned the
            field without conditions; samples of more than 128 numbers, or of several lengths.
    """
    from scorefield.runs.units import Given

    values = check_together(run, given)
    count = max(len(v) if v.ndim else 1 for v in values.values())
    rows = [
        Given({k: v if not v.ndim or len(v) == 1 else v[j : j + 1] for k, v in values.items()})
        for j in range(count)
    ]
    fields = [*(run.toward(row) for row in rows), run.toward()]
    mark = digest([dict(values), dict(run.condition)])
    if _LAST.get(run.field, ("",))[0] != mark:
        _LAST[run.field] = mark, _moments(fields)
    means, covariances = _LAST[run.field][1]
    product = Product(fields, [1.0] * count + [1.0 - count], covariances=covariances)
    precisions = product.precisions.to(means)  # times their weights
    total = torch.einsum("kde,ke->d", precisions, means)
    mean = torch.linalg.solve(precisions.sum(0), total).reshape(run.field.shape)
    product.mean = mean.to(torch.float64)
    return product


def _moments(fields: Sequence[ScoreField]) -> _Moments:
    means, covariances = zip(*map(_drawn, fields), strict=True)
    wide, dim = covariances[-1], len(means[-1])
    factor = torch.linalg.cholesky(wide + _RIDGE * wide.diagonal().mean() * torch.eye(dim).to(wide))
    narrow = [_narrowed(covariance, factor) for covariance in covariances[:-1]]
    return _Moments(torch.stack(means), torch.stack([*narrow, factor @ factor.T]))


def _drawn(field: ScoreField) -> tuple[Tensor, Tensor]:
    """Return the mean ``(d,)`` and the covariance ``(d, d)`` of draws."""
    z = sample(field, _DRAWS, default_plan(field, _NFE), batch_size=_BATCH).double().flatten(1)
    return z.mean(0), torch.cov(z.T).reshape(z.shape[1], -1)


def _narrowed(covariance: Tensor, factor: Tensor) -> Tensor:
    """Return a covariance, at most that of the prior, ``factor factor^T``, in any direction."""
    inner = torch.linalg.solve_triangular(factor, covariance, upper=False)
    inner = torch.linalg.solve_triangular(factor, inner.mT, upper=False)
    share, basis = torch.linalg.eigh(inner)
    turned = factor @ basis
    narrow: Tensor = turned * share.clamp(_RIDGE, 1.0) @ turned.mT
    return narrow
