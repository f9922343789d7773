"""Pictures of samples and of paths: they show the values they were given, or the exact ones."""

import io
import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

import scorefield as sf
from scorefield.report import image_grid, paths, trajectories, trajectory
from scorefield.report.images import SEPARATOR
from scorefield.report.trajectory import BINS, SLICES, densities

STD = 0.15


def ring(process, count=5, radius=1.3):
    """Gaussians on a circle, off the axes."""
    angle = torch.arange(count, dtype=torch.float64) * 2 * math.pi / count + 0.3
    means = radius * torch.stack([angle.cos(), angle.sin()], 1)
    spread = STD**2 * torch.eye(2, dtype=torch.float64).expand(count, 2, 2)
    return sf.Mixture(process, torch.ones(count), means, spread)


def line(process):
    """Two Gaussians in one dimension."""
    means = torch.tensor([[-1.0], [0.8]], dtype=torch.float64)
    spread = torch.full((2, 1, 1), 0.04, dtype=torch.float64)
    return sf.Mixture(process, torch.tensor([1.0, 2.0]), means, spread)


def marginal_cdf(field, t):
    """The exact distribution function of the first coordinate at time ``t``."""
    alpha, sigma = (float(c) for c in field.process.coefficients(t))
    centres, std = alpha * field.means[:, 0].numpy(), math.hypot(alpha * STD, sigma)
    return lambda x: stats.norm.cdf(np.asarray(x)[:, None], centres, std).mean(1)


def read(path):
    return np.asarray(Image.open(path))


