"""The laboratory page: its numbers are the library's, controls work, and nothing is loaded."""

import sys
from dataclasses import dataclass, field as made
from pathlib import Path

import pytest
import torch
from test_browser import browser, opened  # noqa: F401 - fixtures

import scorefield as sf

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "_static" / "laboratory.html"
F64 = torch.float64
MIXTURE = [
    {"weight": 0.5, "x": -1.2, "y": -0.8, "std": 0.3},
    {"weight": 0.3, "x": 1.3, "y": -0.6, "std": 0.25},
    {"weight": 0.4, "x": 0.1, "y": 1.4, "std": 0.5},
]
NAMES = ["VP", "SubVP", "VE", "Cosine", "Flow", "EDM"]
CONTROLS = {
    "process": "VE", "solver": "Euler", "calls": "8", "eta": "0.5", "paths": "30", "seed": "5",
    "direction": "forward",
}  # fmt: skip


@dataclass(frozen=True)
class Scripted:
    """Noise that returns numbers of a list, in place of `sf.Noise`."""

    numbers: list = made(default_factory=list)
    at: int = 0

    def normal(self, like):
        return self.numbers[self.at].to(like), Scripted(self.numbers, self.at + 1)

    def increment(self, start, end, like):
        return self.normal(like)


def exact(name):
    weights = torch.tensor([c["weight"] for c in MIXTURE], dtype=F64)
    means = torch.tensor([[c["x"], c["y"]] for c in MIXTURE], dtype=F64)
    stds = torch.tensor([c["std"] for c in MIXTURE], dtype=F64)
    covariances = stds[:, None, None] ** 2 * torch.eye(2, dtype=F64)
    return sf.Mixture(getattr(sf, name)(), weights, means, covariances)


@pytest.fixture(scope="module")
def page(browser):  # noqa: F811
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    context.set_offline(True)
    found = context.new_page()
    found.goto(PAGE.as_uri())
    yield found
    context.close()


def test_the_policy_allows_the_pages_own_script_and_style_only():
    sys.path.insert(0, str(DOCS))
    try:
        from laboratory import sealed
    finally:
        sys.path.remove(str(DOCS))
    text = PAGE.read_text(encoding="utf-8")
    assert sealed(text) == text
    assert "default-src 'none'" in text


@pytest.mark.parametrize("name", NAMES)
def test_estimates_and_times_are_those_of_the_library(page, name):
    field = exact(name)
    times = page.evaluate("n => laboratory.grid(laboratory.processes[n], 9)", name)
    expected = sf.even_log_snr(field.process, 9)
    torch.testing.assert_close(torch.tensor(times, dtype=F64), expected, rtol=1e-8, atol=1e-12)
    points = torch.tensor([[0.3, -0.4], [2.0, 1.0], [-1.0, 0.2]], dtype=F64)
    for t in times[1:-1]:
        x = points * float(field.process.sigma(torch.tensor(t))) + points
        got = page.evaluate(
            """([m, n, t, x]) =>
                x.map(p => laboratory.estimate(m, laboratory.processes[n], t, ...p))""",
            [MIXTURE, name, t, x.tolist()],
        )
        result = field(x, t)
        log = field.log_prob(x, t)[:, None]
        want = torch.cat([result.x0, result.eps, log], 1)
        torch.testing.assert_close(torch.tensor(got, dtype=F64), want, rtol=1e-5, atol=1e-7)


