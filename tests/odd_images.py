"""Images as their owners hold them: cases of `test_odd_files.py`."""

import os
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from scorefield._internal.errors import DataError
from scorefield.data import read

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (3, 6, 5), dtype=np.uint8)
COLOR = RNG.integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (3, 6, 5, 3), dtype=np.uint16)
ALPHA = RNG.integers(0, 256, (3, 6, 5, 1), dtype=np.uint8)
CLEAR = np.concatenate([COLOR, ALPHA], 3)
WIDE_CLEAR = RNG.integers(0, 65536, (3, 6, 5, 4), dtype=np.uint16)
X = RNG.normal(size=(4, 5, 6)).astype(np.float32)


@dataclass(frozen=True)
class Source:
    """A source that a function makes in a folder, the options of reading, and the outcome."""

    id: str
    make: Callable[[Path], Any]
    expected: Any
    options: dict[str, Any]


@dataclass(frozen=True)
class Samples:
    """Samples, bit for bit, and a pattern in the notes."""

    x: np.ndarray
    note: str

    def check(self, source, **options):
        data = read(source, **options)
        assert np.array_equal(data.x.numpy(), self.x, equal_nan=True)
        assert re.search(self.note, "; ".join(data.notes)), data.notes


@dataclass(frozen=True)
class Rejected:
    """A refusal, by a pattern of its message."""

    message: str

    def check(self, source, **options):
        with pytest.raises(DataError, match=self.message):
            read(source, **options)


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


IMAGES = []


def case(name, make, expected, note="", cases=IMAGES, **options):
    """Add a case: an expected text is that of a refusal, and anything else the samples."""
    rejected = isinstance(expected, str)
    outcome = Rejected(expected) if rejected else Samples(np.asarray(expected, np.float32), note)
    cases.append(Source(name, make, outcome, options))


for k in range(1, 9):
    case(f"exif-{k}", *tagged(k, ".png"), note="" if k == 1 else "turned upright")
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


def hub(tmp):
    """A snapshot of the hub: links to blobs beside it."""
    blobs, snapshot = tmp / "models/blobs", tmp / "models/snapshots/abc"
    fill(blobs, GREY)
    snapshot.mkdir(parents=True)
    for k in range(3):
        (snapshot / f"{k}.png").symlink_to(blobs / f"{k}.png")
    return snapshot


case("hub", hub, first(GREY))


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
case("no-file", lambda t: [t / "a.png"], r"a\.png cannot be read as an image: the file does not")
