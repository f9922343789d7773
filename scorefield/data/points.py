r"""Points of a space in the columns of data: degrees, quaternions and other forms.

The columns of a part of a space are one of these forms:

========== ============= ==================================================================
form       part          columns
========== ============= ==================================================================
vector     euclidean:d   ``d`` numbers, which training standardizes
angles     torus:d       ``d`` angles
latlon     sphere        latitude and longitude
xyz        sphere:d      the ``d + 1`` numbers of a unit vector
quaternion so3           ``w, x, y, z``, of length 1
matrix     so3           the nine entries of a rotation matrix, row by row
euler      so3           yaw, pitch and roll: ``R = R_z(yaw) R_y(pitch) R_x(roll)``
========== ============= ==================================================================

Densities are relative to the volume of the space, whose angles are in radians, whatever the form.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import torch
from torch import Tensor

from scorefield._internal.errors import DataError
from scorefield.data.config import LONGEST, Form, PointsConfig
from scorefield.data.encoding import Encoded, Encoding, Shape
from scorefield.noise import Noise
from scorefield.spaces import SO3, Product, Space, Sphere, Torus, name_of, parse
from scorefield.spaces.rotations import matrix, quaternion, rotation

_TOLERANCE = 1e-3


def _sizes(space: Space) -> dict[Form, int]:
    """Return the forms of the points of a part, and their numbers of columns."""
    if isinstance(space, SO3):
        return {"matrix": 9, "quaternion": 4, "euler": 3}
    if isinstance(space, Sphere):
        return {"xyz": 3, "latlon": 2} if space.d == 2 else {"xyz": space.d + 1}
    flat: Form = "angles" if isinstance(space, Torus) else "vector"
    return {flat: space.dim}


def _parts(space: Space) -> Sequence[Space]:
    return space.spaces if isinstance(space, Product) else (space,)


def declared(space: str | Space, count: int, angles: str | None, name: str) -> PointsConfig:
    """Return the points in ``count`` columns.

    Args:
        space: a space or its name; a form may follow each part, as in ``so3:quaternion``. Forms
            that are not named follow from the number of columns.
        angles: degrees or radians. The default is degrees for ``latlon``; other angles need a unit,
            except with a space in place of its name, whose angles are in radians if it has no
            latitudes.
        name: of the data, for messages.

    Raises:
        DataError: columns that are not points of the space, or can be so in several ways.
    """
    words = (name_of(space) or "" if isinstance(space, Space) else space).split(",")
    ends = [word.strip().rpartition(":") for word in words]
    chosen = [(a, c) if c in get_args(Form) else (f"{a}{b}{c}", "") for a, b, c in ends]
    try:
        parts = [parse(part) for part, _ in chosen]
    except ValueError as error:
        raise DataError(str(error)) from None
    names = ",".join(name_of(part) or "" for part in parts)
    if len(names) > LONGEST:
        raise DataError(
            f"space: a name of {len(names)} characters; at most {LONGEST} are allowed. Write equal "
            "parts as one, as in torus:2 for torus,torus."
        )
    forms = [
        {form: size for form, size in _sizes(part).items() if want in ("", form)}
        for part, (_, want) in zip(parts, chosen, strict=True)
    ]
    ways = _ways(forms, count)
    shown = space if isinstance(space, str) else name_of(space)
    if len(ways) != 1:
        kind = "several forms fit" if ways else "they do not fit"
        raise DataError(
            f"space={shown!r}: {name} has {count} columns, and {kind}: "
            f"{'; '.join(map(_choices, parts))}. Name the columns as columns=, and forms as in "
            "so3:quaternion."
        )
    if angles not in (None, "degrees", "radians"):
        raise DataError(f"angles={angles!r}: give degrees or radians.")
    turned, globe = {"angles", "euler"} & {*ways[0]}, "latlon" in ways[0]
    if angles is None and turned and (globe or isinstance(space, str)):
        raise DataError(f"space={shown!r}: {name} has angles; give angles, degrees or radians.")
    unit = angles or ("degrees" if globe else "radians")
    return PointsConfig.model_validate({"space": names, "forms": ways[0], "angles": unit})


def _ways(forms: Sequence[Mapping[Form, int]], count: int) -> list[tuple[Form, ...]]:
    """Return the forms of all parts that take ``count`` columns together, the first two ways."""
    ways: dict[int, list[tuple[Form, ...]]] = {0: [()]}
    for sizes in forms:
        longer: dict[int, list[tuple[Form, ...]]] = {}
        for (total, some), (form, size) in itertools.product(ways.items(), sizes.items()):
            if total + size <= count:
                longer.setdefault(total + size, []).extend((*way, form) for way in some)
        ways = {total: some[:2] for total, some in longer.items()}
    return ways.get(count, [])


def _choices(part: Space) -> str:
    """Return the numbers of columns of a part, in words."""
    forms = [f"{n} columns ({form})" for form, n in _sizes(part).items()]
    return f"{name_of(part)} has {' or '.join(forms)}"


def described(points: PointsConfig) -> str:
    """Return the space with the form of each part, as `declared` takes it."""
    pairs = zip(points.space.split(","), points.forms, strict=True)
    return ",".join(
        part if form in ("vector", "angles") else f"{part}:{form}" for part, form in pairs
    )


@dataclass(frozen=True)
class Points(Encoding):
    """The encoding of columns as points of a space.

    Args:
        config: the space and the forms.
        sample: the shape of a sample: the columns, or that of a point.
        names: of the columns.

    Raises:
        ValueError: forms that are not those of the space, or of another number of columns.
    """

    config: PointsConfig
    sample: Shape
    names: tuple[str, ...] = ()

    width, present = torch.zeros(()), torch.zeros(())
    absent = torch.zeros((), dtype=torch.bool)

    def __post_init__(self) -> None:
        parts, forms = _parts(self.space), self.config.forms
        valid = len(parts) == len(forms) and all(
            form in _sizes(part) for part, form in zip(parts, forms, strict=True)
        )
        count = math.prod(self.sample)
        if not valid or sum(self._counts) != count or max(self.config.positive, default=0) >= count:
            raise ValueError(
                f"points of {self.config.space} in the forms {', '.join(forms)} do not have the "
                f"shape {self.sample}."
            )

    @cached_property
    def space(self) -> Space:
        """The space of the points."""
        return parse(self.config.space)

    @property
    def _counts(self) -> list[int]:
        pairs = zip(_parts(self.space), self.config.forms, strict=True)
        return [_sizes(part)[form] for part, form in pairs]

    @property
    def _unit(self) -> float:
        return math.pi / 180 if self.config.angles == "degrees" else 1.0

    def shape(self, sample: Shape) -> Shape:
        return self.space.shape

    def base(self, x: Tensor) -> Tensor:
        pieces = torch.split(x.flatten(1), self._counts, 1)
        pairs = zip(_parts(self.space), self.config.forms, pieces, strict=True)
        points = [_point(part, form, piece, self._unit) for part, form, piece in pairs]
        return self.space.join(points) if isinstance(self.space, Product) else points[0]

    def forward(self, x: Tensor, noise: Noise) -> Encoded:
        return Encoded(self.base(x), torch.zeros(len(x), device=x.device), noise)

    def inverse(self, v: Tensor) -> Tensor:
        points = self.space.split(v) if isinstance(self.space, Product) else [v]
        pairs = zip(points, self.config.forms, strict=True)
        x = torch.cat([_columns(form, point, self._unit) for point, form in pairs], 1)
        for k in self.config.positive:
            x[:, k] %= 2 * math.pi / self._unit
        return x.reshape(-1, *self.sample)

    def observed(self, missing: Tensor) -> Tensor:
        return torch.zeros(len(missing), *self.space.shape, dtype=torch.bool)

    def check(self, x: Tensor, name: str) -> None:
        pieces = torch.split(x.flatten(1), self._counts, 1)
        first = 0
        for part, form, piece in zip(_parts(self.space), self.config.forms, pieces, strict=True):
            limits = [each * math.pi / self._unit for each in _limits(form, piece.shape[1])]
            beyond = ~(piece.abs() <= piece.new_tensor(limits) * (1 + 1e-6)) | piece.isinf()
            if len(bad := beyond.nonzero()):
                row, k = bad[0].tolist()
                needs = f"a number of at most {limits[k]:.6g} {self.config.angles}"
                needs = "a finite number" if math.isinf(limits[k]) else needs
                column = self._name(first + k)
                raise DataError(
                    f"{name}, item {row}, column {column}: {float(piece[row, k]):g}, but it must "
                    f"be {needs}."
                )
            if len(bad := (_gap(part, form, piece) > _TOLERANCE).nonzero()):
                row = int(bad[0])
                columns = ", ".join(self._name(first + k) for k in range(piece.shape[1]))
                raise DataError(
                    f"{name}, item {row}, columns {columns}: {piece[row].tolist()}, but they must "
                    f"be {_NEEDS[form]}."
                )
            first += piece.shape[1]

    def check_varies(self, low: Tensor, high: Tensor, name: str) -> None:
        """Reject a column of a Euclidean part without a density, by the bounds of its values.

        Raises:
            DataError: naming the column.
        """
        pairs = zip(self.config.forms, self._counts, strict=True)
        forms = [form for form, count in pairs for _ in range(count)]
        for k, form in enumerate(forms):
            if form == "vector" and low[k] == high[k]:
                raise DataError(
                    f"{name}, column {self._name(k)}: its values are all {float(low[k]):g}, and "
                    "have no density. Leave it out."
                )

    def _name(self, column: int) -> str:
        return self.names[column] if self.names else str(column)


_NEEDS = {
    "xyz": "a vector of length 1",
    "quaternion": "a quaternion w, x, y, z of length 1",
    "matrix": "a rotation matrix",
}


def with_turns(config: PointsConfig, low: Sequence[float], high: Sequence[float]) -> PointsConfig:
    """Return the points of columns with the bounds of their numbers, which show the turns used."""
    half = math.pi if config.angles == "radians" else 180.0
    limits = [
        limit
        for part, form in zip(_parts(parse(config.space)), config.forms, strict=True)
        for limit in _limits(form, _sizes(part)[form])
    ]
    turns = zip(limits, low, high, strict=True)
    positive = [k for k, (limit, a, b) in enumerate(turns) if limit == 2 and a >= 0 and b > half]
    return config.model_copy(update={"positive": tuple(positive)})


def notes_of(points: PointsConfig, names: Sequence[str], name: str) -> list[str]:
    """Return which columns are the numbers of a form, where their order is easily another.

    Raises:
        DataError: names of another order.
    """
    notes, first = [], 0
    for part, form in zip(_parts(parse(points.space)), points.forms, strict=True):
        own = names[first : first + _sizes(part)[form]]
        first += len(own)
        low, needs = [each.lower() for each in own], ""
        if form == "latlon":
            notes.append(f"latitude = {own[0]}, longitude = {own[1]}, in {points.angles}")
            if low[0].startswith(("lon", "lng")) or low[1].startswith("lat"):
                needs = "latitude, then longitude"
        elif form == "quaternion":
            notes.append(f"quaternion w, x, y, z = {', '.join(own)}")
            if low[-1].endswith("w") and not low[0].endswith("w"):
                needs = "w, x, y, z of a quaternion"
        if needs:
            raise DataError(
                f"columns={','.join(own)!r}: {name} has these columns as {needs}, but their names "
                "say another order. Name them in this order."
            )
    return notes


def _limits(form: Form, count: int) -> list[float]:
    """Return the largest sizes of numbers, in half turns."""
    if form == "latlon":
        return [0.5, 2.0]
    return [2.0 if form in ("angles", "euler") else math.inf] * count


def _gap(part: Space, form: Form, x: Tensor) -> Tensor:
    """Return how far columns are from those of a point, ``(B,)``."""
    if form == "matrix":
        return part._gap(x.reshape(-1, 3, 3))
    return (x.norm(dim=1) - 1).abs() if form in _NEEDS else torch.zeros_like(x[:, 0])


def _point(part: Space, form: Form, x: Tensor, unit: float) -> Tensor:
    """Return the points of columns ``(B, count)``."""
    if form == "latlon":
        up, along = (x * unit).unbind(1)
        return torch.stack([up.cos() * along.cos(), up.cos() * along.sin(), up.sin()], 1)
    if form == "euler":
        angles, axes = x * unit, torch.eye(3).to(x).flip(0)
        yaw, pitch, roll = (rotation(angles[:, k : k + 1] * axes[k]) for k in range(3))
        return yaw @ pitch @ roll
    if form == "quaternion":
        return matrix(x / x.norm(dim=1, keepdim=True))
    return part.project(x.reshape(-1, *part.shape) * (unit if form == "angles" else 1.0))


def _columns(form: Form, p: Tensor, unit: float) -> Tensor:
    """Return the columns of points, the inverse of `_point`."""
    if form == "latlon":
        up = torch.atan2(p[:, 2], p[:, :2].norm(dim=1))
        return torch.stack([up, torch.atan2(p[:, 1], p[:, 0])], 1) / unit
    if form == "euler":
        yaw = torch.atan2(p[:, 1, 0], p[:, 0, 0])
        pitch = torch.atan2(-p[:, 2, 0], p[:, :2, 0].norm(dim=1))
        roll = torch.atan2(p[:, 2, 1], p[:, 2, 2])
        return torch.stack([yaw, pitch, roll], 1) / unit
    if form == "quaternion":
        return quaternion(p)
    return p.flatten(1) / (unit if form == "angles" else 1.0)
