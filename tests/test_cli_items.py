"""The commands over the items of a file: likelihood, encode, decode, interpolate."""

import csv
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from shell import TINY, end, failing, finishes, listing

import scorefield as sf
from scorefield._internal import sizes
from scorefield.runs.jobs.parts import Job


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with data, a run of it, one of whole numbers, one with classes."""
    folder = tmp_path_factory.mktemp("items")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)) * [1.0, 5.0, 0.2] + [3.0, 0.0, -8.0]
    np.save(folder / "x.npy", x)
    np.save(folder / "wide.npy", 30 * x)
    np.save(folder / "two.npy", x[:, :2])
    np.save(folder / "dice.npy", rng.integers(0, 6, (40, 2)))
    np.save(folder / "halves.npy", rng.integers(0, 6, (40, 2)) / 2)
    np.save(folder / "images.npy", rng.integers(0, 17, (10, 8, 8), dtype=np.uint8))
    np.save(folder / "codes-of-two.npy", rng.normal(size=(4, 2)))
    np.save(folder / "whole-codes.npy", rng.integers(0, 6, (4, 3)))
    np.save(folder / "strings.npy", np.array([["a", "b", "c"]]))
    np.save(folder / "none-codes.npy", np.zeros((0, 3)))
    np.save(folder / "nan-codes.npy", np.full((2, 3), np.nan))
    np.save(folder / "pairs.npy", rng.normal(size=(4, 2, 3)))
    np.save(folder / "many.npy", rng.normal(size=(40, 12)))
    finishes("train", folder / "many.npy", "--out", folder / "wide-run", *TINY)
    np.save(folder / "y.npy", np.arange(40) % 3)
    finishes("train", folder / "x.npy", "--out", folder / "run", *TINY)
    finishes("train", folder / "dice.npy", "--out", folder / "dice", "--levels", 6, *TINY)
    finishes("train", folder / "images.npy", "--out", folder / "pictures", "--levels", 17, *TINY)
    labels = ["--condition", folder / "y.npy", "--conditional"]
    finishes("train", folder / "x.npy", "--out", folder / "classes", *labels, *TINY)
    return folder


@pytest.fixture
def fails(files, capsys, monkeypatch):
    return failing(files, capsys, monkeypatch)


def table(path):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def samples(path):
    return torch.from_numpy(np.load(path).astype(np.float32))


def test_a_table_of_likelihoods_is_what_python_tells(tmp_path, files, capsys):
    out = tmp_path / "p.csv"
    options = ["--nfe", 12, "--probes", 4, "--seed", 3, "--batch-size", 16]
    finishes("likelihood", files / "run", files / "x.npy", "--out", out, *options)
    found, run = table(out), sf.load(files / "run")
    expected = run.log_prob(samples(files / "x.npy"), nfe=12, probes=4, seed=3, batch_size=16)
    assert found["id"].tolist() == list(range(40))
    np.testing.assert_array_equal(found["log_prob"], expected.value.numpy())
    for name in ("stderr", "solver_error", "truncation", "prior_mismatch", "nfe", "products"):
        np.testing.assert_array_equal(found[name], getattr(expected, name).numpy())
    assert "bits_per_dim" not in found
    text = capsys.readouterr().out
    mean, error = found["log_prob"].mean(), found["log_prob"].std(ddof=1) / math.sqrt(40)
    assert f"log-prob: {mean:.4f} ± {error:.4f} nats" in text
    assert "40 items, NFE 12 per item" in text
    assert f"table: {out}\n" in text


def test_only_a_result_of_the_size_of_the_items_needs_their_room(
    tmp_path, files, fails, monkeypatch
):
    monkeypatch.setattr(sizes, "room", lambda folder: 100)
    out, options = tmp_path / "x.npy", ["--nfe", 8]
    line = fails(6, "encode", files / "run", files / "x.npy", "--out", out, *options)
    assert "takes 480 bytes, and there is room for 100 bytes" in line
    restoring = ["restore", files / "run", files / "x.npy", "--corrupt", "--mask", "random:0.5"]
    for draws, size in (("each", "3.8 KiB"), ("mean", "480 bytes")):
        line = fails(6, *restoring, "--n", 8, "--draws", draws, "--out", out)
        assert f"takes {size}, and there is room for 100 bytes" in line
    finishes(
        "likelihood", files / "run", files / "x.npy", "--out", out.with_suffix(".csv"), *options
    )


def test_whole_numbers_are_told_in_bits(tmp_path, files, capsys):
    out = tmp_path / "p.csv"
    finishes("likelihood", files / "dice", files / "dice.npy", "--out", out, "--draws", 2)
    found = table(out)
    np.testing.assert_allclose(found["bits_per_dim"], -found["log_prob"] / (2 * math.log(2)))
    assert (found["nfe"] == 80).all()
    assert f"bits per dimension: {found['bits_per_dim'].mean():.4f} ±" in capsys.readouterr().out


def test_parquet_holds_the_same_table(tmp_path, files):
    from pyarrow import parquet

    for kind in ("csv", "parquet"):
        out = tmp_path / f"p.{kind}"
        finishes("likelihood", files / "run", files / "x.npy", "--nfe", 8, "--out", out)
    read = parquet.read_table(tmp_path / "p.parquet").to_pydict()
    written = table(tmp_path / "p.csv")
    assert list(read) == list(written)
    for name, column in written.items():
        np.testing.assert_array_equal(read[name], column)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (["--bound", "--nfe", 8], {"nfe": 8}),
        (["--rtol", 1e-3], {"times": sf.Adaptive(1e-3, 1e-3)}),
        (["--prior", "standard", "--nfe", 8], {"prior": "standard", "nfe": 8}),
        (["--stderr", 2.0, "--nfe", 8], {"stderr": 2.0, "nfe": 8}),
    ],
)
def test_options_reach_the_likelihood(tmp_path, files, options, settings):
    out = tmp_path / "p.csv"
    finishes("likelihood", files / "run", files / "x.npy", "--out", out, *options)
    run, x = sf.load(files / "run"), samples(files / "x.npy")
    bound = "--bound" in options
    expected = run.elbo(x, **settings) if bound else run.log_prob(x, **settings)
    np.testing.assert_array_equal(
        table(out)["bound" if bound else "log_prob"], expected.value.numpy()
    )


def test_a_class_has_its_own_density(tmp_path, files):
    values = []
    for y in (0, 1):
        out = tmp_path / f"{y}.csv"
        finishes("likelihood", files / "classes", files / "x.npy", "--given", y, "--out", out)
        values.append(table(out)["log_prob"])
    expected = sf.load(files / "classes").log_prob(samples(files / "x.npy"), given=1)
    np.testing.assert_array_equal(values[1], expected.value.numpy())
    assert not np.any(values[0] == values[1])


def test_a_run_that_was_cut_goes_on(tmp_path, files, capsys, monkeypatch):
    """Killed after two parts it makes the other three alone, and the table is the same."""
    whole, cut = tmp_path / "whole.csv", tmp_path / "cut.csv"
    command = ["likelihood", files / "run", files / "x.npy", "--batch-size", 8, "--probes", 2]
    finishes(*command, "--out", whole)
    made, write = [], Job.write

    def cutting(job, part, columns):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(part)
        write(job, part, columns)

    with monkeypatch.context() as patch:
        patch.setattr(Job, "write", cutting)
        assert end(*command, "--out", cut) == 130
    assert not cut.exists()
    parts = tmp_path / ".cut.csv.parts"
    kept = listing(parts)
    assert len(kept) == 4, "two parts, the settings and how many shards there are"
    # other settings are refused, and lose nothing
    assert end(*command, "--out", cut, "--seed", 5) == 2
    assert "differs in seed" in capsys.readouterr().err
    assert listing(parts) == kept
    with monkeypatch.context() as patch:
        patch.setattr(
            Job, "write", lambda job, part, columns: (made.append(part), write(job, part, columns))
        )
        finishes(*command, "--out", cut)
    assert "resuming: 2 of 5 parts are there" in capsys.readouterr().out
    assert made == [0, 1, 2, 3, 4]
    assert cut.read_bytes() == whole.read_bytes()
    assert not parts.exists()


def test_a_damaged_part_is_made_again(tmp_path, files, capsys, monkeypatch):
    out = tmp_path / "p.csv"
    command = [
        "likelihood",
        files / "run",
        files / "x.npy",
        "--batch-size",
        16,
        "--nfe",
        8,
        "--out",
        out,
    ]
    with monkeypatch.context() as patch:
        patch.setattr("scorefield.cli.jobs.write_table", interrupted)
        assert end(*command) == 130
    part = tmp_path / ".p.csv.parts" / "000001.part"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(bytes(data))
    finishes(*command)
    assert "resuming: 2 of 3 parts are there" in capsys.readouterr().out
    again = tmp_path / "again.csv"
    finishes(*command[:-1], again)
    assert out.read_bytes() == again.read_bytes()


def interrupted(*arguments):
    raise KeyboardInterrupt


def test_codes_go_there_and_back(tmp_path, files, capsys):
    codes, back = tmp_path / "codes.npy", tmp_path / "back.npy"
    finishes("encode", files / "run", files / "x.npy", "--out", codes)
    text = capsys.readouterr().out
    assert re.search(r"40 items; a round trip changes a sample by \S+e-\d+ on average", text)
    run = sf.load(files / "run")
    expected = run.encode(samples(files / "x.npy")).z
    np.testing.assert_array_equal(np.load(codes), expected.numpy())
    finishes("decode", files / "run", codes, "--out", back)
    np.testing.assert_allclose(np.load(back), np.load(files / "x.npy"), rtol=1e-2, atol=1e-2)


def test_reversible_codes_are_pairs_and_come_back_to_the_last_digits(tmp_path, files):
    codes = tmp_path / "codes.npy"
    finishes("encode", files / "run", files / "x.npy", "--reversible", "--nfe", 24, "--out", codes)
    assert np.load(codes).shape == (40, 2, 3)
    finishes("decode", files / "run", codes, "--nfe", 24)
    back = np.load(tmp_path / "codes-decoded.npy")
    np.testing.assert_allclose(back, np.load(files / "x.npy"), rtol=1e-4, atol=1e-4)


def test_strips_between_images(tmp_path, files):
    from PIL import Image

    out = tmp_path / "strips.npy"
    finishes("interpolate", files / "pictures", files / "images.npy", "--pairs", "0:1", "3:2",
             "--points", 5, "--nfe", 12, "--out", out)  # fmt: skip
    strips, images = np.load(out), np.load(files / "images.npy")
    assert strips.shape == (2, 5, 1, 8, 8)
    np.testing.assert_array_equal(strips[1, 0, 0], images[3])
    np.testing.assert_array_equal(strips[1, 4, 0], images[2])
    with Image.open(out.with_suffix(".png")) as picture:
        assert picture.size[0] > 2 * picture.size[1], "five columns, two rows"


@pytest.mark.parametrize(
    ("code", "command", "message"),
    [
        (
            2,
            "likelihood run x.npy --out p.txt",
            "p.txt: must end in .csv or .tsv or .jsonl or .parquet",
        ),
        (2, "likelihood run x.npy --out no/p.csv", "in a folder that exists"),
        (2, "likelihood run x.npy --nfe 3", "--nfe 3: give a number of calls"),
        (2, "likelihood run x.npy --nfe 9 --rtol 1e-3", "--nfe and --rtol cannot be combined"),
        (2, "likelihood run x.npy --bound --probes 3", "--probes has no effect with --bound"),
        (2, "likelihood run x.npy --draws 2", "--draws 2: must be at least 1, and 1"),
        (2, "likelihood run x.npy --batch-size 0", "--batch-size 0: give at least 1"),
        (2, "likelihood run x.npy --given 1", "--given 1: this run has no conditions"),
        (2, "likelihood run x.npy --prior best", "best"),
        (3, "likelihood run two.npy", "samples of shape (2,); this run was trained on"),
        (3, "likelihood run wide.npy", "times as wide as the training data"),
        (3, "likelihood run none.npy", "no such file"),
        (3, "likelihood dice halves.npy", "not whole numbers from 0 to 5"),
        (4, "likelihood none x.npy", "none: this run folder does not exist"),
        (
            5,
            "likelihood wide-run many.npy --stderr 1e-9 --max-probes 8 --nfe 8",
            "met with 8 probes",
        ),
        (2, "likelihood run x.npy --max-probes 9", "--max-probes has no effect without --stderr"),
        (
            2,
            "likelihood run x.npy --out run --overwrite",
            "--out run: is a folder; pass the name of a file",
        ),
        (3, "decode run strings.npy", "codes are floating-point numbers, one item or more"),
        (3, "decode run none-codes.npy", "codes are floating-point numbers, one item or more"),
        (3, "decode run nan-codes.npy", "values that are not finite"),
        (2, "decode run pairs.npy", "give its --nfe, by default 80"),
        (2, "encode run x.npy --nfe 10 --reversible", "give a multiple of 4"),
        (2, "encode run x.npy --nfe 1", "--nfe 1: must be a whole number"),
        (3, "encode run two.npy", "samples of shape (2,)"),
        (3, "encode dice halves.npy", "not whole numbers from 0 to 5"),
        (2, "encode run x.npy --out codes.csv", "must end in .npy"),
        (3, "decode run codes-of-two.npy", "codes of shape (3,), or (2, 3) with --reversible"),
        (3, "decode run whole-codes.npy", "codes are floating-point numbers"),
        (2, "interpolate run x.npy --pairs 0-1", "--pairs 0-1: give two numbers"),
        (2, "interpolate run x.npy --pairs 0:40", "the items are 0 to 39"),
        (2, "interpolate run x.npy --pairs 0:1 --points 1", "--points 1"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(fails, code, command, message):
    if "1e-9" in command:
        command += " --batch-size 40"
    assert message in fails(code, *command.split())


def test_a_table_is_not_replaced_unless_asked(tmp_path, files, fails):
    out = tmp_path / "p.csv"
    command = ["likelihood", files / "run", files / "x.npy", "--nfe", 8, "--out", out]
    finishes(*command)
    first = out.read_bytes()
    assert "exists already" in fails(2, *command, "--probes", 2)
    assert out.read_bytes() == first
    finishes(*command, "--probes", 2, "--overwrite")
    assert out.read_bytes() != first


def test_another_scale_is_taken_if_that_is_the_question(tmp_path, files):
    command = ["likelihood", files / "run", files / "wide.npy", "--nfe", 8]
    finishes(*command, "--any-scale", "--out", tmp_path / "p.csv")
    assert Path(tmp_path / "p.csv").exists()


def test_pictures_are_drawn_of_what_can_be_seen(tmp_path, files, capsys):
    """Images of five channels are taken as they are, without a picture."""
    x = np.random.default_rng(0).normal(size=(10, 5, 8, 8))
    np.save(tmp_path / "x.npy", x)
    finishes("train", tmp_path / "x.npy", "--out", tmp_path / "run", *TINY)
    finishes("interpolate", tmp_path / "run", tmp_path / "x.npy", "--pairs", "0:1", "--nfe", 4,
             "--out", tmp_path / "s.npy")  # fmt: skip
    assert not (tmp_path / "s.png").exists()
    assert "picture: " not in capsys.readouterr().out


def test_what_is_no_jobs_is_not_touched(tmp_path, files, capsys):
    out = tmp_path / "p.csv"
    parts = tmp_path / ".p.csv.parts"
    command = ["likelihood", files / "run", files / "x.npy", "--nfe", 8, "--out", out]
    for content in ("{", "[]", "\udcff"):
        parts.mkdir(exist_ok=True)
        (parts / "settings.json").write_bytes(content.encode("utf-8", "surrogateescape"))
        assert end(*command) == 6
        assert "does not hold a job" in capsys.readouterr().err
    (parts / "settings.json").unlink()
    assert end(*command) == 6


def test_parts_of_other_settings_are_not_taken_for_ones_own(tmp_path):
    """Even where they lie in the folder with settings that fit."""
    job = Job(tmp_path / "a", {"seed": 0}, range(4), 2)
    job.write(0, {"x": np.arange(2)})
    other = Job(tmp_path / "b", {"seed": 1}, range(4), 2)
    other.write(0, {"x": np.arange(2)})
    (tmp_path / ".b.parts" / "000000.part").write_bytes(
        (tmp_path / ".a.parts" / "000000.part").read_bytes()
    )
    assert Job(tmp_path / "a", {"seed": 0}, range(4), 2).missing(range(2)) == [1]
    assert Job(tmp_path / "b", {"seed": 1}, range(4), 2).missing(range(2)) == [0, 1]
