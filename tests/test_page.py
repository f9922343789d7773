"""The report of a run as a file: pictures show the samples, and names never become markup."""

import base64
import hashlib
import io
import json
import re
import shlex
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from shell import end, failing, finishes, tiny

import scorefield as sf
from scorefield.cli.app import app
from scorefield.data import Data, Standardize
from scorefield.data.conditions import Conditions
from scorefield.data.config import ClassChannel, DataConfig
from scorefield.evaluate.metrics import Measurement
from scorefield.field import digest
from scorefield.report import frames, write_report
from scorefield.report.audit import audit_section
from scorefield.report.builder import policy
from scorefield.report.context import ReportContext
from scorefield.report.view_images import Images, Signals
from scorefield.report.view_vectors import Bars, Points, principal
from scorefield.runs.folder import RunFolder
from scorefield.runs.run import Run
from scorefield.sampling import Plan, Tuning
from scorefield.training.config import MLPConfig, OptimConfig, RunConfig, TrainConfig
from scorefield.training.held_out import split
from scorefield.tuning.frontier import Frontier, Point

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><b>x",
    "a\"b'c&amp;",
    "<img src=x onerror=alert(2)>",
)
SMALL = TrainConfig(network=MLPConfig(width=8, depth=1), optim=OptimConfig(steps=3, batch_size=8))


@pytest.fixture
def quick(monkeypatch):
    """Few calls and frames."""
    for name, value in {"CALLS": 5, "FRAMES": 4, "NFES": (4, 6), "REFERENCE": 8}.items():
        monkeypatch.setattr(frames, name, value)


def small(x, y=None, **changes):
    """Return a run of a few steps on data."""
    names = changes.pop("class_names", ())
    if names:
        y = Conditions((ClassChannel(name="y", count=len(names), names=names),), {"y": y})
    data = Data(x, y, changes.pop("name", "some data"))
    return sf.train(data, config=SMALL.model_copy(update=changes))


def gaussian(std=0.5):
    """Return a run whose field is exact: every coordinate of the data is normal."""
    field = sf.Gaussian(sf.VP(), torch.zeros(2), std**2 * torch.eye(2))
    config = RunConfig(data=DataConfig(name="exact", shape=(2,), count=9), train=SMALL, loss=1.0)
    return Run(field, Standardize(torch.zeros(2), torch.ones(2)), config)


def numbers(path):
    """Return the numbers in a path, in order."""
    return [float(v) for v in re.findall(r"-?\d+(?:\.\d+)?", path)]


class Reader(HTMLParser):
    """The elements and texts of a page, read by a parser of HTML."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.blocks = [], [], [], {}
        self.elements = []
        self._open = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        self.elements.append((tag, dict(attributes)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if self._open and self._open[-1] in ("script", "style"):
            self.blocks.setdefault(self._open[-1], []).append(data)
        else:
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


# --- frames ---------------------------------------------------------------------------------------


def test_on_a_gaussian_the_odes_frames_stand_still_at_the_datas_scale():
    # the probability flow scales a Gaussian by its deviation, and frames are divided by the same
    found = {walk.name: walk for walk in frames.solver_frames(gaussian(), 50, seed=3, given=None)}
    for name in ("Default plan", "Heun"):
        states = torch.stack(found[name].frames)
        torch.testing.assert_close(states, states[-1:].expand_as(states), rtol=0, atol=0.01)
    for name in ("Euler–Maruyama", "DDPM"):
        assert not torch.allclose(found[name].frames[3], found[name].frames[-1], atol=0.3)


def test_frames_of_the_sde_have_the_spread_of_the_data_at_every_level():
    (walk,) = (
        w for w in frames.solver_frames(gaussian(), 4000, seed=1, given=None) if w.name == "DDPM"
    )
    spreads = torch.stack(walk.frames).std((1, 2))
    assert (spreads / 0.5 - 1).abs().max() < 0.1  # weak order one


def test_all_solvers_start_from_the_same_state_and_cost_about_the_same():
    found = list(frames.solver_frames(gaussian(), 6, seed=2, given=None))
    for walk in found:
        torch.testing.assert_close(walk.frames[0], found[0].frames[0], rtol=0, atol=1e-5)
        assert frames.CALLS - 1 <= walk.nfe <= frames.CALLS
        assert len(walk.frames) == frames.FRAMES == len(frames.frame_ratios(gaussian().field)) + 2


def test_the_slider_over_calls_shows_samples_of_so_many_calls():
    run = gaussian()
    default, fitted = frames.samples_by_calls(run, {}, 5, seed=4, given=None)
    assert tuple(default) == frames.NFES
    assert not fitted
    with sf.count_calls(run.field) as calls:
        again = run.sample(5, sf.default_plan(run.field, 8), seed=4, batch_size=5)
    assert calls.count == 8
    assert torch.equal(default[8], again)


# --- pictures -------------------------------------------------------------------------------------


def sheet(picture):
    """Return the pixels of a sheet, ``(frames, height, width, channels)``, in the frames' order."""
    content = base64.b64decode(picture.uri.removeprefix("data:image/png;base64,"))
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    return pixels.reshape(picture.frames, picture.height, picture.width, -1)[::-1]


