"""The bridges, loaded when first used."""

from . import diffusers as diffusers, edm as edm, scheduler as scheduler, score_sde as score_sde
