r"""Processes with one noise level per coordinate: ``x_i = alpha_i(t) x_0i + sigma_i(t) eps_i``.

With an orthonormal frame, the columns of ``U``, they are all linear processes whose matrices
commute and are symmetric. In the coordinates ``y = U^T x``::

    dx = F(t) x dt + G(t) dw,    F = U diag(f_i) U^T,    G = U diag(g_i) U^T        (1)

white noise stays white and densities stay the same, so a field of ``y`` is all that is needed:
turn the data by ``x @ U``, and samples back by ``y @ U.T``. The principal axes of data serve for
`Whitening`, and a cosine transform of images for `Blurring`.

Reference: Hoogeboom and Salimans (2022), arXiv:2209.05557 (blurring); Särkkä and Solin (2019),
Applied Stochastic Differential Equations, section 6.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scorefield.process.base import Process, check_instance


@dataclass(frozen=True, eq=False, repr=False)
class Whitening(Process):
    """Noise with a deviation of its own in each coordinate: ``sigma_i = scale_i sigma``.

    With the data's deviations along its principal axes, signal and noise have one ratio in all of
    them. It is the base process of the data divided by ``scale``, in the data's own units.

    Args:
        base: the process of one value for all coordinates.
        scale: ``coordinates``, positive and finite.

    Raises:
        ValueError: a base with coordinates of its own; a scale that is not positive and finite.
    """

    base: Process
    scale: Tensor

    def __post_init__(self) -> None:
        _adopt(self, self.base, "scale", self.scale)
        if not bool((self.scale > 0).all()):
            raise ValueError(f"scale: must be positive, not {float(self.scale.min()):g}.")
        super().__post_init__()

    def alpha(self, t: Tensor) -> Tensor:
        return self.base.alpha(_lifted(self, t)) * torch.ones_like(self.scale)

    def sigma(self, t: Tensor) -> Tensor:
        return self.base.sigma(_lifted(self, t)) * self.scale


@dataclass(frozen=True, eq=False, repr=False)
class Blurring(Process):
    """A base process that also dissipates: ``alpha_i = alpha (1 + r^2)^(-decay_i / 2)``.

    With ``r = sigma / alpha`` that is the heat equation in the time ``log(1 + r^2) / 2``, in a
    frame where the Laplacian is diagonal: high frequencies, with large ``decay``, disappear first.
    On `VP` each coordinate has the drift of the base times ``1 + decay_i``.

    Args:
        base: the process of one value for all coordinates.
        decay: ``coordinates``, not negative.

    Raises:
        ValueError: a base with coordinates of its own; a decay that is negative or not finite.

    Reference: Hoogeboom and Salimans (2022), arXiv:2209.05557, section 3.
    """

    base: Process
    decay: Tensor

    def __post_init__(self) -> None:
        _adopt(self, self.base, "decay", self.decay)
        if not bool((self.decay >= 0).all()):
            raise ValueError(f"decay: must be 0 or more, not {float(self.decay.min()):g}.")
        super().__post_init__()

    def alpha(self, t: Tensor) -> Tensor:
        alpha, sigma = self.base.coefficients(_lifted(self, t))
        return alpha * (alpha / (alpha**2 + sigma**2).sqrt()) ** self.decay

    def sigma(self, t: Tensor) -> Tensor:
        return self.base.sigma(_lifted(self, t)) * torch.ones_like(self.decay)


@dataclass(frozen=True, eq=False, repr=False)
class PerCoordinate(Process):
    """A process for each coordinate of samples ``(d,)``, such as a `LinearSDE` for each.

    Args:
        processes: ``d`` of them, each with one value; their common interval of time is used.

    Raises:
        ValueError: no process, or one with coordinates of its own; no common time.
    """

    processes: Sequence[Process]

    def __post_init__(self) -> None:
        parts = tuple(self.processes)
        for k, part in enumerate(parts):
            check_instance(f"processes[{k}]", part, Process, "one such as VP()")
            _check_scalar(f"processes[{k}]", part)
        if not parts:
            raise ValueError("processes=(): give one for each coordinate.")
        origins = {part.t_origin for part in parts}
        _set(
            self,
            processes=parts,
            coordinates=(len(parts),),
            t_min=max(part.t_min for part in parts),
            t_max=min(part.t_max for part in parts),
            t_origin=origins.pop() if len(origins) == 1 else float("nan"),
        )
        super().__post_init__()

    def alpha(self, t: Tensor) -> Tensor:
        return self._each(t, lambda part: part.alpha)

    def sigma(self, t: Tensor) -> Tensor:
        return self._each(t, lambda part: part.sigma)

    def _each(self, t: Tensor, of: Callable[[Process], Callable[[Tensor], Tensor]]) -> Tensor:
        t = _lifted(self, t)
        return torch.cat([of(part)(t if t.ndim else t[None]) for part in self.processes], -1)


def _adopt(process: Process, base: Process, name: str, values: Tensor) -> None:
    """Set the interval and the coordinates of a process made of another and a tensor."""
    check_instance("base", base, Process, "one such as VP()")
    _check_scalar("base", base)
    values = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
    if not values.ndim or not values.numel() or not bool(values.isfinite().all()):
        raise ValueError(
            f"{name} has shape {tuple(values.shape)}: must be finite, of the shape of one sample."
        )
    own: dict[str, Any] = {name: values, "coordinates": tuple(values.shape)}
    _set(process, **own, t_min=base.t_min, t_max=base.t_max, t_origin=base.t_origin)


def _check_scalar(name: str, process: Process) -> None:
    if process.coordinates:
        raise ValueError(f"{name}={process!r}: must have one value for all coordinates.")


def _set(process: Process, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(process, name, value)


def _lifted(process: Process, t: Tensor) -> Tensor:
    """Return a time, or raise an error if values of all coordinates do not broadcast with it."""
    ones = len(process.coordinates)
    if t.ndim and (t.ndim < ones or t.shape[-ones:] != (1,) * ones):
        raise ValueError(
            f"t has shape {tuple(t.shape)}: for a process with coordinates give one time, or "
            f"process.lift(t)."
        )
    return t
