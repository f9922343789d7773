r"""Any pipeline of diffusers as a score field.

For states ``x`` at a time ``t`` the pipeline itself is called, as its owner calls it, and stopped
at its prediction. So text encoders, added embeddings, guidance, ControlNet, adapters and compiled
or quantised networks are used as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scorefield._internal.errors import UsageError
from scorefield.field import Denoiser, ScoreField
from scorefield.interop.clocks import Clock
from scorefield.interop.pipeline_call import Encoder, PipelineCall, Prompts, simple
from scorefield.interop.probe import Answer, Probe, Record, borrowed
from scorefield.interop.replay import Unscaled
from scorefield.interop.scheduler_process import clipped, clock_of, reject_distilled
from scorefield.process import Process

_POSITIONS = 3  # of the step, at which the prediction for a state must be the same
_NEAR = 1e-3  # least relative difference of predictions that is not rounding
# the field does not depend on the grid of the owner's scheduler
_PLAIN_GRID = {
    "timestep_spacing": "trailing",
    "steps_offset": 0,
    "shift": 1.0,
    "use_dynamic_shifting": False,
    "shift_terminal": None,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
_ADAPTER = ("_active_adapter", "_disable_adapters")  # of peft
# parts of a pipeline that act before or after the field
_OUTSIDE = ("text_encoder", "image_encoder", "vae", "vqvae", "movq", "vocoder", "safety_checker")


def field(
    pipeline: Any,
    prompts: Prompts = None,
    *,
    batch_size: int = 8,
    mean: float | Tensor = 0.0,
    variance: float | Tensor | None = None,
    **settings: Any,
) -> ScoreField:
    """Return the field of a pipeline: its prediction for a state, guidance included.

    The shape is that of the pipeline's latents in its loop, which some pipelines pack. The field
    has the condition ``prompt``, the place of a prompt in ``prompts``, one for all states or one
    for each; with one prompt it may be left out. Between calls the pipeline is as its owner left
    it. Make the field again after loading adapters or weights.

    Args:
        pipeline: of diffusers, with a network of a table, of a flow, or of EDM.
        prompts: values of the pipeline's first argument, such as texts or classes; or of several
            arguments by name; None for an unconditional pipeline.
        batch_size: states per call of the pipeline.
        mean, variance: moments of the latents, as in `scorefield.ScoreField`; by default 0 and 1,
            or the variance of EDM's preconditioning.
        settings: further arguments of the pipeline, such as ``guidance_scale`` and ``height``.

    Raises:
        UsageError: a pipeline without a scheduler of a total process, with a distilled network, or
            one that cannot be asked for one evaluation; invalid prompts.
        ImportError: diffusers is not installed.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size={batch_size}: must be at least 1.")
    scheduler, call = _scheduler_of(pipeline), PipelineCall(pipeline, prompts, settings)
    clock = clock_of(scheduler.config)[0]
    network = PipelineNetwork(pipeline, scheduler, clock, call, batch_size)
    prediction, label = Unscaled(clock.prediction), Timesteps(clock)
    if variance is None:
        variance = (scheduler.config["sigma_data"] or 1.0) ** 2
    parts = network, clock.process, prediction, network.shape, mean, variance, label
    return clipped(Denoiser(*parts), scheduler.config)


@dataclass(frozen=True)
class Timesteps:
    """The timesteps of a pipeline as the noise label of its network."""

    clock: Clock

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        return self.clock.timestep(t)


def _scheduler_of(pipeline: Any) -> Any:
    """Return a scheduler of ours for the network of a pipeline."""
    from scorefield.interop.scheduler import SolverScheduler
    from scorefield.solvers import DDIM

    kind, owner = type(pipeline).__name__, getattr(pipeline, "scheduler", None)
    if not callable(pipeline) or owner is None or getattr(owner, "config", None) is None:
        raise UsageError(f"{kind} is not a pipeline with a scheduler: give one of diffusers.")
    name = type(owner).__name__
    reject_distilled(name, f"{kind} has {name}")
    try:
        return SolverScheduler.from_config(owner.config, solver=DDIM(), **_PLAIN_GRID)
    except ValueError as error:
        raise UsageError(f"{kind} has {name}, which is not supported: {error}") from None


