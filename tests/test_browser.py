"""The report in a browser: sliders move pictures, names are harmless, and nothing is loaded.

Needs Debian's chromium, or the program that SCOREFIELD_BROWSER names. Where SCOREFIELD_BROWSER is
"needed", as in CI, no browser is a failure.
"""

import io
import os
import re
import shutil
import socket

import numpy as np
import pytest
from PIL import Image
from shell import finishes, tiny
from test_chart import check_pixels, straight
from test_page import HOSTILE, small

from scorefield.data import digits
from scorefield.report import Figure, frames, write_report
from scorefield.report.style import DARK, LIGHT

WANTED = os.environ.get("SCOREFIELD_BROWSER", "")
RUNS = ("images", "table", "signals")


@pytest.fixture(scope="module")
def browser():
    found = WANTED if os.path.isfile(WANTED) else shutil.which("chromium")
    if found is None:
        reason = "no browser: apt-get install chromium, or name one in SCOREFIELD_BROWSER"
        if WANTED:
            pytest.fail(reason)
        pytest.skip(reason)
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found)
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Reports of a run of digits with hostile class names, of such a table, and of signals."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("CALLS", 8), ("FRAMES", 6), ("NFES", (4, 6, 10)), ("REFERENCE", 12)):
            patch.setattr(frames, name, value)
        x, y = (part[:200] for part in digits())
        run = small(x, y % len(HOSTILE), class_names=HOSTILE, conditional=True, levels=17)
        run.save(folder / "images")
        np.save(folder / "images.npy", x.numpy())
        rows = [
            f"{0.618034 * k % 1},{0.3 * k * k % 1.7},{'</script>' if k % 2 else '<b>'}"
            for k in range(40)
        ]
        names = '<script>alert(1)</script>,"a""b\'c",<img src=x onerror=alert(2)>'
        (folder / "table.csv").write_text("\n".join([names, *rows]) + "\n", encoding="utf-8")
        finishes("train", folder / "table.csv", "--out", folder / "table", *tiny())
        np.save(folder / "signals.npy", np.random.default_rng(0).normal(size=(40, 2, 24)))
        finishes("train", folder / "signals.npy", "--out", folder / "signals", *tiny())
        sources = {"images": "images.npy", "table": "table.csv", "signals": "signals.npy"}
        return {k: write_report(folder / k, data=folder / v, items=6) for k, v in sources.items()}


@pytest.fixture
def opened(browser):
    """Return a function that opens a page offline, and the complaints and requests it makes."""
    contexts = []

    def open_page(path, *, width=1200, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page, complaints, requests = context.new_page(), [], []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: keep(requests, request.url))
        context.set_offline(True)
        page.goto(path.as_uri())
        return page, complaints, requests

    def keep(requests, url):
        if not url.startswith("data:"):
            requests.append(url)

    yield open_page
    for context in contexts:
        context.close()


every_run = pytest.mark.parametrize("run", RUNS)


def looks(slider):
    """Return the pixels of each picture of a slider, and its description."""
    figures = slider.locator("[data-panel]").all()
    pictures = [figure.locator(".sheet, .drawing") for figure in figures]
    words = [
        figure.locator("[data-alt]").evaluate("e => e.alt ?? e.getAttribute('aria-label')")
        for figure in figures
    ]
    return [shot(picture) for picture in pictures], words


def shot(picture):
    """Return the pixels of an element, as integers."""
    return np.asarray(Image.open(io.BytesIO(picture.screenshot())).convert("L")).astype(int)


def differing(some, others):
    """Return how many pictures differ by more than the edges of lines may."""
    pairs = zip(some, others, strict=True)
    return sum(a.shape != b.shape or np.abs(a - b).mean() > 0.5 for a, b in pairs)


