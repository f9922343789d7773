r"""The base of a solver whose step is one function of the state."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from scorefield.field import ScoreField
from scorefield.noise import Noise
from scorefield.process import Coefficient
from scorefield.solvers.base import Move, Solver, State


class OneStep(Solver):
    """A solver that writes one method: `step` returns ``x`` at time ``s``.

    It works wherever a solver does: on grids, in `Program`, `PredictorCorrector`, `Churn`,
    `Ancestral`, `Restart` and `Reversible`. DDIM with its estimate of the data clipped::

        @dataclass(frozen=True)
        class Clipped(sf.OneStep):
            limit: float = 1.0

            def step(self, field, state, s):
                estimate = field(state.x, state.t)
                x0 = estimate.x0.clamp(-self.limit, self.limit)
                eps = (state.x - estimate.at.alpha * x0) / estimate.at.sigma
                return field.process.perturb(x0, s, eps)

        sf.sample(field, 64, Clipped(), 20)

    Noise comes from ``state.noise``, which makes a sample independent of its batch. The next step
    continues with fresh noise. A step with noise declares `weak_order`, the order at which its
    distribution converges. The reverse SDE by Euler and Maruyama::

        @dataclass(frozen=True)
        class Reverse(sf.OneStep):
            weak_order = 1

            def step(self, field, state, s):
                f, g = field.process.drift(state.t), field.process.diffusion(state.t)
                score = field(state.x, state.t).score
                z, _ = state.noise.normal(state.x)
                drift = f * state.x - g**2 * score
                return state.x + (s - state.t) * drift + g * (state.t - s).sqrt() * z

    Other traits are class attributes too: ``order = 2``, ``calls = 2`` for a step with two calls of
    the field. A `OneStep` has no error estimate, so `Adaptive` rejects it.
    """

    @abstractmethod
    def step(self, field: ScoreField, state: State, s: Tensor) -> Tensor:
        """Return ``x`` at time ``s``, ``(B, ...)`` like ``state.x``.

        Args:
            field: call it as ``field(state.x, state.t)``.
            state: the batch ``state.x`` at the time ``state.t``, and ``state.noise``.
            s: the time to step to, ``()`` or one for each sample in the form of ``state.t``; it
                may lie on either side of ``state.t``.
        """

    def moves(
        self, field: ScoreField, t: Tensor, s: Tensor, history: Any = None, *, error: bool = False
    ) -> list[Move]:
        return [_Step(self, field, end) for end in s]


@dataclass(frozen=True)
class _Step(Move):
    solver: OneStep
    field: ScoreField
    s: Tensor

    def __call__(self, state: State) -> State:
        draws = _Draws(state.noise)
        # the step sees the counter in the place of the noise: it draws as from any noise
        x = self.solver.step(self.field, state._replace(noise=draws), self.s)  # type: ignore[arg-type]
        name = f"{type(self.solver).__name__}.step"
        if not isinstance(x, Tensor) or x.shape != state.x.shape:
            shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"{name} returned {shape}: return x at s, shaped like state.x, "
                f"{tuple(state.x.shape)}."
            )
        if draws.noise is not state.noise and self.solver.weak_order is None:
            raise ValueError(f"{name} draws noise: set the class attribute weak_order = 1.")
        return State(x.to(state.x), self.s, draws.noise)


class _Draws:
    """Noise that counts its own draws, so that a step need not return what follows them."""

    def __init__(self, noise: Noise) -> None:
        self.noise = noise

    def normal(self, like: Tensor) -> tuple[Tensor, _Draws]:
        z, self.noise = self.noise.normal(like)
        return z, self

    def uniform(self, like: Tensor) -> tuple[Tensor, _Draws]:
        u, self.noise = self.noise.uniform(like)
        return u, self

    def increment(
        self, start: Coefficient, end: Coefficient, like: Tensor
    ) -> tuple[Tensor, _Draws]:
        z, self.noise = self.noise.increment(start, end, like)
        return z, self
