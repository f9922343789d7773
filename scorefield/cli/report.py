"""What `scorefield report` does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from scorefield._internal import sizes
from scorefield.cli.commands import say, track
from scorefield.report.builder import ReportBuilder


def report(console: Console, folder: Path, out: Path | None, settings: Mapping[str, Any]) -> None:
    """Write a report of a run; the settings are those of `scorefield.report.write_report`."""
    builder, began = ReportBuilder(folder, out=out, **settings), time.monotonic()
    for _ in track(console, builder, len(builder), "report"):
        pass
    say(console, f"{time.monotonic() - began:.1f} s, {sizes.words(builder.path.stat().st_size)}")
    say(console, f"report: {builder.path}")
