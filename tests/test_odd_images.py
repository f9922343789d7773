"""Images, arrays and cells as their owners hold them: what must come back of each source."""

import os
import re
import struct
import types
import zlib

import h5py
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy import sparse
from shell import end

import scorefield as sf
from scorefield._internal.errors import DataError
from scorefield.data import inspect, read

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (3, 6, 5), dtype=np.uint8)
COLOR = RNG.integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (3, 6, 5, 3), dtype=np.uint16)
ALPHA = RNG.integers(0, 256, (3, 6, 5, 1), dtype=np.uint8)
CLEAR = np.concatenate([COLOR, ALPHA], 3)
WIDE_CLEAR = RNG.integers(0, 65536, (3, 6, 5, 4), dtype=np.uint16)
X = RNG.normal(size=(4, 6, 5)).astype(np.float32)
CELLS = np.round(RNG.exponential(size=(12, 4)) * (RNG.random((12, 4)) < 0.6), 2).astype(np.float32)
GENES = [f"gene{k}" for k in range(4)]


def first(images):
    """Return images ``(N, H, W[, C])`` with the channels first."""
    return np.moveaxis(images if images.ndim == 4 else images[..., None], 3, 1)


def over(images, background, top):
    """Return the composite by its formula."""
    opacity = images[..., -1:] / top
    return first(np.rint(opacity * images[..., :-1] + (1 - opacity) * np.array(background)))


def fill(folder, images, suffix=".png", **options):
    folder.mkdir(parents=True, exist_ok=True)
    for k, image in enumerate(images):
        image = image if hasattr(image, "save") else Image.fromarray(image)
        image.save(folder / f"{k}{suffix}", **options)
    return folder


def files(folder, contents, suffix=".png"):
    for k, content in enumerate(contents):
        (folder / f"{k}{suffix}").write_bytes(content)
    return folder


def png(pixels, late=b"", **chunks):
    """Return a PNG of any depth: rows without filters, and chunks before and after them."""

    def chunk(kind, content):
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    head = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, kind, 0, 0, 0)
    rows = pixels.astype(pixels.dtype.newbyteorder(">"))
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    early = b"".join(chunk(name.encode(), content) for name, content in chunks.items())
    end = (chunk(b"eXIf", late) if late else b"") + chunk(b"IEND", b"")
    body = chunk(b"IHDR", head) + early + chunk(b"IDAT", zlib.compress(data)) + end
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(pixels, order="<"):
    """Return a TIFF of colours of 16 bits, in either order of bytes."""
    height, width, channels = pixels.shape
    data = pixels.astype(f"{order}u2").tobytes()
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, 8), (259, 3, 1, 1)]
    tags += [(262, 3, 1, 2), (273, 4, 1, 8 + 2 * channels), (277, 3, 1, channels)]
    tags += [(278, 4, 1, height), (279, 4, 1, len(data)), (284, 3, 1, 1)]
    tags += [(338, 3, 1, 2)] if channels == 4 else []
    start = 8 + 2 * channels + len(data)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    result = (
        mark
        + struct.pack(f"{order}I", start)
        + struct.pack(f"{order}{channels}H", *[16] * channels)
    )
    result += data + struct.pack(f"{order}H", len(tags))
    for tag, kind, count, value in tags:
        form = "HH" if kind == 3 and count == 1 else "I"
        values = (value, 0) if form == "HH" else (value,)
        result += struct.pack(f"{order}HHI{form}", tag, kind, count, *values)
    return result + bytes(4)


def tagged(k, suffix):
    """Return a maker of pictures with the EXIF orientation k, and what a viewer shows of them."""
    exif = Image.Exif()
    exif[0x112] = k

    def make(tmp):
        options = {"compression": "tiff_deflate"} if suffix == ".tiff" else {"lossless": True}
        return fill(tmp / "a", COLOR, suffix, exif=exif, **options)

    pictures = [Image.fromarray(c) for c in COLOR]
    for picture in pictures:
        picture.getexif()[0x112] = k
    upright = [np.asarray(ImageOps.exif_transpose(picture)) for picture in pictures]
    return make, first(np.stack(upright))


def late(tmp):
    exif = Image.Exif()
    exif[0x112] = 3
    return files(tmp, [png(c, late=exif.tobytes()[6:]) for c in COLOR])


CASES = []


def case(name, make, expected, note=None, **options):
    CASES.append(pytest.param(make, expected, note, options, id=name))


for k in range(1, 9):
    case(f"exif-{k}", *tagged(k, ".png"), note=None if k == 1 else "turned upright")
case("exif-webp", *tagged(6, ".webp"))
case("exif-tiff", *tagged(8, ".tiff"))
case("exif-after-the-pixels", late, first(COLOR[:, ::-1, ::-1]), "3 of 3 images are turned")

