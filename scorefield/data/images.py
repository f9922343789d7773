"""Images in folders, in lists and in cells of tables, decoded by Pillow when they are read."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from scorefield._internal.errors import DataError
from scorefield._internal.files import leads_out
from scorefield.data.axes import Axes
from scorefield.data.config import ReadingConfig
from scorefield.data.contents import Coded, Contents, Values, counted, first_few, reading, whole
from scorefield.data.pixels import Form, Head, Source, head

KINDS = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
OPTIONS = ("background", "resize", "crop")
_SKIPPED = frozenset({"thumbs.db", "desktop.ini", "__macosx"})  # and hidden files
_IN_MEMORY = 2**28  # bytes of images that are decoded once; of more, each when it is read
_MOST_PIXELS = 2**25


def check_pillow(source: Path | str) -> None:
    """Refuse a source of images without Pillow."""
    if find_spec("PIL") is None:
        raise DataError(f"{source}: images need Pillow; pip install 'scorefield[images]'.")


def read_images(folder: Path, choices: ReadingConfig = ReadingConfig()) -> Contents:
    """Open a folder of images, sorted by name and number; subfolders are classes.

    Hidden files and the files that systems add to folders are left out.

    Raises:
        DataError: Pillow missing, no images, a link that leads out of the folder; as `decoded`.
    """
    check_pillow(folder)
    others: Counter[str] = Counter()
    with reading(folder, "a folder of images"):
        paths = list(_files(folder, others))
    if not paths:
        there = f"; it has {counted(others)}" if others else ""
        raise DataError(f"{folder} holds no images ({', '.join(KINDS)}){there}.")
    names = [path.relative_to(folder) for path in paths]
    parents = ["/".join(name.parts[:-1]) for name in names]
    contents = decoded(folder, paths, choices)
    notes, classes = list(contents.notes), None
    if all(parents):
        classes = _classes(parents)
        notes.append(f"subfolders are classes: {first_few(classes.labels)}")
    elif any(parents):
        outside = next(str(name) for name, parent in zip(names, parents, strict=True) if not parent)
        notes.append(f"subfolders are not classes, since {outside} lies in none")
    if others:
        notes.append(f"other files are not read: {counted(others)}")
    items = tuple(name.as_posix() for name in names)
    return replace(contents, classes=classes, notes=tuple(notes), items=items)


def _files(folder: Path, others: Counter[str]) -> Iterator[Path]:
    """Yield the images of a folder in natural order, and count files of other kinds."""
    root = folder.resolve()

    def visit(directory: Path, above: tuple[Path, ...]) -> Iterator[Path]:
        with os.scandir(directory) as entries:
            files = sorted(entries, key=lambda entry: natural(entry.name))
        for entry in files:
            path = directory / entry.name
            if entry.name.startswith(".") or entry.name.lower() in _SKIPPED:
                continue
            if entry.is_symlink():
                _check_link(path, root)
            if entry.is_dir():
                real = path.resolve()
                if real in above:
                    raise DataError(f"{path} is a link to a folder above it: remove the link.")
                yield from visit(path, (*above, real))
            elif path.suffix.lower() not in KINDS:
                others[path.suffix.lower() or entry.name] += 1
            elif entry.is_file():
                yield path
            else:
                raise DataError(f"{path} is not a plain file: remove it.")

    return visit(folder, (root,))


def _check_link(path: Path, root: Path) -> None:
    real = Path(os.path.realpath(path))
    if leads_out(path, root):
        raise DataError(f"{path} leads out of {root}, to {real}: copy the image into it.")
    if not real.exists():
        raise DataError(f"{path} is a link to {real}, which does not exist: remove the link.")


def natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts ``img2`` before ``img10``."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]


def _classes(parents: Sequence[str]) -> Coded:
    labels = sorted(set(parents), key=natural)
    codes = {label: code for code, label in enumerate(labels)}
    return Coded(np.array([codes[parent] for parent in parents], np.int64), tuple(labels))


def decoded(
    where: Path | str, sources: Sequence[Source], choices: ReadingConfig = ReadingConfig()
) -> Contents:
    """Return images as ``(N, C, H, W)``, of bytes or of 16 bits, decoded when they are read.

    Grey images have one channel; among images with colours they have three, as all others.

    Raises:
        DataError: images of different sizes without ``resize`` or ``crop``; floating-point or
            32-bit images among others; as `scorefield.data.pixels.head`.
    """
    check_pillow(where)
    background, target = _color(choices.background or "white"), _target(choices)
    heads = [head(source) for source in sources]
    kinds = Counter(each.kind for each in heads)
    if len(kinds) > 1 and {*kinds} != {"uint8", "uint16"}:
        raise DataError(
            f"{where} has images of several types: {counted(kinds)}, the first other one "
            f"{sources[[each.kind for each in heads].index(kinds.most_common()[1][0])]}. "
            "Convert them to one type."
        )
    size, sized = _size(where, sources, heads, target, choices.resize is not None)
    grey = all(each.grey for each in heads)
    grey = grey and (len({*background}) == 1 or not any(each.clear for each in heads))
    kind = "uint16" if len(kinds) > 1 else heads[0].kind
    form = Form(size, 1 if grey else 3, np.dtype(kind), background, choices.resize is not None)
    notes = [*_facts(heads, form, choices.background or "white"), *sized]
    values: Values = _Images(sources, form)
    if math.prod(values.shape) * form.kind.itemsize <= _IN_MEMORY:
        values = whole(values)
    return Contents(values, axes=Axes("images", "first"), notes=tuple(notes), options=OPTIONS)


def _target(choices: ReadingConfig) -> tuple[int, int] | None:
    """Return the width and height that images are brought to, if any."""
    if choices.resize and choices.crop:
        raise DataError("resize and crop: give one of them; resize cuts the middle out as well.")
    name, text = ("resize", choices.resize) if choices.resize else ("crop", choices.crop)
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", text)
    sides = [int(side) for side in match.groups(match[1])] if match else [0, 0]
    if min(sides) < 1 or math.prod(sides) > _MOST_PIXELS:
        raise DataError(f"{name}={text!r}: give pixels, as 64, or width and height, as 64x48.")
    return sides[0], sides[1]


def _size(
    where: Path | str,
    sources: Sequence[Source],
    heads: Sequence[Head],
    target: tuple[int, int] | None,
    scaled: bool,
) -> tuple[tuple[int, int], list[str]]:
    """Return the width and height of all images, and a note if some are brought to it."""
    sizes = Counter(_by(head.size) for head in heads)
    usual = sizes.most_common(1)[0][0]
    if target:
        small = [k for k, each in enumerate(heads) if min(np.subtract(each.size, target)) < 0]
        if small and not scaled:
            raise DataError(
                f"crop={_by(target)!r}: {len(small)} of {len(heads)} images are smaller, the first "
                f"{sources[small[0]]} of {_by(heads[small[0]].size)}; resize scales them."
            )
        verb = "scaled to cover" if scaled else "cut to the middle"
        return target, [f"{counted(sizes)} pixels are {verb} {_by(target)}"]
    if len(sizes) > 1:
        odd = next(k for k, each in enumerate(heads) if _by(each.size) != usual)
        raise DataError(
            f"{where} has images of several sizes: {counted(sizes)} pixels, the first other one "
            f'{sources[odd]}. Use resize="{usual}" to scale them to one size, or crop to cut '
            "their middle out."
        )
    return heads[0].size, []


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _color(text: str) -> tuple[int, ...]:
    from PIL import ImageColor

    color: tuple[int, ...] = ()
    with suppress(ValueError):
        color = ImageColor.getrgb(text)
    if len(color) != 3:
        raise DataError(f"background={text!r}: give a colour, as white or #8040ff.")
    return color


def _facts(heads: Sequence[Head], form: Form, background: str) -> Iterator[str]:
    """Yield a note for every change to some of the images."""

    def some(chosen: Callable[[Head], bool]) -> str:
        count = sum(map(chosen, heads))
        return f"{count} of {len(heads)} images" if count else ""

    if of := some(lambda each: each.turned):
        yield f"{of} are turned upright by their EXIF tag"
    if of := some(lambda each: each.clear):
        yield f"{of} may have transparent pixels, drawn over {background} (background)"
    modes = sorted({each.mode for each in heads} - _PLAIN)
    if form.channels == 3 and modes:
        yield f"{some(lambda each: each.mode in modes)} ({', '.join(modes)}) become RGB"
    if form.kind == np.uint16:
        narrow = some(lambda each: each.kind == "uint8")
        scaled = f"; {narrow} have 8 bits and are scaled to 16" if narrow else ""
        yield f"values have 16 bits, 0 to 65,535{scaled}"


_PLAIN = {"RGB", "RGBA", "RGBX", "RGBa"}


def read_grey(path: Path) -> np.ndarray:
    """Return one image of any colours as grey bytes ``(H, W)``; transparent pixels are black.

    Raises:
        DataError: as `scorefield.data.pixels.head`; more than 8 bits a channel.
    """
    check_pillow(path)
    facts = head(path)
    if facts.kind != "uint8":
        raise DataError(f"{path} has more than 8 bits a channel ({facts.mode}): save it with 8.")
    black = (0, 0, 0)
    grey: np.ndarray = Form(facts.size, 1, np.dtype(np.uint8), black).pixels(path)[0]
    return grey


class _Images:
    """Images ``(N, C, H, W)`` in one form."""

    def __init__(self, sources: Sequence[Source], form: Form) -> None:
        self.sources, self.form = sources, form
        self.shape, self.dtype = (len(sources), form.channels, *form.size[::-1]), form.kind

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        if len(rows) == 1:  # without a copy, as an image may be large
            return self.form.pixels(self.sources[int(rows[0])])[None]
        result = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for k, row in enumerate(rows):
            result[k] = self.form.pixels(self.sources[int(row)])
        return result
