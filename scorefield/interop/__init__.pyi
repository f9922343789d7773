"""The bridges, loaded when first used."""

from . import (
    diffusers as diffusers,
    dit as dit,
    edm as edm,
    guided_diffusion as guided_diffusion,
    scheduler as scheduler,
    score_sde as score_sde,
)