case("grey-16", lambda t: files(t, map(png, DEEP[..., 0])), first(DEEP[..., 0]), "0 to 65,535")
case("colour-16", lambda t: files(t, map(png, DEEP)), first(DEEP))
white = [65535] * 3
case("rgba-16", lambda t: files(t, map(png, WIDE_CLEAR)), over(WIDE_CLEAR, white, 65535))
LA = WIDE_CLEAR[..., :2]
case("grey-alpha-16", lambda t: files(t, map(png, LA)), over(LA, [65535], 65535))
case("tiff-16-little", lambda t: files(t, map(tiff, DEEP), ".tif"), first(DEEP))
case("tiff-16-big", lambda t: files(t, [tiff(d, ">") for d in DEEP], ".TIFF"), first(DEEP))
case(
    "tiff-16-rgba",
    lambda t: files(t, map(tiff, WIDE_CLEAR), ".tif"),
    over(WIDE_CLEAR, white, 65535),
)
case(
    "tiff-16-grey",
    lambda t: fill(t / "a", DEEP[..., 0], ".tif", compression="tiff_lzw"),
    first(DEEP[..., 0]),
)
case("tiff-float", lambda t: fill(t / "a", X, ".tif"), X[:, None])
case(
    "pgm-16",
    lambda t: files(
        t, [b"P5 5 6 65535\n" + d.astype(">u2").tobytes() for d in DEEP[..., 0]], ".pgm"
    ),
    first(DEEP[..., 0]),
)
case(
    "ppm-16",
    lambda t: files(t, [b"P6 5 6 65535\n" + d.astype(">u2").tobytes() for d in DEEP], ".ppm"),
    r"0\.ppm has more than 8 bits a channel .* save it as",
)
case(
    "8-and-16",
    lambda t: files(t, [png(DEEP[0]), png(COLOR[1])]),
    first(np.stack([DEEP[0], COLOR[1].astype(int) * 257])),
    "1 of 2 images have 8 bits and are scaled to 16",
)
case(
    "16-with-a-clear-colour",
    lambda t: files(t, [png(d, tRNS=struct.pack(">H", d[0, 0])) for d in DEEP[..., 0]]),
    first(np.stack([np.where(d == d[0, 0], 65535, d) for d in DEEP[..., 0]])),
    "transparent pixels, drawn over white",
)
case(
    "float-and-8",
    lambda t: fill(fill(t, X[:1], ".tif"), GREY),
    r"3 of uint8, 1 of float32, .*0\.tif\. Convert",
)

case(
    "cmyk",
    lambda t: fill(t / "a", [Image.fromarray(c, "CMYK") for c in CLEAR], ".tif"),
    first(np.rint((255.0 - CLEAR[..., :3]) * (255.0 - CLEAR[..., 3:]) / 255)),
    r"3 of 3 images \(CMYK\) become RGB",
)


def palette(index, **options):
    colours = [10, 20, 30, 250, 240, 230, 1, 128, 255]

    def make(tmp):
        images = [Image.fromarray(i, "P") for i in index]
        for image in images:
            image.putpalette(colours)
        return fill(tmp / "a", images, **options)

    return make, np.array(colours, np.uint8).reshape(3, 3)[index]


INDEX = RNG.integers(0, 3, (3, 6, 5), dtype=np.uint8)
make, seen = palette(INDEX)
case("palette", make, first(seen), r"3 of 3 images \(P\) become RGB")
make, seen = palette(INDEX, transparency=1)
case(
    "palette-with-a-clear-colour",
    make,
    first(np.where(INDEX[..., None] == 1, [0, 128, 0], seen)),
    r"drawn over #008000 \(background\)",
    background="#008000",
)
case("grey-alpha", lambda t: fill(t / "a", CLEAR[..., 2:]), over(CLEAR[..., 2:], [255], 255))
case(
    "grey-alpha-over-a-colour",
    lambda t: fill(t / "a", CLEAR[..., 2:]),
    over(CLEAR[..., [2, 2, 2, 3]], [255, 0, 0], 255),
    background="red",
)
case(
    "rgba-over-black", lambda t: fill(t / "a", CLEAR), over(CLEAR, [0] * 3, 255), background="black"
)
case(
    "no-colour",
    lambda t: fill(t / "a", CLEAR),
    "background='blurple': give a colour",
    background="blurple",
)
case("one-bit", lambda t: fill(t / "a", GREY > 99), first((GREY > 99) * 255))
case(
    "grey-with-a-clear-value",
    lambda t: files(t, [png(g, tRNS=struct.pack(">H", int(g[0, 0]))) for g in GREY]),
    first(np.stack([np.where(g == g[0, 0], 7, g) for g in GREY])),
    background="#070707",
)
case("gif", lambda t: fill(t / "a", GREY, ".gif"), np.repeat(first(GREY), 3, 1))
case(
    "grey-and-colour",
    lambda t: fill(t / "a", [GREY[0], COLOR[1]]),
    np.stack([np.repeat(GREY[:1], 3, 0), np.moveaxis(COLOR[1], 2, 0)]),
    r"1 of 2 images \(L\) become RGB",
)


