"""Folders for the hub: runs and plans, the model card, the cache, and networks of diffusers."""

import json
import os
import re
import shutil
from dataclasses import replace

import pytest
import torch

import scorefield as sf
from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.field import digest
from scorefield.runs.loading import with_coupling
from scorefield.sampling import Tuning

NETWORK = {"kind": "mlp", "width": 8, "depth": 1}


class Own(torch.nn.Linear):
    """A network of the user's own."""

    def __init__(self):
        super().__init__(2, 2)

    def forward(self, x, c):
        return super().forward(x)


def tuned(run, nfe):
    field = run.conditional
    tuning = Tuning(
        digest(field), digest(field.process), (0.0,), nfe, 0.1, 0.09, 0.12, 0.2, 0.001, 8, 0
    )
    return replace(sf.default_plan(run.field, nfe), tuning=tuning)


@pytest.fixture(scope="module")
def run():
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    return sf.train(sf.Data(x, name="birds|<b>\n"), network=NETWORK, steps=1)


@pytest.fixture
def folder(run, tmp_path):
    """The folder of a run with a plan and a log, written for the hub."""
    plain = tmp_path / "plain"
    replace(run, tuned={(1.0, 4, ""): tuned(run, 4)}).save(plain)
    record = {"event": "evaluation", "step": 7, "error": 0.4321}
    (plain / "log.jsonl").write_text(json.dumps(record) + "\n")
    sf.load(plain).save_pretrained(tmp_path / "birds")
    return tmp_path / "birds"


def test_a_folder_for_the_hub_is_a_run_folder_with_everything_measured(run, folder):
    again = sf.Run.from_pretrained(folder)
    assert torch.equal(again.sample(5, nfe=4), replace(run, folder=None).sample(5, tuned(run, 4)))
    assert again.plans[4].tuning == tuned(run, 4).tuning
    assert again.folder.log == [{"event": "evaluation", "step": 7, "error": 0.4321}]


def test_the_model_card_has_metadata_use_and_measurements(folder, monkeypatch):
    yaml = pytest.importorskip("yaml")
    text = (folder / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    values = yaml.safe_load(head)
    assert values["library_name"] == "scorefield"
    assert "unconditional" in values["tags"]
    assert "license" not in values  # for the author
    assert "0.4321 after 7 steps" in body
    assert "| 4 | 0.1 (0.09 to 0.12) | 0.2 |" in body
    assert "<b>" not in body.replace("\\<b\\>", "")
    monkeypatch.chdir(folder.parent)
    (code,) = re.findall(r"```python\n(.*?)```", body, re.S)
    names = {}
    exec(code, names)  # as a reader would
    assert names["x"].shape == (16, 2)


def test_a_run_of_the_hubs_cache_is_loaded_through_its_links(folder, tmp_path):
    cache = tmp_path / "models--me--birds"
    blobs, place = cache / "blobs", cache / "snapshots" / "abc"
    shutil.copytree(folder, place)
    blobs.mkdir()
    for k, path in enumerate(p for p in place.rglob("*") if p.is_file()):
        path.rename(blobs / str(k))
        path.symlink_to(os.path.relpath(blobs / str(k), path.parent))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc")
    for source in (cache, place):
        assert torch.equal(sf.load(source).sample(3), sf.load(folder).sample(3))
    secret = tmp_path / "secret.toml"
    (blobs / "config").write_text((folder / "config.toml").read_text())
    shutil.copy(folder / "config.toml", secret)
    (place / "config.toml").unlink()
    (place / "config.toml").symlink_to(secret)
    with pytest.raises(CheckpointError, match="leads out of its folder"):
        sf.load(place)
    (cache / "refs" / "main").write_text("def")
    with pytest.raises(CheckpointError, match="no snapshot of its main branch"):
        sf.load(cache)


@pytest.mark.parametrize("link", ["snapshots/abc", "snapshots", "blobs"])
def test_a_repository_whose_folders_are_links_is_refused(link, folder, tmp_path):
    cache, secret = tmp_path / "evil", tmp_path / "secret"
    place = cache / "snapshots" / "abc"
    shutil.copytree(folder, place)
    if link == "blobs":
        secret.mkdir()
        (place / "config.toml").rename(secret / "config.toml")
        (place / "config.toml").symlink_to(cache / "blobs" / "config.toml")
    else:
        (cache / link).rename(secret)
    (cache / link).symlink_to(secret)
    for source in (cache, place):
        with pytest.raises(CheckpointError, match=r"leads out of its folder|no snapshot of its"):
            sf.load(source)


def test_a_run_folder_may_have_a_subfolder_of_snapshots_and_a_reference_any_bytes(folder, tmp_path):
    (folder / "snapshots").mkdir()
    assert sf.load(folder).folder.path == folder
    (tmp_path / "cache" / "snapshots").mkdir(parents=True)
    (tmp_path / "cache" / "refs").mkdir()
    (tmp_path / "cache" / "refs" / "main").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match="no snapshot of its main branch"):
        sf.load(tmp_path / "cache")


