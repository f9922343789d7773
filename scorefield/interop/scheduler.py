r"""Any solver or plan of this library as a scheduler for the pipelines of diffusers.

A pipeline calls the network at each of ``scheduler.timesteps`` and passes the output to `step`. The
progress of a request is a value that is stored with the tensor that `step` returned. The next call
passes that tensor as its sample. So requests may be interleaved on one scheduler, from one thread
or several, each with its own grid. A sample that `step` did not return starts a new run at its
timestep, without history.

Samples are inputs of the network: of the table's variance-preserving process, or of ``x_t = (1 - t)
x_0 + t eps`` for flow models.
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
from scorefield.interop.replay import replay_field
from scorefield.interop.requests import Requests
from scorefield.interop.scheduler_config import COMPATIBLE, solver_arguments, table
from scorefield.interop.scheduler_process import FLOW
from scorefield.interop.timesteps import (
    Clock,
    FlowClock,
    TableClock,
    check_count,
    check_grid,
    falling,
    timesteps_of,
)
from scorefield.process import Flow, Process, Tabulated, align
from scorefield.sampling import Adaptive, Plan, plan_kinds
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

    A solver step with ``k`` network calls takes ``k`` of the `timesteps`, and as many calls of
    `step`. A run ends with the denoiser's estimate at its last time, or as in the plan. Noise is
    torch's, from the generator passed to `step`.

    Args:
        solver: a solver; a `Plan`, whose times are then the grid; or either from a config.
        num_train_timesteps, beta_start, beta_end: the table, as for `DDPMScheduler`.
        beta_schedule, trained_betas, rescale_betas_zero_snr: the table, too.
        prediction_type: ``"epsilon"``, ``"sample"`` or ``"v_prediction"`` with a table;
            ``"flow_prediction"``, ``eps - x_0``, with a flow.
        timestep_spacing, steps_offset: grid of a table: ``"balanced"``, or one of diffusers'.
        shift, use_dynamic_shifting, time_shift_type: grid of a flow, as for
            `FlowMatchEulerDiscreteScheduler`.
        flow_t_max: start of a flow's grids; below 1 for solvers of the SDE or in log-SNR.
        snr_shift_scale: of the table, as for `CogVideoXDDIMScheduler`.

    Raises:
        ValueError: a solver that moves in place, has adaptive steps or cannot be stored in a
            config; another prediction, schedule, spacing or shift; an empty table; a prediction of
            the noise where ``alpha = 0``.
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
                f"prediction_type={prediction_type!r}: must be one of {[*PREDICTIONS]}."
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
        self._field = replay_field(self.process, PREDICTIONS[prediction_type])
        choice = decode(dict(solver), plan_kinds()) if isinstance(solver, Mapping) else solver
        self.solver, self._plan = _parts(choice, self.process)
        self.register_to_config(solver=encode(choice, plan_kinds()), trained_betas=trained_betas)
        self._requests = Requests()

    @classmethod
    def from_config(
        cls, config: Any = None, return_unused_kwargs: Any = False, **kwargs: Any
    ) -> Any:
        """Return a scheduler for the network of a pipeline whose scheduler has this config.

        Args:
            config: of any scheduler of diffusers, or of this class.
            return_unused_kwargs: also return the arguments that were not used.
            kwargs: arguments of this class that replace those of the config, such as ``solver``.

        Raises:
            ValueError: not a config, or one of neither a table nor a flow; a network with another
                label or output; as the class.
        """
        if not isinstance(config, Mapping):
            raise ValueError(f"config={config!r}: must be one, such as pipeline.scheduler.config.")
        arguments = solver_arguments(config, kwargs)
        return super().from_config(dict(config), return_unused_kwargs, **arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Copy the config only; the progress of requests belongs to their tensors."""
        return self.from_config, (dict(self.config),)

    def __len__(self) -> int:
        length: int = self.config["num_train_timesteps"]
        return length

    @property
    def process(self) -> Process:
        """The process whose samples are the network's inputs."""
        return self._clock.process

    @property
    def order(self) -> int:
        """Network calls per step."""
        return max(1, self.solver.calls)

    @property
    def timesteps(self) -> Tensor:
        """The timesteps that this thread has set last, or else any thread."""
        return self._requests.current[0]

    @property
    def num_inference_steps(self) -> int:
        """The number of times of the grid of `timesteps`."""
        return self._requests.current[1].points

    @property
    def init_noise_sigma(self) -> float:
        """The standard deviation of standardised data noised to the first time."""
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
            num_inference_steps: the number of times; a solver of one call a step makes as many
                calls.
            device: of `timesteps`.
            timesteps, sigmas: the times themselves, decreasing; ``sigmas`` are ``sigma / alpha``
                with a table, and ``t`` before the shift with a flow.
            mu: the shift of a flow with dynamic shifting.

        Raises:
            ValueError: no times, both ``timesteps`` and ``sigmas``, or another number of them;
                times in addition to a plan, or ones that the solver cannot step between.
        """
        finish = self._plan is None or self._plan.finish
        times = check_grid(self.process, self._times(num_inference_steps, timesteps, sigmas, mu))
        finish = finish and bool(times[-1] >= self.process.t_min)
        count = len(times) - 1 + finish
        if num_inference_steps not in (None, count):
            raise ValueError(
                f"num_inference_steps={num_inference_steps}: must be {count}, the number of times."
            )
        try:
            course = Course(self._field, self.solver, times, finish)
        except ValueError as error:
            if bool(self.process.alpha(times[0]) > 0):
                raise
            raise ValueError(
                f"{error} Or start where alpha is above 0: with flow_t_max=0.999 for a flow, or "
                "your own timesteps for a table."
            ) from None
        self._requests.set(course, timesteps_of(course.calls, self._clock.unit), device, count)

    def _times(
        self,
        count: int | None,
        timesteps: Sequence[float] | None,
        sigmas: Sequence[float] | None,
        mu: float | None,
    ) -> Tensor:
        if timesteps is not None and sigmas is not None:
            raise ValueError("timesteps and sigmas cannot be combined: give one of them.")
        if self._plan is not None:
            if timesteps is not None or sigmas is not None:
                raise ValueError("a plan has its own times: leave out timesteps and sigmas.")
            return torch.as_tensor(self._plan.times)
        if timesteps is not None:
            return falling("timesteps", timesteps) / self._clock.unit
        if sigmas is not None:
            return self._clock.of_sigmas(falling("sigmas", sigmas), mu)
        return self._clock.spaced(check_count("num_inference_steps", count), mu)

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor | None = None) -> Tensor:
        """Return the sample, which is already the network's input."""
        return sample

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Reject an index at which no run can start; a new sample starts at its own timestep.

        Raises:
            ValueError: no step of the solver starts at that one of `timesteps`, or its calls differ
                from the `timesteps` from there.
        """
        if begin_index:
            self._requests.check_start(begin_index)

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
        """Return the sample for the next timestep, or the result; and the estimate of the data.

        Args:
            model_output: the network's output for ``sample`` at ``timestep``, of the same shape.
            timestep: one of `timesteps`; a plain number refers to those set last.
            sample: the result of the previous call, or a new sample, which starts a run here.
            eta, use_clipped_model_output: arguments of other schedulers; leave at the default.
            generator: of the noise, for a solver that adds some; torch's own by default.
            return_dict: return an object with names instead of a tuple.

        Raises:
            ValueError: different shapes; a timestep that is not in `timesteps`, or not that of the
                sample; a new sample where the solver cannot start; ``eta`` other than 0.
        """
        if eta or use_clipped_model_output:
            raise ValueError(
                f"eta={eta}, use_clipped_model_output={use_clipped_model_output}: must be 0 and "
                "unset; choose the noise by the solver, as in SolverScheduler(DDIM(eta=0.5))."
            )
        if model_output.shape != sample.shape:
            raise ValueError(
                f"model_output has shape {tuple(model_output.shape)} and sample "
                f"{tuple(sample.shape)}: must be equal; leave out a learned variance."
            )
        draw = partial(_draw, generator)
        next_sample, x0 = self._requests.advance(model_output, timestep, sample, draw)
        return DDPMSchedulerOutput(next_sample, x0) if return_dict else (next_sample, x0)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return data noised to timesteps: one, or one per sample."""
        return self.process.perturb(original_samples, self._time(timesteps), noise)

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """Return `add_noise` with the argument order of flow schedulers."""
        return self.add_noise(sample, noise, timestep)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return the target of a velocity prediction: ``v``, or ``eps - x_0`` for a flow."""
        t = align(self._time(timesteps), sample)
        return self._clock.velocity.target(*self.process.coefficients(t), sample, noise)

    def _time(self, timesteps: Tensor) -> Tensor:
        t = timesteps.double() / self._clock.unit
        return t.reshape(()) if t.numel() == 1 else t


def _parts(choice: Solver | Plan, process: Process) -> tuple[Solver, Plan | None]:
    """Return the solver, and the plan if there is one, on a process.

    Raises:
        ValueError: steps without fixed timesteps.
    """
    solver, plan = (choice.solver, choice) if isinstance(choice, Plan) else (choice, None)
    check_solver("solver", solver)
    if solver.in_place or (plan is not None and isinstance(plan.times, Adaptive)):
        raise ValueError(
            f"solver={choice!r}: must step along a fixed grid; combine moves in place with such a "
            "solver, as PredictorCorrector does."
        )
    if plan is not None and plan.tuning is not None:
        plan = plan.under(process)
    return solver, plan


def _draw(generator: Generators | None, like: Tensor) -> Tensor:
    noise: Tensor = randn_tensor(like.shape, generator, like.device, like.dtype)
    return noise
