"""A run folder: its files by what they are of, and files of other runs, which are rejected."""

import json
import os
from dataclasses import replace

import pytest
import torch

import scorefield as sf
from scorefield._internal.errors import CheckpointError, DataError, UsageError
from scorefield.field import digest
from scorefield.sampling import Tuning
from scorefield.training.held_out import split

DATA = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
SMALL = {"network": {"kind": "mlp", "width": 8, "depth": 1}, "steps": 1}


def tuned(run, nfe):
    """Return the default plan of a run with the record of a tuning."""
    field = run.conditional
    tuning = Tuning(
        digest(field), digest(field.process), (0.0,), nfe, 0.1, 0.09, 0.12, 0.2, 0.001, 8, 0
    )
    return replace(sf.default_plan(run.field, nfe), tuning=tuning)


@pytest.fixture
def run(tmp_path):
    """A conditional run with held-out data, in a folder."""
    labels = torch.arange(60) % 3
    run = sf.train(DATA, labels, held_out=0.25, seed=4, **SMALL)
    run.save(tmp_path / "run")
    return sf.load(tmp_path / "run")


def test_a_folder_is_a_path_and_need_not_exist(tmp_path):
    folder = sf.RunFolder(tmp_path / "none")
    assert repr(folder) == f"RunFolder('{tmp_path / 'none'}')"
    assert sf.RunFolder(folder).path == folder.path
    assert (folder.log, folder.samples, folder.checkpoints) == ([], [], [])
    assert folder.frontier() is None
    with pytest.raises(CheckpointError, match="none: this run folder does not exist"):
        _ = folder.config


def test_configuration_and_tensors_are_those_of_the_run(run):
    folder = run.folder
    assert folder.config == run.config
    tensors = folder.tensors()
    for name, value in run.field.network.state_dict().items():
        assert torch.equal(tensors[f"network.{name}"], value)
    with pytest.raises(UsageError, match=r"ema=0.5: .* has averages of decay 0.999"):
        folder.tensors(ema=0.5)
    with pytest.raises(UsageError, match=r"checkpoint=3: .* has no checkpoints"):
        folder.tensors(checkpoint=3)


def test_the_mark_is_that_of_the_weights_and_the_configuration(run, tmp_path):
    run.save(tmp_path / "copy")
    copy = sf.RunFolder(tmp_path / "copy")
    assert copy.mark == sf.RunFolder(tmp_path / "run").mark
    path = copy.path / "config.toml"
    path.write_text(path.read_text().replace('name = "data"', 'name = "other"'))
    assert copy.mark != sf.RunFolder(tmp_path / "run").mark


def test_plans_are_kept_by_calls_and_guidance(run):
    folder, strong = run.folder, run.guided(2.5)
    assert folder.plan_path(8).name == "nfe-8.json"
    assert folder.plan_path(8, 2.5).name == "nfe-8-guidance-2.5.json"
    assert folder.plan_path(8, 3.0).name == "nfe-8-guidance-3.json"
    for nfe in (10, 9):
        assert folder.save_plan(tuned(run, nfe)) == folder.plan_path(nfe)
    folder.save_plan(tuned(strong, 9), 2.5)
    assert list(folder.plans(run.conditional)) == list(run.plans) == [9, 10]
    assert list(strong.plans) == [9]
    assert folder.plan(run.conditional, 8) is None
    assert strong.plan(9).tuning.field != run.plan(9).tuning.field
    x = run.sample(2, nfe=10, given=1)
    assert torch.equal(x, run.to_data(sf.sample(run.toward(1), 2, run.plan(10))))


def test_plans_of_another_run_are_rejected_or_skipped_by_name(run):
    folder, messages = run.folder, []
    folder.save_plan(tuned(run, 7))
    path = folder.save_plan(tuned(run.guided(2.0), 6))
    with pytest.raises(CheckpointError, match=r"nfe-6.json: the plan was tuned for the field"):
        _ = run.plans
    with pytest.raises(CheckpointError, match=r"nfe-6.json"):
        run.sample(1, nfe=6)
    assert list(folder.plans(run.conditional, skip=messages.append)) == [7]
    assert len(messages) == 1
    assert messages[0].startswith(str(path))
    sf.default_plan(run.field, 6).save(path)
    with pytest.raises(CheckpointError, match=r"nfe-6.json holds a plan that was not tuned"):
        _ = run.plans
    with pytest.raises(ValueError, match="only a tuned plan belongs to a run"):
        folder.save_plan(sf.default_plan(run.field, 6))


def test_files_that_are_too_large_are_not_read(run):
    path = run.folder.save_plan(tuned(run, 7))
    (run.folder.path / "log.jsonl").write_text(json.dumps({"event": "train", "step": 1}) * 9)
    for large in (path, run.folder.path / "log.jsonl"):
        os.truncate(large, 2**32)  # without room on the disk
    with pytest.raises(CheckpointError, match=f"{path} cannot be read: it has 4.0 GiB, and at"):
        _ = run.plans
    with pytest.raises(CheckpointError, match=r"log.jsonl cannot be read: it has 4.0 GiB"):
        _ = run.folder.log


