"""Comparing plans at the command line, and sampling by what was found."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from shell import TINY, end, failing, finishes, listing

import scorefield as sf
from scorefield.cli.options import SolverName
from scorefield.cli.plan_options import SOLVERS, plans_within
from scorefield.evaluate import metrics
from scorefield.evaluate.metrics import compare
from scorefield.field import digest
from scorefield.runs import comparison
from scorefield.sampling import Plan, Tuning
from scorefield.training.held_out import split
from scorefield.tuning.frontier import Frontier, measure

FEW = ["--nfe", 4, 12, "--solvers", "default", "heun", "ddpm"]


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Paths of few steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "NODES", 96)
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with data, a run of it, one that held some out, one with classes, one of levels."""
    folder = tmp_path_factory.mktemp("compare")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)) * [1.0, 5.0, 0.2] + [3.0, 0.0, -8.0]
    np.save(folder / "x.npy", x)
    np.save(folder / "more.npy", rng.normal(size=(140, 3)) * [1.0, 5.0, 0.2] + [3.0, 0.0, -8.0])
    np.save(folder / "two.npy", x[:, :2])
    np.save(folder / "few.npy", x[:63])
    np.save(folder / "y.npy", np.arange(200) % 2)
    np.save(folder / "y-more.npy", np.arange(140) % 2)
    np.save(folder / "dice.npy", rng.integers(0, 6, (200, 2)))
    finishes("train", folder / "x.npy", "--out", folder / "run", "--held-out", 0.4, *TINY)
    labels = ["--condition", folder / "y.npy", "--conditional", "--held-out", 0]
    finishes("train", folder / "x.npy", "--out", folder / "classes", *labels, *TINY)
    dice = ["--levels", 6, "--held-out", 0.4]
    finishes("train", folder / "dice.npy", "--out", folder / "dice", *dice, *TINY)
    return folder


@pytest.fixture
def fails(files, capsys, monkeypatch):
    return failing(files, capsys, monkeypatch)


@pytest.fixture(scope="module")
def compared(files):
    """A frontier of the run, in a copy of its folder."""
    sf.load(files / "run").save(files / "told")
    finishes("compare", files / "told", files / "more.npy", *FEW, "--n", 40, "--batch-size", 32)
    return Frontier.load(files / "told" / "frontier.json")


def seen(run, x):
    return run.transform.forward(run.encoding.middle(torch.from_numpy(x).float()))


def test_what_is_written_is_what_python_tells(files, compared):
    run = sf.load(files / "run")
    x = seen(run, np.load(files / "more.npy"))
    one, two = split(140, 0.5, 0)
    assert (compared.n, compared.m, compared.batch_size) == (40, 70, 32)
    assert [(p.name, p.nfe) for p in compared.points] == [
        ("default", 4), ("default", 12), ("heun", 3), ("heun", 11), ("ddpm", 4), ("ddpm", 12)
    ]  # fmt: skip
    default, fine, *_, ddpm = compared.points
    samples = sf.sample(run.field, 40, sf.default_plan(run.field, 4), batch_size=32)
    told = compare(samples, x[one], other=x[two][:40], metrics=measure.METRICS)
    for name, value in told.values.items():
        assert default.values[name].value == pytest.approx(value.value, rel=1e-4, abs=1e-5)
        assert compared.floors[name].high == pytest.approx(told.floors[name].high, rel=1e-5)
    assert fine.error.value < default.error.value
    assert ddpm.error is None
    assert ddpm.stochastic
    compared.check(run.field)
    with Image.open(files / "told" / "frontier.png") as picture:
        picture.load()
        assert min(picture.size) > 300


def test_the_table_says_what_was_found(tmp_path, files, capsys):
    out = tmp_path / "f.json"
    command = ["compare", files / "run", files / "x.npy", "--held-out", "--out", out]
    finishes(*command, "--nfe", "4,7", "--solvers", "ddim", "euler-maruyama", "--metrics", "energy")
    text, found = capsys.readouterr().out, Frontier.load(out)
    rows = {tuple(line.split()[:2]): line for line in text.splitlines()}
    for point in found.points:
        row = rows[point.name, f"{point.nfe:g}"]
        parts = ([point.error] if point.error else []) + [point.values["energy_distance"]]
        seen = [float(word) for word in row.split() if word not in (point.name, "±", "-")]
        halves = [(e.high - e.low) / 2 for e in parts]
        expected = [
            number for e, half in zip(parts, halves, strict=True) for number in (e.value, half)
        ]
        assert seen[2:] == pytest.approx(expected, abs=0.05 * max(halves))
        assert f" {point.milliseconds:.2f} " in row
    floor = found.floors["energy_distance"]
    assert float(rows["data", "itself"].split()[2]) == pytest.approx(floor.value, abs=0.005)
    assert f"frontier: {out}\n" in text
    assert f"picture: {tmp_path / 'f.png'}\n" in text


