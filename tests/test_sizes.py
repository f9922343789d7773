"""Sizes: of a network that is not made, of memory and the disk, and as words."""

import os
import shutil

import pytest
import torch

from scorefield._internal import sizes
from scorefield._internal.errors import UsageError
from scorefield.data import Data
from scorefield.data.config import ClassChannel, DataConfig
from scorefield.runs import build
from scorefield.runs.loading import load
from scorefield.runs.memory import check_memory
from scorefield.runs.trainer import Training
from scorefield.training import config as c


def classes(count):
    return (ClassChannel(name="y", count=count),) if count else ()


NETWORKS = {
    "mlp": (c.MLPConfig(width=8, depth=5), (3,), classes(0)),
    "mlp of one block": (c.MLPConfig(depth=1), (2, 7), classes(0)),
    "mlp with classes": (c.MLPConfig(width=16), (3,), classes(10)),
    "unet": (c.UNetConfig(width=8), (1, 8, 8), classes(0)),
    "unet of many blocks": (
        c.UNetConfig(width=8, multipliers=(1, 2, 3), blocks=4),
        (3, 9, 7),
        classes(2),
    ),
    "song": (c.SongConfig(width=8, blocks=3, attention=(0, 1)), (3, 8, 8), classes(0)),
    "song with classes and features": (
        c.SongConfig(
            width=8, multipliers=(1, 2, 2), embedding="fourier", widening=2, encoder="residual"
        ),
        (1, 8, 8),
        classes(4),
    ),
    "song with paths beside": (
        c.SongConfig(width=8, encoder="skip", decoder="skip", taps=(1, 3, 3, 1), blocks=2),
        (3, 8, 8),
        classes(0),
    ),
    "adm": (c.ADMConfig(width=8, head=8, blocks=4, attention=(1,)), (3, 8, 8), classes(2)),
    "dit": (c.DiTConfig(width=8, head=4, layers=3), (3, 8, 8), classes(2)),
    "dit of signals": (c.DiTConfig(width=8, head=4, layers=3), (3, 9), classes(2)),
    "unet of signals": (c.UNetConfig(width=8, blocks=3), (3, 99), classes(2)),
    "unet of volumes": (c.UNetConfig(width=8), (1, 3, 5, 4), classes(0)),
    "auto": (c.AutoNetwork(), (3, 4, 4), classes(0)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_size_of_a_network_is_what_making_it_gives(name):
    state = torch.random.get_rng_state()
    made = build.network(build.Design(*NETWORKS[name])).state_dict().values()
    torch.random.set_rng_state(state)
    expected = len(made), sum(tensor.numel() for tensor in made)
    assert build.network_size(build.Design(*NETWORKS[name])) == expected
    assert torch.equal(torch.random.get_rng_state(), state), "no number is drawn for it"


@pytest.mark.parametrize("name", NETWORKS)
def test_the_outline_of_a_network_has_its_shapes_and_no_memory(name):
    outline = build.outline(build.Design(*NETWORKS[name])).state_dict()
    made = build.network(build.Design(*NETWORKS[name])).state_dict()
    assert {k: v.shape for k, v in outline.items()} == {k: v.shape for k, v in made.items()}
    assert all(tensor.is_meta for tensor in outline.values())


@pytest.mark.slow
def test_the_largest_number_of_tensors_that_is_trained_is_also_loaded(tmp_path):
    """Each block has six tensors, and the rest of the network twelve."""
    data = Data(torch.randn(8, 3), None, "noise")
    depth = (build.MOST_TENSORS - 12) // 6
    network = {"kind": "mlp", "width": 8, "depth": depth}
    training = Training(data, c.TrainConfig.model_validate({"network": network}))
    training.run.save(tmp_path / "run")
    assert len(load(tmp_path / "run").field.network.state_dict()) == 12 + 6 * depth
    network["depth"] += 1
    with pytest.raises(UsageError, match="at most 10,000 are allowed: use fewer blocks"):
        Training(data, c.TrainConfig.model_validate({"network": network}))


@pytest.mark.parametrize(
    ("device", "processes", "decays", "copies"),
    [
        ("cpu", 1, 1, 5),  # weights, gradients, two moments, and an average
        ("cpu", 1, 4, 8),
        ("cpu", 2, 1, 5),
        ("cuda", 1, 1, 5),
        ("cuda", 1, 4, 8),
        ("cuda", 4, 1, 2),  # where each may have a fourth of all but the weights
    ],
)
def test_a_training_fits_if_its_copies_of_the_weights_do(
    monkeypatch, device, processes, decays, copies
):
    """To the byte, in the memory of where it trains, whatever there is elsewhere."""
    network = c.MLPConfig(width=64)
    needed = 4 * copies * build.network_size(build.Design(network, (3,)))[1]
    optim = c.OptimConfig(batch_size=1, ema=(0.9,) * decays)
    config = c.TrainConfig(network=network, optim=optim)
    data = DataConfig(name="x", shape=(3,), count=5)

    def check(there):
        machine, gpu = (there, 1) if device == "cpu" else (12, there)
        monkeypatch.setattr(sizes, "memory", lambda: machine)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, gpu))
        check_memory(config, data, torch.device(device), processes)

    check(needed)
    with pytest.raises(UsageError, match=r"averages and moments take .* make it smaller"):
        check(needed - 1)


def test_memory_is_the_machines_or_its_groups(tmp_path, monkeypatch):
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(sizes, "_GROUP_LIMIT", limit)
    for text, expected in [(None, whole), ("max\n", whole), ("4096\n", 4096), ("9" * 30, whole)]:
        if text is not None:
            limit.write_text(text)
        assert sizes.memory() == expected


def test_room_is_that_of_the_disk_where_a_folder_will_be(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    assert sizes.room(tmp_path / "not" / "yet") == pytest.approx(free, rel=0.1)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (5 * 2**40, "5.0 TiB"),
        (3.5 * 2**60, "3.5 EiB"),
        (10**30, "more than 1024 EiB"),
        (float("inf"), "more than 1024 EiB"),
    ],
)
def test_sizes_as_words(size, text):
    assert sizes.words(size) == text