@pytest.mark.parametrize("channels", [1, 3])
def test_every_tile_of_a_sheet_is_the_image_it_was_given(channels):
    frames = [torch.randint(0, 256, (5, channels, 4, 6)).float() for _ in range(3)]
    pixels = sheet(Images((channels, 4, 6), 0.0, 255.0).picture(frames))
    for k, frame in enumerate(frames):
        seen = np.zeros(pixels.shape[1:3], bool)
        for j in range(5):
            box = np.s_[j // 2 * 5 : j // 2 * 5 + 4, j % 2 * 7 : j % 2 * 7 + 6]
            np.testing.assert_array_equal(
                pixels[k][box][..., :channels], frame[j].permute(1, 2, 0).numpy()
            )
            seen[box] = True
        np.testing.assert_array_equal(pixels[k][..., channels], 255 * seen)  # the rest is clear


@pytest.mark.parametrize(
    "shape", [(1, 300, 200), (1, 2, 900), (3, 96, 96), (4, 20, 20), (3, 512, 512)]
)
def test_a_picture_of_large_images_is_small_and_keeps_their_means(shape):
    view = Images(shape, -3.0, 3.0)
    frames = [torch.randn(view.few(22), *shape) for _ in range(22)]
    picture = view.picture(frames)
    assert len(picture.uri) < 400_000
    pixels, channels = sheet(picture)[0], 3 if shape[0] == 3 else 1
    clear = pixels[..., channels] == 0
    mean = pixels[~clear][..., :channels].mean() / 255 * 6 - 3
    assert mean == pytest.approx(float(frames[0][:, :channels].mean()), abs=0.05)


def test_points_lie_where_the_values_are_and_gaps_nowhere():
    x = torch.tensor([[k / 10, (k / 10) ** 2] for k in range(11)])
    view = Points(lambda v: v.double(), ("a", "b"), x)
    gapped = x.clone()
    gapped[7, 1] = float("nan")
    picture = view.picture([x, gapped])
    for frame, values in zip(picture.paths, (x, gapped), strict=True):
        moves = [m for layer in (*frame[1:], frame[0]) for m in layer.split("M")[1:]]
        dots = [numbers(move)[:2] for move in moves]
        low, high = torch.tensor(view.ends, dtype=torch.float64).T
        truth = (values[values.isfinite().all(1)] - low) / (high - low)
        truth = 1000 * torch.stack([truth[:, 0], 1 - truth[:, 1]], 1)
        assert np.allclose(dots, truth.numpy(), atol=0.51)


def test_a_signals_line_follows_its_values():
    wave = torch.sin(torch.linspace(0, 6, 32))
    x = torch.stack([wave, -wave])[:, None]
    drawn = Signals(x).picture([x]).paths[0][0].split("M")[1:]
    first, second = (np.array(numbers(path)).reshape(-1, 2)[:, 1] for path in drawn)
    assert np.corrcoef(-first, wave.numpy())[0, 1] > 0.999
    assert np.corrcoef(second, wave.numpy())[0, 1] > 0.999
    assert first.max() < second.min()


def test_bars_are_the_shares_of_the_values():
    x = torch.arange(1000.0)[:, None] % 100
    view = Bars(lambda v: v.double(), ("a",), x.double())
    heights = [float(v) for v in re.findall(r"V(\d+)h", view.picture([x]).paths[0][0])]
    shares = (1000 - np.array(heights)) / 1000 * view.top
    assert shares.sum() == pytest.approx(1.0, abs=0.02)
    edges = view.edges.numpy()
    truth = np.histogram(x.numpy(), edges)[0] / 1000
    np.testing.assert_allclose(shares, truth, atol=view.top / 999)


def test_principal_directions_are_those_of_the_largest_variance():
    z = torch.randn(4000, 3) * torch.tensor([1.0, 3.0, 0.2]) + 5
    mean, directions = principal(z)
    torch.testing.assert_close(directions.abs(), torch.eye(3)[[1, 0]].double(), rtol=0, atol=0.05)
    torch.testing.assert_close(mean, z.double().mean(0))
    assert (directions.gather(1, directions.abs().argmax(1, keepdim=True)) > 0).all()


# --- the page -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run whose names would all be markup, and its report with data."""
    folder = tmp_path_factory.mktemp("hostile")
    x, y = torch.randn(40, 1, 4, 4), torch.arange(40) % len(HOSTILE)
    name = '"><script>alert(3)</script>\u202e.npy'
    small(x, y, class_names=HOSTILE, name=name, conditional=True).save(folder / "<i>run'")
    np.save(folder / "<u>x.npy", torch.randn(9, 1, 4, 4).numpy())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "CALLS", 5)
        path = write_report(folder / "<i>run'", folder / "<u>x.npy", folder / "page.html", items=4)
    return path.read_text(encoding="utf-8")