def test_held_out_data_is_what_training_did_not_see(files):
    """And of whole numbers, samples are whole as well before they are compared."""
    for name in ("run", "dice"):
        run = sf.load(files / name)
        source = str(files / ("x.npy" if name == "run" else "dice.npy"))
        found = comparison.references(run, source, held_out=True)
        held = split(200, 0.4, 0)[1]
        one, two = split(80, 0.5, 0)
        x = np.load(source)
        torch.testing.assert_close(found.real, seen(run, x[held[one]]))
        torch.testing.assert_close(found.other, seen(run, x[held[two]]))
    z = torch.linspace(-3, 3, 20).reshape(10, 2)
    torch.testing.assert_close(run.to_field(run.to_data(z)), seen(run, run.to_data(z).numpy()))
    torch.testing.assert_close(run.to_field(run.to_data(found.real)), found.real)


def test_a_class_is_compared_with_its_own_data(files, tmp_path):
    command = [
        "compare",
        files / "classes",
        files / "more.npy",
        "--condition",
        files / "y-more.npy",
    ]
    finishes(*command, "--given", 1, "--nfe", 3, "--solvers", "default", "--metrics", "energy")
    found = Frontier.load(files / "classes" / "frontier-y1.json")
    run = sf.load(files / "classes")
    x = seen(run, np.load(files / "more.npy")[1::2])
    one, two = split(70, 0.5, 0)
    view = run.field.condition_on(y=torch.tensor(1))
    told = compare(sf.sample(view, 35, sf.default_plan(view, 3)), x[one], other=x[two],
                   metrics=[sf.metrics.EnergyDistance()])  # fmt: skip
    assert (found.n, found.m) == (35, 35)
    floor = told.floors["energy_distance"].high
    assert found.floors["energy_distance"].high == pytest.approx(floor, rel=1e-5)
    value = found.points[0].values["energy_distance"].value
    assert value == pytest.approx(told.values["energy_distance"].value, rel=1e-4, abs=1e-5)
    finishes("sample", files / "classes", "--given", 1, "--time-per-sample", 1e6, "--n", 3,
             "--out", tmp_path / "x.npy")  # fmt: skip
    expected = run.sample(3, sf.default_plan(run.field, 3), given=1)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected.numpy())


def test_without_data_errors_and_times_are_told(tmp_path, files, capsys):
    out = tmp_path / "f.json"
    finishes("compare", files / "run", "--out", out, *FEW)
    assert "no data to compare with" in capsys.readouterr().out
    found = Frontier.load(out)
    assert (found.n, found.m, found.floors) == (512, 0, {})
    assert all(not point.values for point in found.points)


def test_tuned_plans_in_the_run_folder_join_if_they_fit(tmp_path, files, capsys):
    run = sf.load(files / "run")
    folder = tmp_path / "run"
    run.save(folder)
    (folder / "plans").mkdir()
    default = sf.default_plan(run.field, 3)
    for nfe, field in ((3, run.field), (4, sf.load(files / "classes").field)):
        tuning = Tuning(digest(field), digest(field.process),
                        (1.0, 0.0), 3, 0.1, 0.09, 0.12, 0.1, 0.0, 64, 0)  # fmt: skip
        Plan(default.solver, default.times, default.finish, tuning).save(
            folder / "plans" / f"nfe-{nfe}.json"
        )
    finishes("compare", folder, "--solvers", "tuned", "--n", 32)
    assert "nfe-4.json: the plan was tuned for the field" in capsys.readouterr().out
    found = Frontier.load(folder / "frontier.json")
    assert [(p.name, p.nfe, p.plan.tuning.field) for p in found.points] == [
        ("tuned", 3, digest(run.field))
    ]


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_has_plans_within_the_budget(name):
    """The finishing call included, and one step more would be too many."""
    field = sf.Gaussian(sf.VP(), torch.zeros(2), torch.eye(2))
    for budget in (4, 9, 20):
        for plan in plans_within(name, field, [budget]):
            with sf.count_calls(field) as calls:
                sf.sample(field, 1, plan, batch_size=1)
            if not isinstance(plan.times, sf.Adaptive):
                each = plan.solver.calls
                assert budget - each < calls.count <= budget
    assert len(plans_within(name, field, [20, 20])) == (
        2 if name in ("bosh3", "dopri5", "tsit5") else 1
    )