def frames(suffix):
    def make(tmp):
        fill(tmp / "a", COLOR[:2])
        others = [Image.fromarray(c) for c in COLOR[1:]]
        Image.fromarray(COLOR[0]).save(tmp / f"a/z{suffix}", save_all=True, append_images=others)
        return tmp / "a"

    return make


for suffix in (".gif", ".webp", ".png", ".tif"):
    case(f"frames{suffix}", frames(suffix), rf"z\{suffix} has 3 frames or pages: save each")


def clutter(tmp):
    fill(tmp / "a", GREY)
    for name in ("._0.png", ".hidden.png", "Thumbs.db", ".DS_Store", "desktop.ini"):
        (tmp / "a" / name).write_bytes(b"x")
    for name in ("__MACOSX", ".thumbnails"):
        (tmp / "a" / name).mkdir()
        (tmp / "a" / name / "0.png").write_bytes(b"x")
    return tmp / "a"


case("clutter", clutter, first(GREY), note=r"\A\Z")


def linked(target, name="z.png", sub="a"):
    def make(tmp):
        fill(tmp / "a/cats", GREY[:2])
        fill(tmp / "a/dogs", GREY[2:])
        fill(tmp / "out", GREY[:1])
        (tmp / "a" / name).symlink_to(tmp / target)
        return tmp / "a"

    return make


inner = first(GREY[[0, 1, 2, 0]])
case("link", linked("a/cats/0.png", "dogs/z.png"), inner)
case("link-to-a-folder", linked("a/cats", "owls"), first(GREY[[0, 1, 2, 0, 1]]), "cats, dogs, owls")
case("link-out", linked("out/0.png", "cats/z.png"), r"cats/z\.png leads out of .*out/0\.png: copy")
case("link-out-to-a-folder", linked("out"), r"z\.png leads out of")
case("broken-link", linked("a/nothing"), r"z\.png is a link to .*nothing, which does not exist")
case("loop", linked("a", "cats/again"), r"again is a link to a folder above it")


def pipe(tmp):
    os.mkfifo(fill(tmp / "a", GREY) / "z.png")
    return tmp / "a"


case("pipe", pipe, r"z\.png is not a plain file")


def sizes(tmp):
    fill(tmp / "a", [*GREY, GREY[0, :4]])
    return tmp / "a"


case("sizes", sizes, r'3 of 5x6, 1 of 5x4 pixels, the first other one .*3\.png\. Use resize="5x6"')
case("crop", sizes, np.stack([*GREY[:, 1:5, 1:4], GREY[0, :4, 1:4]])[:, None], crop="3x4")
case(
    "crop-of-smaller",
    sizes,
    r"crop='5x5': 1 of 4 images are smaller, the first .*3\.png of 5x4",
    crop="5x5",
)
case("resize-and-crop", sizes, "resize and crop: give one", crop=4, resize=4)
case("no-size", sizes, "resize='big': give pixels, as 64", resize="big")
case("size-0", sizes, "crop='0': give pixels", crop=0)
BIG = RNG.integers(0, 256, (2, 12, 16, 3), dtype=np.uint8)
small = [np.asarray(Image.fromarray(b).resize((8, 6), Image.Resampling.LANCZOS)) for b in BIG]
case(
    "resize",
    lambda t: fill(t / "a", BIG),
    first(np.stack(small)),
    "scaled to cover 8x6",
    resize="8x6",
)
case(
    "resize-cuts-the-longer-side",
    lambda t: fill(t / "a", BIG),
    first(np.stack(small))[..., 1:7],
    resize=6,
)


def natural(tmp):
    for k, name in enumerate(("img1", "img2", "img10")):
        Image.fromarray(GREY[k]).save(tmp / f"{name}.png")
    return tmp


case("natural-order", natural, first(GREY))


def broken(suffix, keep):
    def make(tmp):
        fill(tmp / "a", BIG, suffix)
        path = tmp / f"a/1{suffix}"
        content = path.read_bytes()
        path.write_bytes(content[: int(keep * len(content))])
        return tmp / "a"

    return make


for suffix in (".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm"):
    case(f"truncated{suffix}", broken(suffix, 0.7), rf"a/1\{suffix} cannot be read as an image")
