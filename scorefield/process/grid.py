r"""Grids: the times a solver visits, as a decreasing float64 tensor on the CPU.

Each function returns ``steps + 1`` times from ``start`` (by default ``t_max``) to ``end`` (by
default ``t_min``, but for `balanced`), equally spaced in a quantity of its own::

    uniform:       t
    quadratic:     t^(1/power)
    even_log_snr:  log(alpha / sigma)
    karras:        (sigma / alpha)^(1/rho)
    balanced:      growth^(1/4), growth = log(1 + (sigma / (c alpha))^2), the data's deviation c

A grid is only a tensor: any decreasing one inside the process's interval can replace it.
"""

from __future__ import annotations

import math
import sys
from numbers import Integral

import torch
from torch import Tensor

from scorefield.process.base import Process, check_instance, wrong_kind

MOST = 100_000  # steps, moves, repeats, calls


def uniform(
    process: Process, steps: int, *, start: float | None = None, end: float | None = None
) -> Tensor:
    """Return times equally spaced in ``t``."""
    return torch.lerp(*_ends(process, steps, start, end), _fractions(steps))


def quadratic(
    process: Process,
    steps: int,
    *,
    start: float | None = None,
    end: float | None = None,
    power: float = 2.0,
) -> Tensor:
    """Return times equally spaced in ``t^(1/power)``: denser towards the data.

    Raises:
        ValueError: also if the times go below 0.
    """
    check_positive(power=power)
    first, last = _ends(process, steps, start, end)
    if last < 0:
        raise ValueError(
            f"quadratic takes roots of times, but the grid ends at {float(last):g}: use uniform or "
            "even_log_snr."
        )
    times = torch.lerp(first ** (1 / power), last ** (1 / power), _fractions(steps)) ** power
    return _pinned(times[1:-1], first, last)


def even_log_snr(
    process: Process, steps: int, *, start: float | None = None, end: float | None = None
) -> Tensor:
    """Return times equally spaced in log-SNR.

    Raises:
        ValueError: also if ``alpha(start) = 0``, where the log-SNR is infinite.
    """
    first, last = _ends(process, steps, start, end)
    ends = process.half_log_snr(first), process.half_log_snr(last)
    if not ends[0].isfinite():
        raise _infinite(first)
    return _pinned(process.time(torch.lerp(*ends, _fractions(steps)))[1:-1], first, last)


def karras(
    process: Process,
    steps: int,
    *,
    start: float | None = None,
    end: float | None = None,
    rho: float = 7.0,
) -> Tensor:
    """Return times equally spaced in ``(sigma / alpha)^(1/rho)``, EDM's grid on any process.

    Reference: Karras et al. (2022), arXiv:2206.00364, equation 5.

    Raises:
        ValueError: also if ``alpha(start) = 0``, where the ratio is infinite.
    """
    check_positive(rho=rho)
    first, last = _ends(process, steps, start, end)
    high, low = (torch.exp(-process.half_log_snr(t) / rho) for t in (first, last))
    if not high.isfinite():
        raise _infinite(first)
    ratio = torch.lerp(high, low, _fractions(steps))
    return _pinned(process.time(-rho * ratio.log())[1:-1], first, last)


def balanced(
    process: Process,
    steps: int,
    *,
    start: float | None = None,
    end: float | None = None,
    data_std: float = 1.0,
    power: float = 4.0,
    to_data: bool = False,
) -> Tensor:
    """Return times equally spaced in ``log(1 + (sigma / (c alpha))^2)^(1/power)``: the default.

    A root of log-SNR where noise dominates and of ``sigma`` where data does, so the same grid
    serves any process. Unless ``end`` is given, it stops where ``sigma / alpha = 0.4 c / steps``:
    with few steps the denoiser finishes better than another step would. Narrower details of data
    are lost; ``end=process.t_min`` keeps them.

    With ``to_data`` the spacing is down to no noise at all, and the last time is `Process.t_data`.
    No other lies below ``t_min``: where the spacing would bring one there, the others are equally
    spaced down to ``t_min``.

    Raises:
        ValueError: also if ``alpha(start) = 0``; ``to_data`` with an end, or for a process without
            a time of the data.
    """
    check_instance("process", process, Process, "one such as VP()")
    check_positive(data_std=data_std, power=power)
    if to_data and (end is not None or process.t_data is None):
        raise ValueError(
            f"to_data with end = {end} on {process!r}: leave the end out, and give a process whose "
            "alpha and sigma can be continued to the data."
        )
    if to_data:
        end = process.t_min
    elif end is None and steps > 0:
        end = time_near(process, 0.4 * data_std / steps)
        end = end if end < (process.t_max if start is None else start) else process.t_min
    first, last = _ends(process, steps, start, end)
    high, low = (
        growth(-process.half_log_snr(t) - math.log(data_std)) ** (1 / power) for t in (first, last)
    )
    if not high.isfinite():
        raise _infinite(first)
    root = torch.lerp(high, 0 * low if to_data else low, _fractions(steps))
    if to_data:
        last = torch.full_like(last, process.t_data or 0.0)
        if root[-2] < low:
            root = torch.cat([torch.lerp(high, low, _fractions(steps - 1)), root[-1:]])
    grown = root[1:-1] ** power
    log_ratio = 0.5 * (grown + torch.log(-torch.expm1(-grown)))  # log sqrt(expm1(grown))
    return _pinned(process.time(-log_ratio - math.log(data_std)), first, last)


