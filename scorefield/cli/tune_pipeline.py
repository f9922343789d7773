"""`scorefield tune-pipeline`: plans fitted to a pipeline of diffusers."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from scorefield._internal import files
from scorefield._internal.errors import CheckpointError, DataError, UsageError
from scorefield.cli.console import say
from scorefield.cli.options import (
    CALLS,
    ITEMS,
    PRECISION,
    WHERE,
    Device,
    Overwrite,
    Seed,
    option,
    whole_numbers,
)

if TYPE_CHECKING:
    import torch

_LARGEST = 2**23  # bytes of prompts
TypeName = Literal["float32", "float16", "bfloat16"]


def tune_pipeline(
    pipeline: Path,
    /,
    *,
    nfe: Annotated[list[str], option(CALLS)],
    prompts: Annotated[Path | None, option(ITEMS)] = None,
    settings: Annotated[tuple[str, ...], option(ITEMS, "the pipeline's own")] = (),
    seed: Seed = 0,
    noises: Annotated[int | None, option(PRECISION, "32 to 512, by the dimension")] = None,
    tries: Annotated[int | None, option(PRECISION, "400 / nfe, at least 40")] = None,
    polish: Annotated[int | None, option(PRECISION, "28, fewer above 7 calls")] = None,
    batch_size: Annotated[int, option(WHERE)] = 8,
    device: Device = "cpu",
    dtype: Annotated[TypeName, option(WHERE)] = "float32",
    out: Annotated[Path | None, option(WHERE, "plans, in the folder of the pipeline")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Tune plans to a pipeline of diffusers, as schedulers for given numbers of steps.

    Writes each plan as a scheduler that the pipeline can use. A plan is for the weights and the
    settings that it was tuned with, and serves every prompt. Nothing is downloaded, and no code in
    the folder is run. The same command resumes work that was interrupted.

    Parameters
    ----------
    pipeline
        A folder that save_pretrained of a diffusers pipeline wrote.
    nfe
        Steps of the pipeline, with one plan for each: --nfe 6,8.
    prompts
        A file with a prompt in each line, or with the number of a class for pipelines of classes.
    settings
        Arguments of the pipeline's call: --settings guidance_scale=5 height=512 width=512.
    noises
        Noises that the steps are fitted to. As many others choose the levels, and up to four times
        as many measure the error.
    tries
        Choices of noise levels to try for each plan.
    polish
        Iterations at the end that move levels and steps together. 0 makes none.
    batch_size
        States per call of the pipeline.
    dtype
        Type of the weights. A plan is for one type.
    out
        The folder for the schedulers, each in a subfolder: nfe-6, nfe-8.
    overwrite
        Tune again if a plan exists.
    """
    from scorefield._internal.devices import find_device
    from scorefield.cli.plan_options import describe_tuning
    from scorefield.cli.tune import existing, show_tuning
    from scorefield.interop.pipeline_tuning import PipelineTuner
    from scorefield.tuning.tuner import longest_below

    budgets, options = whole_numbers("nfe", nfe), _settings(settings)
    for name, value, least in ("nfe", min(budgets), 2), ("tries", tries, 1), ("polish", polish, 0):
        if value is not None and value < least:
            raise UsageError(f"--{name} {value}: give at least {least}.")
    place = find_device(device)
    lines = None if prompts is None else _lines(prompts)
    tuner = PipelineTuner(
        _load(pipeline, place, dtype),
        lines,
        noises=noises,
        seed=seed,
        batch_size=batch_size,
        folder=pipeline / "plans" if out is None else out,
        **options,
    )
    plans = {} if overwrite else existing(tuner.plan, budgets)
    for calls in budgets:
        if calls in plans:
            continue
        plans[calls] = show_tuning(tuner, calls, tries, polish, longest_below(plans, calls))
        say(describe_tuning(plans[calls]))
        say(f"scheduler: {tuner.path(calls)}")


def _load(folder: Path, device: torch.device, dtype: str) -> Any:
    """Return the pipeline of a folder, without network access or code of the folder.

    Raises:
        CheckpointError: the folder is missing, incomplete or not supported.
    """
    from scorefield.interop.settings import read_json

    read_json(folder / "model_index.json")
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when its libraries are imported
    import diffusers
    import torch

    diffusers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            pipeline = diffusers.DiffusionPipeline.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                torch_dtype=getattr(torch, dtype),
            )
    except Exception as error:  # a folder of others raises anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{folder} cannot be loaded: {reason[:300]}") from None
    return pipeline.to(device)


def _lines(path: Path) -> list[Any]:
    """Return the prompts of a file, as numbers if all of them are.

    Raises:
        DataError: a file that cannot be read, or without prompts.
    """
    with files.reading(f"--prompts {path}", "", DataError):
        text = files.read(path, _LARGEST).decode()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"--prompts {path}: the file is empty; give a prompt in each line.")
    return [int(line) for line in lines] if all(map(str.isdecimal, lines)) else lines


def _settings(words: tuple[str, ...]) -> dict[str, Any]:
    """Return the arguments of the pipeline; a value that is not JSON is a text.

    Raises:
        UsageError: a word without a name.
    """
    values = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--settings {word}: give name=value, such as guidance_scale=5.")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return values
