"""Charts: every mark is at the pixel of its value, in SVG and in PNG, and no name is markup."""

import functools
import io
import re
import xml.etree.ElementTree as ET
from base64 import b64decode

import numpy as np
import pytest
import resvg_py
from PIL import Image

from scorefield.report import Axis, Band, Chart, Figure, Series, figure as figures
from scorefield.report.chart import legend
from scorefield.report.style import DARK, LIGHT, chart_css

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</title><script>alert(1)</script>\"'&amp;\u202e"


def straight(**changes):
    """A chart of two lines, x from 0 to 10 and y from 1 to 100, logarithmic."""
    series = (
        Series("a", [(1, 1), (5, 10), (9, 100)], 0, [(1, 3), (5, 20), (80, 100)], ["p", "q", "r"]),
        Series("b", [(2, 50), (8, 2)], 1, dashed=True),
    )
    options = {"band": Band("floor", 4, 8), "series": series} | changes
    return Chart("two lines", Axis("calls", 0, 10), Axis("error", 1, 100, log=True), **options)


def where(point, width=480, height=300):
    """The pixel of a point of `straight`, by the margins of a chart alone."""
    x, y = point
    across = 56 + x / 10 * (width - 68)
    return across, height - 46 - np.log10(min(max(y, 1), 100)) / 2 * (height - 60)


def elements(markup, name, group=None):
    """The elements of a class, of a group of another class."""
    tree = ET.fromstring(markup)
    groups = [g for g in tree.iter() if group is None or group in g.get("class", "").split()]
    inside = groups if group is None else [e for g in groups for e in g.iter()]
    return [e for e in inside if name in e.get("class", "").split()]


def numbers(element, attribute="d"):
    """The numbers in an attribute."""
    return [float(v) for v in re.findall(r"-?\d+(?:\.\d+)?", element.get(attribute))]


# axes


@pytest.mark.parametrize(
    ("axis", "value", "place"),
    [
        (Axis("", 0, 10), 2.5, 0.25),
        (Axis("", 1, 100, log=True), 10, 0.5),
        (Axis("", 100, 1, log=True), 10, 0.5),
        (Axis("", 100, 1, log=True), 100, 0.0),
        (Axis("", 0, 10), 11, 1.0),
        (Axis("", 100, 1, log=True), 0.1, 1.0),
        (Axis("", 1, 100, log=True), -3, 0.0),
    ],
)
def test_a_value_lies_in_its_place(axis, value, place):
    assert axis.place(value) == pytest.approx(place)


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [
        (0, 1, False),
        (-7.3, 912, False),
        (0.011, 0.012, False),
        (1e-4, 30, True),
        (50, 0.02, True),
        (1, 1.2, True),
        (4.5, 110, True),
        (1e-12, 1e12, True),
    ],
)
def test_ticks_are_named_as_where_they_stand_and_neither_few_nor_many(low, high, log):
    axis = Axis("", low, high, log)
    assert 2 <= len(axis.ticks) <= 12
    for place, text in axis.ticks:
        value = low * (high / low) ** place if log else low + place * (high - low)
        assert float(text) == pytest.approx(value, rel=1e-4, abs=1e-9)


def test_ticks_can_be_given_and_those_off_the_axis_are_left_out():
    axis = Axis("", 4, 50, log=True, ticked=(2, 5, 8, 50, 100))
    assert [text for _, text in axis.ticks] == ["5", "8", "50"]
    assert [place for place, _ in axis.ticks] == pytest.approx([axis.place(v) for v in (5, 8, 50)])


@pytest.mark.parametrize("values", [[3.0, 4.0, 9.0], [2.0, 2.0], [0.0], [-1e6, 5.0], [1e-9, 1e-8]])
@pytest.mark.parametrize("log", [False, True])
def test_an_axis_around_values_has_room_on_both_sides(values, log):
    axis = Axis.around("", values, log)
    inside = [v for v in values if v > 0 or not log]
    assert all(0 < axis.place(v) < 1 for v in inside)
    if len(set(inside)) > 1:
        assert min(map(axis.place, inside)) == pytest.approx(1 - max(map(axis.place, inside)))
        assert min(map(axis.place, inside)) < 0.2
    assert len(axis.ticks) >= 2


# SVG


def test_lines_intervals_and_markers_are_at_the_pixels_of_their_values():
    for chart in (straight(), straight(width=960, height=200)):
        size = chart.width, chart.height
        for tone, series in enumerate(chart.series):
            (line,) = elements(chart.svg(), "line", f"tone{tone}")
            drawn = np.array(numbers(line)).reshape(-1, 2)
            truth = [where(point, *size) for point in series.points]
            np.testing.assert_allclose(drawn, truth, atol=0.051)
        (whiskers,) = elements(chart.svg(), "whisker", "tone0")
        x, low, high = np.array(numbers(whiskers)).reshape(-1, 3).T
        first = chart.series[0]
        for end, drawn in ((0, low), (1, high)):
            points = zip(first.points, first.intervals, strict=True)
            truth = [where((x, interval[end]), *size) for (x, _), interval in points]
            np.testing.assert_allclose(np.stack([x, drawn], 1), truth, atol=0.051)
        markers = elements(chart.svg(), "mark", "tone0")
        drawn = [numbers(marker, "transform") for marker in markers]
        np.testing.assert_allclose(drawn, [where(p, *size) for p in first.points], atol=0.051)
        assert [marker[0].text for marker in markers] == ["p", "q", "r"]
        assert not elements(chart.svg(), "mark", "tone1")


