"""Choices of reading: labels of images, levels, layouts of later data, and the notes on them."""

import tracemalloc

import numpy as np
import pytest
import torch
from cases import values_of
from odd_arrays import cells, guess, nullable
from odd_images import BIG, COLOR, DEEP, GREY, RNG, X, files, fill, first, png, small
from PIL import Image
from shell import end

import scorefield as sf
from scorefield._internal.errors import DataError
from scorefield.data import inspect, read, rows
from scorefield.data.axes import Axes
from scorefield.data.layout import Layout, survey

IMG = ["img1.png", "img2.png", "img10.png", "img11.png"]


def labelled(tmp, text, name="labels.csv"):
    for image in IMG:
        (tmp / "a").mkdir(exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (3, 4), dtype=np.uint8)).save(tmp / "a" / image)
    (tmp / name).write_text(text)
    return tmp / "a", tmp / name


PAIRED = {
    "order": ("0\n1\n0\n1\n", [0, 1, 0, 1], (), "img1.png 0, img2.png 1, img10.png 0, img11.png 1"),
    "texts": ("kind\ncat\ndog\ncat\ndog\n", [0, 1, 0, 1], ("cat", "dog"), "img10.png cat"),
    "names": (
        "label,file\n10,img10.png\n9,img2.png\n10,img11.png\n9,img1.png\n",
        [0, 0, 1, 1],
        ("9", "10"),
        "by the names in its column file",
    ),
    "stems": (
        "id,url,label\nimg11,x,b\nimg2,y,\nimg10,z,a\nimg1,x,b\n",
        [1, -1, 0, 1],
        ("a", "b"),
        "labels of column label",
    ),
}


@pytest.mark.parametrize(("text", "codes", "names", "note"), PAIRED.values(), ids=PAIRED)
def test_labels_are_paired_with_images(tmp_path, text, codes, names, note):
    data = read(*labelled(tmp_path, text))
    assert values_of(data).tolist() == codes
    assert data.conditions.channels[0].names == names
    assert note in "; ".join(data.notes)


MISMATCHED = {
    "fewer": ("0\n1\n0\n", r"3 labels for 4 images, img1\.png to img11\.png"),
    "absent": ("f,label\nimg1,a\nimg2,b\nimg10,a\n", r"1 images have no row \(img11\.png\)\."),
    "strange": (
        "f,label\nimg1,a\nimg2,b\nimg10,a\nimg11,b\nimg3,a\n",
        r"labels\.csv: 1 rows have no image \(img3\)",
    ),
    "twice": ("f,label\nimg1,a\nimg2,b\nimg10,a\nimg11,b\nimg11,a\n", "1 rows repeat a name"),
    "no names": (
        "f,label\na,a\nb,b\nc,a\nd,b\n",
        "columns f, label none names the images",
    ),
    "two classes": ("f,p,q\nimg1,a,1\nimg2,b,1\nimg10,a,2\nimg11,b,2\n", "one of its columns p, q"),
}


@pytest.mark.parametrize(("text", "message"), MISMATCHED.values(), ids=MISMATCHED)
def test_labels_that_do_not_match_images_are_refused_by_name(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read(*labelled(tmp_path, text))


def test_nullable_texts_of_cells_are_classes_and_those_masked_are_not(tmp_path):
    def donors(file):
        nullable(file["obs"], "donor", ["b", "a", "c"] * 4, [False, False, True] * 4)

    data = read(cells(donors)(tmp_path), "donor")
    assert data.conditions.channels[0].names == ("a", "b")
    assert values_of(data).tolist() == [1, 0, -1] * 4


def test_levels_are_advised_from_the_type_and_not_from_the_largest_value(tmp_path):
    dark = fill(tmp_path / "dark", GREY // 4)
    assert "with levels=256 " in inspect(dark)["whole numbers"]
    deep = files(tmp_path, map(png, DEEP[..., 0] // 9))
    dark.rename(tmp_path.parent / f"{tmp_path.name}-dark")
    assert "with levels=65536 " in inspect(deep)["whole numbers"]


def test_a_run_reads_later_data_as_its_own_whichever_way_it_lies(tmp_path):
    config = {"kind": "mlp", "width": 8, "depth": 1}
    data = read(fill(tmp_path / "a", BIG), resize="8x6")
    run = sf.train(data, steps=1, network=config)
    like = run.config.data
    assert torch.equal(read(tmp_path / "a", like=like).x, torch.from_numpy(first(np.stack(small))))
    images = np.stack(small).astype(np.float32)
    for array in (images, first(images)):
        assert torch.equal(read(array, like=like).x, torch.from_numpy(first(images)))
    assert read(BIG, like=like, learn=False).x.shape == (2, 3, 12, 16)


def test_a_guess_is_logged_once_and_a_declaration_is_not(caplog):
    read(X, layout="signals", channels="first")
    assert not caplog.messages
    read(X)
    assert caplog.messages == [f"data: shape (4, 5, 6) is read as signals (N, C, L); {guess}"]


def test_the_command_prints_each_choice(tmp_path, capsys):
    fill(tmp_path / "a", [GREY[0], *COLOR])
    files(tmp_path / "a", [b"1"], ".txt")
    assert end("data", "inspect", tmp_path / "a", "--resize", 4, "--background", "black") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "1 of 4 images (L) become RGB" in text
    assert "other files are not read: 1 of .txt" in text
    assert end("data", "inspect", tmp_path / "a", "--resize", "4,4") == 3
    assert "--resize '4,4': give pixels" in " ".join(capsys.readouterr().err.split())


class Pictures:
    """Large images that are made when they are read, with the channels last."""

    shape, dtype = (3, 600, 700, 3), np.dtype(np.uint8)

    def __getitem__(self, rows):
        shape = self.shape[1:]
        return np.stack([np.random.default_rng(k).integers(k, 200, shape, np.uint8) for k in rows])


def test_large_images_are_surveyed_in_little_memory(monkeypatch):
    pictures, item = Pictures(), 600 * 700 * 3
    monkeypatch.setattr(rows, "_CHUNK", item)
    select = Layout(pictures, Axes("images", "last"), ())
    tracemalloc.start()
    facts = survey(select, "x", "refuse")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * item, peak / item
    every = pictures[np.arange(3)].reshape(-1, 3).astype(np.float64)
    assert facts.low.tolist() == every.min(0).tolist()
    assert facts.high.tolist() == every.max(0).tolist()
    assert np.allclose(facts.moments.mean, every.mean(0), rtol=1e-12)
    assert np.allclose(facts.moments.variance, every.var(0), rtol=1e-9)


def test_a_value_in_a_late_piece_is_named_by_its_index():
    images = np.random.default_rng(0).normal(size=(2, 400, 400, 3)).astype(np.float32)
    images[1, 399, 2, 1] = np.nan
    with pytest.raises(DataError, match=r"1 value\(s\) .* at index \(1, 399, 2, 1\): nan"):
        read(images)