def test_names_are_text_whatever_they_hold(hostile):
    page = Reader(hostile)
    assert page.tags.count("script") == 2
    assert not {"i", "u"} & set(page.tags)
    assert not [name for name in HOSTILE if "<" in name and name in hostile]
    assert page.tags.count("img") == hostile.count('<img src="data:image/png;base64,')
    for name in HOSTILE:
        assert f"Class {name}" in page.words
    assert "\u202e" not in hostile
    assert "\\u202e.npy" in page.words


def test_nothing_in_the_page_leads_out_of_it_or_escapes_its_policy(hostile):
    page = Reader(hostile)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name != "style"
        if name in ("src", "href"):
            assert value.startswith("data:"), (tag, name, value[:50])
    assert {"iframe", "object", "embed", "form", "base"}.isdisjoint(page.tags)
    (style,), (frames, script) = page.blocks["style"], page.blocks["script"]
    said = next(
        v for tag, name, v in page.attributes if tag == "meta" and name == "content" and "-src" in v
    )
    assert said == policy(style, script)
    for block in (style, script):
        found = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        assert f"'sha256-{found}'" in said
    assert "unsafe" not in said
    assert said.startswith("default-src 'none'; img-src data:; ")
    assert set(json.loads(frames)) == {"time", "calls"}


def test_every_picture_says_what_it_is(hostile):
    page = Reader(hostile)
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) > 5
    assert all(attributes.get("alt") for attributes in images)
    labels = [v for tag, name, v in page.attributes if tag == "svg" and name == "aria-label"]
    assert page.tags.count("svg") == len(labels) > 2
    assert all(labels)


