"""Arrays and cells as their owners hold them: cases of `test_odd_files.py`."""

import types
from functools import partial

import h5py
import numpy as np
import odd_images
import torch
from odd_images import BIG, COLOR, GREY, RNG, X, fill, first
from PIL import Image
from scipy import sparse

CELLS = np.round(RNG.exponential(size=(12, 4)) * (RNG.random((12, 4)) < 0.6), 2).astype(np.float32)
GENES = [f"gene{k}" for k in range(4)]
ARRAYS = []
case = partial(odd_images.case, cases=ARRAYS)

# --- arrays -----------------------------------------------------------------------------------


def saved(array, name="x.npy", **arrays):
    def make(tmp):
        if arrays:
            np.savez(tmp / name, **arrays)
        else:
            np.save(tmp / name, array)
        return tmp / name

    return make


def held(value):
    return lambda tmp: value


V = X[:, 0, :5]  # vectors
case("big-endian", saved(X.astype(">f8")), X)
case("float16", saved(X.astype(np.float16)), X.astype(np.float16))
case("one-number", saved(0, "x.npz", x=np.array(3.0)), "holds one number, 3.0, not samples")
case(
    "scipy-sparse",
    saved(0, "x.npz", data=V, indices=V, indptr=V, shape=V),
    "holds a sparse matrix of scipy: save its numbers",
)
case("no-name", held(" "), "the data has an empty name")
case("int8", saved((X * 40).astype(np.int8)), (X * 40).astype(np.int8))
case("bool", saved(X > 0), X > 0)
case("fortran", saved(np.asfortranarray(X)), X)
case("strided", held(X[::2, ::-1]), X[[0, 2], ::-1].copy())
case("objects", saved(V.astype(object)), r"values of type object are not read: save the numbers")
case(
    "objects-in-memory", held(V.astype(object)), r"type object: needs numbers. Convert the objects"
)
case("complex", saved(V.astype(complex)), "complex128: needs numbers. Stack the real")
case(
    "array-of-dates",
    held(np.array(["2020-01-01"] * 4, "M8[D]")[:, None]),
    "needs numbers. Subtract a date",
)
case("0-d", saved(np.float32(3)), "holds one number, 3.0, not samples")
case("empty-array", saved(X[:0]), "has no samples")
case("nan", saved(np.where(np.arange(5) == 3, np.nan, V)), r"the first at index \(0, 3\): nan")
case("inf", saved(np.where(X[2, 1, 4] == X, np.inf, X)), r"the first at index \(2, 1, 4\): inf")
case("masked", held(np.ma.masked_values(V, V[1, 2])), r"the first at index \(1, 2\): nan")
case("npz-of-many", saved(0, "x.npz", a=X, b=V), r"holds a, b: choose one with key='a'")
case("npz-key", saved(0, "x.npz", a=X, b=V), V, key="b")
case("npz-no-key", saved(0, "x.npz", a=X, b=V), r"key='c': .* holds a, b", key="c")
case("key-of-npy", saved(V), r"key='a': .* no such choice; only layout, channels apply", key="a")
case("resize-of-npy", saved(X), r"resize='8': .*x\.npy has no such choice", resize=8)
case("memory-map", lambda t: np.load(saved(X)(t), mmap_mode="r"), X)
RECORDS = np.array([(1.5, 2), (2.5, 4), (0.5, 5)], [("a", ">f4"), ("b", "i8")])
case("records", saved(RECORDS), np.array([[1.5, 2], [2.5, 4], [0.5, 5]]))
case("records-of-arrays", saved(np.zeros(3, [("a", "f4", 2)])), "needs .* records of single values")
case("ragged", held([[1.0, 2.0], [3.0]]), "data cannot be read as an array")
case(
    "arrays-of-two-shapes",
    held([X[0][None], X[1][None], X[0][None, :, :3]]),
    r"data has items of several shapes: 2 of \(1, \d, \d\), 1 of",
)
case(
    "signals-of-two-lengths",
    held([V[0], V[1], V[0, :3]]),
    np.stack([V[0], V[1], np.where(np.arange(5) < 3, V[0], np.nan)])[:, None],
    note="signals of 3 to 5 places",
)
case("lists", held(V.tolist()), V)
case("list-of-arrays", held(list(X)), X)
case("list-of-tensors", held(list(torch.from_numpy(X))), X)
case("images-in-memory", held([Image.fromarray(c) for c in COLOR]), first(COLOR))
case("one-image", held(Image.fromarray(COLOR[0])), "one image: pass a list of images")
case("paths", lambda t: [fill(t / "a", GREY) / f"{k}.png" for k in (2, 0)], first(GREY[[2, 0]]))
case(
    "bfloat16", held(torch.from_numpy(V).bfloat16()), torch.from_numpy(V).bfloat16().float().numpy()
)
case(
    "float8",
    held(torch.from_numpy(V).to(torch.float8_e5m2)),
    torch.from_numpy(V).to(torch.float8_e5m2).float().numpy(),
)
case("file-names", lambda t: [str(fill(t / "a", GREY) / "1.png")] * 2, first(GREY[[1, 1]]))
case(
    "nested-tensor",
    lambda t: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged),
    "data cannot be read as an array",
)
case("gradient", held(torch.from_numpy(V).requires_grad_()), V)
case("sparse-tensor", held(torch.from_numpy(V).to_sparse()), V)
case("bool-tensor", held(torch.from_numpy(V) > 0), V > 0)
case("meta", held(torch.zeros(3, 2, device="meta")), "device meta, which has no values")