# picking


def best_and_cheapest(found):
    followed = [point for point in found.points if point.error]
    best = min(followed, key=lambda point: point.error.high)
    cheapest = min(followed, key=lambda point: point.nfe)
    assert cheapest.error.high > 1.1 * best.error.high
    return best, cheapest


def test_a_tolerance_picks_the_plan_and_makes_its_samples(tmp_path, files, compared, capsys):
    run, out = sf.load(files / "run"), tmp_path / "x.npy"
    command = ["sample", files / "told", "--n", 5, "--out", out, "--overwrite"]
    for point in best_and_cheapest(compared):
        finishes(*command, "--tolerance", 1.001 * (point.error.high + compared.teacher))
        text = capsys.readouterr().out
        assert f"picked from frontier.json: {point.name} of {point.nfe:g} calls, error" in text
        np.testing.assert_array_equal(np.load(out), run.sample(5, point.plan).numpy())
    finishes("sample", files / "told", "--n", 5, "--tolerance", 9)
    (found,) = (files / "told").glob("samples-tolerance-9-seed0.*")
    found.unlink()


def test_a_time_picks_the_best_that_is_as_fast(tmp_path, files, compared, capsys):
    out = tmp_path / "x.npy"
    best = min((p for p in compared.points if p.error), key=lambda p: p.error.value)
    finishes("sample", files / "told", "--n", 3, "--batch-size", 32, "--time-per-sample",
             best.milliseconds, "--out", out)  # fmt: skip
    assert f"picked from frontier.json: {best.name} " in capsys.readouterr().out


def test_what_a_file_says_of_itself_cannot_write_to_the_terminal(tmp_path, files, compared, capsys):
    sf.load(files / "run").save(tmp_path / "run")
    text = (files / "told" / "frontier.json").read_text()
    text = text.replace('"machine": "', '"machine": "\\u001b[2J').replace("default", "\\u001b[2J")
    (tmp_path / "run" / "frontier.json").write_text(text)
    capsys.readouterr()
    finishes("sample", tmp_path / "run", "--n", 2, "--batch-size", 32, "--time-per-sample", 1e6)
    told = capsys.readouterr().out
    assert "measured on \\x1b[2J" in told
    assert "picked from frontier.json: \\x1b[2J" in told
    assert "\x1b" not in told


def test_a_job_that_was_cut_goes_on_with_its_plan_alone(tmp_path, files, compared, monkeypatch):
    """Another tolerance that picks the same plan goes on; one that picks another is refused."""
    best, cheapest = best_and_cheapest(compared)
    out = tmp_path / "x.npy"
    command = ["sample", files / "told", "--n", 96, "--batch-size", 32, "--out", out, "--tolerance"]
    with monkeypatch.context() as patch:
        patch.setattr("scorefield.cli.jobs.write_array", interrupted)
        assert end(*command, 1.001 * (best.error.high + compared.teacher)) == 130
    kept = listing(tmp_path)
    assert end(*command, 1.01 * (cheapest.error.high + compared.teacher)) == 2
    assert listing(tmp_path) == kept
    finishes(*command, 1.002 * (best.error.high + compared.teacher))
    expected = sf.load(files / "run").sample(96, best.plan, batch_size=32)
    np.testing.assert_array_equal(np.load(out), expected.numpy())


def interrupted(*arguments):
    raise KeyboardInterrupt


def test_a_picture_is_left_out_without_the_extra(tmp_path, files, capsys, monkeypatch):
    def missing(*arguments):
        raise ImportError("pictures need resvg_py")

    monkeypatch.setattr("scorefield.report.frontier_chart", missing)
    out = tmp_path / "f.json"
    finishes("compare", files / "run", "--n", 32, "--out", out, *FEW)
    assert "no picture: pictures need resvg_py" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["f.json"]


# refusals