@every_run
def test_sliders_move_every_picture_by_keyboard_and_by_mouse(pages, opened, run):
    # so high that nothing scrolls, which would move pictures by parts of a pixel
    page, complaints, _ = opened(pages[run], height=5000)
    for name, moving in (("time", 5), ("calls", 1)):  # beside those of the calls one stands still
        slider = page.locator(f"#{name}")
        control, told = slider.locator("input"), slider.locator("output")
        before, words = looks(slider)
        label = told.inner_text()
        control.focus()
        page.keyboard.press("Home")
        after, others = looks(slider)
        assert differing(before, after) == moving
        assert told.inner_text() != label
        assert control.get_attribute("aria-valuetext") == told.inner_text()
        assert all(word.endswith(f"; {told.inner_text()}") for word in others)
        assert all(a != b for a, b in zip(words, others, strict=True))
        for _ in range((int(control.get_attribute("max")) + 1) // 2):
            page.keyboard.press("ArrowRight")
        between, _ = looks(slider)
        assert differing(between, after) == differing(between, before) == moving
        page.keyboard.press("End")
        last, again = looks(slider)
        assert differing(last, before) == 0
        assert again == words
        box = control.bounding_box()
        page.mouse.click(box["x"] + 10, box["y"] + box["height"] / 2)
        assert differing(looks(slider)[0], after) == 0
    assert not complaints


def test_a_place_of_the_slider_shows_its_frame_of_the_sheet_to_the_pixel(pages, opened):
    page, _, _ = opened(pages["images"])
    control = page.locator("#time input")
    frames = int(control.get_attribute("max")) + 1
    control.focus()
    page.keyboard.press("Home")
    for k in range(frames):
        found = page.locator("#time [data-panel] .sheet").first.evaluate(
            "e => [e.getBoundingClientRect().top - e.firstElementChild.getBoundingClientRect().top,"
            " e.clientHeight, e.firstElementChild.naturalHeight, e.clientWidth,"
            " e.firstElementChild.naturalWidth]"
        )
        above, height, pixels, width, across = found
        assert width % across == 0  # a whole number of pixels to a pixel
        assert height == pytest.approx(pixels / frames * width / across)
        assert above == pytest.approx((frames - 1 - k) * height)
        page.keyboard.press("ArrowRight")


def test_play_goes_from_noise_to_data_and_stops(pages, opened):
    page, complaints, _ = opened(pages["images"])
    slider = page.locator("#time")
    # read in the moment of the click, before the next frame
    seen = slider.evaluate(
        """e => { const button = e.querySelector("button"); button.click();
        return [e.querySelector("output").textContent, button.textContent] }"""
    )
    assert seen == ["starting noise", "Pause"]
    slider.get_by_role("button", name="Play").wait_for()
    assert slider.locator("output").inner_text() == "finished samples"
    assert not complaints


@every_run
def test_the_page_asks_for_nothing_and_complains_of_nothing(pages, opened, run):
    page, complaints, requests = opened(pages[run])
    page.wait_for_load_state("load")
    assert requests == [pages[run].as_uri()]
    assert not complaints
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0


@every_run
@pytest.mark.parametrize("width", [400, 320, 1200])
def test_nothing_is_wider_than_the_screen(pages, opened, run, width):
    page, _, _ = opened(pages[run], width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    small_print = page.evaluate(
        "Math.min(...[...document.querySelectorAll('.chart text')].map("
        "e => e.getBoundingClientRect().height))"
    )
    assert small_print >= (8.5 if width < 400 else 10.5)  # the height of a line, in pixels


@pytest.mark.parametrize("run", ["images", "table"])
def test_hostile_names_are_shown_and_do_nothing(pages, opened, run):
    page, complaints, _ = opened(pages[run])
    text = page.locator("main").inner_text()
    names = HOSTILE if run == "images" else ("<script>alert(1)</script>", "a\"b'c", "<b>")
    for name in names:
        assert name in text
    assert page.locator("script").count() == 2
    assert not page.locator("[src=x]").count()
    assert not complaints


def test_the_policy_stops_what_a_name_would_have_to_bring_in(pages, browser, tmp_path):
    text = pages["signals"].read_text(encoding="utf-8")
    listener = socket.create_server(("127.0.0.1", 0))
    harm = (
        f'<img src="http://127.0.0.1:{listener.getsockname()[1]}/x.png">'
        '<script>document.title = "taken"</script>'
        '<p id="styled" style="position:fixed">x</p><a href="#" onclick="alert(1)" id="click">x</a>'
    )
    spoilt = tmp_path / "spoilt.html"
    spoilt.write_text(text.replace("<main>", f"<main>{harm}"), encoding="utf-8")
    page, complaints = browser.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(spoilt.as_uri())
    page.locator("#click").click()
    assert page.title() != "taken"
    assert page.locator("#styled").evaluate("e => getComputedStyle(e).position") == "static"
    page.close()
    listener.settimeout(0.2)
    with listener, pytest.raises(TimeoutError):
        listener.accept()  # nobody called
    for directive in ("script-src", "img-src", "style-src"):
        assert any(re.search(f"violates.*{directive}", complaint) for complaint in complaints)


@every_run
def test_without_javascript_the_last_frames_are_there(pages, opened, run):
    page, _, _ = opened(pages[run], java_script_enabled=False)
    assert page.locator("#time input").is_hidden()
    assert page.get_by_text("Without JavaScript, every picture").first.is_visible()
    moved, _, _ = opened(pages[run])
    for picture in page.locator("#time .sheet, #time .drawing").all():
        assert shot(picture).std() > 5  # something is seen
    assert drawn(page) == drawn(moved)


def drawn(page):
    """Return the attributes that determine how the pictures of the first slider look."""
    return page.locator("#time").evaluate(
        "e => [...e.querySelectorAll('path')].map(p => p.getAttribute('d')).concat("
        "[...e.querySelectorAll('img')].map(i => i.getBoundingClientRect().top -"
        " i.parentElement.getBoundingClientRect().top))"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_paper(pages, opened, scheme):
    page, _, _ = opened(pages["table"], color_scheme=scheme)
    colours = page.evaluate(
        "['body', '.note', 'dt', '.chart text', '.missing'].map(s => {"
        " const e = document.querySelector(s), c = getComputedStyle(e);"
        " return s.endsWith('text') ? c.fill : c.color})"
    )
    papers = page.evaluate(
        "['body', '.control'].map(s => getComputedStyle(document.querySelector(s)).backgroundColor)"
    )
    for colour in colours:
        for paper in papers:
            light, dark = sorted(map(luminance, (colour, paper)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (colour, paper)  # WCAG 2.2, AA


@pytest.mark.parametrize(("scheme", "palette"), [("light", LIGHT), ("dark", DARK)])
def test_a_chart_in_a_file_shows_its_marks_on_light_and_on_dark_paper(
    opened, tmp_path, scheme, palette
):
    figure = Figure([straight(), straight()], columns=2, title="title")
    figure.save(tmp_path / "f.svg")
    page, complaints, requests = opened(
        tmp_path / "f.svg", color_scheme=scheme, device_scale_factor=2
    )
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    check_pixels(picture, figure, 2, palette)
    assert not complaints
    assert requests == [(tmp_path / "f.svg").as_uri()]


def luminance(colour):
    """Return the relative luminance of ``rgb(r, g, b)``, as WCAG defines it."""
    parts = np.array([int(v) for v in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
