"""Data as Hugging Face stores it: parquet with images, and objects like those of datasets."""

import io
import json

import numpy as np
import pytest
import torch
from cases import values_of

import scorefield as sf

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
Image = pytest.importorskip("PIL.Image")

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
LABELS = [1, 0, 2, 2, 0, 1]
NAMES = ["cat", "dog", "owl"]
KIND = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def table(names=None, cells=None, **columns):
    cells = cells or [{"bytes": png(p), "path": f"{k}.png"} for k, p in enumerate(PIXELS)]
    every = {"label": pa.array(LABELS), "image": pa.array(cells, KIND), **columns}
    result = pa.table(every)
    if names is None:
        return result
    features = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    info = json.dumps({"info": {"features": features}})
    return result.replace_schema_metadata({"huggingface": info})


def saved(folder, *arguments, **columns):
    path = folder / "train-00000-of-00001.parquet"
    parquet.write_table(table(*arguments, **columns), path)
    return path


def test_images_of_a_parquet_file_are_its_pixels_with_the_names_of_its_classes(tmp_path):
    data = sf.read(saved(tmp_path, NAMES))
    assert data.conditions.channels[0].names == tuple(NAMES)
    assert values_of(data).tolist() == LABELS
    rows = torch.tensor([5, 0, 3])
    expected = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)[rows]
    assert torch.equal(data.x[rows], expected.float())


def test_classes_without_names_and_those_of_another_column(tmp_path):
    path = saved(tmp_path, fur=pa.array(["b", "a", "a", "b", None, "a"]))
    assert sf.read(path).conditions.channels[0].names == ("0", "1", "2")
    data = sf.read(path, "fur")
    assert data.conditions.channels[0].names == ("a", "b")
    assert values_of(data).tolist() == [1, 0, 0, 1, -1, 0]


class ClassLabel:
    names = NAMES


class Dataset:
    """An object as ``datasets.Dataset``, of a table."""

    def __init__(self, table, features, form=None):
        self.table, self.features, self.form = table, features, form

    def with_format(self, form):
        return Dataset(self.table, self.features, form)

    def __len__(self):
        return len(self.table)

    def __getitem__(self, rows):
        assert self.form == "arrow"
        return self.table.slice(*rows.indices(len(self.table))[:2])


def test_a_dataset_object_is_read_as_its_table(tmp_path):
    whole = Dataset(table(), {"image": object(), "label": ClassLabel()})
    data = sf.read(whole)
    assert data.conditions.channels[0].names == tuple(NAMES)
    assert torch.equal(data.x[:], sf.read(saved(tmp_path, NAMES)).x[:])
    numbers = pa.table({"height": [1.0, 2.5, 3.0], "sex": ["f", "m", "f"]})
    assert sf.read(Dataset(numbers, None)).columns.names == ("height", "sex")


def test_images_of_an_object_may_be_files_but_not_those_of_a_parquet_file(tmp_path):
    cells = []
    for k, pixels in enumerate(PIXELS):
        (tmp_path / f"{k}.png").write_bytes(png(pixels))
        cells.append({"bytes": None, "path": str(tmp_path / f"{k}.png")})
    assert sf.read(Dataset(table(cells=cells), None)).x[2, :, 0, 0].tolist() == [*PIXELS[2, 0, 0]]
    with pytest.raises(sf.errors.DataError, match="row 0, column image: has no bytes: store"):
        sf.read(saved(tmp_path, cells=cells))


def test_a_run_is_trained_on_images_of_a_parquet_file(tmp_path):
    run = sf.train(saved(tmp_path, NAMES), steps=1, conditional=True, network={
        "kind": "unet", "width": 8, "multipliers": (1,), "blocks": 1})  # fmt: skip
    assert run.config.data.classes.names == tuple(NAMES)


class Stream:
    features = None

    def with_format(self, form):
        return self


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"train": 1, "test": 2}, "a mapping with the keys train, test: pass one of its values"),
        (Stream(), "is a stream: load it whole"),
        (
            table(cells=[{"bytes": b"no", "path": None}] * 6),
            "row 0, column image cannot be read as an image",
        ),
        (table(["cat"]), "label has values up to 2, for 1 names"),
    ],
    ids=["splits", "stream", "damaged", "names"],
)
def test_what_cannot_be_read_is_refused_in_one_line(source, says):
    with pytest.raises(sf.errors.DataError, match=says):
        sf.read(source)
