"""`scorefield info`: the content of a run folder, and the commands to run next."""

from __future__ import annotations

import shlex
from pathlib import Path

from scorefield.cli.console import say, show_rows
from scorefield.cli.options import Network, RunPath


def info(run: RunPath, /, *, network: Network = None) -> None:
    """Show the content of a run folder, and suggest the next commands."""
    from scorefield.runs.jobs.engines import load_run
    from scorefield.runs.summary import summary

    rows = summary(load_run(run, network))
    rows["files"] = ", ".join(sorted(path.name for path in run.iterdir()))
    show_rows(rows)
    say("next:")
    for command in next_commands(run, network):
        say(f"  {command}")


def next_commands(run: Path, network: str | None = None) -> list[str]:
    """Return the commands that make sense for a run, from what its folder lacks."""
    from scorefield.runs.folder import PLANS, RunFolder

    tuned, compared = any((run / PLANS).glob("*.json")), RunFolder(run).frontier_path().is_file()
    arguments = [["sample", "--n", "16"]]
    if not tuned:
        arguments.append(["tune", "--nfe", "5,10,20"])
    if not compared:
        arguments.append(["compare"])
    else:
        arguments.append(["sample", "--tolerance", "0.05"])
    if not (run / "report.html").is_file():
        arguments.append(["report"])
    own = [] if network is None else ["--network", network]
    return [shlex.join(["scorefield", k, str(run), *rest, *own]) for k, *rest in arguments]