def test_a_frontier_is_that_of_its_class_and_its_field(run):
    folder, few = run.folder, {"plans": {"one": sf.default_plan(run.field, 3)}, "n": 32}
    run.compare(**few)
    run.guided(2.0).compare(given=1, **few)
    assert folder.frontier_path("y1", 2.0).name == "frontier-y1-guidance-2.json"
    assert folder.frontier(run.conditional).points[0].name == "one"
    assert folder.frontier(given="y2") is None
    strong = run.guided(2.0).conditional
    assert folder.frontier(strong, "y1", 2.0).n == 32
    with pytest.raises(CheckpointError, match=r"frontier.json: the plans were measured on"):
        folder.frontier(strong)
    folder.frontier_path().write_text("{")
    with pytest.raises(CheckpointError, match=r"frontier.json does not hold a frontier"):
        folder.frontier()


def test_items_held_out_are_those_that_training_left_out(run):
    """By the same split, and only of data of the same size."""
    items = run.folder.held_out(sf.Data(DATA))
    assert torch.equal(items, split(60, 0.25, 4)[1])
    with pytest.raises(DataError, match="59 items, but this run was trained on 60"):
        run.folder.held_out(sf.Data(DATA[1:]))
    other = replace(run, config=run.config.model_copy(update={"source": "somewhere"}))
    train = other.config.train.model_copy(update={"held_out": 0.0})
    other.config = other.config.model_copy(update={"train": train})
    with pytest.raises(UsageError, match="held_out=True: this run has no held-out data"):
        other.compare(DATA, held_out=True)


def test_log_and_samples_of_the_training_are_read_in_order(run):
    path = run.folder.path
    (path / "log.jsonl").write_text('{"event": "train", "step": 5}\nhalf a li')
    assert run.folder.log == [{"event": "train", "step": 5}]
    (path / "samples").mkdir()
    for step in (100, 20, 3):
        (path / "samples" / f"samples-{step}.npy").write_bytes(b"")
    assert [file.stem for file in run.folder.samples] == ["samples-3", "samples-20", "samples-100"]


def test_plans_of_a_run_in_memory_are_written_with_it(tmp_path):
    run = sf.train(DATA, **SMALL)
    run.tuned[1.0, 5, ""] = tuned(run, 5)
    assert list(run.plans) == [5]
    run.save(tmp_path / "run")
    assert run.folder.path == tmp_path / "run"
    assert list(run.plans) == list(sf.load(tmp_path / "run").plans) == [5]
    with pytest.raises(UsageError, match="exists already: choose another folder"):
        run.save(tmp_path / "run")


def test_a_loaded_average_is_saved_under_its_own_decay(tmp_path):
    optim = {"steps": 9, "lr": 0.1, "ema": (0.0, 0.99)}
    run = sf.train(DATA, network=SMALL["network"], optim=optim)
    run.save(tmp_path / "both")
    last, slow = (sf.load(tmp_path / "both", ema=ema) for ema in (0.0, 0.99))
    assert not torch.equal(last.sample(3), slow.sample(3))
    slow.save(tmp_path / "slow")
    assert torch.equal(sf.load(tmp_path / "slow", ema=0.99).sample(3), slow.sample(3))
    with pytest.raises(UsageError, match=r"ema=0: .* has averages of decay 0.99; choose"):
        sf.load(tmp_path / "slow", ema=0.0)
    sf.load(tmp_path / "both").save(tmp_path / "first")
    with pytest.raises(UsageError, match=r"ema=0.99: .* has averages of decay 0.0; choose"):
        sf.load(tmp_path / "first", ema=0.99)


def test_files_that_a_folder_links_to_are_not_copied(run, tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "nfe-3.json").write_text("secret")
    path = run.folder.path
    (path / "frontier-x.json").symlink_to("../secret/nfe-3.json")
    (path / "plans").symlink_to("../secret")
    (path / "log.jsonl").write_text("")
    assert list(run.folder.measurements) == ["log.jsonl"]
    run.save(tmp_path / "copy")
    assert not any("secret" in file.read_text("latin-1") for file in (tmp_path / "copy").iterdir())


def test_a_save_into_the_working_directory_that_fails_leaves_it_empty(run, tmp_path, monkeypatch):
    def publish(source, target):
        if target.name == "config.toml":
            raise OSError("disk")
        source.rename(target)

    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with monkeypatch.context() as patch:
        patch.setattr("scorefield.runs.folder.publish", publish)
        with pytest.raises(OSError, match="disk"):
            run.save_pretrained(".")
    assert list(tmp_path.glob("empty/*")) == []
    run.save_pretrained(".")
    assert torch.equal(sf.load(tmp_path / "empty").sample(2), run.sample(2))


def test_the_frontier_of_a_run_with_conditions_does_not_take_the_place_of_its_own(run):
    few = {"plans": {"one": sf.default_plan(run.field, 3)}, "n": 32}
    run.compare(**few)
    before = run.folder.frontier_path().read_bytes()
    assert run.condition_on(y=torch.tensor(1)).compare(**few, seed=1).points
    assert run.folder.frontier_path().read_bytes() == before


def test_a_plan_of_a_run_with_conditions_does_not_take_the_place_of_its_own(run):
    few = {"noises": 8, "tries": 1, "polish": 0}
    run.tune(2, **few)
    bound = run.condition_on(y=torch.tensor(1))
    (plan,) = bound.tune(2, seed=1, **few).values()
    assert bound.plan(2) is plan
    assert plan.tuning.seed == 1
    for other in (run, sf.load(run.folder), run.condition_on(y=torch.tensor(2))):
        assert other.plan(2).tuning.seed == 0