# --- reports of every kind of run -----------------------------------------------------------------


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.randn(60, 1), "coordinate 0 from"),
        (torch.randn(60, 2), "Upwards: coordinate 1 from"),
        (torch.randn(60, 30), "first principal component"),
        (torch.randn(60, 4, 20), "the first 3 of 4 channels"),
        (torch.randn(60, 2, 5, 5), "of the first of 2 channels"),
    ],
)
def test_data_of_any_shape_has_a_report(tmp_path, x, said):
    small(x).save(tmp_path / "run")
    np.save(tmp_path / "x.npy", x[:40].numpy())
    path = write_report(tmp_path / "run", data=tmp_path / "x.npy", items=5)
    assert said in Reader(path.read_text(encoding="utf-8")).words


@pytest.mark.usefixtures("quick")
def test_a_table_with_gaps_and_texts_shows_rows_and_held_out_likelihoods(tmp_path):
    rows = [
        f"{k % 3},{['red', 'blue'][k % 2]},{k * 0.37 if k % 5 else ''},{k * k}" for k in range(50)
    ]
    table = tmp_path / "t.csv"
    table.write_text("few,<b>colour</b>,gapped,count\n" + "\n".join(rows) + "\n", encoding="utf-8")
    finishes(
        "train", table, "--held-out", 0.2, "--evaluate-every", 2, "--out", tmp_path / "r", *tiny()
    )
    finishes("report", tmp_path / "r", table, "--held-out", "--items", 7)
    page = Reader((tmp_path / "r/report.html").read_text(encoding="utf-8"))
    assert "few <b>colour</b> gapped count" in page.words
    for text in (
        "red",
        "blue",
        "held out, step 2",
        "the mean over 7 held-out items",
        "10 items of",
    ):
        assert text in page.words, text
    run = sf.load(tmp_path / "r")
    held = ReportContext(tmp_path / "r", table, held_out=True).x
    everything = ReportContext(tmp_path / "r", table).x
    expected = everything[split(50, 0.2, run.config.train.seed)[1]]
    torch.testing.assert_close(held, expected, equal_nan=True)


@pytest.mark.usefixtures("quick")
def test_the_likelihood_told_is_that_of_the_items(tmp_path):
    run = small(torch.randint(0, 4, (60, 3, 8)).float(), levels=4)
    run.save(tmp_path / "run")
    x = torch.randint(0, 4, (6, 3, 8)).float()
    np.save(tmp_path / "x.npy", x.numpy())
    path = write_report(tmp_path / "run", data=tmp_path / "x.npy", seed=5)
    bits = run.log_prob(x, nfe=28, probes=4, seed=5).bits_per_dim(24)
    mean, error = float(bits.mean()), float(bits.std()) / 6**0.5
    said = re.search(r"([\d.]+) ± ([\d.]+) bits per dimension", Reader(path.read_text()).words)
    assert float(said[1]) == pytest.approx(mean, abs=0.6 * 10 ** -len(said[1].split(".")[1]))
    assert float(said[2]) == pytest.approx(error, rel=0.06)
    assert "guessing would score 2.000" in path.read_text()


@pytest.mark.usefixtures("quick")
def test_of_a_run_that_knows_no_field_without_a_class_one_class_is_shown(tmp_path):
    x, y = torch.randn(40, 2), torch.arange(40) % 2
    run = small(x, y, class_names=("left", "right"), conditional=True, dropout=0.0)
    run.save(tmp_path / "run")
    made = ReportContext(tmp_path / "run", items=1)
    expected = run.sample(512, sf.default_plan(run.field), given=0)
    assert torch.equal(made.samples, expected)
    assert "All are of the class left." in write_report(tmp_path / "run").read_text()


# --- the run folder -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moons(tmp_path_factory):
    folder = tmp_path_factory.mktemp("moons") / "run"
    finishes("train", "moons", "--out", folder, "--held-out", 0, *tiny())
    return folder


def interval(value, half):
    return Measurement(value, half / 2, value - half, value + half)


