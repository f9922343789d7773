"""One image to an array: upright, over a background, at the depth of its file.

A value is from 0 to 255, or to 65,535 in files of 16 bits a channel. A transparent pixel of colour
c and opacity a over the background b is ``a c + (1 - a) b``.

Pillow cuts colours of 16 bits to their upper bytes. Decoded with the other order of bytes they are
the lower bytes, so two passes give all 16 bits.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from scorefield._internal import files
from scorefield._internal.errors import DataError
from scorefield.data.contents import reading

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "GIF", "TIFF")
_MOST_BYTES = 2**30  # of a file
_MOST_PIXELS = 2**25  # of one image
_GREY = ("1", "L", "LA", "La", "I", "F")
_BAND = 256  # rows
_DEEP = 257  # 255 of 8 bits is 65,535 of 16
_BLOCKS = "tile"  # the attribute of Pillow with the layout of a file
_ORIENTATION = 0x112  # of EXIF
_TURNS: dict[Any, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
_OTHER_ORDER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


@dataclass(frozen=True)
class Encoded:
    """An image in memory, as a file or as an object of Pillow, with its place for messages."""

    place: str
    content: Any

    def __str__(self) -> str:
        return self.place


Source = Path | Encoded


@dataclass(frozen=True)
class Head:
    """The facts of an image before it is decoded.

    Attributes:
        size: width and height, upright.
        mode: of Pillow.
        kind: the type of its values.
        grey: whether it has no colours.
        clear: whether some pixels may be transparent.
        turned: whether a tag of the file turns it upright.
    """

    size: tuple[int, int]
    mode: str
    kind: str
    grey: bool
    clear: bool
    turned: bool


@dataclass(frozen=True)
class Form:
    """The form that all images of a source are brought to.

    Attributes:
        size: width and height.
        channels: 1 or 3.
        kind: the type of the values.
        background: red, green and blue under transparent pixels.
        scaled: whether an image is scaled to cover the size before its middle is cut out.
    """

    size: tuple[int, int]
    channels: int
    kind: np.dtype
    background: tuple[int, ...] = (255, 255, 255)
    scaled: bool = False

    def pixels(self, source: Source) -> np.ndarray:
        """Return an image in this form, ``(C, H, W)``.

        Raises:
            DataError: an image that cannot be decoded, or that has changed since it was counted.
        """
        with _opened(source) as image:
            array = _decoded(source, image, self.background, self.channels)
            array = _TURNS.get(_orientation(image), np.asarray)(array)
        if self.kind == np.uint16 and array.dtype == np.uint8:
            array = array.astype(np.uint16) * _DEEP
        if array.dtype == self.kind:
            array = _middle(_covering(array, self.size) if self.scaled else array, self.size)
        if array.shape != (*self.size[::-1], self.channels) or array.dtype != self.kind:
            raise DataError(f"{source} has changed while it was read.")
        return np.moveaxis(array, 2, 0)


def head(source: Source) -> Head:
    """Return the facts of an image, from its header where the format allows.

    Raises:
        DataError: another format, several frames, too many pixels, or a kind that Pillow would cut
            to 8 bits.
    """
    with _opened(source) as image:
        (width, height), mode = image.size, image.mode
        if width * height > _MOST_PIXELS:
            raise DataError(f"{source} declares {width} x {height} pixels: at most {_MOST_PIXELS}.")
        if getattr(image, "is_animated", False) and image.format != "MPO":
            raise DataError(
                f"{source} has {image.n_frames} frames or pages: save each as an image of its own."
            )
        raw, kind = _raw(image), _kind(image)
        if kind == "uint16" and mode[0] != "I" and not _is_deep(image):
            raise DataError(
                f"{source} has more than 8 bits a channel ({raw}), which is read only for grey "
                "images and for RGB and RGBA in PNG and TIFF: save it as one of them, or as .npy."
            )
        orientation = _orientation(image)
        grey = mode in _GREY or mode.startswith("I;16") or raw.startswith("LA")
        clear = "transparency" in image.info or mode[-1] in "Aa" or raw.startswith("LA")
    size = (height, width) if orientation in (5, 6, 7, 8) else (width, height)
    return Head(size, mode, kind, grey, clear, orientation in _TURNS)


@contextmanager
def _opened(source: Source) -> Iterator[Any]:
    """Yield an image of Pillow; its errors are raised as `DataError`, its warnings are silent."""
    from PIL import Image, ImageFile

    content: Any = source.content if isinstance(source, Encoded) else source
    others = LookupError, AttributeError, Image.DecompressionBombError
    with reading(str(source), "an image", *others), warnings.catch_warnings(action="ignore"):
        if isinstance(content, Path) and not files.check(content, _MOST_BYTES):
            raise ValueError("the file is empty")
        if hasattr(content, "getbands"):
            yield content.copy()
            return
        file = BytesIO(content) if isinstance(content, bytes) else content
        strict, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            with Image.open(file, formats=_FORMATS) as image:
                yield image
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = strict


def _orientation(image: Any) -> Any:
    # Pillow turns a TIFF upright itself; a PNG may have the tag at its end
    return 1 if image.format == "TIFF" else image.getexif().get(_ORIENTATION, 1)


def _raw(image: Any) -> str:
    """Return Pillow's name of the layout of an image's values in its file, or of those it has."""
    blocks = getattr(image, _BLOCKS, None)
    if not blocks:
        return str(image.mode)
    args = blocks[0].args
    raw = args if isinstance(args, str) else args[0] if args else image.mode
    deep = blocks[0].codec_name == "ppm" and args[1] > 255 and image.mode == "RGB"
    return f"{raw};16" if deep else str(raw)


def _kind(image: Any) -> str:
    if image.mode == "I" and (image.format == "TIFF" or image.format is None):
        return "int32"
    if image.mode == "F":
        return "float32"
    return "uint16" if image.mode[0] == "I" or ";16" in _raw(image) else "uint8"


def _is_deep(image: Any) -> bool:
    """Return whether both bytes of 16-bit colours can be decoded."""
    form, _, order = _raw(image).partition(";16")
    if image.format == "PNG":
        return form in ("LA", "RGB", "RGBA")
    return image.format == "TIFF" and form in ("RGB", "RGBA") and order in _OTHER_ORDER


def _decoded(source: Source, image: Any, background: tuple[int, ...], channels: int) -> np.ndarray:
    """Return an image over a background as ``(H, W, C)``, not yet upright."""
    from PIL import Image

    kind = _kind(image)
    if kind != "uint8":
        deep = np.array(background, np.float64) * _DEEP
        return _with_channels(_over(*_wide(source, image, kind), deep), channels)
    if image.mode[-1] in "Aa" or "transparency" in image.info:
        front = image.convert("RGBA")
        back = Image.new("RGBA", front.size, background)
        image = Image.alpha_composite(back, front).convert("RGB")
    mode = "L" if channels == 1 else "RGB"
    return _copied(image if image.mode == mode else image.convert(mode), channels)


def _copied(image: Any, channels: int) -> np.ndarray:
    """Return the bytes of an image ``(H, W, C)``, copied in bands: Pillow takes twice a band."""
    width, height = image.size
    image.load()
    array = np.moveaxis(np.empty((channels, height, width), np.uint8), 0, 2)
    for top in range(0, height, _BAND):
        band = image.crop((0, top, width, min(top + _BAND, height)))
        array[top : top + _BAND] = np.asarray(band).reshape(-1, width, channels)
    return array


def _wide(source: Source, image: Any, kind: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return values of more than 8 bits ``(H, W, C)``, and the opacity from 0 to 1 if there is one.

    A color that the file declares transparent has opacity 0.
    """
    form, clear = _raw(image).partition(";16")[0], image.info.get("transparency")
    if image.mode[0] in "IF":
        values = np.asarray(image).astype(kind)[:, :, None]
    elif form == "LA":  # two channels of two bytes, as four channels
        image._mode = "RGBA"
        _decode_by(image, lambda args: "RGBA")
        values = np.asarray(image).view(">u2").astype(kind)
    else:
        values = _both_bytes(source, image)
    if form in ("LA", "RGBA"):
        return values[:, :, :-1], values[:, :, -1:] / 65535
    if clear is None:
        return values, None
    return values, (values != np.array(clear)).any(2, keepdims=True).astype(np.float64)


