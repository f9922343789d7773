"""Images in folders and in cells of tables, decoded by Pillow when they are read."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from scorefield._internal.errors import DataError
from scorefield.data.contents import Contents, Values, coded

KINDS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm")
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM")
_MOST_PIXELS = 2**25  # of one image
_GREY = ("1", "L")


@dataclass(frozen=True)
class Encoded:
    """An image file in memory, with its place for messages."""

    place: str
    content: bytes

    def __str__(self) -> str:
        return self.place


Source = Path | Encoded


def _check_pillow(source: Path | str) -> None:
    if find_spec("PIL") is None:
        raise DataError(f"{source}: images need Pillow; pip install 'scorefield[images]'.")


def read_images(folder: Path) -> Contents:
    """Open a folder of images of one size; subfolders are classes.

    Grey images have one channel, others three; transparent images are drawn over white. Values are
    0 to 255.

    Raises:
        DataError: Pillow missing, no images, images of different sizes, a file that is not an
            image, one of more than `_MOST_PIXELS` pixels or of more than 8 bits.
    """
    _check_pillow(folder)
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in KINDS and p.is_file())
    if not paths:
        raise DataError(f"{folder} holds no images ({', '.join(KINDS)}).")
    for path in paths:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{path} leads out of {folder}: copy the image into it.")
    parents = [path.relative_to(folder).parts[:-1] for path in paths]
    classes = coded(np.array(["/".join(p) for p in parents])) if all(parents) else None
    return Contents(decoded(folder, paths), classes=classes)


def decoded(where: Path | str, sources: Sequence[Source]) -> Values:
    """Return images of one size as bytes ``(N, C, H, W)``, decoded when they are read.

    Raises:
        DataError: as `read_images`.
    """
    _check_pillow(where)
    heads = [_head(source) for source in sources]
    sizes = Counter(size for size, _ in heads)
    if len(sizes) > 1:
        usual = sizes.most_common(1)[0][0]
        k = next(k for k, (size, _) in enumerate(heads) if size != usual)
        raise DataError(
            f"{sources[k]} is of {'x'.join(map(str, heads[k][0]))} pixels, and {sizes[usual]} of "
            f"{len(sources)} images of {'x'.join(map(str, usual))}: bring them to one size."
        )
    grey = all(mode in _GREY for _, mode in heads)
    return _Images(sources, heads[0][0], 1 if grey else 3)


def read_grey(path: Path) -> np.ndarray:
    """Return one image of any colours as grey bytes ``(H, W)``.

    Raises:
        DataError: as `read_images`.
    """
    _check_pillow(path)
    size, _ = _head(path)
    grey: np.ndarray = _Images([path], size, 1)[np.zeros(1, np.int64)][0, 0]
    return grey


class _Images:
    """Images ``(N, C, H, W)`` of bytes."""

    def __init__(self, sources: Sequence[Source], size: tuple[int, int], channels: int) -> None:
        self.sources = sources
        self.shape = (len(sources), channels, size[1], size[0])
        self.dtype = np.dtype(np.uint8)

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        images = [self._decoded(self.sources[k]) for k in rows]
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), np.uint8)

    def _decoded(self, source: Source) -> np.ndarray:
        from PIL import Image

        try:
            with _opened(source) as image:
                if self.shape[1] == 1:
                    array = np.asarray(image.convert("L"))[None]
                elif "A" in image.getbands() or "transparency" in image.info:
                    front = image.convert("RGBA")
                    back = Image.new("RGBA", front.size, "white")
                    array = np.asarray(Image.alpha_composite(back, front).convert("RGB"))
                    array = np.moveaxis(array, 2, 0)
                else:
                    array = np.moveaxis(np.asarray(image.convert("RGB")), 2, 0)
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{source} cannot be read as an image: {error}") from None
        if array.shape != self.shape[1:]:
            raise DataError(f"{source} has changed while it was read.")
        return array


def _head(source: Source) -> tuple[tuple[int, int], str]:
    """Return an image's width and height and its mode, from its header alone."""
    try:
        with _opened(source) as image:
            size, mode = image.size, image.mode
    except (OSError, ValueError, SyntaxError, _bomb()) as error:
        raise DataError(f"{source} cannot be read as an image: {error}") from None
    if size[0] * size[1] > _MOST_PIXELS:
        raise DataError(f"{source} declares {size[0]} x {size[1]} pixels: at most {_MOST_PIXELS}.")
    if mode.startswith(("I", "F")):
        raise DataError(f"{source} has more than 8 bits a channel ({mode}): save the data as .npy.")
    return size, mode


def _opened(source: Source) -> Any:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `_head` has a limit
        file = BytesIO(source.content) if isinstance(source, Encoded) else source
        return Image.open(file, formats=_FORMATS)


def _bomb() -> type[Exception]:
    from PIL import Image

    return Image.DecompressionBombError
