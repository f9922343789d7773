"""`scorefield tune`, and the plans that `scorefield sample` finds in a run."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from shell import TINY, end, failing, finishes

import scorefield as sf
from scorefield.field import digest
from scorefield.sampling import Plan
from scorefield.tuning import Tuner
from scorefield.tuning.frontier import Frontier, measure
from scorefield.tuning.tried import Tried

FEW = ["--noises", "16", "--tries", "12"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    finishes("train", "moons", "--out", folder / "run", *TINY)
    finishes("train", "moons", "--out", folder / "other", "--seed", "1", *TINY)
    finishes("tune", folder / "run", "--nfe", "4,3", "6", *FEW)
    return folder


@pytest.fixture
def fails(files, capsys, monkeypatch):
    return failing(files, capsys, monkeypatch)


def test_plans_lie_beside_the_weights_and_are_those_of_python(files):
    assert {p.name for p in (files / "run" / "plans").iterdir()} == {
        f"nfe-{n}.json" for n in (3, 4, 6)
    }
    field = sf.load(files / "run").field
    plan = Plan.load(files / "run" / "plans" / "nfe-4.json")
    again = Tuner(field, noises=16).tune(4, tries=12)
    assert plan.solver == again.solver
    assert plan.tuning == again.tuning


def test_samples_are_by_the_plan_that_was_fitted(files, capsys):
    run = sf.load(files / "run")
    kept = files / "run" / "plans" / "nfe-4.json"
    asked = {
        "tuned": (["--nfe", 4], run.sample(5, Plan.load(kept))),
        "file": (["--plan", kept], run.sample(5, Plan.load(kept))),
        "default": (
            ["--nfe", 4, "--plan", "default"],
            run.sample(5, sf.default_plan(run.field, 4)),
        ),
        "none": (["--nfe", 5], run.sample(5, sf.default_plan(run.field, 5))),
    }
    told = {"default": "the default plan", "none": "the default plan; scorefield tune"}
    for name, (how, expected) in asked.items():
        out = files / f"{name}.npy"
        capsys.readouterr()
        finishes("sample", files / "run", "--n", 5, "--out", out, *how)
        assert np.array_equal(np.load(out), expected.numpy()), name
        printed = capsys.readouterr().out
        assert told.get(name, "the exact path's end") in printed
        assert f"NFE {5 if name == 'none' else 4} per sample" in printed


def test_plans_that_are_there_stay(files, capsys):
    path = files / "run" / "plans" / "nfe-3.json"
    before = path.read_bytes()
    finishes("tune", files / "run", "--nfe", 3, "--seed", 7, *FEW)
    assert "exists already" in capsys.readouterr().out
    assert path.read_bytes() == before
    finishes("tune", files / "run", "--nfe", 3, "--seed", 7, "--overwrite", *FEW)
    assert Plan.load(path).tuning.seed == 7


def test_a_search_that_was_killed_goes_on_to_the_same_plan(files):
    whole = (files / "run" / "plans" / "nfe-6.json").read_bytes()
    path = files / "run" / "plans" / "nfe-6.json"
    path.unlink()
    run = str(files / "run")
    command = [sys.executable, "-m", "scorefield", "tune", run, "--nfe", "3,4,6", *FEW]
    journal = path.with_name(".nfe-6.tried")
    for least in (3, 7):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while not (journal.exists() and journal.read_bytes().count(b"\n") > least):
                assert process.poll() is None, "over before it was killed"
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
    tried = json.loads(journal.read_text().splitlines()[1])
    assert set(tried) == {"levels", "error"}
    assert not path.exists()
    for _ in range(2):
        tried = journal.read_bytes().count(b"\n")
        journal.write_bytes(journal.read_bytes() + b'{"levels": ["0x1')  # a line that was cut short
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while not journal.read_bytes().count(b"\n") > tried:
                assert process.poll() is None, "over before it was killed"
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        assert journal.read_bytes().count(b"\n") > tried, "what was tried is kept"
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert path.read_bytes() == whole
    assert not journal.exists()


def test_what_was_tried_of_another_search_is_left(tmp_path):
    tried = Tried(tmp_path / "tried", {"nfe": 4})
    tried[(1.0, 0.1, -float("inf"))] = 1 / 3
    again = Tried(tmp_path / "tried", {"nfe": 4})
    assert dict(again) == {(1.0, 0.1, -float("inf")): 1 / 3}
    assert not Tried(tmp_path / "tried", {"nfe": 5})
    (tmp_path / "tried").write_text("no JSON\n")
    assert not Tried(tmp_path / "tried", {"nfe": 5})


@pytest.mark.parametrize(
    "line", ["1", "{}", '{"levels": 1, "error": "0x1p0"}', '{"levels": [], "error": "0x1p9999"}']
)
def test_a_record_that_was_damaged_is_begun_again(tmp_path, line):
    path = tmp_path / "tried"
    Tried(path, {"nfe": 4})[(1.0,)] = 0.5
    path.write_text(f"{path.read_text()}{line}\n")
    tried = Tried(path, {"nfe": 4})
    assert not tried
    tried[(2.0,)] = 0.25
    assert dict(Tried(path, {"nfe": 4})) == {(2.0,): 0.25}


def test_a_plan_of_another_run_is_refused(files, fails):
    fields = [sf.load(files / name).field for name in ("run", "other")]
    digests = [digest(field)[:12] for field in fields]
    plan = files / "run" / "plans" / "nfe-4.json"
    message = fails(4, "sample", "other", "--plan", plan)
    assert all(one in message for one in digests)
    copied = files / "other" / "plans"
    copied.mkdir()
    (copied / "nfe-4.json").write_bytes(plan.read_bytes())
    assert all(one in fails(4, "sample", "other", "--nfe", 4) for one in digests)
    assert all(one in fails(4, "tune", "other", "--nfe", 4) for one in digests)
    (copied / "nfe-4.json").write_text("{}")
    assert "nfe-4.json holds no plan" in fails(4, "sample", "other", "--nfe", 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tune", "run", "--nfe", "1"], "at least 2"),
        (["tune", "run", "--nfe", "4,x"], "--nfe 4,x: give whole numbers"),
        (["tune", "run", "--nfe", "5", "--tries", "0"], "--tries 0"),
        (["tune", "run", "--nfe", "5", "--polish", "-1"], "--polish -1"),
        (["tune", "run", "--nfe", "5", "--noises", "2"], "at least 8"),
        (["tune", "run", "--nfe", "5", "--batch-size", "0"], "at least 1"),
        (["tune", "run", "--nfe", "5", "--device", "cuda"], "not available here; available: cpu"),
        (["sample", "run", "--plan", "default", "--solver", "heun"], "--plan and --solver cannot"),
        (["sample", "run", "--plan", "a.json", "--nfe", "4"], "--nfe and --plan cannot"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message, fails):
    assert message in fails(2, *arguments)


def test_a_plan_file_that_is_missing_is_named(fails):
    assert "nix.json cannot be read" in fails(4, "sample", "run", "--plan", "nix.json")


def test_without_scipy_it_is_said_how_to_get_it(fails, monkeypatch):
    monkeypatch.setattr("scorefield.tuning.tuner.find_spec", lambda name: None)
    assert "pip install 'scorefield[tune]'" in fails(2, "tune", "run", "--nfe", "5")


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    finishes("train", "digits", "--conditional", "--out", folder / "run", *TINY)
    finishes("train", "moons", "--out", folder / "plain", *TINY)
    return folder


def test_plans_of_a_run_with_classes_are_for_all_of_them(classes, capsys):
    finishes("tune", classes / "run", "--nfe", 4, *FEW)
    for y in ([], ["--given", 7]):
        finishes("sample", classes / "run", "--n", 3, "--nfe", 4, *y)
        assert "the exact path's end" in capsys.readouterr().out
    assert end("sample", classes / "run", "--n", 3, "--nfe", 4, "--given", 12) == 2


def test_guided_samples_are_those_of_python_by_plans_of_their_scale(classes, capsys):
    finishes("tune", classes / "run", "--nfe", 5, "--guidance", 2, *FEW)
    run, path = sf.load(classes / "run"), classes / "run" / "plans" / "nfe-5-guidance-2.json"
    plan = Plan.load(path)
    by_hand = sf.ClassifierFree(run.field, 2.0, negative={"y": -1})
    assert plan.tuning.field == digest(by_hand)
    command = "sample", classes / "run", "--n", 3, "--given", 7, "--overwrite", "--out"
    asked = {"2": plan, "3": sf.default_plan(run.field, 5)}
    for scale, expected in asked.items():
        finishes(*command, classes / "x.npy", "--nfe", 5, "--guidance", scale)
        told = capsys.readouterr().out
        assert ("exact path's end" in told) == (scale == "2")
        assert "NFE 10 per sample" in told, "two evaluations of the network a call"
        x = run.guided(float(scale)).sample(3, expected, given=7)
        assert np.array_equal(np.load(classes / "x.npy"), x.numpy())
    finishes(*command, classes / "x.npy", "--nfe", 6, "--guidance", 1)
    assert np.array_equal(
        np.load(classes / "x.npy"), run.sample(3, sf.default_plan(run.field, 6), given=7).numpy()
    )


def test_plans_are_compared_and_picked_under_guidance(classes, capsys, monkeypatch):
    monkeypatch.setattr(measure, "NODES", 48)
    run, command = sf.load(classes / "run"), ("compare", classes / "run", "--nfe", 5, "--n", 32)
    finishes("tune", classes / "run", "--nfe", 5, "--guidance", 3, *FEW)
    lines = ["--solvers", "default", "tuned"]
    finishes(*command, "--given", 7, "--guidance", 3, *lines)
    assert "left out" not in capsys.readouterr().out
    found = Frontier.load(classes / "run" / "frontier-y7-guidance-3.json")
    found.check(run.guided(3.0).conditional)
    with pytest.raises(ValueError, match="measured on the field"):
        found.check(run.field)
    default, tuned = (next(p for p in found.points if p.name == k) for k in ("default", "tuned"))
    x = sf.sample(run.guided(3.0).toward(7), 32, default.plan)
    path = sf.sample(run.guided(3.0).toward(7), 32, sf.round_trip_plan(run.field, 48))
    error = (x - path).flatten(1).norm(dim=1) / 64**0.5
    assert default.error.value == pytest.approx(float(error.mean()), rel=0.1)
    assert tuned.error.value <= default.error.value
    sampled = "sample", classes / "run", "--n", 3, "--given", 7, "--tolerance", 9, "--out"
    finishes(*sampled, classes / "picked.npy", "--guidance", 3)
    assert "picked from frontier-y7-guidance-3.json" in capsys.readouterr().out
    chosen = run.guided(3.0).sample(3, found.within(9.0).plan, given=7)
    assert np.array_equal(np.load(classes / "picked.npy"), chosen.numpy())
    fails = failing(classes, capsys, monkeypatch)
    message = fails(4, *sampled, classes / "other.npy", "--guidance", 2)
    assert "compare" in message
    assert "--given 7 --guidance 2 first" in message
    assert "name the condition with --given" in fails(2, *command, "--guidance", 3)


def test_guidance_that_leads_nowhere_is_refused(classes, capsys, monkeypatch):
    fails = failing(classes, capsys, monkeypatch)
    assert "name the condition with --given" in fails(2, "sample", "run", "--guidance", 2)
    assert "no conditions" in fails(2, "sample", "plain", "--guidance", 2, "--given", 0)
    for scale in ("nan", "inf"):
        assert "must be a finite number" in fails(
            2, "sample", "run", "--guidance", scale, "--given", 0
        )
        assert "must be a finite number" in fails(2, "tune", "run", "--nfe", 5, "--guidance", scale)
        assert "must be a finite number" in fails(
            2, "compare", "run", "--guidance", scale, "--given", 0
        )
    assert "no conditions" in fails(2, "tune", "plain", "--nfe", 5, "--guidance", 2)
    one, two = (sf.load(classes / "run").guided(w).conditional for w in (2.0, 3.0))
    finishes("tune", "run", "--nfe", 6, "--guidance", 2, *FEW)
    message = fails(4, "sample", "run", "--given", 1, "--guidance", 3, "--plan",
                    "run/plans/nfe-6-guidance-2.json")  # fmt: skip
    assert all(digest(field)[:12] in message for field in (one, two))
