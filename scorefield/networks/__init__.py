"""Networks: modules called as ``network(x, label, y=None)`` that know nothing of diffusion."""

from scorefield.networks.adm import ADM
from scorefield.networks.codec import Codec
from scorefield.networks.diffusers import Diffusers
from scorefield.networks.mlp import MLP
from scorefield.networks.song import SongUNet
from scorefield.networks.unet import UNet

__all__ = ["ADM", "MLP", "Codec", "Diffusers", "SongUNet", "UNet"]
