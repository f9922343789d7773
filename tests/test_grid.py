"""Grids: equally spaced in a quantity of their own, with the ends asked for."""

import math
from dataclasses import dataclass

import pytest
import torch
from cases import ALL_PROCESSES, PROCESS_IDS, tensor, time_at

import scorefield as sf
from scorefield.process import check_times

every_process = pytest.mark.parametrize("process", ALL_PROCESSES, ids=PROCESS_IDS)


@dataclass(frozen=True)
class Exponential(sf.Process):
    """A process whose time is the logarithm of its noise, and may be negative."""

    t_min: float = -5.0
    t_max: float = 4.0

    def alpha(self, t):
        return torch.ones_like(t)

    def sigma(self, t):
        return t.exp()


def ratio(process, t):
    """Return ``sigma / alpha``."""
    return process.sigma(t) / process.alpha(t)


# each grid with the quantity it is equally spaced in
GRIDS = {
    "uniform": (sf.uniform, lambda p, t: t),
    "quadratic": (sf.quadratic, lambda p, t: t.sqrt()),
    "cubic": (lambda *a, **k: sf.quadratic(*a, power=3.0, **k), lambda p, t: t ** (1 / 3)),
    "even_log_snr": (sf.even_log_snr, lambda p, t: (p.alpha(t) / p.sigma(t)).log()),
    "karras": (sf.karras, lambda p, t: ratio(p, t) ** (1 / 7)),
    "karras 3": (lambda *a, **k: sf.karras(*a, rho=3.0, **k), lambda p, t: ratio(p, t) ** (1 / 3)),
    "balanced": (sf.balanced, lambda p, t: (1 + ratio(p, t) ** 2).log() ** 0.25),
    "balanced 0.3": (
        lambda *a, **k: sf.balanced(*a, data_std=0.3, **k),
        lambda p, t: (1 + (ratio(p, t) / 0.3) ** 2).log() ** 0.25,
    ),
}
every_grid = pytest.mark.parametrize(("make", "quantity"), GRIDS.values(), ids=GRIDS)


@every_process
@every_grid
def test_a_grid_falls_from_start_to_end_equally_spaced_in_its_own_quantity(process, make, quantity):
    start, end = float(time_at(process, 20.0)), float(time_at(process, 0.05))
    times = make(process, 8, start=start, end=end)
    assert times.shape == (9,)
    assert times.dtype == torch.float64
    assert (times[0], times[-1]) == (start, end)
    assert (times.diff() < 0).all()
    spacing = quantity(process, times).diff()
    torch.testing.assert_close(spacing, spacing.mean().expand(8), rtol=1e-7, atol=1e-9)


@every_grid
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_a_grid_has_one_more_time_than_steps(make, quantity, steps):
    times = make(sf.VP(), steps, start=0.9, end=0.1)
    assert len(times) == steps + 1
    assert (times[0], times[-1]) == (0.9, 0.1)


@every_process
@every_grid
def test_a_grid_spans_the_whole_process_unless_told_otherwise(process, make, quantity):
    times = make(process, 3)
    assert times[0] == process.t_max
    assert torch.equal(check_times(process, times), times)
    if make not in (GRIDS["balanced"][0], GRIDS["balanced 0.3"][0]):
        assert times[-1] == process.t_min


@every_process
def test_the_balanced_grid_stops_where_the_denoiser_finishes_better(process):
    for steps, data_std in ((4, 1.0), (4, 0.3), (16, 1.0)):
        last = sf.balanced(process, steps, data_std=data_std)[-1]
        lowest = ratio(process, tensor(process.t_min)[0])
        expected = max(float(lowest), 0.4 * data_std / steps)
        assert float(ratio(process, last)) == pytest.approx(expected, rel=1e-6)


def test_karras_on_edm_is_the_formula_of_the_paper():
    k = torch.arange(18, dtype=torch.float64)
    expected = (80 ** (1 / 7) + k / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(sf.karras(sf.EDM(), 17), expected, rtol=1e-9, atol=0)


@every_grid
def test_a_grid_without_steps_or_outside_the_process_is_refused(make, quantity):
    with pytest.raises(ValueError, match="steps=0: must be a whole number"):
        make(sf.VP(), 0)
    for start, end in ((1.1, 0.1), (0.5, -0.1), (0.2, 0.3), (0.3, 0.3)):
        with pytest.raises(ValueError, match="does not fall inside"):
            make(sf.VP(), 5, start=start, end=end)


@pytest.mark.parametrize("make", [sf.even_log_snr, sf.karras, sf.balanced])
@pytest.mark.parametrize("process", [sf.Flow(t_max=1.0), sf.Tabulated([0.9, 0.5, 0.1, 0.0])])
def test_grids_in_snr_refuse_to_start_where_no_signal_is_left(make, process):
    with pytest.raises(ValueError, match=r"alpha = 0 at t = .*use quadratic or uniform"):
        make(process, 5)
    assert sf.uniform(process, 5)[0] == process.t_max


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (tensor(0.5), "give two or more"),
        (tensor(0.5, 0.3).reshape(1, 2), "give two or more"),
        (tensor(0.5, 0.3, 0.4), "must fall strictly"),
        (tensor(0.5, 0.5), "must fall strictly"),
        (tensor(1.5, 0.3), "outside the process's"),
        (tensor(0.5, math.nan), "outside the process's"),
    ],
)
def test_times_that_no_solver_can_follow_are_refused(times, message):
    with pytest.raises(ValueError, match=message):
        check_times(sf.VP(), times)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize(
    ("grid", "name"), [(sf.quadratic, "power"), (sf.karras, "rho"), (sf.balanced, "data_std")]
)
def test_a_shape_that_is_no_positive_number_is_refused_by_name(grid, name, value):
    with pytest.raises(ValueError, match=rf"{name}=.*: must be a positive number"):
        grid(sf.VP(), 4, **{name: value})


def test_a_grid_in_single_precision_may_end_where_the_process_does():
    """Rounding puts 0.999 above itself."""
    for process in ALL_PROCESSES:
        times = sf.uniform(process, 4)
        got = check_times(process, times.float())
        assert process.t_min <= float(got[-1]) <= process.t_min * (1 + 1e-6)
        assert process.t_max * (1 - 1e-6) <= float(got[0]) <= process.t_max
    with pytest.raises(ValueError, match=r"outside the process's \[1e-05, 1.0\]"):
        check_times(sf.VP(), torch.tensor([1.001, 0.5]))


def test_the_default_end_of_the_balanced_grid_lies_below_its_start():
    process = sf.VP(t_max=0.02)
    times = sf.balanced(process, 2)
    assert (times[0], times[-1]) == (process.t_max, process.t_min)


@pytest.mark.parametrize("make", [make for make, _ in GRIDS.values()], ids=GRIDS)
@pytest.mark.parametrize("steps", [2.5, -1, 0])
def test_steps_are_a_whole_number(make, steps):
    with pytest.raises(ValueError, match=f"steps={steps}: must be a whole number"):
        make(sf.VP(), steps)


def test_quadratic_refuses_times_below_zero():
    process = Exponential()
    with pytest.raises(ValueError, match="quadratic takes roots"):
        sf.quadratic(process, 4)
    assert bool(sf.uniform(process, 4).isfinite().all())
