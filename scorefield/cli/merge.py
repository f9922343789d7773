"""`scorefield merge`: one file from the parts of all shards."""

from __future__ import annotations

from pathlib import Path

from scorefield._internal.errors import StorageError
from scorefield.cli.decode import DECODED
from scorefield.cli.encode import CODES
from scorefield.cli.likelihood import LIKELIHOODS
from scorefield.cli.options import Overwrite
from scorefield.cli.restore import RESTORED
from scorefield.cli.sample import SAMPLES

KINDS = {kind.name: kind for kind in (SAMPLES, LIKELIHOODS, CODES, DECODED, RESTORED)}


def merge(out: Path, /, *, overwrite: Overwrite = False) -> None:
    """Merge the parts of all shards of a command into its file.

    Checks that every item is there once and undamaged, writes the file, and removes the parts.
    Exits with 6 if items are missing, and prints their ids and shards.

    Parameters
    ----------
    out
        The file of the shards: that of their --out, or the name that they printed.
    """
    from pydantic import ValidationError

    from scorefield.cli.jobs import check_files, finish
    from scorefield.data.config import DataConfig
    from scorefield.runs.jobs.parts import find_job

    job = find_job(out)
    try:
        kind = KINDS[job.settings["command"]]
        like = DataConfig.model_validate(job.settings["like"])
    except (LookupError, TypeError, ValidationError):
        raise StorageError(
            f"{job.folder} holds parts that this version does not write: remove it."
        ) from None
    check_files(kind, out, like, overwrite)
    finish(job, kind)
