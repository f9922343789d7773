"""What `scorefield merge` does."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from scorefield._internal.errors import StorageError
from scorefield.cli.latents import DECODING, ENCODING
from scorefield.cli.likelihood import LIKELIHOOD
from scorefield.cli.parts import finish
from scorefield.cli.restoring import RESTORING
from scorefield.cli.sampling import SAMPLING
from scorefield.data.config import DataConfig
from scorefield.runs.jobs.parts import find_job

KINDS = {kind.name: kind for kind in (SAMPLING, LIKELIHOOD, ENCODING, DECODING, RESTORING)}


def merge(console: Console, out: Path, overwrite: bool) -> None:
    """Write the result of the parts beside ``out``, if every one is there as it was written."""
    job = find_job(out)
    try:
        kind = KINDS[job.settings["command"]]
        like = DataConfig.model_validate(job.settings["like"])
    except (LookupError, TypeError, ValidationError):
        raise StorageError(
            f"{job.folder} holds parts that no command of this version makes: remove it."
        ) from None
    kind.check(out, like, overwrite)
    finish(console, job, kind)