def point(name, nfe, value, stochastic=False):
    """Return a point whose error and metric are ``value``, if its plan follows paths."""
    plan = Plan(sf.DDPM() if stochastic else sf.DDIM(), sf.balanced(sf.VP(), 4))
    error = None if stochastic else interval(value, 0.12 * value)
    return Point(name, plan, nfe, 1.5, error, {"energy": interval(value, value / 5)}, {})


def tuning(field, nfe):
    """Return the record of a plan that was tuned to a field."""
    worth = {
        "error": 0.1,
        "low": 0.09,
        "high": 0.12,
        "default": 0.2,
        "teacher": 0.01,
        "noises": 8,
        "seed": 0,
    }
    return Tuning(digest(field), digest(field.process), (), nfe, **worth)


def frontier(points, **changes):
    facts = {"field": "f", "process": "p", "n": 9, "m": 8, "dim": 2, "level": 0.95, "seed": 0}
    facts |= {"batch_size": 4, "machine": "<em>one</em>", "teacher": 1e-4}
    facts |= {"floors": {"energy": interval(0.1, 0.02)}, "points": tuple(points)}
    return Frontier(**facts | changes)


@pytest.mark.usefixtures("quick")
def test_the_frontier_shows_every_point_where_it_was_measured(moons, tmp_path):
    points = [point("a<b", 10, 0.1), point("a<b", 20, 0.01), point("c", 10, 1.0, stochastic=True)]
    frontier(points).save(moons / "frontier.json")
    text = write_report(moons, out=tmp_path / "r.html").read_text(encoding="utf-8")
    (moons / "frontier.json").unlink()
    page = Reader(text)
    assert "a<b, 20 calls: 0.0100 ± 0.0012" in page.words
    assert "c, 10 calls: 1.00 ± 0.20" in page.words
    assert "Measured on <em>one</em>" in page.words
    assert "scorefield compare" not in page.words
    assert "another field than this run's" in page.words
    line, _ = re.findall(r'd="(M[\dL. ]+)"><title>a&lt;b</title>', text)
    (x1, y1), (x2, y2) = np.array(numbers(line)).reshape(2, 2)
    assert x1 < x2
    assert y1 < y2  # downwards: less


LINE = {"event": "train", "step": 5, "loss": 0.5}
EVALUATION = {"event": "evaluation", "step": 5, "error": 0.9, "levels": [0.5] * 8, "edges": []}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "bad",
    [
        [LINE | {"step": 10**400}, LINE | {"step": -7}],
        [LINE | {"loss": value} for value in (None, "x", [], True, 1e308, -1e-320, 10**400)],
        [
            EVALUATION | {"levels": value}
            for value in (None, [], [None] * 8, ["1"] * 8, [1e300] * 8)
        ],
        ["[" * 100_000, '{"step": ' + "9" * 5000 + "}", "nothing", '{"step": 1}'],
        [LINE, LINE, LINE | {"loss": 0.5 + 1e-16}],
    ],
)
def test_a_log_is_shown_as_far_as_it_makes_sense(moons, tmp_path, bad):
    good = [LINE | {"step": 2, "loss": 0.75}, LINE, EVALUATION]
    lines = [line if isinstance(line, str) else json.dumps(line) for line in (*bad, *good)]
    before = (moons / "log.jsonl").read_bytes()
    (moons / "log.jsonl").write_text("\n".join(lines), encoding="utf-8")
    page = Reader(write_report(moons, out=tmp_path / "r.html").read_text(encoding="utf-8"))
    (moons / "log.jsonl").write_bytes(before)
    alts = [v for tag, name, v in page.attributes if tag == "svg" and name == "aria-label"]
    assert any("0.5 at the last" in alt for alt in alts)
    assert any(f"held out, step 5: {', '.join(['0.5'] * 8)}" in alt for alt in alts)