def test_ticks_have_a_line_and_a_name_at_their_value():
    svg = straight().svg()
    (grid,) = elements(svg, "grid")
    lines = np.array(numbers(grid)).reshape(-1, 3)
    names = elements(svg, "up")
    assert [name.text for name in names] == ["1", "2", "5", "10", "20", "50", "100"]
    for name, (left, height, right) in zip(names, lines, strict=True):
        truth = where((0, float(name.text)))[1]
        assert (left, height, right) == pytest.approx((56, truth, 468), abs=0.051)
        assert float(name.get("y")) == pytest.approx(truth + 4, abs=0.051)
    below = [e for e in elements(svg, "over") if "label" not in e.get("class")]
    for name in below:
        assert float(name.get("x")) == pytest.approx(where((float(name.text), 1))[0], abs=0.051)
    assert [name.text for name in below] == ["0", "2", "4", "6", "8", "10"]


def test_the_band_lies_between_its_ends_and_is_never_invisible():
    (band,) = elements(straight().svg(), "band")
    top = float(band.get("y"))
    assert top == pytest.approx(where((0, 8))[1], abs=0.051)
    assert top + float(band.get("height")) == pytest.approx(where((0, 4))[1], abs=0.11)
    assert band[0].text == "floor"
    (thin,) = elements(straight(band=Band("", 5, 5)).svg(), "band")
    assert float(thin.get("height")) == 1.5


def test_a_value_beyond_an_end_lies_at_the_edge():
    series = [Series("", [(-5, 0), (20, 1e9)])]
    (line,) = elements(straight(series=series).svg(), "line")
    assert numbers(line) == pytest.approx([56, 254, 468, 14])


def test_names_are_text_whatever_they_hold():
    series = [Series(HOSTILE, [(1, 1)], 2, titles=[HOSTILE])]
    chart = straight(series=series, band=Band(HOSTILE, 2, 3), title=HOSTILE)
    for markup in (chart.svg(), Figure([chart], title=HOSTILE).svg()):
        tree = ET.fromstring(markup)
        written = HOSTILE.replace("\u202e", "\\u202e")
        texts = [e.text for e in tree.iter() if e.text and "alert" in e.text]
        assert len(texts) >= 3
        assert all(written in text for text in texts)
        assert "\u202e" not in markup
        assert not [e for e in tree.iter() if "script" in e.tag]


def test_colours_that_repeat_have_another_marker():
    looks = [(series.classes, series.marker) for series in (Series("", [], k) for k in range(20))]
    assert len(set(looks)) == 20
    assert all(f"tone{k % len(LIGHT.tones)}" == looks[k][0] for k in range(20))


def test_the_legend_has_each_name_once():
    other = straight(series=[Series("b", []), Series("", []), Series("c", [])])
    assert [series.name for series in legend([straight(), other])] == ["a", "b", "c"]


# figures


def test_charts_of_a_figure_lie_inside_it_and_apart():
    sizes = [(300, 200), (480, 260), (480, 200), (360, 240), (300, 200)]
    charts = [straight(width=w, height=h) for w, h in sizes]
    figure = Figure(charts, columns=2, title="title")
    boxes = [(*figure.origin(k), *size) for k, size in enumerate(sizes)]
    width, height = figure.size
    for k, (x, y, w, h) in enumerate(boxes):
        assert x >= 0
        assert y >= 60  # below the title and its own heading
        assert x + w <= width
        assert y + h <= height - 22  # above the legend
        for other_x, other_y, other_w, other_h in boxes[:k]:
            apart = x >= other_x + other_w or y >= other_y + other_h + 20 or other_x >= x + w
            assert apart
    groups = [g for g in ET.fromstring(figure.svg()) if g.get("transform")]
    moved = [numbers(group, "transform") for group in groups]
    assert moved == [[x, y] for x, y, _, _ in boxes]


def test_a_long_legend_stays_inside_the_figure():
    series = [Series(f"a solver of number {k}", [(1, 1)], k, titles=["x"]) for k in range(17)]
    figure = Figure([straight(series=series)])
    width, height = figure.size
    names = [e for e in ET.fromstring(figure.svg()).iter(f"{SVG}text") if "number" in e.text]
    assert len(names) == 17
    for name in names:
        assert float(name.get("x")) + 6 * len(name.text) < width
        assert float(name.get("y")) < height


