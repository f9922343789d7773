"""Manifolds: vectors, angles, directions, rotations and products, with their heat kernels."""

from scorefield.spaces.base import (
    HeatKernel as HeatKernel,
    Isotropic as Isotropic,
    Space as Space,
)
from scorefield.spaces.brownian import Brownian as Brownian
from scorefield.spaces.flat import Euclidean as Euclidean, Torus as Torus
from scorefield.spaces.mixture import HeatMixture as HeatMixture
from scorefield.spaces.names import name_of as name_of, parse as parse
from scorefield.spaces.network import SpaceNetwork as SpaceNetwork
from scorefield.spaces.product import Product as Product
from scorefield.spaces.rotations import SO3 as SO3
from scorefield.spaces.sphere import Sphere as Sphere

__all__ = [
    "SO3",
    "Brownian",
    "Euclidean",
    "HeatKernel",
    "HeatMixture",
    "Isotropic",
    "Product",
    "Space",
    "SpaceNetwork",
    "Sphere",
    "Torus",
    "name_of",
    "parse",
]
