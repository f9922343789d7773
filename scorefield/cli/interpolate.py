"""`scorefield interpolate`: strips between items of data."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from scorefield._internal.errors import UsageError
from scorefield.cli.console import draw, say
from scorefield.cli.encode import EachWay, plan_of_calls
from scorefield.cli.options import ITEMS, ItemOptions, Items, RunPath, option
from scorefield.cli.results import ResultKind


def interpolate(
    run: RunPath,
    data: Items,
    /,
    *,
    pairs: Annotated[list[str], option(ITEMS)],
    points: Annotated[int, option(ITEMS)] = 9,
    item: ItemOptions = ItemOptions(),
    nfe: EachWay = None,
) -> None:
    """Interpolate between items of data through their latent codes.

    Writes a .npy file of strips, and a picture of images.

    Parameters
    ----------
    pairs
        Numbers of items, from 0: --pairs 0:7 3:12.
    points
        Length of each strip, both items included.
    """
    import torch

    from scorefield.cli.items import read_items
    from scorefield.cli.jobs import PICTURE_ITEMS, target
    from scorefield.cli.opening import open_run
    from scorefield.runs.jobs.tables import write_array

    opened = open_run(run, item)
    out = target(STRIPS, opened, run / f"strips-{Path(data).stem}")
    x = read_items(opened.run, data)
    if not pairs:
        raise UsageError("--pairs: give numbers of items, such as 0:1.")
    ends = [_pair(text, len(x)) for text in pairs]
    first, last = (x[torch.tensor(side)] for side in zip(*ends, strict=True))
    began, plan = time.monotonic(), plan_of_calls(opened.run, nfe, False)
    settings = {
        "given": opened.given.of(range(len(ends))),
        "points": points,
        "batch_size": item.batch_size,
    }
    strips = opened.run.interpolate(first, last, plan, **settings)
    write_array(out, len(strips.x), [strips.x.numpy(force=True)])
    say(
        f"{len(ends)} strips of {points} in {time.monotonic() - began:.1f} s, NFE {strips.nfe} a "
        f"batch; a round trip changes the ends by {float(strips.error.max()):.1e} at most"
    )
    say(f"{STRIPS.noun}: {out}")
    if len(opened.run.field.shape) == 3:
        draw(strips.x.flatten(0, 1)[:PICTURE_ITEMS], out.with_suffix(".png"), points)


def _pair(text: str, count: int) -> tuple[int, int]:
    try:
        first, last = (int(part) for part in text.split(":"))
    except ValueError:
        raise UsageError(f"--pairs {text}: give two numbers of items, such as 0:1.") from None
    if not (0 <= first < count and 0 <= last < count):
        raise UsageError(f"--pairs {text}: the items are 0 to {count - 1}.")
    return first, last


STRIPS = ResultKind("interpolation", "strips", lambda *_: None, result="x", picture="x")