@pytest.mark.usefixtures("quick")
def test_a_frontier_of_nothing_is_shown_as_such(moons, tmp_path):
    own = digest(sf.load(moons).field)
    frontier([], field=own).save(moons / "frontier.json")
    page = Reader(write_report(moons, out=tmp_path / "r.html").read_text(encoding="utf-8"))
    (moons / "frontier.json").unlink()
    assert "other data 0.100 ± 0.020" in page.words
    assert "another field than this run's" not in page.words


@pytest.mark.usefixtures("quick")
def test_tuned_plans_stand_beside_the_default_one_where_there_are_some(moons, tmp_path):
    field = sf.load(moons).field
    (moons / "plans").mkdir()
    for nfe in (5, 6):
        tuned = replace(sf.default_plan(field, nfe), tuning=tuning(field, nfe))
        tuned.save(moons / f"plans/nfe-{nfe}.json")
    guided = replace(tuned, tuning=replace(tuned.tuning, field="0" * 64))
    guided.save(RunFolder(moons).plan_path(5, guidance=2.0))  # for another field, and so not shown
    text = write_report(moons, out=tmp_path / "r.html").read_text(encoding="utf-8")
    shutil.rmtree(moons / "plans")
    frames = json.loads(Reader(text).blocks["script"][0])["calls"]
    shown, tuned, limit = frames["panels"]
    assert frames["labels"] == [f"{nfe} network calls (NFE)" for nfe in (4, 5, 6)]
    assert (shown["at"], tuned["at"], limit["at"]) == ([0, 1, 2], [None, 0, 1], [0, 0, 0])
    assert tuned["paths"] == shown["paths"][1:]  # the same plans, so the same samples
    assert tuned["notes"] == ["no plan of 4 calls", "5 calls", "6 calls"]


@pytest.mark.usefixtures("quick")
def test_a_report_is_a_function_of_what_it_was_made_of(moons, tmp_path):
    first, again, other = (tmp_path / f"{k}.html" for k in range(3))
    write_report(moons, out=first, seed=1)
    write_report(moons, out=again, seed=1)
    write_report(moons, out=other, seed=2)
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()


@pytest.mark.usefixtures("quick")
def test_what_is_missing_is_said_with_a_command_that_exists(moons, tmp_path):
    text = write_report(moons, out=tmp_path / "r.html").read_text(encoding="utf-8")
    page = Reader(text)
    assert page.words.count("This section needs data. To add it, run") == 3
    lines = [line for block in page.text for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("scorefield ")]
    names = {command.split()[1] for command in commands if len(command.split()) > 2}
    assert names == {"report", "sample", "likelihood", "interpolate", "train", "compare", "tune"}
    of_run = [c for c in commands if len(c.split()) > 2 and "scorefield train" not in c]
    assert all(shlex.quote(str(moons)) in command for command in of_run)
    for command in commands:
        if len(command.split()) > 2:
            app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)


@pytest.mark.usefixtures("quick")
def test_a_loaded_run_has_the_report_of_its_folder(moons, tmp_path):
    write_report(moons, "moons", tmp_path / "a.html", items=4)
    write_report(sf.load(moons), "moons", tmp_path / "b.html", items=4)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


@pytest.mark.usefixtures("quick")
def test_a_run_in_memory_has_a_report_with_data_in_memory(tmp_path):
    x = torch.randn(60, 3)
    run = small(x)
    plan = sf.default_plan(run.field, 5)
    run.tuned[1.0, 5, run.bound] = replace(plan, tuning=tuning(run.field, 5))
    text = write_report(run, x[:20], tmp_path / "r.html", items=6).read_text(encoding="utf-8")
    page = Reader(text)
    assert "the mean over 6 items of data" in page.words
    assert "scorefield report RUN DATA --seed 0" in page.words
    frames = json.loads(page.blocks["script"][0])["calls"]
    assert frames["panels"][1]["at"] == [None, 0, None]  # the tuned plan, of 4, 5 and 6 calls
    with pytest.raises(ValueError, match="out=None: the run has no folder"):
        write_report(run, x)