def _both_bytes(source: Source, image: Any) -> np.ndarray:
    upper = np.asarray(image).astype(np.uint16)
    with _opened(source) as again:
        _decode_by(again, _turned)
        result: np.ndarray = (upper << 8) | np.asarray(again)
    return result


def _decode_by(image: Any, change: Callable[[Any], Any]) -> None:
    """Change the arguments of Pillow's decoder, before it is used."""
    blocks = [block._replace(args=change(block.args)) for block in getattr(image, _BLOCKS)]
    setattr(image, _BLOCKS, blocks)


def _turned(args: Any) -> Any:
    """Return a decoder's arguments with the other order of bytes."""
    if not isinstance(args, str):
        return (_turned(args[0]), *args[1:])
    return args[:-1] + _OTHER_ORDER[args[-1]]


def _over(values: np.ndarray, opacity: np.ndarray | None, background: np.ndarray) -> np.ndarray:
    if opacity is None:
        return values
    back = background[:1] if values.shape[2] == 1 and len({*background}) == 1 else background
    result: np.ndarray = np.rint(opacity * values + (1 - opacity) * back).astype(values.dtype)
    return result


def _with_channels(array: np.ndarray, channels: int) -> np.ndarray:
    if array.shape[2] == channels:
        return array
    if channels == 3:
        return np.repeat(array, 3, 2)
    grey: np.ndarray = np.rint(array @ [0.299, 0.587, 0.114])[:, :, None].astype(array.dtype)
    return grey


def _covering(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image scaled to just cover a size, by Lanczos' filter."""
    from PIL import Image

    height, width = array.shape[:2]
    scale = max(size[0] / width, size[1] / height)
    to = max(size[0], round(scale * width)), max(size[1], round(scale * height))
    if to == (width, height):
        return array
    kind = array.dtype if array.dtype == np.uint8 else np.dtype(np.float32)
    planes = [Image.fromarray(plane) for plane in np.moveaxis(array, 2, 0).astype(kind)]
    scaled = [plane.resize(to, Image.Resampling.LANCZOS) for plane in planes]
    result = np.stack([np.asarray(plane) for plane in scaled], 2)
    if array.dtype == kind:
        return result
    limits = np.iinfo(array.dtype)
    return np.rint(result.astype(np.float64)).clip(limits.min, limits.max).astype(array.dtype)


def _middle(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    top, left = (array.shape[0] - size[1]) // 2, (array.shape[1] - size[0]) // 2
    return array[max(top, 0) :, max(left, 0) :][: size[1], : size[0]]