def growth(log_ratio: Tensor) -> Tensor:
    """Return ``log(1 + r^2)`` where ``log r`` is given: like ``r^2`` at 0, like ``2 log r`` far."""
    return torch.log1p(torch.exp(2 * log_ratio))


def time_near(process: Process, ratio: float) -> float:
    """Return the time at which ``sigma / alpha`` is ``ratio``, or the end that is nearest."""
    check_instance("process", process, Process, "one such as VP()")
    ends = torch.tensor([process.t_max, process.t_min], dtype=torch.float64)
    low, high = process.half_log_snr(ends)
    return float(process.time(torch.tensor(-math.log(ratio), dtype=torch.float64).clamp(low, high)))


def check_times(process: Process, times: Tensor) -> Tensor:
    """Return ``times`` in float64 on the CPU if a solver can follow them.

    They lie in the process's interval, but for the last, which may be `Process.t_data`, and have
    the shape of `Process.lift`.

    Raises:
        ValueError: fewer than two times, not strictly monotone, or outside the process's interval.
    """
    if isinstance(times, type):
        raise wrong_kind("times", times, Tensor, "a grid")
    times = torch.as_tensor(times, dtype=torch.float64).to("cpu")
    if not times.ndim:
        raise ValueError(
            f"times={times.item():g}: must be a number of steps, an integer, or a grid of times."
        )
    if times.ndim != 1 or times.numel() < 2:
        raise ValueError(
            f"times have shape {tuple(times.shape)}: give two or more, shape (N + 1,)."
        )
    to_data = float(times[-1]) < process.t_min and float(times[-1]) == process.t_data
    last = times[-1:] if to_data else times[:0]
    if not process.contains(times[: len(times) - len(last)]):
        raise ValueError(
            f"times run over [{float(times.min())}, {float(times.max())}], outside the process's "
            f"[{process.t_min}, {process.t_max}]."
        )
    inside = times[: len(times) - len(last)].clamp(process.t_min, process.t_max)
    times = torch.cat([inside, last])
    steps = times.diff()
    if not bool((steps < 0).all() or (steps > 0).all()):
        raise ValueError(
            "times must fall strictly (towards data) or rise strictly (towards noise)."
        )
    return process.lift(times) if process.coordinates else times


def check_whole(least: int = 1, most: int = MOST, /, **values: object) -> None:
    """Raise an error, by its name, if a value is not a whole number from ``least`` to ``most``.

    The one bound on work that a file, an option or an argument asks for.
    """
    for name, value in values.items():
        if not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name}={value!r}: must be a whole number, at least {least}.")
        if int(value) > most:
            raise ValueError(f"{name}={value!r}: must be at most {most:,}.")


def check_positive(**values: float) -> None:
    """Raise an error, by its name, if a value is not a positive number."""
    for name, value in values.items():
        if not 0 < value <= sys.float_info.max:
            shown = f"{value:g}" if isinstance(value, float) else f"{value!r}"
            raise ValueError(f"{name}={shown}: must be a positive number.")


def _fractions(steps: int) -> Tensor:
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64)


def _pinned(inner: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Return the times in between with both ends exactly as asked for."""
    return torch.cat([first[None], inner, last[None]])


def _infinite(first: Tensor) -> ValueError:
    return ValueError(
        f"alpha = 0 at t = {float(first):g}, where log-SNR is infinite: give start < "
        f"{float(first):g}, or use quadratic or uniform."
    )


def _ends(
    process: Process, steps: int, start: float | None, end: float | None
) -> tuple[Tensor, Tensor]:
    check_instance("process", process, Process, "one such as VP()")
    check_whole(steps=steps)
    start = process.t_max if start is None else start
    end = process.t_min if end is None else end
    ends = torch.tensor([start, end], dtype=torch.float64)
    if not process.contains(ends) or end >= start:
        raise ValueError(
            f"a grid from {start:g} to {end:g} does not fall inside "
            f"[{process.t_min:g}, {process.t_max:g}]."
        )
    return ends[0], ends[1]
