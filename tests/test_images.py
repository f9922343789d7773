"""Folders of images, in memory or read as they are asked for."""

import struct
import zlib

import numpy as np
import pytest
import torch
from cases import values_of
from PIL import Image

import scorefield as sf
from scorefield._internal.errors import DataError
from scorefield.data import read
from scorefield.data.images import read_grey
from scorefield.training.config import OptimConfig, TrainConfig, UNetConfig

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 5, 4), dtype=np.uint8)
COLOR = RNG.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)


def fill(folder, arrays, suffix=".png", sub=lambda k: ""):
    for k, array in enumerate(arrays):
        path = folder / sub(k) / f"{k:02d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
    return folder


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".PNG"])
@pytest.mark.parametrize("in_memory", [2**30, 0])
def test_images_are_their_bytes(tmp_path, suffix, in_memory):
    grey = read(fill(tmp_path / "grey", GREY, suffix), in_memory=in_memory)
    assert torch.equal(grey.x[torch.arange(6)], torch.from_numpy(GREY).float()[:, None])
    color = read(fill(tmp_path / "color", COLOR, suffix), in_memory=in_memory)
    expected = torch.from_numpy(COLOR).float().permute(0, 3, 1, 2)
    assert torch.equal(color.x[torch.tensor([4, 0])], expected[[4, 0]])
    assert not color.conditions


def test_subfolders_are_classes(tmp_path):
    folder = fill(tmp_path, GREY, sub=lambda k: ["cats", "dogs/small"][k % 2])
    data = read(folder)
    assert data.conditions.channels[0].names == ("cats", "dogs/small")
    # sorted by path: first the cats, then the dogs
    assert values_of(data).tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(data.x[0, 0], torch.from_numpy(GREY[0]).float())
    assert torch.equal(data.x[3, 0], torch.from_numpy(GREY[1]).float())


def test_other_modes_become_colours_and_what_is_transparent_white(tmp_path):
    clear = np.concatenate([COLOR[0], np.zeros((5, 4, 1), np.uint8)], 2)
    half = np.concatenate([COLOR[1] * 0, np.full((5, 4, 1), 127, np.uint8)], 2)
    fill(tmp_path, [clear, half])
    Image.fromarray(COLOR[2]).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(GREY[0]).save(tmp_path / "z.png")
    x = read(tmp_path).x
    assert (x[0] == 255).all()
    assert ((x[1] - 128).abs() <= 1).all()
    assert torch.equal(x[3], torch.from_numpy(GREY[0]).float().expand(3, 5, 4))


def test_a_training_that_decodes_as_it_goes_ends_at_the_same_weights(tmp_path):
    fill(tmp_path, RNG.integers(0, 256, (20, 8, 8), dtype=np.uint8))
    config = TrainConfig(
        network=UNetConfig(width=8, multipliers=(1,)), optim=OptimConfig(steps=3, batch_size=8)
    )
    runs = [sf.train(read(tmp_path, in_memory=limit), config=config) for limit in (2**30, 0)]
    first, second = (run.field.network.state_dict() for run in runs)
    assert all(torch.equal(second[k], v) for k, v in first.items())


def bomb(path):
    """Write a PNG of 100,000 x 100,000 pixels in a few bytes."""

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(10_000))
    end = chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + end)


def test_what_does_not_fit_is_named(tmp_path):
    folder = fill(tmp_path / "a", GREY)
    Image.fromarray(GREY[0][:4]).save(folder / "odd.png")
    with pytest.raises(DataError, match=r"6 of 4x5, 1 of 4x4 pixels, .*odd\.png"):
        read(folder)
    (folder / "odd.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"odd\.png cannot be read as an image"):
        read(folder)
    bomb(folder / "odd.png")
    with pytest.raises(DataError, match=r"odd.png (cannot be read|declares 100000 x 100000)"):
        read(folder)
    whole = (folder / "00.png").read_bytes()
    (folder / "odd.png").write_bytes(whole[:-30])
    with pytest.raises(DataError, match=r"odd\.png cannot be read as an image"):
        read(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        read(tmp_path / "empty")


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    folder = fill(tmp_path / "a", GREY)
    fill(tmp_path / "b", GREY[:1])
    (folder / "link.png").symlink_to(tmp_path / "b" / "00.png")
    with pytest.raises(DataError, match=r"link.png leads out of"):
        read(folder)


def test_a_mask_is_what_is_painted_white(tmp_path):
    pixels = np.array([[[255, 255, 255, 255], [255, 255, 255, 0], [0, 0, 0, 255]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    assert read_grey(tmp_path / "mask.png").tolist() == [[255, 0, 0]]