def test_the_code_of_the_model_card_runs_for_any_name_and_an_own_network(
    run, tmp_path, monkeypatch
):
    own = sf.Run.of(sf.Denoiser(Own(), sf.VP(), sf.Eps(), (2,)))
    monkeypatch.chdir(tmp_path)
    for case, name in ((replace(run, folder=None), "my[mod]el's"), (own, 'a"b')):
        case.save_pretrained(tmp_path / name)
        (code,) = re.findall(
            r"```python\n(.*?)```", (tmp_path / name / "README.md").read_text(), re.S
        )
        names = {}
        exec(code.replace("network=...", "network=Own"), {"Own": Own}, names)
        assert names["x"].shape == (16, 2)
        assert ("and its network" in code) == (case is own)


def test_a_plan_in_a_folder_is_the_same_to_the_last_bit(tmp_path):
    plan = sf.default_plan(sf.Gaussian(sf.VP(), torch.zeros(2), torch.eye(2)), 6)
    plan.save_pretrained(tmp_path / "plan")
    again = sf.Plan.from_pretrained(tmp_path / "plan")
    assert torch.equal(again.times, plan.times)
    assert again.solver == plan.solver


def test_a_network_of_diffusers_is_exported_as_it_came(run, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    settings = {"sample_size": 4, "in_channels": 1, "out_channels": 1, "layers_per_block": 1}
    settings |= {"block_out_channels": (8,), "norm_num_groups": 4}
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    network = diffusers.UNet2DModel(**settings, **blocks, add_attention=False).eval()
    scheduler = diffusers.DDPMScheduler()
    sf.interop.diffusers.load((network, scheduler)).save(tmp_path / "run")
    imported = sf.load(tmp_path / "run")
    sf.interop.diffusers.export(imported).save_pretrained(tmp_path / "unet")
    back = diffusers.UNet2DModel.from_pretrained(tmp_path / "unet").eval()
    x, t = torch.randn(2, 1, 4, 4), torch.tensor([3, 500])
    with torch.no_grad():
        assert torch.equal(back(x, t).sample, network(x, t).sample)
    again = sf.interop.diffusers.load((tmp_path / "unet", scheduler))
    assert torch.equal(again.sample(2, nfe=4), imported.sample(2, nfe=4))
    with pytest.raises(UsageError, match="its network is MLP, and diffusers has no class"):
        sf.interop.diffusers.export(run)
    # the coupling that it was trained on stays declared
    coupled = with_coupling(imported, "reflow")
    sf.interop.diffusers.export(coupled).save_pretrained(tmp_path / "straight")
    straight = sf.interop.diffusers.load((tmp_path / "straight", scheduler))
    assert straight.config.train.coupling == "reflow"
    assert not straight.field.has_score
    assert again.field.has_score
