"""`scorefield info`: the content of a run folder, and the commands to run next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from scorefield.cli.console import say, show_rows
from scorefield.cli.options import Network, RunPath

if TYPE_CHECKING:
    from scorefield.training.config import RunConfig


def info(run: RunPath, /, *, network: Network = None) -> None:
    """Show the content of a run folder, and suggest the next commands."""
    from scorefield.runs.jobs.engines import Source
    from scorefield.runs.summary import summary

    opened = Source(run, network).load()
    rows = summary(opened)
    rows["files"] = ", ".join(sorted(path.name for path in run.iterdir()))
    show_rows(rows)
    say("next:")
    for command in next_commands(run, opened.config, network):
        say(f"  {command}")


def held_out_source(config: RunConfig) -> list[str]:
    """Return the arguments that name held-out data of a run, if it is known."""
    name = config.data.name
    if name == "digits":
        return ["digits-test"]
    return [name, "--held-out"] if config.train.held_out and Path(name).exists() else []


def next_commands(run: Path, config: RunConfig, network: str | None = None) -> list[str]:
    """Return the commands that make sense for a run, each to be typed as it is."""
    commands = _for_sampling(run, held_out_source(config))
    if config.data.source is not None:  # a run between two data sets has no noise to sample from
        commands = [["translate", config.data.source], ["translate", config.data.name, "--back"]]
    if config.data.points.space:  # where no plans are tuned or compared
        commands = [each for each in commands if each[0] not in ("tune", "compare")]
    own = [] if network is None else ["--network", network]
    return [shlex.join(["scorefield", name, str(run), *rest, *own]) for name, *rest in commands]


def _for_sampling(run: Path, data: list[str]) -> list[list[str]]:
    """Return commands for a run that generates data, from the files that its folder lacks.

    ``data`` are arguments that name held-out data, if it is known.
    """
    from scorefield.runs.folder import PLANS, RunFolder

    commands = [["sample", "--n", "16"]]
    if not any((run / PLANS).glob("*.json")):
        commands.append(["tune", "--nfe", "5,10,20"])
    if RunFolder(run).frontier_path().is_file():
        commands.append(["sample", "--tolerance", "0.05"])
    else:
        commands.append(["compare", *data])
    if not (run / "report.html").is_file():
        commands.append(["report", *data])
    return commands
