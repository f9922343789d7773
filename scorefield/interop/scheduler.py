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

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_ddpm import DDPMSchedulerOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from scorefield._internal.errors import UsageError
from scorefield._internal.json_values import decode, encode
from scorefield.field import Parametrization
from scorefield.interop.course import Course
from scorefield.interop.requests import Requests
from scorefield.interop.scheduler_config import COMPATIBLE, NETWORK, arguments, name_others
from scorefield.interop.scheduler_process import clock_of, field_of
from scorefield.interop.timesteps import check_count, check_grid, distinct, falling
from scorefield.process import Process, align
from scorefield.sampling import Adaptive, Plan, plan_kinds
from scorefield.solvers import Exact, Growth, Multistep, Solver, check_solver

Generators = torch.Generator | list[torch.Generator]

_DEFAULT = Multistep(2, quadrature=Exact(Growth()))


class SolverScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """A scheduler of diffusers that steps by a solver or plan of this library.

    A solver step with ``k`` network calls takes ``k`` of the `timesteps`, and as many calls of
    `step`. A run ends with the denoiser's estimate at its last time, or as in the plan. Noise is
    torch's, from the generator passed to `step`. The network is one of a table, of a flow, or of
    EDM; `from_config` reads which.

    Args:
        solver: a solver; a `Plan`, whose times are then the grid; or either from a config.
        num_train_timesteps, beta_start, beta_end: the table, as for `DDPMScheduler`.
        beta_schedule, trained_betas, rescale_betas_zero_snr: the table, too.
        prediction_type: ``"epsilon"``, ``"sample"`` or ``"v_prediction"`` with a table;
            ``"flow_prediction"``, ``eps - x_0``, with a flow.
        timestep_spacing, steps_offset: grid of a table: ``"balanced"``, or one of diffusers'.
        shift, use_dynamic_shifting, time_shift_type, shift_terminal: grid of a flow, as for
            `FlowMatchEulerDiscreteScheduler`.
        invert_sigmas: the timesteps of a flow rise from the noise to the data.
        snr_shift_scale: of the table, as for `CogVideoXDDIMScheduler`.
        sigma_data: of EDM's preconditioning: the network is EDM's, as for `EDMEulerScheduler`.
        sigma_min, sigma_max: ends of EDM's process; of Karras's spacing, by default the grid's.
        use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas, rho: another spacing between the
            ends of the grid, as for `EulerDiscreteScheduler`.
        clip_sample, clip_sample_range: clip estimates of the data, as for `DDPMScheduler`.
        thresholding, dynamic_thresholding_ratio, sample_max_value: the same, dynamically.

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
        shift_terminal: float | None = None,
        invert_sigmas: bool = False,
        snr_shift_scale: float = 1.0,
        sigma_data: float | None = None,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        use_karras_sigmas: bool = False,
        use_exponential_sigmas: bool = False,
        use_beta_sigmas: bool = False,
        rho: float = 7.0,
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        sample_max_value: float = 1.0,
    ) -> None:
        check_count("num_train_timesteps", num_train_timesteps)
        if trained_betas is not None:
            trained_betas = np.asarray(trained_betas).tolist()
            self.register_to_config(trained_betas=trained_betas)
        self._clock, table = clock_of(self.config)
        if table is not None:
            self.betas, self.alphas_cumprod = table
        self._field = field_of(self.config, self._clock)
        choice = decode(dict(solver), plan_kinds()) if isinstance(solver, Mapping) else solver
        self.solver, self._plan = _parts(choice, self.process)
        changes = {"solver": encode(choice, plan_kinds())}
        if defaults := self.config.get("_use_default_values"):
            changes["_use_default_values"] = sorted({*defaults} - {*NETWORK})
        self.register_to_config(**changes)
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
            ValueError: not a config, or one of neither a table, a flow nor EDM; a network with
                another label or output; as the class.

        Warns:
            UserWarning: an entry of the config that changes samples and is not known.
        """
        if not isinstance(config, Mapping):
            raise ValueError(f"config={config!r}: must be one, such as pipeline.scheduler.config.")
        values = arguments(config, kwargs)
        name_others(config)
        return super().from_config(dict(config), return_unused_kwargs, **values)

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
    def prediction(self) -> Parametrization:
        """The parametrization of the network."""
        return self._clock.prediction

    @property
    def order(self) -> int:
        """Network calls per step."""
        return max(1, self.solver.calls)

    @property
    def timesteps(self) -> Tensor:
        """The timesteps that this thread has set last, or else any thread; at first all of them."""
        latest = self._requests.latest
        return self._every if latest is None else latest[0]

    @property
    def sigmas(self) -> Tensor:
        """The noise levels of `timesteps` and a last 0: ``sigma / alpha``, or a flow's ``t``."""
        latest = self._requests.latest
        if latest is None:
            times = self._clock.time(self._every)
        else:
            times = torch.tensor(latest[1].course.calls, dtype=torch.float64)
        levels = self._clock.level(times)
        end = self._clock.level(torch.zeros(1)) if self.config["invert_sigmas"] else torch.zeros(1)
        return torch.cat([levels.float(), end])

    @property
    def num_inference_steps(self) -> int | None:
        """The number of times of the grid of `timesteps`; None at first."""
        latest = self._requests.latest
        return None if latest is None else latest[1].points

    @property
    def init_noise_sigma(self) -> float:
        """The factor of the noise that a pipeline starts with: 1 but for EDM.

        There it is the standard deviation of standardised data noised to the first time.
        """
        if self._clock.starts_at_one:
            return 1.0
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
                with a table, and ``t`` before the shift with a flow. The first sample is one of
                the first time. With both, those of a flow before the shift, timesteps are not
                shifted, as CogView4 has them.
            mu: the shift of a flow with dynamic shifting.

        Raises:
            ValueError: no times, ``timesteps`` that differ from ``sigmas``, or another number of
                them; times that the solver cannot step between.

        Warns:
            UserWarning: times, or another number of them, in addition to a plan, which has its own.
        """
        if self._plan is not None:
            times = check_grid(self.process, torch.as_tensor(self._plan.times))
            course = self._course(times, self._plan.finish, self._clock.starts_at_one)
            self._warn(len(_points(course)), num_inference_steps, timesteps, sigmas)
        else:
            times = self._times(num_inference_steps, timesteps, sigmas, mu)
            course = self._course(check_grid(self.process, times), True, False)
            if num_inference_steps not in (None, len(times)):
                raise ValueError(
                    f"num_inference_steps={num_inference_steps}: must be {len(times)}, the number "
                    "of times."
                )
        calls = torch.tensor(course.calls, dtype=torch.float64)
        before = timesteps is not None and sigmas is not None
        labels = self._clock.unshifted(calls, mu) if before else self._clock.timestep(calls)
        listed = distinct(labels, self._clock.whole)
        self._requests.set(course, listed, device, len(_points(course)))

    def _course(self, times: Tensor, finish: bool, from_noise: bool) -> Course:
        """Return the course along times, of noise at ``t_max`` or a sample at the first time."""
        finish = finish and bool(times[-1] >= self.process.t_min)
        make = Course.from_noise if from_noise else Course.or_lead
        return make(self._field, self.solver, times, finish)

    def _times(
        self,
        count: int | None,
        timesteps: Sequence[float] | None,
        sigmas: Sequence[float] | None,
        mu: float | None,
    ) -> Tensor:
        if timesteps is not None and sigmas is not None:
            self._check_both(falling("timesteps", timesteps), falling("sigmas", sigmas))
        elif timesteps is not None:
            sign = -1 if self.config["invert_sigmas"] else 1
            values = sign * falling("timesteps", (sign * np.asarray(timesteps)).tolist())
            return self._clock.time(values)
        if sigmas is not None:
            return self._clock.of_sigmas(falling("sigmas", sigmas), mu)
        return self._clock.spaced(check_count("num_inference_steps", count), mu)

    def _check_both(self, timesteps: Tensor, sigmas: Tensor) -> None:
        """Reject timesteps that are not those of the ``sigmas`` before the shift."""
        plain = self._clock.timestep(sigmas)
        if plain.shape != timesteps.shape or not torch.allclose(plain, timesteps, atol=1e-3):
            raise ValueError("timesteps and sigmas cannot be combined: give one of them.")

    def _warn(self, own: int, count: int | None, *grids: Sequence[float] | None) -> None:
        """Warn of arguments of `set_timesteps` that the plan replaces."""
        count = next((len(grid) for grid in grids if grid is not None), count)
        if count != own or any(grid is not None for grid in grids):
            pairs = zip(("timesteps", "sigmas"), grids, strict=True)
            names = [name for name, grid in pairs if grid is not None] or ["num_inference_steps"]
            warnings.warn(
                f"{', '.join(names)}: {count} steps were requested; the plan has its own {own}, "
                "which are used.",
                stacklevel=3,
            )

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor | None = None) -> Tensor:
        """Return the network's input: the sample, which EDM scales to unit variance."""
        if self.config["sigma_data"] is None:
            return sample
        t = align(self._time(torch.as_tensor(timestep)), sample)
        scaled: Tensor = self._clock.scale(t).to(sample) * sample
        return scaled

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Do nothing: a new sample starts at its own timestep."""

    @property
    def _step_index(self) -> int:
        """Reject pipelines that step twice from one state and count the steps themselves."""
        raise UsageError(
            "the pipeline sets the scheduler's _step_index to step twice from one state, as Cosmos "
            "does to guide. SolverScheduler does not support this; keep the pipeline's scheduler."
        )

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
            model_output: the network's output for ``sample`` at ``timestep``, of the same shape; of
                twice as many channels if it predicts a variance too, which is not used.
            timestep: one of `timesteps`; a plain number refers to those set last.
            sample: the result of the previous call, or a new sample, which starts a run here.
            eta, use_clipped_model_output: arguments of other schedulers; leave at the default.
            generator: of the noise, for a solver that adds some; torch's own by default.
            return_dict: return an object with names instead of a tuple.

        Raises:
            ValueError: different shapes; a timestep that is not in `timesteps`, or not that of the
                sample; ``eta`` other than 0; `set_timesteps` was not called.
        """
        if eta or use_clipped_model_output:
            raise ValueError(
                f"eta={eta}, use_clipped_model_output={use_clipped_model_output}: must be 0 and "
                "unset; choose the noise by the solver, as in SolverScheduler(DDIM(eta=0.5))."
            )
        if model_output.ndim > 1 and model_output.shape[1] == 2 * sample.shape[1]:
            model_output = model_output[:, : sample.shape[1]]
        if model_output.shape != sample.shape:
            raise ValueError(
                f"model_output has shape {tuple(model_output.shape)} and sample "
                f"{tuple(sample.shape)}: must be equal, or have twice the channels."
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
        t = self._clock.time(timesteps)
        return t.reshape(()) if t.numel() == 1 else t

    @cached_property
    def _every(self) -> Tensor:
        """The timesteps of all of training, before any are set."""
        return self._clock.every()


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


def _points(course: Course) -> Tensor:
    """Return the times of a course but for the end that needs no call."""
    return course.times if course.finish else course.times[:-1]


def _draw(generator: Generators | None, like: Tensor) -> Tensor:
    noise: Tensor = randn_tensor(like.shape, generator, like.device, like.dtype)
    return noise