# --- image_grid -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "columns"), [(1, None), (3, None), (3, 2), (1, 5), (1, 9)])
def test_image_grid_shows_every_value_in_its_place(tmp_path, channels, columns):
    count, height, width, scale = 5, 3, 4, 6
    values = torch.randint(0, 256, (count, channels, height, width))
    values[0, 0, 0, :2] = torch.tensor([0, 255])
    image_grid(values, tmp_path / "grid.png", columns=columns, scale=scale)
    pixels = read(tmp_path / "grid.png")
    pixels = pixels.reshape(*pixels.shape[:2], channels)
    across = min(columns or 3, count)
    pitch = np.array([height, width]) * scale + SEPARATOR
    rows = -(-count // across)
    assert pixels.shape[:2] == (rows * pitch[0] + SEPARATOR, across * pitch[1] + SEPARATOR)
    seen = np.zeros(pixels.shape[:2], dtype=bool)
    for k in range(count):
        top, left = np.array([k // across, k % across]) * pitch + SEPARATOR
        box = np.s_[top : top + height * scale, left : left + width * scale]
        truth = values[k].permute(1, 2, 0).numpy().repeat(scale, 0).repeat(scale, 1)
        np.testing.assert_array_equal(pixels[box], truth)
        seen[box] = True
    assert (pixels[~seen] == 255).all()  # separators and empty places


def test_image_grid_clips_to_the_range_given(tmp_path):
    images = torch.tensor([[-3.0, -1.0, 0.0, 1.0, 3.0]]).reshape(1, 1, 1, 5)
    image_grid(images, tmp_path / "a.png", scale=1, value_range=(-1, 1))
    inside = read(tmp_path / "a.png")[SEPARATOR, SEPARATOR:-SEPARATOR]
    np.testing.assert_array_equal(inside, [0, 0, 128, 255, 255])


def test_image_grid_writes_a_constant_image_and_to_memory():
    target = io.BytesIO()
    image_grid(torch.full((1, 1, 2, 2), 7.0), target, scale=3)
    pixels = read(target)
    assert pixels.shape == (6 + 2 * SEPARATOR,) * 2
    assert (pixels[SEPARATOR:-SEPARATOR, SEPARATOR:-SEPARATOR] == 0).all()


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (torch.ones(2, 2, 4, 4), {}, r"shape \(2, 2, 4, 4\): needs \(N, C, H, W\)"),
        (torch.ones(4, 4), {}, r"shape \(4, 4\): needs"),
        (torch.ones(0, 1, 4, 4), {}, "N >= 1"),
        (torch.full((1, 1, 2, 2), math.nan), {}, "values must be finite"),
        (torch.ones(1, 1, 2, 2), {"columns": 0}, "columns=0: must be a whole number"),
        (torch.ones(1, 1, 2, 2), {"scale": 0}, "scale=0"),
        (torch.ones(1, 1, 2, 2), {"value_range": (1, 1)}, r"value_range=\(1, 1\): must have"),
    ],
)
def test_image_grid_refuses(tmp_path, images, options, message):
    with pytest.raises(ValueError, match=message):
        image_grid(images, tmp_path / "a.png", **options)
    assert not (tmp_path / "a.png").exists()


# --- paths ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many():
    field = ring(sf.VP())
    return field, paths(field, 1500, seed=4, steps=200)


@pytest.mark.parametrize("place", [0.0, *SLICES, 1.0])
def test_both_kinds_of_path_have_the_exact_marginals(many, place):
    field, found = many
    k = round(place * 200)
    for track in (found.sde, found.ode):
        truth = marginal_cdf(field, found.times[k])
        assert stats.kstest(track[k].numpy(), truth).pvalue > 1e-3


@pytest.mark.parametrize("place", [0.7, 0.9])
def test_the_test_of_marginals_sees_a_wrong_law(many, place):
    # earlier, noise hides the data and the distributions of neighbouring times are too close
    field, found = many
    other = marginal_cdf(field, found.times[round((place - 0.3) * 200)])
    for track in (found.sde, found.ode):
        assert stats.kstest(track[round(place * 200)].numpy(), other).pvalue < 1e-4


def test_paths_share_their_starts_and_nothing_else(many):
    _, found = many
    assert torch.equal(found.sde[0], found.ode[0])
    assert abs(np.corrcoef(found.sde[-1], found.ode[-1])[0, 1]) < 0.1
    roughness = [track.diff(dim=0).abs().sum(0).median() for track in (found.sde, found.ode)]
    assert roughness[0] > 5 * roughness[1]


def test_ode_paths_on_a_line_keep_their_order_and_sde_paths_do_not():
    found = paths(line(sf.VP()), 60, seed=1, steps=100)
    order = found.ode[0].argsort()
    assert (found.ode[:, order].diff(dim=1) > 0).all()
    assert (found.sde[-1, order].diff() < 0).any()


@pytest.mark.parametrize("process", [sf.VP(), sf.VE(), sf.EDM(), sf.Flow(t_max=1.0), sf.Cosine()])
def test_every_process_is_shown_at_the_datas_scale_over_one_range_of_noise(process):
    field = line(process)
    found = paths(field, 300, seed=2, steps=60)
    std = field.data_std
    assert float(found.ratio[0]) == pytest.approx(trajectory.NOISIEST * std, rel=1e-6)
    assert float(found.ratio[-1]) == pytest.approx(trajectory.CLEANEST * std, rel=1e-6)
    alpha, sigma = process.coefficients(found.times)
    torch.testing.assert_close(found.scale, std / (std**2 * alpha**2 + sigma**2).sqrt())
    spread = (found.ode * found.scale[:, None]).std(1)
    assert (spread / std - 1).abs().max() < 0.2


def test_paths_stop_at_the_processs_own_ends():
    process = sf.EDM(t_min=0.5, t_max=5.0)
    found = paths(line(process), 3, steps=4)
    assert (float(found.times[0]), float(found.times[-1])) == pytest.approx((5.0, 0.5))


def test_a_path_does_not_depend_on_how_many_are_followed(monkeypatch):
    few = paths(line(sf.VP()), 3, seed=5, steps=10)
    monkeypatch.setattr(trajectory, "_BATCH_SIZE", 4)
    more = paths(line(sf.VP()), 11, seed=5, steps=10)
    torch.testing.assert_close(more.sde[:, :3], few.sde, rtol=0, atol=1e-5)
    torch.testing.assert_close(more.ode[:, :3], few.ode, rtol=0, atol=1e-5)
    assert not torch.equal(paths(line(sf.VP()), 3, seed=6, steps=10).ode, few.ode)


# --- trajectories ---------------------------------------------------------------------------------


def test_densities_are_normalised_and_right():
    edges = torch.linspace(-4, 4, BINS + 1, dtype=torch.float64)
    quantiles = torch.tensor(stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000))
    density = densities(torch.stack([quantiles, 0.5 * quantiles + 1]), edges)
    width, middle = float(edges[1] - edges[0]), ((edges[1:] + edges[:-1]) / 2).numpy()
    assert density.sum(1).numpy() * width == pytest.approx(1.0, abs=2e-4)
    assert density[0].numpy() == pytest.approx(stats.norm.pdf(middle), abs=0.01)
    assert density[1].numpy() == pytest.approx(stats.norm.pdf(middle, 1, 0.5), abs=0.03)


def test_densities_do_not_count_what_lies_outside():
    edges = torch.linspace(0, 1, 11, dtype=torch.float64)
    density = densities(torch.tensor([[0.55, 0.52, 7.0, -7.0]], dtype=torch.float64), edges)
    assert float(density.sum()) * 0.1 == pytest.approx(0.5, abs=0.02)
    assert int(density.argmax()) == 5


def paths_drawn(chart):
    """The series of a chart that are paths, in the order they are drawn."""
    return [series for series in chart.series if series.halo]