case("empty-file", broken(".png", 0), r"1\.png cannot be read as an image: the file is empty")
case("text", lambda t: files(t, [b"no image"]), r"0\.png cannot be read as an image")
case("no-images", lambda t: files(t, [b"1"], ".heic"), r"holds no images .* it has 1 of \.heic")


def others(tmp):
    files(fill(tmp / "a", GREY), [b"{}"] * 2, ".json")
    return tmp / "a"


case("other-files", others, first(GREY), r"other files are not read: 2 of \.json")


def stray(tmp):
    fill(fill(tmp / "a", GREY) / "cats", GREY)
    return tmp / "a"


case("stray", stray, first(GREY[[0, 1, 2] * 2]), r"not classes, since 0\.png lies in none")

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


V = X[:, 0]  # vectors
case("big-endian", saved(X.astype(">f8")), X)
case("float16", saved(X.astype(np.float16)), X.astype(np.float16))
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
    "dates", held(np.array(["2020-01-01"] * 4, "M8[D]")[:, None]), "needs numbers. Subtract a date"
)
case("0-d", saved(np.float32(3)), r"shape \(\): needs \(N, D\)")
case("empty", saved(X[:0]), "has no samples")
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
case("arrays-of-two-shapes", held([V[0], V[1], V[0, :3]]), r"2 of \(5,\), 1 of \(3,\)")
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
case("oblong", held(X), X, rf"\(4, 6, 5\) is read as signals \(N, C, L\); {guess}")
case("oblong-images", held(X), X[:, None], note=r"\A\Z", layout="images")
case("vectors", held(X), X.reshape(4, 30), note=r"\A\Z", layout="vectors")
case("signals-last", held(X), X.transpose(0, 2, 1), layout="signals", channels="last")
case("long-signals", held(X[..., :2]), X[..., :2].transpose(0, 2, 1), r"signals \(N, L, C\)")
case("one-signal", held(V), V[:, None], layout="signals")
case("images-last", held(COLOR), first(COLOR), r"images \(N, H, W, C\)")
case("two-channels-last", held(COLOR[..., :2]), first(COLOR[..., :2]), r"images \(N, H, W, C\)")
DEEP_CODES = RNG.normal(size=(3, 16, 4, 4)).astype(np.float32)
case("latents", held(DEEP_CODES), DEEP_CODES, r"images \(N, C, H, W\)")
case("images-of-colour", held(BIG.transpose(0, 3, 1, 2)), first(BIG), note=r"\A\Z")
case("images-first", held(COLOR), COLOR, note=r"\A\Z", layout="images", channels="first")
case("volumes", held(COLOR), COLOR[:, None], layout="volumes")
case("volumes-last", held(COLOR[..., None]), COLOR[:, None], layout="volumes", channels="last")
case(
    "no-volumes",
    held(X),
    r"layout='volumes': data has shape \(4, 6, 5\), which can be signals",
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


@pytest.mark.parametrize(("make", "expected", "note", "options"), CASES)
def test_a_source_is_read_as_it_is_or_refused_by_name(tmp_path, make, expected, note, options):
    source = make(tmp_path)
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            read(source, **options)
        return
    data = read(source, **options)
    assert torch.equal(data.x, torch.from_numpy(np.asarray(expected, np.float32)))
    if note:
        assert re.search(note, "; ".join(data.notes)), data.notes


# --- labels of images -------------------------------------------------------------------------

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
    assert data.y.tolist() == codes
    assert data.class_names == names
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


def test_levels_are_advised_from_the_type_and_not_from_the_largest_value(tmp_path):
    dark = fill(tmp_path / "dark", GREY // 4)
    assert "with levels=256 " in inspect(dark)["whole numbers"]
    deep = files(tmp_path, map(png, DEEP[..., 0] // 9))
    dark.rename(tmp_path.parent / f"{tmp_path.name}-dark")
    assert "with levels=65536 " in inspect(deep)["whole numbers"]


def test_a_run_reads_later_data_as_its_own_whichever_way_it_lies(tmp_path):
    config = {"kind": "unet", "width": 8, "multipliers": (1,), "blocks": 1}
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
    assert caplog.messages == [f"data: shape (4, 6, 5) is read as signals (N, C, L); {guess}"]


def test_the_command_prints_each_choice(tmp_path, capsys):
    fill(tmp_path / "a", [GREY[0], *COLOR])
    files(tmp_path / "a", [b"1"], ".txt")
    assert end("data", "inspect", tmp_path / "a", "--resize", 4, "--background", "black") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "1 of 4 images (L) become RGB" in text
    assert "other files are not read: 1 of .txt" in text
    assert end("data", "inspect", tmp_path / "a", "--resize", "4,4") == 3
    assert "--resize '4,4': give pixels" in " ".join(capsys.readouterr().err.split())