def pixels(content):
    """The colours of a PNG, ``(height, width, 3)``."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def colour(text):
    """The colour ``#rrggbb`` or ``#rgb`` as numbers."""
    digits = text[1:] if len(text) == 7 else "".join(2 * c for c in text[1:])
    return np.array([int(digits[k : k + 2], 16) for k in (0, 2, 4)])


def check_pixels(picture, figure, zoom, palette):
    """Hold the picture of a figure of `straight` to the colours at the pixels of its values."""

    def at(k, point):
        origin = figure.origin(k)
        x, y = where(point)
        return picture[round(zoom * (origin[1] + y)), round(zoom * (origin[0] + x))]

    for k, chart in enumerate(figure.charts):
        # the points of the line with markers, and the start of the dashed one
        points = [(point, 0) for point in chart.series[0].points] + [((2, 50), 1)]
        for point, tone in points:
            assert abs(at(k, point) - colour(palette.tones[tone])).max() < 12
        dashes = [at(k, (x, 50 * 25 ** ((2 - x) / 6))) for x in np.linspace(2, 8, 200)]
        there = [abs(found - colour(palette.tones[1])).max() < 12 for found in dashes]
        assert 0.4 < np.mean(there) < 0.8
        # the line through the points of the first series is straight, here and there
        for point in ((2, 10**0.25), (4, 10**0.75), (7.5, 10**1.625)):
            assert abs(at(k, point) - colour(palette.tones[0])).max() < 12
        for point in ((0.5, 70), (9.5, 30), (6, 1.5)):
            assert abs(at(k, point) - colour(palette.paper)).max() < 2
        band = 0.28 * colour(palette.quiet) + 0.72 * colour(palette.paper)
        assert abs(at(k, (0.5, 5.6)) - band).max() < 8


def test_the_png_shows_the_marks_of_the_svg():
    figure = Figure([straight(), straight(band=Band("other", 5, 6))], columns=2, title="title")
    picture = pixels(figure.png())
    width, height = figure.size
    assert picture.shape == (2 * height, 2 * width, 3)
    check_pixels(picture, figure, 2, LIGHT)


def test_a_shade_fills_the_axes_the_right_way_up():
    shade = np.zeros((2, 3))
    shade[0, 2], shade[1, 0] = 1.0, 0.5  # the upper right corner, and half of it the lower left
    figure = Figure([straight(series=[], band=None, shade=shade)])
    picture, (x, y) = pixels(figure.png()), figure.origin(0)
    corners = {(9.9, 90): 0, (0.1, 1.1): 128, (0.1, 90): 255, (9.9, 1.1): 255}
    for point, grey in corners.items():
        across, down = where(point)
        found = picture[round(2 * (y + down)), round(2 * (x + across))]
        assert abs(found - grey).max() < 20, point


def test_latin_letters_of_a_png_need_no_font_of_the_system(monkeypatch):
    figure = Figure([straight()], title="Error of 100 +- 3, by the solver (default)")
    content = figure.png()
    bare = functools.partial(resvg_py.svg_to_bytes, skip_system_fonts=True)
    monkeypatch.setattr(resvg_py, "svg_to_bytes", bare)
    np.testing.assert_array_equal(pixels(figure.png()), pixels(content))
    title = pixels(content)[2 * figures.MARGIN : 2 * (figures.MARGIN + figures.TITLE)]
    assert (title.sum(2) < 200).sum() > 500  # there are letters


def test_a_figure_is_saved_as_its_ending_says(tmp_path):
    chart = straight()
    chart.save(tmp_path / "a.svg")
    chart.save(tmp_path / "a.PNG")
    target = io.BytesIO()
    chart.save(target)
    svg = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert svg == Figure([chart]).svg()
    assert (tmp_path / "a.PNG").read_bytes() == target.getvalue() == Figure([chart]).png()
    style = ET.fromstring(svg).find(f"{SVG}style").text
    assert style == f"{chart_css(LIGHT)}@media (prefers-color-scheme:dark){{{chart_css(DARK)}}}"
    with pytest.raises(ValueError, match=r"a\.pdf': must end in \.svg or \.png"):
        chart.save(tmp_path / "a.pdf")
    assert not (tmp_path / "a.pdf").exists()


def test_an_svg_needs_nothing_of_the_extra(tmp_path, monkeypatch):
    for module in ("resvg_py", "PIL.Image", "PIL.ImageFont", "jinja2"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    straight().save(tmp_path / "a.svg")
    assert ET.fromstring((tmp_path / "a.svg").read_text()).get("viewBox")


def test_a_notebook_shows_a_figure_as_a_picture_with_its_description():
    chart = Chart('A line "upwards".', Axis("x", 0, 1), Axis("y", 0, 1), [Series("a", [(0, 0)])])
    figure = Figure([chart], title="One")
    picture = ET.fromstring(figure._repr_html_())
    assert picture.get("alt") == 'One. A line "upwards".'
    content = picture.get("src").removeprefix("data:image/svg+xml;base64,")
    assert b64decode(content).decode() == figure.svg()
