"""`scorefield data`: commands on data alone."""

from __future__ import annotations

from cyclopts import App

from scorefield.cli.console import show_rows
from scorefield.cli.options import ReadOptions

data = App(name="data", help="Inspect data before training.", help_format="markdown")


@data.command
def inspect(source: str, /, *, reading: ReadOptions = ReadOptions()) -> None:
    """Show the content of a data source, and how training would use it.

    Parameters
    ----------
    source
        A file, a folder of images or a built-in set, as for `scorefield train`.
    """
    from scorefield.data.inspection import inspect

    show_rows(inspect(source, **vars(reading)))
