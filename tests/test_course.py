"""How long a training is, the step that it ends with, and whether its samples are copies."""

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

import scorefield as sf
from scorefield._internal.errors import UsageError
from scorefield.cli import console
from scorefield.data import Standardize
from scorefield.evaluate.metrics import ClosestRecord, compare
from scorefield.runs.quality import Items, quality
from scorefield.runs.trainer import Training
from scorefield.training.config import MLPConfig, OptimConfig, TrainConfig
from scorefield.training.course import Course, completed
from scorefield.training.held_out import HeldOut
from tests.shell import content, finishes, tiny


def normal(count, dim, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def config(steps=60, **settings):
    settings.setdefault("evaluate_every", 10)
    optim = OptimConfig(steps=steps, batch_size=8, ema=0.9)
    return TrainConfig(network=MLPConfig(width=8, depth=1), optim=optim, held_out=0.2, **settings)


def errors_of(monkeypatch, values):
    """Let the errors on held-out data be some numbers, one after another."""
    left = iter(values)
    monkeypatch.setattr(HeldOut, "errors", lambda *_: torch.full((8,), next(left)).double())


def weights(run):
    return run.field.network.state_dict()


def same(a, b):
    return all(torch.equal(value, b[name]) for name, value in a.items())


# --- the length of a training


@pytest.mark.parametrize(
    ("count", "shape", "share", "steps"),
    [
        (60, (8,), 0.0, 250),
        (100, (8,), 0.0, 2 * 200),
        (199, (8,), 0.0, math.ceil(2 * 2 * 199)),
        (200, (8,), 0.1, 2 * 2 * 180),
        (400, (2, 4), 0.1, 2 * 2 * 360),
        (500, (1, 8, 8), 0.1, math.ceil(1.125 * 2 * 450)),
        (100, (2,), 0.0, 1000),
        (30, (2,), 0.0, 300),
        (20480, (5,), 0.05, 2000),
    ],
)
def test_steps_and_share_follow_the_number_and_the_dimension_of_samples(count, shape, share, steps):
    """max(250, (1 + 8 / d) 256 n / B), at most 2,000; a tenth from 200 on, at most 1,024."""
    result = completed(TrainConfig(), shape, count)
    assert result.held_out == pytest.approx(share)
    assert result.optim.steps == steps
    assert result.end == ("early" if share else "last")


@pytest.mark.parametrize("optim", [{"steps": 7}, {"minutes": 1.0}])
def test_a_number_of_steps_is_kept_and_nothing_stops_before_it(optim):
    given = TrainConfig(optim=OptimConfig(**optim))
    assert completed(given, (2,), 500).end == "best"
    assert completed(given, (2,), 500).optim.steps == optim.get("steps", 2000)
    assert completed(given, (2,), 50).end == "last"


@pytest.mark.parametrize(("share", "count"), [(0.0, 500), (None, 50)])
def test_an_end_that_held_out_data_chooses_needs_such_data(share, count):
    for end in ("early", "best"):
        with pytest.raises(UsageError, match=f"^end={end}: no data is held out"):
            completed(TrainConfig(held_out=share, end=end), (2,), count)
    assert completed(TrainConfig(held_out=share, end="last"), (2,), count).end == "last"


def test_errors_are_measured_at_steps_that_grow_by_a_fifth_and_at_most_500_apart():
    due = [step for step in range(1, 9000) if Course(0, "best").is_due(step)]
    assert due[0] == 25
    assert all(b <= max(1.2 * a + 1, 36) and b - a <= 500 for a, b in itertools.pairwise(due))
    assert len(due) < 60
    assert [s for s in range(1, 30) if Course(7, "best").is_due(s)] == [7, 14, 21, 28]


def course(errors, end="early"):
    """Return the course after errors at steps 10, 20, ..., and the step at which it would stop."""
    result = Course(10, end)
    for k, error in enumerate(errors, 1):
        result.add(10 * k, error)
        if result.has_risen:
            return result, 10 * k
    return result, None


def test_a_training_stops_where_the_error_has_risen_for_long():
    assert course([3, 2, 1, 1.1, 2, 3, 4, 5, 6, 7])[1] == 90, "three times the step of the minimum"
    assert course([3, 2, 1, 2, 2, 2, 2, 2, 1.04, 1.06])[1] == 100, "by more than 5 %"
    assert course([1, 2, 0.9, 2, 2, 2, 2])[1] is None
    assert course([1, 2, 3, 4, 5], end="best")[1] is None
    assert course([1, 2, 3, 4, 5], end="last")[1] is None


def test_the_summary_says_which_weights_and_warns_where_nothing_could_be_chosen():
    assert "the weights of step 10, error 1.000 on 30 held-out samples" in course([1, 2])[
        0
    ].summary(30)
    assert "it rose to 2.000" in course([1, 2])[0].summary(30)
    assert "rose" not in course([2, 1])[0].summary(30)
    assert "WARNING: it rose from 1.000 at step 10" in course([1, 2], "last")[0].summary(30)
    assert "WARNING" not in course([1, 1.04], "last")[0].summary(30)
    assert "no held-out samples" in course([])[0].summary(0)


# --- the weights of a run


ERRORS = [0.5, 0.3, 0.4, 0.6, 0.35, 0.7]


@pytest.mark.parametrize(("end", "step"), [("best", 20), ("last", 60), (None, 20)])
def test_a_run_ends_with_the_averaged_weights_of_the_smallest_error(monkeypatch, end, step):
    errors_of(monkeypatch, ERRORS)
    training = Training(sf.Data(normal(50, 3)), config(end=end))
    for progress in training:
        if progress.step == step:
            kept = {k: v.clone() for k, v in weights(training.averaged).items()}
    assert same(weights(training.run), kept)
    assert training.run.config.step == (None if step == 60 else step)
    assert progress.step == 60


def test_a_run_that_stops_early_is_repeated_by_its_configuration(monkeypatch):
    errors = [0.5, 0.3, 0.4, 0.6, 0.35, 0.7, *[0.8] * 100]
    errors_of(monkeypatch, errors)
    first = Training(sf.Data(normal(50, 3)), config(steps=500, end="early"))
    assert [progress.step for progress in first][-1] == 60
    assert "60 steps of 500, stopped early: the weights of step 20" in first.summary
    errors_of(monkeypatch, errors)
    second = Training(sf.Data(normal(50, 3)), first.run.config.train)
    assert [progress.step for progress in second][-1] == 60
    assert same(weights(first.run), weights(second.run))


def test_a_training_whose_error_has_risen_at_its_last_step_does_not_stop_early(monkeypatch):
    errors_of(monkeypatch, ERRORS)
    training = Training(sf.Data(normal(50, 3)), config(end="early"))
    assert [progress.step for progress in training][-1] == 60
    assert training.course.has_risen
    assert training.summary.startswith("60 steps: the weights of step 20")


@pytest.mark.parametrize("cut", [10, 20, 35, 60])
def test_a_training_resumed_at_any_step_chooses_the_same_weights(tmp_path, monkeypatch, cut):
    errors_of(monkeypatch, itertools.chain(ERRORS, [0.8] * 9))
    data, settings = sf.Data(normal(50, 3)), config(steps=500, end="early")
    whole = Training(data, settings)
    for progress in whole:
        if progress.step == cut:
            whole.save_checkpoint(tmp_path)
    errors_of(monkeypatch, itertools.chain(ERRORS[cut // 10 :], [0.8] * 9))
    rest = Training(data, settings)
    assert rest.resume(tmp_path) == cut
    assert [progress.step for progress in rest] == list(range(cut + 1, 61))
    assert same(weights(rest.run), weights(whole.run))
    assert rest.run.config == whole.run.config
    assert rest.summary == whole.summary


def test_a_command_prints_and_records_its_choice(tmp_path, capsys):
    np.save(tmp_path / "x.npy", normal(300, 3).numpy())
    words = ["64" if word == "8" else word for word in tiny(40)]  # batches large enough to compare
    words += ["--evaluate-every", 10]
    for out in ("a", "b"):
        finishes("train", tmp_path / "x.npy", "--out", tmp_path / out, *words)
    printed = capsys.readouterr().out
    assert "40 steps: the weights of step" in printed
    assert "on 30 held-out samples" in printed
    assert content(tmp_path / "a") == content(tmp_path / "b")
    log = sf.load(tmp_path / "a").folder.log
    assert [record["step"] for record in log if record["event"] == "evaluation"] == [10, 20, 30, 40]
    (record,) = (record for record in log if record["event"] == "quality")
    low, high = record["copies_interval"]
    assert low <= record["copies"] <= high
    assert record["reference"] == "training", "30 held-out samples are too few for an interval"


def test_the_first_line_of_progress_comes_within_seconds(monkeypatch, capsys):
    clock = itertools.count(0, 0.5)
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    list(console.track(range(1000), 1000, "training"))
    lines = capsys.readouterr().out.splitlines()
    assert int(lines[0].split()[1].split("/")[0]) <= 7
    assert len(lines) < 20


# --- copies


def test_the_closest_record_is_that_of_all_distances():
    x, y, records = normal(40, 3), normal(50, 3, 1) + 1.0, normal(70, 3, 2)
    result = compare(x, y, metrics=[ClosestRecord(records)]).values
    of_x, of_y = (cdist(z.double(), records.double()).min(1) for z in (x, y))
    expected = np.sort(of_x)[19] / np.sort(of_y)[24]
    assert result["closest_ratio"].value == pytest.approx(expected, rel=1e-5)
    half = np.sort(of_y)[24] / 2
    excess = (of_x < half).mean() - (of_y < half).mean()
    assert result["copies"].value == pytest.approx(excess, abs=1e-12)


def test_among_the_records_each_has_the_closest_other_one():
    x, records = normal(40, 40), normal(90, 40, 2)
    result = compare(x, records[:50], metrics=[ClosestRecord(records, among=True)]).values
    own = cdist(records.double(), records.double())
    np.fill_diagonal(own, np.inf)
    of_x, of_y = cdist(x.double(), records.double()).min(1), own[:50].min(1)
    expected = np.sort(of_x)[19] / np.sort(of_y)[24]
    assert result["closest_ratio"].value == pytest.approx(expected, rel=1e-5)


def test_repeated_records_have_no_distance_and_that_is_no_error():
    records = normal(40, 3).repeat(2, 1)
    result = compare(records[:32], records[40:], metrics=[ClosestRecord(records)]).values
    assert result["closest_ratio"].value == 1
    assert result["copies"].value == 0
    far = compare(records[:32] + 1, records[40:], metrics=[ClosestRecord(records)]).values
    assert math.isfinite(far["closest_ratio"].high)
    assert far["copies"].value == 0


def test_the_interval_holds_0_for_new_points_and_not_for_a_third_of_copies():
    missed = 0
    for seed in range(20):
        x, y, records = (normal(n, 6, 100 * seed + n) for n in (64, 80, 90))
        metrics = [ClosestRecord(records)]
        share = compare(x, y, metrics=metrics, seed=seed).values["copies"]
        missed += not share.low <= 0 <= share.high
        some = torch.cat([x[:43], records[:21] + 0.05 * x[:21]])
        share = compare(some, y, metrics=metrics, seed=seed).values["copies"]
        assert share.low > 0
        assert share.low < 0.33 < share.high + 0.1
    assert missed <= 4


@dataclass
class Drawing:
    """A run that draws some points as its samples."""

    points: torch.Tensor
    transform: Standardize = field(
        default_factory=lambda: Standardize(torch.zeros(6), torch.ones(6))
    )

    @property
    def field(self):
        return sf.Gaussian(sf.VP(), torch.zeros(6), torch.eye(6))

    def sample(self, n, seed):
        return self.points[:n]

    def to_field(self, x):
        return x

    def check_one_length(self):
        pass


@pytest.mark.parametrize("held_out", [0, 64])
def test_copies_of_training_data_are_noticed(held_out):
    x = normal(264, 6)
    items = Items(x, torch.arange(200), 200 + torch.arange(held_out))
    new, copied = (quality(Drawing(z), items, 0) for z in (normal(300, 6, 9), x[:200] + 0.01))
    assert copied.copied
    assert copied.copies.low > 0.9
    assert copied.closest_ratio.high < 0.1
    assert "WARNING" in str(copied)
    assert not new.copied
    assert (new.generated is None) == (not held_out)
    assert new.reference == ("held-out" if held_out else "training")
    if held_out:
        assert new.generated.low < 0 < new.generated.high or new.generated.value < 0.2
