r"""Any solver or plan of this library as a scheduler of diffusers, for any of its pipelines.

A pipeline calls the network at each of ``scheduler.timesteps`` and hands the output to `step`. All
that a request has come to is a value, kept beside the very tensor that `step` returned; the next
call brings that tensor back as its sample. So requests may be interleaved on one scheduler, from
one thread or several, each with a grid of its own. A sample of other numbers than `step` returned
begins anew at its timestep, and what came before is forgotten.

Samples are those the network sees: of the table's variance-preserving process, or of ``x_t = (1 -
t) x_0 + t eps`` for flow models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_ddpm import DDPMSchedulerOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from scorefield._internal.json_values import decode, encode
from scorefield.field import X0, Eps, Parametrization, V, Velocity
from scorefield.interop.course import Course
from scorefield.interop.pushed import pushed_field
from scorefield.interop.requests import Requests
from scorefield.interop.schedulers import FLOW
from scorefield.interop.takeover import COMPATIBLE, table, taken
from scorefield.interop.timesteps import (
    Clock,
    FlowClock,
    TableClock,
    check_count,
    check_grid,
    falling,
    listed,
)
from scorefield.process import Flow, Process, Tabulated, align
from scorefield.sampling import KINDS, Adaptive, Plan
from scorefield.solvers import Multistep, Solver, check_solver

Generators = torch.Generator | list[torch.Generator]

PREDICTIONS: dict[str, Parametrization] = {
    "epsilon": Eps(),
    "sample": X0(),
    "v_prediction": V(),
    FLOW: Velocity(),
}
_DEFAULT = Multistep()


class SolverScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """A scheduler of diffusers that steps by a solver or plan of this library.

    A step that calls the network ``k`` times is ``k`` of the `timesteps`, and as many calls of
    `step`. A run ends with the denoiser's answer at its last time, or as the plan says. Noise is
    torch's, from the generator given to `step`.

    Args:
        solver: a solver; a `Plan`, whose times are then the grid; or either as a config holds it.
        num_train_timesteps, beta_start, beta_end: the table, as for `DDPMScheduler`.
        beta_schedule, trained_betas, rescale_betas_zero_snr: the table, too.
        prediction_type: ``"epsilon"``, ``"sample"`` or ``"v_prediction"``; or ``eps - x_0``,
            ``"flow_prediction"``, of a flow in the place of a table.
        timestep_spacing, steps_offset: of a table's grids: ``"balanced"``, or one of diffusers'.
        shift, use_dynamic_shifting, time_shift_type: of a flow's grids, as for
            `FlowMatchEulerDiscreteScheduler`.
        flow_t_max: where a flow's grids begin; below 1 for solvers of the SDE or in log-SNR.
        snr_shift_scale: of the table, as for `CogVideoXDDIMScheduler`.

    Raises:
        ValueError: a solver that moves in place, has adaptive steps or cannot be written to a
            config; another prediction, schedule, spacing or shift; no rows; noise predicted where
            ``alpha = 0``.
    """

    _compatibles = COMPATIBLE

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        solver: Solver | Plan | Mapping[str, Any] = _DEFAULT,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | Tensor | Sequence[float] | None = None,
        rescale_betas_zero_snr: bool = False,
        prediction_type: str = "epsilon",
        timestep_spacing: str = "balanced",
        steps_offset: int = 0,
        shift: float = 1.0,
        use_dynamic_shifting: bool = False,
        time_shift_type: str = "exponential",
        flow_t_max: float = 1.0,
        snr_shift_scale: float = 1.0,
    ) -> None:
        if prediction_type not in PREDICTIONS:
            raise ValueError(
                f"prediction_type = {prediction_type!r}: give one of {[*PREDICTIONS]}."
            )
        check_count("num_train_timesteps", num_train_timesteps)
        if trained_betas is not None:
            trained_betas = np.asarray(trained_betas).tolist()
        self._clock: Clock
        if prediction_type == FLOW:
            kind = use_dynamic_shifting, time_shift_type
            flow = Flow(t_min=1e-5, t_max=flow_t_max)
            self._clock = FlowClock(flow, num_train_timesteps, shift, *kind)
        else:
            betas = num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas
            self.betas, self.alphas_cumprod = table(*betas, rescale_betas_zero_snr, snr_shift_scale)
            self._clock = TableClock(Tabulated(self.alphas_cumprod), timestep_spacing, steps_offset)
        self._field = pushed_field(self.process, PREDICTIONS[prediction_type])
        found = decode(dict(solver), KINDS) if isinstance(solver, Mapping) else solver
        self.solver, self._plan = _parts(found, self.process)
        self.register_to_config(solver=encode(found, KINDS), trained_betas=trained_betas)
        self._requests = Requests()

    @classmethod
    def from_config(
        cls, config: Any = None, return_unused_kwargs: Any = False, **kwargs: Any
    ) -> Any:
        """Return a scheduler for the network of a pipeline whose scheduler has this config.

        Args:
            config: of any scheduler of diffusers, or of this class.
            return_unused_kwargs: return those beside it.
            kwargs: arguments of this class that are to differ: ``solver`` above all.

        Raises:
            ValueError: no config, or one of neither a table nor a flow; a network that is told or
                says something else; as the class.
        """
        if not isinstance(config, Mapping):
            raise ValueError(f"config = {config!r}: give one, such as pipeline.scheduler.config.")
        arguments = taken(config, kwargs)
        return super().from_config(dict(config), return_unused_kwargs, **arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Copy the config alone: what belongs to tensors stays with them."""
        return self.from_config, (dict(self.config),)

    def __len__(self) -> int:
        length: int = self.config["num_train_timesteps"]
        return length

    @property
    def process(self) -> Process:
        """The process whose samples the network sees."""
        return self._clock.process

    @property
    def order(self) -> int:
        """Calls of the network per step."""
        return max(1, self.solver.calls)

    @property
    def timesteps(self) -> Tensor:
        """Those that this thread has set last; where it has set none, those set last of all."""
        return self._requests.current[0]

    @property
    def num_inference_steps(self) -> int:
        """The number of times that `timesteps` were set for."""
        return self._requests.current[1].points

    @property
    def init_noise_sigma(self) -> float:
        """The deviation that standardised data has when noised to the first of the times."""
        latest = self._requests.latest
        return float(self.process.prior(t=latest and latest[1].course.times[0]).std)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Set `timesteps` for this thread.

        Args:
            num_inference_steps: how many times; a solver of one call a step makes as many calls.
            device: where `timesteps` shall be.
            timesteps, sigmas: the times themselves, falling; ``sigmas`` are ``sigma / alpha`` with
                a table, and ``t`` before it is shifted with a flow.
            mu: the shift of a flow with dynamic shifting.

        Raises:
            ValueError: none of these, both of the last, or another number; times beside a plan or
                that the solver cannot step between.
        """
        finish = self._plan is None or self._plan.finish
        times = check_grid(self.process, self._times(num_inference_steps, timesteps, sigmas, mu))
        finish = finish and bool(times[-1] >= self.process.t_min)
        count = len(times) - 1 + finish
        if num_inference_steps not in (None, count):
            raise ValueError(
                f"num_inference_steps = {num_inference_steps}, and the times make {count}: give "
                f"{count}."
            )
        try:
            course = Course(self._field, self.solver, times, finish)
        except ValueError as error:
            if bool(self.process.alpha(times[0]) > 0):
                raise
            raise ValueError(
                f"{error} Or begin where alpha is above 0: a flow by flow_t_max=0.999, a table by "
                "timesteps of your own."
            ) from None
        self._requests.set(course, listed(course.calls, self._clock.unit), device, count)

    def _times(
        self,
        count: int | None,
        timesteps: Sequence[float] | None,
        sigmas: Sequence[float] | None,
        mu: float | None,
    ) -> Tensor:
        if timesteps is not None and sigmas is not None:
            raise ValueError("give timesteps or sigmas, not both.")
        if self._plan is not None:
            if timesteps is not None or sigmas is not None:
                raise ValueError("a plan has its own times: give no timesteps or sigmas.")
            return torch.as_tensor(self._plan.times)
        if timesteps is not None:
            return falling("timesteps", timesteps) / self._clock.unit
        if sigmas is not None:
            return self._clock.of_sigmas(falling("sigmas", sigmas), mu)
        return self._clock.spaced(check_count("num_inference_steps", count), mu)

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor | None = None) -> Tensor:
        """Return the sample: it is what the network sees."""
        return sample

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Refuse what no run can begin at: a new sample begins at the timestep it comes with.

        Raises:
            ValueError: no step of the solver begins at that one of `timesteps`, or none that makes
                the calls listed from there.
        """
        if begin_index:
            self._requests.check_begin(begin_index)

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        generator: Generators | None = None,
        return_dict: bool = True,
    ) -> DDPMSchedulerOutput | tuple[Tensor, Tensor]:
        """Return the sample for the next timestep, at last the result; and the data as now seen.

        Args:
            model_output: what the network said of ``sample`` at ``timestep``, of its shape.
            timestep: one of `timesteps`; as a number it is taken for one of those set last.
            sample: what the call before returned; or another, for a run to begin here.
            eta, use_clipped_model_output: what other schedulers take; to be left at rest.
            generator: of the noise, for a solver that adds some; torch's own unless given.
            return_dict: give the two names.

        Raises:
            ValueError: other shapes; no timestep of these, or not the one that the sample was
                returned for; a new sample where the solver cannot begin; ``eta`` other than 0.
        """
        if eta or use_clipped_model_output:
            raise ValueError(
                f"eta = {eta}, use_clipped_model_output = {use_clipped_model_output}: noise is the "
                "solver's, as in SolverScheduler(DDIM(eta=0.5)), and nothing is clipped."
            )
        if model_output.shape != sample.shape:
            raise ValueError(
                f"model_output has shape {tuple(model_output.shape)} and sample "
                f"{tuple(sample.shape)}: they must be the same; leave a learned variance out."
            )
        draw = partial(_drawn, generator)
        given, x0 = self._requests.answered(model_output, timestep, sample, draw)
        return DDPMSchedulerOutput(given, x0) if return_dict else (given, x0)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return data noised to timesteps, one or one per sample."""
        return self.process.perturb(original_samples, self._time(timesteps), noise)

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """Return what `add_noise` does, in the order of arguments of flow schedulers."""
        return self.add_noise(sample, noise, timestep)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what a network of velocities should say: ``v``, or of a flow ``eps - x_0``."""
        t = align(self._time(timesteps), sample)
        return self._clock.velocity.target(*self.process.coefficients(t), sample, noise)

    def _time(self, timesteps: Tensor) -> Tensor:
        t = timesteps.double() / self._clock.unit
        return t.reshape(()) if t.numel() == 1 else t


def _parts(found: Solver | Plan, process: Process) -> tuple[Solver, Plan | None]:
    """Return the solver, and the plan if there is one, on a process.

    Raises:
        ValueError: what no list of timesteps can hold.
    """
    solver, plan = (found.solver, found) if isinstance(found, Plan) else (found, None)
    check_solver("solver", solver)
    if solver.in_place or (plan is not None and isinstance(plan.times, Adaptive)):
        raise ValueError(
            f"{found!r} has no steps between timesteps that are known beforehand: give a solver on "
            "a grid, and moves in place behind one, as PredictorCorrector does."
        )
    if plan is not None and plan.tuning is not None:
        plan = plan.under(process)
    return solver, plan


def _drawn(generator: Generators | None, like: Tensor) -> Tensor:
    noise: Tensor = randn_tensor(like.shape, generator, like.device, like.dtype)
    return noise