class PipelineNetwork(nn.Module):
    """A network ``(x, timestep, prompt)`` that asks a pipeline for its prediction.

    Attributes:
        shape: of a state.
        kind, settings, weights: everything that predictions depend on, for the field's digest.

    Raises:
        UsageError: as `field`.
    """

    def __init__(
        self, pipeline: Any, scheduler: Any, clock: Clock, call: PipelineCall, batch_size: int
    ) -> None:
        super().__init__()
        self._pipeline, self._scheduler, self._clock = pipeline, scheduler, clock
        self._call, self._batch_size = call, batch_size
        self._parts: dict[str, Any] = {"_progress_bar_config": {"disable": True}}
        if hasattr(pipeline, "encode_prompt"):
            self._parts["encode_prompt"] = Encoder(pipeline)
        self.kind, self.settings, self.weights = call.kind, call.facts(), _weights(pipeline)
        self._enters = not call.takes("latents")
        try:
            like = self._try()
        except UsageError:
            raise
        except Exception as error:  # a pipeline raises anything
            reason = (str(error).splitlines() or [""])[0][:300]
            raise UsageError(
                f"{self.kind} cannot be asked for one evaluation: {type(error).__name__}: {reason}"
            ) from error
        self.shape, self._like = tuple(like.shape[1:]), like[:0]
        self.register_buffer("_place", torch.empty(0, device=like.device))

    def forward(self, x: Tensor, timestep: Tensor, prompt: Any = None) -> Tensor:
        """Return the predictions for states ``(B, *shape)`` at timesteps ``(B,)``."""
        prompts = self._prompts(prompt, len(x))
        times, group = torch.unique(timestep, return_inverse=True)
        places = [
            batch
            for k in range(len(times))
            for batch in (group == k).nonzero().flatten().split(self._batch_size)
        ]
        parts = [self._ask(x[rows], timestep[rows[0]], prompts[rows.cpu()]) for rows in places]
        return torch.cat(parts)[torch.cat(places).argsort()]

    def _prompts(self, prompt: Any, count: int) -> Tensor:
        """Return the place of each state's prompt, ``(count,)``."""
        total = len(self._call)
        if prompt is None and total > 1:
            raise ValueError(
                f"prompt=None: must be the place of one of the {total} prompts, as in "
                "field.condition_on(prompt=0)."
            )
        places = torch.as_tensor(0 if prompt is None else prompt).cpu()
        if places.shape not in ((), (count,)) or bool(((places < 0) | (places >= total)).any()):
            raise ValueError(
                f"prompt={places.tolist()}: must be one number for all states or one for each of "
                f"the {count}, from 0 to {total - 1}."
            )
        return places.long().expand(count)

    def _ask(self, x: Tensor, timestep: Tensor, prompts: Tensor) -> Tensor:
        state = x.to(self._like)
        probe = Probe(self._scheduler, timestep, state=state, enters=self._enters)
        try:
            (record,) = self._records(probe, prompts.tolist(), state)
        except (torch.OutOfMemoryError, MemoryError):
            raise UsageError(
                f"batch_size={len(x)}: not enough memory for as many states in one call of "
                f"{self.kind}; use a smaller one."
            ) from None
        return self._prediction(record, len(x)).to(x)

    def _records(
        self, probe: Probe, prompts: Sequence[int], state: Tensor | None = None
    ) -> list[Record]:
        """Return the predictions of one call of the pipeline, ``probe.count`` of them."""
        arguments = self._call.arguments(prompts, probe.num_inference_steps)
        if state is not None and not self._enters:
            arguments["latents"] = state
        try:
            with borrowed(self._pipeline, scheduler=probe, **self._parts):
                self._call.function(self._pipeline, **arguments)
        except Answer:
            return probe.records
        raise UsageError(
            f"{self.kind} cannot be asked for one evaluation: it ended after {len(probe.records)} "
            f"of {probe.count} steps of its scheduler."
        )

    def _prediction(self, record: Record, count: int) -> Tensor:
        """Return the prediction for ``count`` states, without a learned variance."""
        output, shape = record.output[:count], record.state.shape[1:]
        if output.shape[1:] == shape:
            return output
        if output.shape[1:2] == (2 * shape[0],) and output.shape[2:] == shape[1:]:
            return output[:, : shape[0]]
        raise UsageError(
            f"{self.kind} predicts shape {tuple(record.output.shape)} for states of shape "
            f"{tuple(record.state.shape)}: must be equal, or have twice the channels."
        )

    @torch.no_grad()
    def _try(self) -> Tensor:
        """Return a state of the pipeline, after predictions for it that agree.

        The predictions are made at several steps of the same time, so that none can depend on the
        number of the step, on the calls before, or on random numbers.
        """
        prompts = [0, len(self._call) - 1][: self._batch_size]
        process = self._clock.process
        middle = torch.tensor((process.t_min + process.t_max) / 2).round(decimals=1)
        timestep = self._clock.timestep(middle)
        (first,) = self._records(Probe(self._scheduler, timestep), prompts)
        generator = torch.Generator().manual_seed(0)
        shape = len(prompts), *first.state.shape[1:]
        state = torch.randn(shape, generator=generator).to(first.state)
        predictions = self._repeated(timestep, prompts, state)
        if change := _change(predictions):
            raise UsageError(
                f"{self.kind} cannot be asked for one evaluation: for one state at one time its "
                f"predictions differ by {change:.2g} of their size. Leave out settings that depend "
                "on the number of the step, disable caches, and call eval() on its networks."
            )
        alone = self._repeated(timestep, prompts[:1], state[:1], 1)
        if change := _change([predictions[0][:1], alone[0]]):
            raise UsageError(
                f"batch_size={self._batch_size}: a prediction of {self.kind} changes by "
                f"{change:.2g} of its size with the other prompts of its batch; use batch_size=1."
            )
        return state

    def _repeated(
        self, timestep: Tensor, prompts: Sequence[int], state: Tensor, count: int = _POSITIONS
    ) -> list[Tensor]:
        """Return the predictions of some steps for one state, and note how states enter."""
        for enters in (self._enters, True):
            self._enters = enters
            probe = Probe(self._scheduler, timestep, count, state, enters)
            records = self._records(probe, prompts, state)
            if all(_same_state(record.state, state) for record in records):
                return [self._prediction(record, len(state)) for record in records]
        raise UsageError(
            f"{self.kind} cannot be asked for one evaluation: it changes the states that it is "
            "given, by latents or by its scheduler."
        )


