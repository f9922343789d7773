"""Spaces by name: ``sphere:2``, or ``so3,euclidean:3`` for a product."""

from __future__ import annotations

from scorefield.spaces.base import Space
from scorefield.spaces.flat import Euclidean, Torus
from scorefield.spaces.product import Product
from scorefield.spaces.rotations import SO3
from scorefield.spaces.sphere import Sphere

_FAMILIES = {"euclidean": (Euclidean, 1), "torus": (Torus, 1), "sphere": (Sphere, 2)}
MOST_PARTS = 1000


def parse(text: str) -> Space:
    """Return the space of a name: ``euclidean:d``, ``torus:d``, ``sphere:d``, ``so3``.

    Names separated by commas are for a product. Without ``:d`` the sphere has two dimensions, and
    the others one.

    Raises:
        ValueError: a name that does not exist.
    """
    parts = [_part(each.strip()) for each in text.split(",")[:MOST_PARTS]]
    return parts[0] if len(parts) == 1 else Product(*parts)


def _part(text: str) -> Space:
    kind, sign, number = text.partition(":")
    if text == "so3":
        return SO3()
    if kind not in _FAMILIES or bool(sign) != number.isdecimal() or len(number) > 6:
        raise ValueError(
            f"space={text!r}: give sphere, torus:2, so3, euclidean:3, or several separated by "
            "commas for a product."
        )
    family, d = _FAMILIES[kind]
    return family(int(number or d))


def name_of(space: Space) -> str | None:
    """Return the name that `parse` reads, or None for a space of your own."""
    names = []
    for part in space.spaces if isinstance(space, Product) else (space,):
        kind = type(part).__name__.lower()
        if type(part) not in (SO3, *(family for family, _ in _FAMILIES.values())):
            return None
        names.append(kind if isinstance(part, SO3) else f"{kind}:{part.dim}")
    return ",".join(names)