SQUARE = RNG.normal(size=(3, 9, 9)).astype(np.float32)
guess = "layout and channels declare another"
case("square", held(SQUARE), SQUARE[:, None], rf"read as images \(N, H, W\); {guess}")
TALL = X.transpose(0, 2, 1)
case("oblong", held(X), X, rf"\(4, 5, 6\) is read as signals \(N, C, L\); {guess}")
ASKED = r"can be signals .* 6 channels, or .* of 5: write channels=first or channels=last"
case("tall", held(TALL), ASKED)
case("tall-signals", held(TALL), ASKED, layout="signals")
case("signals-first", held(TALL), TALL, note=r"\A\Z", layout="signals", channels="first")
CUBE = RNG.normal(size=(3, 8, 8, 8)).astype(np.float32)
case("cube", held(CUBE), CUBE[:, None], rf"read as volumes \(N, D, H, W\); {guess}")
case("channels-of-volumes", held(CUBE[:, None]), CUBE[:, None], note=r"\A\Z")
case("oblong-images", held(X), X[:, None], note=r"\A\Z", layout="images")
case("vectors", held(X), X.reshape(4, 30), note=r"\A\Z", layout="vectors")
case("signals-last", held(X), X.transpose(0, 2, 1), layout="signals", channels="last")
case("long-signals", held(X[..., :2]), X[..., :2].transpose(0, 2, 1), r"signals \(N, L, C\)")
case("one-signal", held(V), V[:, None], layout="signals")
case("images-last", held(COLOR), first(COLOR), r"images \(N, H, W, C\)")
case("two-channels-last", held(COLOR[..., :2]), first(COLOR[..., :2]), r"images \(N, H, W, C\)")
case("no-layout", held(X), "layout='image': input should be 'vectors', 'signals'", layout="image")
case("built-in", held("digits"), "crop='4': digits has no such choice; leave it out", crop=4)
DEEP_CODES = RNG.normal(size=(3, 16, 4, 4)).astype(np.float32)
case("latents", held(DEEP_CODES), DEEP_CODES, r"images \(N, C, H, W\)")
case("images-of-colour", held(BIG.transpose(0, 3, 1, 2)), first(BIG), note=r"\A\Z")
case("images-first", held(COLOR), COLOR, note=r"\A\Z", layout="images", channels="first")
case("volumes", held(COLOR), COLOR[:, None], layout="volumes")
case("volumes-last", held(COLOR[..., None]), COLOR[:, None], layout="volumes", channels="last")
case(
    "no-volumes",
    held(X),
    r"layout='volumes': data has shape \(4, 5, 6\), which can be signals",
    layout="volumes",
)
case("channels-of-vectors", held(V), r"channels='last': .* can be vectors", channels="last")