SOLVERS = {"Euler": sf.Euler(), "Heun": sf.Heun(), "RK4": sf.RK4(), "DDIM": sf.DDIM()}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("solver", [*SOLVERS, "Euler-Maruyama"])
def test_a_path_ends_where_the_librarys_does(page, name, solver):
    field, steps, eta = exact(name), 12, 0.7
    process = field.process
    times = sf.even_log_snr(process, steps)
    start = torch.tensor([[0.4, -1.1], [1.3, 0.2]], dtype=F64)
    start = start * torch.hypot(process.alpha(times[0]), process.sigma(times[0]))
    noise = torch.randn(steps, 2, 2, dtype=F64)
    rule = SOLVERS.get(solver, sf.EulerMaruyama(eta))
    at = sf.State(start, times[0], Scripted(list(noise)))
    want = sf.prepare(field, rule, times)(at).x
    got = page.evaluate(
        """([s, m, n, e, t, x, z]) => x.map((p, k) => laboratory.solve(
            s, m, laboratory.processes[n], e, t, p, z.map(one => one[k])).at(-1))""",
        [solver, MIXTURE, name, eta, times.tolist(), start.tolist(), noise.tolist()],
    )
    torch.testing.assert_close(torch.tensor(got, dtype=F64), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_forward_noise_has_the_moments_of_the_process(page, name):
    """From one point: the last step's mean and deviation, by noise of zeros and of single ones."""
    process = getattr(sf, name)()
    times = sf.even_log_snr(process, 6)

    def end(k):
        noise = [[1.0 if j == k else 0.0] * 2 for j in range(6)]
        return page.evaluate(
            "([n, t, z]) => laboratory.noised(laboratory.processes[n], t, [1.0, -2.0], z).at(-1)",
            [name, times.tolist(), noise],
        )[0]

    alpha, sigma = process.coefficients(times[[0, -1]])
    mean = end(-1)
    variance = sum((end(k) - mean) ** 2 for k in range(6))
    start = (alpha[0] / alpha[1] * sigma[1]) ** 2
    assert mean == pytest.approx(float(alpha[0]), rel=1e-6)
    assert variance == pytest.approx(float(sigma[0] ** 2 - start), rel=1e-6)


def test_every_control_changes_the_pictures_and_keys_move_time(opened):  # noqa: F811
    page, complaints, requests = opened(PAGE)
    shot = "() => ['ode', 'sde'].map(id => document.getElementById(id).toDataURL()).join()"
    last = page.evaluate(shot)
    for name, value in CONTROLS.items():
        page.evaluate(
            """([id, value]) => { const e = document.getElementById(id); e.value = value;
            e.dispatchEvent(new Event('input')) }""",
            [name, value],
        )
        now = page.evaluate(shot)
        assert now != last, name
        last = now
    page.locator("#arrows").press("Space")
    assert page.evaluate(shot) != last
    page.locator("#restart").press("Enter")
    assert page.locator("#place").input_value() == "0"
    page.locator("#step").press("Enter")
    assert page.locator("#place").input_value() == "1"
    page.locator("#place").press("ArrowRight")
    assert page.locator("#place").input_value() == "2"
    page.locator("#play").press("Enter")
    page.get_by_text("Play", exact=True).wait_for()
    assert page.locator("#place").input_value() == page.locator("#place").get_attribute("max")
    page.locator("#add").press("Enter")
    assert page.locator("#components tr").count() == 4
    page.locator("#components tr:last-child button").press("Enter")
    assert page.locator("#components tr").count() == 3
    page.get_by_text("square error of the ODE's ends").wait_for()
    assert complaints == []
    assert [address for address in requests if not address.startswith("file:")] == []


def test_a_component_is_dragged_by_mouse(opened):  # noqa: F811
    page, complaints, _ = opened(PAGE)
    box = page.locator("#ode").bounding_box()

    def pixel(x, y):
        return (
            box["x"] + box["width"] / 2 * (1 + x / 3.2),
            box["y"] + box["height"] / 2 * (1 - y / 3.2),
        )

    page.mouse.move(*pixel(0.1, 1.4))
    page.mouse.down()
    page.mouse.move(*pixel(-1.0, 2.0))
    page.mouse.up()
    third = page.evaluate("laboratory.state.mixture[2]")
    assert third["x"] == pytest.approx(-1.0, abs=0.03)
    assert third["y"] == pytest.approx(2.0, abs=0.03)
    assert complaints == []


def test_a_phone_shows_it_without_scrolling_aside(opened):  # noqa: F811
    page, _, _ = opened(PAGE, width=400, height=800)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