def test_trajectories_draws_the_paths_it_computes(tmp_path):
    field = ring(sf.VP())
    options = {"seed": 3, "steps": 40}
    figure = trajectories(field, n=4, crowd=100, **options)
    result = paths(field, 100, **options)
    drawn = result.ode[0].argsort()[[12, 37, 62, 87]]  # the middles of the quarters
    for chart, track in ((figure.charts[0], result.sde), (figure.charts[2], result.ode)):
        truth = (track * result.scale[:, None])[:, drawn].T.numpy()
        points = np.array([series.points for series in paths_drawn(chart)])
        assert points.shape == (4, 41, 2)
        np.testing.assert_allclose(points[..., 0], np.tile(result.ratio.numpy(), (4, 1)))
        np.testing.assert_allclose(points[..., 1], truth)
        ends = [series.points[0] for series in chart.series if series.titles]
        np.testing.assert_allclose(ends, points[:, -1])
        assert [chart.x.place(float(result.ratio[k])) for k in (0, -1)] == [0, 1]
    figure.save(tmp_path / "t.png")
    assert read(tmp_path / "t.png").shape[:2] == tuple(2 * side for side in figure.size[::-1])


def test_trajectories_colours_a_start_alike_above_and_below():
    figure = trajectories(line(sf.VP()), n=5, crowd=20, steps=10)
    panels = [paths_drawn(figure.charts[k]) for k in (0, 2)]
    for above, below in zip(*panels, strict=True):
        assert above.tone == below.tone
        assert above.points[0] == below.points[0]
    assert len({series.tone for series in panels[0]}) == 5


def test_trajectories_names_the_noise_where_it_is():
    chart = trajectories(line(sf.EDM()), n=2, crowd=20, steps=50).charts[2]
    ratio = paths(line(sf.EDM()), 1, steps=50).ratio.log().numpy()
    places, names = zip(*chart.x.ticks, strict=True)
    there = np.interp(places, (0, 1), (ratio[0], ratio[-1]))  # the axis is that of the logarithm
    assert np.exp(there) == pytest.approx([float(name) for name in names], rel=1e-9)
    assert len(names) > 4


def test_trajectories_shades_each_time_by_the_density_there():
    field = ring(sf.VP())
    figure = trajectories(field, n=3, crowd=400, steps=60)
    result = paths(field, 400, steps=60)
    chart = figure.charts[2]
    ends = torch.linspace(chart.y.low, chart.y.high, BINS + 1, dtype=torch.float64)
    truth = densities(result.ode * result.scale[:, None], ends).numpy()
    for k in (0, 20, 40, 60):
        place = chart.x.place(float(result.ratio[k]))
        column = chart.shade[:, round(place * (chart.shade.shape[1] - 1))][::-1]
        assert column.argmax() == pytest.approx(truth[k].argmax(), abs=3)
        assert np.corrcoef(column, np.sqrt(truth[k]))[0, 1] > 0.98


def test_trajectories_draws_densities_back_to_back():
    field = ring(sf.VP())
    figure = trajectories(field, n=3, crowd=400, steps=60)
    result = paths(field, 400, steps=60)
    chart = figure.charts[1]
    ends = torch.linspace(chart.y.low, chart.y.high, BINS + 1, dtype=torch.float64)
    areas = [series for series in chart.series if series.filled]
    assert len(areas) == 2 * len(SLICES)
    for slice_, pair in zip(SLICES, zip(areas[::2], areas[1::2], strict=True), strict=True):
        k = round(slice_ * 60)
        middle = chart.x.place(float(result.ratio[k]))
        pixel = 1.5 / 892  # positions are rounded
        for area, track, side in zip(pair, (result.sde, result.ode), (-1, 1), strict=True):
            density = densities((track * result.scale[:, None])[k : k + 1], ends)[0]
            widths = side * (np.array([chart.x.place(x) for x, _ in area.points]) - middle)
            assert (widths >= -1e-9).all()
            assert len(widths) == int((density > 1e-3 * density.max()).sum()) + 2
            peak = area.points[int(widths.argmax())][1]
            heights = (ends[1:] + ends[:-1]) / 2
            assert peak == pytest.approx(float(heights[density.argmax()]))
            assert widths.max() <= 0.055 + pixel


@pytest.mark.parametrize(("n", "crowd"), [(0, 10), (11, 10)])
def test_trajectories_refuses(n, crowd):
    with pytest.raises(ValueError, match=f"n={n}, crowd=10: give 1 <= n <= crowd"):
        trajectories(ring(sf.VP()), n=n, crowd=crowd)


def test_paths_refuses():
    with pytest.raises(ValueError, match="steps=0: must be a whole number, at least 1"):
        paths(ring(sf.VP()), 3, steps=0)


def test_without_the_extra_pictures_say_what_to_install(monkeypatch):
    figure = trajectories(line(sf.VP()), n=2, crowd=10, steps=5)
    for module in ("resvg_py", "PIL.Image", "PIL.ImageFont"):
        monkeypatch.setitem(sys.modules, module, None)
    for draw in (
        lambda: image_grid(torch.ones(1, 1, 2, 2), io.BytesIO()),
        lambda: figure.save(io.BytesIO()),
    ):
        with pytest.raises(ImportError, match=r"pip install scorefield\[report\]"):
            draw()