# --- cells ------------------------------------------------------------------------------------


def texts(group, name, values):
    group.create_dataset(name, data=[v.encode() for v in values])


def stored(file, name, matrix):
    group = file.create_group(name)
    group.attrs["encoding-type"], group.attrs["shape"] = f"{matrix.format}_matrix", matrix.shape
    for part in ("data", "indices", "indptr"):
        group[part] = getattr(matrix, part)
    return group


def nullable(group, name, values, mask):
    part = group.create_group(name)
    texts(part, "values", values)
    part["mask"] = np.array(mask)


def cells(change=lambda file: None, form=sparse.csr_matrix):
    def make(tmp):
        with h5py.File(tmp / "x.h5ad", "w") as file:
            stored(file, "X", form(CELLS))
            stored(file, "layers/counts", form(np.floor(9 * CELLS)))
            stored(file, "raw/X", form(np.hstack([CELLS, CELLS[:, :1]])))
            file["obsm/X_pca"] = CELLS[:, :2] - CELLS[:, 2:]
            for name in ("var", "obs", "raw/var"):
                file.create_group(name).attrs["_index"] = "index"
            texts(file, "var/index", GENES)
            texts(file, "raw/var/index", [*GENES, "other"])
            texts(file, "obs/index", [f"cell{k}" for k in range(12)])
            change(file)
        return tmp / "x.h5ad"

    return make


def rename(file):
    """Name the genes by a nullable column, as written with pandas 3."""
    del file["var/index"]
    nullable(file["var"], "index", GENES, [False] * 4)


def categorical(file):
    del file["var/index"]
    group = file.create_group("var/index")
    texts(group, "categories", sorted(GENES))
    group["codes"] = np.arange(4)


def without_matrix(file):
    del file["X"]


def outside(file):
    del file["X/indices"]
    file["X/indices"] = np.full(np.count_nonzero(CELLS), 12)


note = "matrix X of the cells; the file also has raw, layers/counts, obsm/X_pca"
case("cells", cells(), CELLS, note)
case("cells-by-columns", cells(form=sparse.csc_matrix), CELLS)
case("cells-nullable-names", cells(rename), CELLS)
case("cells-categorical-names", cells(categorical), CELLS)
case("cells-layer", cells(form=sparse.csc_matrix), np.floor(9 * CELLS), matrix="layers/counts")
case("cells-raw", cells(), np.hstack([CELLS, CELLS[:, :1]]), matrix="raw")
case("cells-obsm", cells(), CELLS[:, :2] - CELLS[:, 2:], matrix="obsm/X_pca")
case("cells-no-matrix", cells(), "matrix='counts': .* has X, raw, layers/counts", matrix="counts")
case("cells-without-X", cells(without_matrix), "has raw, layers/counts, obsm/X_pca; choose one")
case("cells-outside", cells(outside, sparse.csc_matrix), "entries of cells 12 to 12, .* 12 cells")


class OnDisk:
    """As the sparse matrices of AnnData objects on a file."""

    def __init__(self, matrix):
        self.matrix = matrix

    def to_memory(self):
        return self.matrix


def anndata(**parts):
    raw = types.SimpleNamespace(X=2 * CELLS, var_names=GENES)
    every = {"X": CELLS, "obs": {}, "var_names": GENES, "raw": raw, "layers": {}, "obsm": {}}
    return held(types.SimpleNamespace(**(every | parts)))


case("anndata-on-disk", anndata(X=OnDisk(sparse.csc_matrix(CELLS))), CELLS)
case("anndata-raw", anndata(), 2 * CELLS, "matrix raw of the cells", matrix="raw")
case("anndata-obsm", anndata(obsm={"X_pca": CELLS[:, :2]}), CELLS[:, :2], matrix="obsm/X_pca")
