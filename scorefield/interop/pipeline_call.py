"""The call of a pipeline of diffusers: the prompts of each state, and the same settings for all."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield._internal.errors import UsageError

Prompts = str | Sequence[Any] | Mapping[str, Sequence[Any]] | None

# arguments that belong to the field, and not to the owner's call
RESERVED = (
    "latents",
    "num_inference_steps",
    "timesteps",
    "sigmas",
    "generator",
    "eta",
    "num_images_per_prompt",
    "num_videos_per_prompt",
    "num_waveforms_per_prompt",
    "batch_size",
    "output_type",
    "return_dict",
    "callback",
    "callback_steps",
    "callback_on_step_end",
    "callback_on_step_end_tensor_inputs",
)
_SIMPLE = (str, int, float, bool, type(None), torch.device, torch.dtype)
_REQUIRED = inspect.Parameter.empty
_ENCODED = 32  # batches of prompts whose embeddings are kept


class PipelineCall:
    """Arguments of a pipeline for any of the prompts.

    Args:
        pipeline: the pipeline.
        prompts: values of its first argument; or of several arguments, by name, as many of each;
            None for a pipeline that takes none.
        settings: further arguments, the same for all.

    Raises:
        UsageError: no prompts, different numbers of them, or an argument that belongs to the field.
    """

    def __init__(self, pipeline: Any, prompts: Prompts, settings: Mapping[str, Any]) -> None:
        self.kind = type(pipeline).__name__
        self.function = inspect.unwrap(type(pipeline).__call__)  # without torch.no_grad
        every = list(inspect.signature(self.function).parameters.items())[1:]
        self.parameters = {name: p for name, p in every if p.kind is not p.VAR_KEYWORD}
        self.settings, self.rows = dict(settings), self._rows(prompts)
        self._check()

    def _rows(self, prompts: Prompts) -> dict[str, Any]:
        first = next(iter(self.parameters), "prompt")
        if prompts is None and (first == "prompt" or self.parameters[first].default is _REQUIRED):
            raise UsageError(f"prompts=None: {self.kind} takes {first}; give values of it.")
        if prompts is None:
            return {}
        every = prompts if isinstance(prompts, Mapping) else {first: prompts}
        return {name: [row] if isinstance(row, str) else row for name, row in every.items()}

    def _check(self) -> None:
        try:
            lengths = {name: len(values) for name, values in self.rows.items()}
        except TypeError:
            text = str(self.rows)[:60]
            raise UsageError(f"prompts={text}: give a list of values for each argument.") from None
        if self.rows and (len(set(lengths.values())) > 1 or min(lengths.values()) < 1):
            raise UsageError(
                f"prompts={lengths}: each argument must have the same number, at least 1."
            )
        for name, value in {**self.settings, **self.rows}.items():
            if name in RESERVED:
                raise UsageError(f"{name}={str(value)[:40]}: the field sets it; leave it out.")
            if name not in self.parameters:
                names = ", ".join(key for key in self.parameters if key not in RESERVED)
                raise UsageError(f"{name}={str(value)[:40]}: {self.kind} takes {names}.")
        if twice := sorted(self.settings.keys() & self.rows.keys()):
            raise UsageError(f"prompts={twice}: also in the settings; give each of them once.")

    def __len__(self) -> int:
        return len(next(iter(self.rows.values()), "1"))

    def takes(self, name: str) -> bool:
        """Return whether the pipeline has an argument of this name."""
        return name in self.parameters

    def arguments(self, prompts: Sequence[int], steps: int) -> dict[str, Any]:
        """Return the arguments for the states of a batch, each with one of the prompts.

        Noise that a pipeline draws is the same in every call.
        """
        own = {
            "num_inference_steps": steps,
            "batch_size": len(prompts),
            "generator": torch.Generator().manual_seed(0),
            "output_type": "latent",
        }
        rows = {name: _chosen(values, prompts) for name, values in self.rows.items()}
        # many pipelines ask for a list of negative prompts if the prompts are a list
        texts = {
            name: [value] * len(prompts)
            for name, value in self.settings.items()
            if isinstance(value, str) and name.removeprefix("negative_").startswith("prompt")
        }
        own = {name: value for name, value in own.items() if self.takes(name)}
        return {**own, **self.settings, **texts, **rows}

    def facts(self) -> dict[str, Any]:
        """Return the settings that determine the field.

        Defaults of the pipeline's signature are included. Prompts are a condition of the field.
        """
        facts = {
            name: p.default
            for name, p in self.parameters.items()
            if not name.startswith("prompt") and simple(p.default)
        }
        facts |= {name: numbers(value) for name, value in self.settings.items()}
        return {name: facts[name] for name in sorted(facts.keys() - self.rows.keys() - {*RESERVED})}


class Encoder:
    """``encode_prompt`` of a pipeline, which computes the embeddings of a batch of prompts once."""

    def __init__(self, pipeline: Any) -> None:
        self._encode = pipeline.encode_prompt
        self._results: dict[str, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            if not simple([args, kwargs]):
                return self._encode(*args, **kwargs)
            key = repr((args, kwargs))
            if key not in self._results:
                if len(self._results) >= _ENCODED:
                    del self._results[next(iter(self._results))]
                self._results[key] = self._encode(*args, **kwargs)
            return self._results[key]


def _chosen(values: Any, places: Sequence[int]) -> Any:
    if isinstance(values, Tensor):
        return values[list(places)]
    return [values[place] for place in places]


def numbers(value: Any) -> Any:
    """Return a value with arrays and images as their numbers, which have a digest."""
    if simple(value) or isinstance(value, Tensor):
        return value
    if isinstance(value, list | tuple):
        return [numbers(item) for item in value]
    if isinstance(value, Mapping):
        return {name: numbers(item) for name, item in value.items()}
    if hasattr(value, "__array_interface__"):
        array = np.asarray(value)
        return [str(array.dtype), array.shape, array.tobytes()]
    return value


def simple(value: Any) -> bool:
    """Return whether a value is made of numbers, texts, switches and lists of them."""
    if isinstance(value, list | tuple):
        return all(map(simple, value))
    if isinstance(value, dict):
        return all(map(simple, value.values()))
    return isinstance(value, _SIMPLE)