def _change(predictions: Sequence[Tensor]) -> float:
    """Return the relative difference of predictions, or 0 if they are equal up to rounding."""
    first, *others = (prediction.double() for prediction in predictions)
    rounding = max(_NEAR, 8 * torch.finfo(predictions[0].dtype).eps)
    size, change = float(first.norm()), max(float((other - first).norm()) for other in others)
    return 0.0 if change <= rounding * size else change / size


def _same_state(rows: Tensor, state: Tensor) -> bool:
    """Return whether a step has the states of a batch, once or several times."""
    copies, rest = divmod(len(rows), len(state))
    if rest or rows.shape[1:] != state.shape[1:]:
        return False
    return all(torch.equal(part, state) for part in rows.chunk(copies))


def _weights(pipeline: Any) -> dict[str, Any]:
    """Return everything that determines the predictions of a pipeline's networks, by name."""
    parts = getattr(pipeline, "components", vars(pipeline))
    return {
        name: _contents(getattr(part, "_orig_mod", part))  # of torch.compile
        for name, part in parts.items()
        if isinstance(part, nn.Module) and not name.startswith(_OUTSIDE)
    }


def _contents(network: nn.Module) -> dict[str, Any]:
    """Return the kinds, numbers and tensors of a network's layers."""
    layers = {
        name: (type(layer).__qualname__, _numbers(layer)) for name, layer in network.named_modules()
    }
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {"layers": layers, "tensors": tensors}


def _numbers(layer: nn.Module) -> dict[str, Any]:
    """Return the public attributes that are numbers or texts, and the adapter in use."""
    return {
        name: value
        for name, value in vars(layer).items()
        if name != "training" and (name[0] != "_" or name in _ADAPTER) and simple(value)
    }