def test_the_audit_shows_its_readings_and_an_error_of_the_field():
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    run = gaussian(0.3)
    section = audit_section(ReportContext(run, x, seed=3, audit=True))
    result = sf.audit(run.field, x, seed=3)
    bound, residual = section.parts[0].charts
    assert bound.series[0].points == [(level.ratio, level.at_least) for level in result.levels]
    assert residual.series[1].points == [(one.ratio, one.residual) for one in result.exact]
    assert str(result) in section.parts[0].note
    assert max(y for _, y in bound.series[0].points) > 0.1
    with pytest.raises(ValueError, match="audit=True: pass at least 64 items"):
        ReportContext(run, x[:63], audit=True)


# --- refusals -------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_before_anything_is_written(moons, capsys, monkeypatch):
    run = failing(moons, capsys, monkeypatch)
    (moons / "other.html").write_text("mine")
    np.save(moons / "x.npy", np.zeros((3, 5)))
    cases = [
        (4, ["nowhere"], "nowhere: this run folder does not exist"),
        (2, [".", "--n", "0"], "--n 0"),
        (2, [".", "--items", "0"], "--items 0"),
        (2, [".", "--out", "page.txt"], "must end in .html"),
        (2, [".", "--out", "no/such/page.html"], "in a folder that exists"),
        (2, [".", "--out", "other.html"], "exists already"),
        (2, [".", "--held-out"], "pass the data that the run was trained on"),
        (2, [".", "moons", "--held-out"], "has no held-out data"),
        (3, [".", "nothing.npy"], "data nothing.npy"),
        (3, [".", "x.npy"], "shape (5,)"),
        (2, [".", "--seed", "-1"], "--seed -1: give an integer from 0"),
    ]
    for code, arguments, message in cases:
        assert message in run(code, "report", *arguments)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ("{", "does not hold a frontier"),
        (frontier([point("a", 0, 1.0)]), "less than one call"),
        (frontier([point("a", 5, 1e200)]), "larger numbers"),
        (frontier([point("a", 5, 1.0)] * 1001), "more points"),
    ],
)
def test_a_frontier_that_no_chart_can_show_is_refused(moons, capsys, monkeypatch, found, message):
    path = moons / "frontier.json"
    path.write_text(found) if isinstance(found, str) else found.save(path)
    said = failing(moons, capsys, monkeypatch)(4, "report", ".")
    path.unlink()
    assert message in said


def test_a_plan_that_is_none_for_the_run_is_refused(moons, capsys, monkeypatch):
    field = sf.load(moons).field
    own = tuning(field, 8)
    plan = sf.default_plan(field, 8)
    (moons / "plans").mkdir()
    long = sf.balanced(sf.VP(), 1000)
    for name, changes, message in (
        ("8", {"tuning": replace(own, field="0" * 64)}, "was tuned for the field 000000000000"),
        ("8", {"tuning": own, "times": long}, "more than 1000 calls"),
        ("1001", {"tuning": replace(own, nfe=1001)}, "more than 1000 calls"),
        ("8", {"tuning": None}, "was not tuned"),
    ):
        path = moons / f"plans/nfe-{name}.json"
        replace(plan, **changes).save(path)
        assert message in failing(moons, capsys, monkeypatch)(4, "report", str(moons))
        path.unlink()
    (moons / "plans/nfe-8.json").write_text("{}")
    assert "holds no plan" in failing(moons, capsys, monkeypatch)(4, "report", str(moons))
    shutil.rmtree(moons / "plans")


def test_without_the_extra_the_report_says_what_to_install(moons, monkeypatch, capsys):
    for module in ("jinja2", "PIL.Image"):
        with monkeypatch.context() as patch:
            patch.setitem(__import__("sys").modules, module, None)
            assert end("report", moons) == 2
        assert "pip install scorefield[report]" in capsys.readouterr().err