@pytest.mark.parametrize(
    ("code", "command", "message"),
    [
        (
            2,
            "compare run x.npy",
            "x.npy: this is the training data of the run; pass other data, or --held-out for",
        ),
        (
            2,
            "compare run more.npy --n 71",
            r"more.npy has 140 items .* pass 142 or more for --n 71",
        ),
        (2, "compare run few.npy", r"few.npy has 63 items .* pass 64 or more"),
        (3, "compare run two.npy", r"two.npy has samples of shape \(2,\)"),
        (3, "compare run nowhere.npy", "data nowhere.npy"),
        (3, "compare run more.npy --held-out", "140 items, but this run was trained on 200"),
        (2, "compare classes x.npy --held-out", "this run has no held-out data"),
        (3, "compare classes more.npy --given 0", "--conditions: more.npy has none"),
        (
            2,
            "compare classes more.npy --given 1 --condition y-more.npy --n 40 --out f.json",
            "more.npy has 70 items given",
        ),
        (2, "compare run more.npy --given 1", "this run has no conditions"),
        (2, "compare run --held-out", "--held-out has no effect without data"),
        (2, "compare run --metrics c2st", "--metrics has no effect without data"),
        (2, "compare run more.npy --metrics energy energy", "energy_distance twice"),
        (2, "compare run --n 31", "--n 31: give at least 32"),
        (2, "compare run --batch-size 0", "--batch-size 0"),
        (2, "compare run --nfe ten", "--nfe ten: give whole numbers"),
        (2, "compare run --nfe 1", "a plan makes at least 2 network calls"),
        (2, "compare run --nfe 2 --solvers heun", "a single step of heun and the end"),
        (2, "compare run --solvers tuned", "has no tuned plan for this run"),
        (2, "compare run --solvers magic", "magic"),
        (2, "compare run --out f.txt", "f.txt: must end in .json"),
        (2, "compare told", "frontier.json: exists already"),
        (4, "compare nowhere", "nowhere: this run folder does not exist"),
        (2, "sample told --tolerance 1 --nfe 4", "--nfe and --tolerance cannot be combined"),
        (
            2,
            "sample told --tolerance 1 --plan default",
            "--plan and --tolerance cannot be combined",
        ),
        (
            2,
            "sample told --time-per-sample 1 --solver heun",
            "--time-per-sample and --solver cannot be combined",
        ),
        (
            2,
            "sample told --time-per-sample 1 --tolerance 1",
            "--tolerance and --time-per-sample cannot be combined",
        ),
        (2, "sample told --tolerance 0", "--tolerance 0: give a positive number"),
        (2, "sample told --tolerance 0.0005", "no plan has an error surely below it"),
        (2, "sample told --time-per-sample 1e-9 --batch-size 32", "no plan is that fast"),
        (
            2,
            "sample told --time-per-sample 9",
            "the times in told/frontier.json are of batches of 32",
        ),
        (4, "sample dice --tolerance 1", "run scorefield compare dice first"),
        (
            4,
            "sample classes --given 0 --tolerance 1",
            "run scorefield compare classes --given 0 first",
        ),
        (4, "sample other --tolerance 1", "other/frontier.json: the plans were measured on"),
        (4, "sample damaged --tolerance 1", "damaged/frontier.json does not hold a frontier"),
    ],
)
def test_refusals(files, compared, fails, code, command, message):
    for name, text in (
        ("other", (files / "told" / "frontier.json").read_text()),
        ("damaged", "{}"),
    ):
        if not (files / name).exists():
            sf.load(files / "dice").save(files / name)
            (files / name / "frontier.json").write_text(text)
    assert re.search(message, fails(code, *command.split()))


def test_a_frechet_distance_of_many_coordinates_is_refused(fails, monkeypatch):
    monkeypatch.setattr("scorefield.cli.compare._MOST_MOMENTS", 2)
    error = fails(2, "compare", "run", "more.npy", "--metrics", "frechet")
    assert "--metrics frechet: the covariance of 3 coordinates is too large" in error


def test_the_names_of_metrics_and_solvers_are_those_of_the_options():
    from scorefield.cli.compare import CLASSES, USUAL, ComparedName, MetricName

    assert set(MetricName.__args__) == set(CLASSES)
    assert all(issubclass(getattr(metrics, name), sf.Metric) for name in CLASSES.values())
    assert set(SolverName.__args__) == set(SOLVERS)
    named = {name for part in ComparedName.__args__ for name in part.__args__}
    assert set(USUAL) <= named
