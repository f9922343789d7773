"""Checkpoints of EDM and of score_sde as runs: they say what the papers' formulas make of them.

The networks are written here a second time, from the papers and by the names that the checkpoints
have, as functions of a state dict that is made up as they ask for it. What is imported must hold
the same names and shapes, and give the same values.
"""

import json
import math
import pickle
import shutil
import sys
import types
from itertools import count, pairwise

import numpy as np
import pytest
import torch
from cases import normal, tensor
from safetensors.torch import save_file
from shell import failing, finishes
from test_diffusers import Replay
from torch.nn import functional as F

import scorefield as sf
from scorefield._internal.errors import CheckpointError, UsageError
from scorefield.field import digest
from scorefield.interop import edm, score_sde
from scorefield.networks.resample import Double, Halve

SIDE, WIDTH, CLASSES = 8, 16, 3
ROOT = math.sqrt(0.5)
FIR = (1, 3, 3, 1)


class Weights(dict):
    """A state dict in which there is what was asked for, at random."""

    def __call__(self, name, *shape, around=0.0):
        if name not in self:
            spread = 0.4 / max(1, math.prod(shape[1:])) ** 0.5
            self[name] = (around + spread * normal(*shape, seed=len(self))).float()
        assert self[name].shape == shape, name
        return self[name].double()


# --- the papers' networks -------------------------------------------------------------------------


def linear(w, name, x, size, bias=True):
    weight = w(f"{name}.weight", size, x.shape[1])
    return F.linear(x, weight, w(f"{name}.bias", size) if bias else None)


def conv(w, name, x, size, kernel=3):
    weight = w(f"{name}.weight", size, x.shape[1], kernel, kernel)
    return F.conv2d(x, weight, w(f"{name}.bias", size), padding=kernel // 2)


def norm(w, name, x, eps=1e-6):
    size = x.shape[1]
    weight, bias = w(f"{name}.weight", size, around=1.0), w(f"{name}.bias", size)
    return F.group_norm(x, min(32, size // 4), weight, bias, eps)


def attend(x, q, k, v, heads=1):
    """Return dot-product attention of ``(B, C, N)``, each head of adjacent channels."""
    q, k, v = (a.unflatten(1, (heads, -1)) for a in (q, k, v))
    scores = torch.einsum("bhcn,bhcm->bhnm", q, k) / math.sqrt(q.shape[2])
    return torch.einsum("bhnm,bhcm->bhcn", scores.softmax(-1), v).reshape(x.shape)


class Edm:
    """Names of EDM's networks."""

    def __init__(self, beside):
        down = ["enc.8x8_conv", "enc.8x8_block0", "enc.4x4_down", beside, "enc.4x4_block0"]
        up = ["dec.4x4_in0", "dec.4x4_in1", "dec.4x4_block0", "dec.4x4_block1", "dec.8x8_up"]
        last = ["dec.8x8_block0", "dec.8x8_block1", "dec.8x8_aux_norm", "dec.8x8_aux_conv"]
        self.parts = iter([n for n in ("map_layer0", "map_layer1", *down, *up, *last) if n])
        self.layers = ["norm0", "conv0", "affine", "norm1", "conv1", "skip"]

    features = "map_noise.freqs"

    def attention(self, w, name, x, heads=1, eps=1e-6):
        """Query, key and value lie beside each other, channel by channel."""
        size = x.shape[1]
        mixed = conv(w, f"{name}.qkv", norm(w, f"{name}.norm2", x, eps), 3 * size, 1)
        q, k, v = mixed.flatten(2).unflatten(1, (size, 3)).unbind(2)
        return conv(w, f"{name}.proj", attend(x, q, k, v, heads), size, 1)


class ScoreSde:
    """Numbers of score_sde's parts: attention is one of its own."""

    def __init__(self, beside):
        self.numbers = count(int(bool(beside)))
        self.layers = ["GroupNorm_0", "Conv_0", "Dense_0", "GroupNorm_1", "Conv_1", "Conv_2"]
        self.beside = beside

    features = "all_modules.0.W"

    @property
    def parts(self):
        return (f"all_modules.{k}" for k in self.numbers)

    def attention(self, w, name, x):
        size, part = x.shape[1], next(self.parts)
        h = norm(w, f"{part}.GroupNorm_0", x)

        def pointwise(k, h):
            weight, bias = w(f"{part}.NIN_{k}.W", size, size), w(f"{part}.NIN_{k}.b", size)
            return torch.einsum("bchw,cd->bdhw", h, weight) + bias[:, None, None]

        q, k, v = (pointwise(i, h).flatten(2) for i in range(3))
        return pointwise(3, attend(x, q, k, v))


def song(w, x, label, y, theirs, taps=(1, 1), fourier=False):
    """DDPM++, and NCSN++ with features and what the level above began with beside."""
    halve, double = Halve(taps), Double(taps)  # which tests of their own hold to scipy's

    def block(x, size, move=None, attends=False):
        name = next(theirs.parts)
        norm0, conv0, affine, norm1, conv1, skip = (f"{name}.{part}" for part in theirs.layers)
        h = F.silu(norm(w, norm0, x))
        x, h = (x, h) if move is None else (move(x), move(h))
        h = conv(w, conv0, h, size) + linear(w, affine, e, size)[..., None, None]
        h = conv(w, conv1, F.silu(norm(w, norm1, h)), size)
        wants = x.shape[1] != size or move is not None
        x = ROOT * ((conv(w, skip, x, size, 1) if wants else x) + h)
        return ROOT * (x + theirs.attention(w, name, x)) if attends else x

    if fourier:
        angles = 2 * math.pi * label[:, None] * w(theirs.features, WIDTH, around=0.5)
    else:
        angles = label[:, None] * 1e-4 ** (torch.arange(WIDTH // 2) / (WIDTH // 2 - 1))
    e = torch.cat([angles.sin(), angles.cos()], 1)
    if y is not None:
        e = e + linear(w, "map_label", math.sqrt(CLASSES) * y, e.shape[1])
    e = F.silu(linear(w, next(theirs.parts), e, 4 * WIDTH))
    e = F.silu(linear(w, next(theirs.parts), e, 4 * WIDTH))
    first = conv(w, next(theirs.parts), x, WIDTH)
    second = block(first, WIDTH)
    third = block(second, WIDTH, halve)
    if fourier:
        name = next(theirs.parts) + (".Conv2d_0" if isinstance(theirs, ScoreSde) else "")
        taps = torch.tensor(FIR).double() / 8
        kernel = (taps[:, None] * taps).expand(3, 1, 4, 4)
        blurred = F.conv2d(F.pad(x, (2, 2, 2, 2)), kernel, groups=3)
        weight, bias = w(f"{name}.weight", WIDTH, 3, 3, 3), w(f"{name}.bias", WIDTH)
        third = ROOT * (third + F.conv2d(blurred, weight, bias, stride=2))
    h = fourth = block(third, 2 * WIDTH, attends=True)
    h = block(block(h, 2 * WIDTH, attends=True), 2 * WIDTH)
    h = block(torch.cat([h, fourth], 1), 2 * WIDTH)
    h = block(torch.cat([h, third], 1), 2 * WIDTH, attends=True)
    h = block(h, 2 * WIDTH, double)
    h = block(torch.cat([h, second], 1), WIDTH)
    h = block(torch.cat([h, first], 1), WIDTH)
    h = F.silu(norm(w, next(theirs.parts), h))
    return conv(w, next(theirs.parts), h, 3)


def adm(w, x, label, y, outputs=3):
    """ADM with 64 channels, so that a head of the coarse level's two has 64."""
    parts = Edm("").parts
    halve, double = Halve((1, 1)), Double((1, 1))

    def block(x, size, move=None, attends=False):
        name = next(parts)
        h = F.silu(norm(w, f"{name}.norm0", x, 1e-5))
        x, h = (x, h) if move is None else (move(x), move(h))
        h = conv(w, f"{name}.conv0", h, size)
        scale, shift = linear(w, f"{name}.affine", e, 2 * size)[..., None, None].chunk(2, 1)
        h = F.silu(norm(w, f"{name}.norm1", h, 1e-5) * (1 + scale) + shift)
        h = conv(w, f"{name}.conv1", h, size)
        x = (conv(w, f"{name}.skip", x, size, 1) if x.shape[1] != size else x) + h
        return x + Edm("").attention(w, name, x, size // 64, 1e-5) if attends else x

    angles = label[:, None] * 1e-4 ** (torch.arange(32) / 32)
    e = linear(w, next(parts), torch.cat([angles.cos(), angles.sin()], 1), 256)
    e = linear(w, next(parts), F.silu(e), 256)
    e = F.silu(e + linear(w, "map_label", y, 256, bias=False))
    first = conv(w, next(parts), x, 64)
    second = block(first, 64)
    third = block(second, 64, halve)
    h = fourth = block(third, 128, attends=True)
    h = block(block(h, 128, attends=True), 128)
    h = block(torch.cat([h, fourth], 1), 128, attends=True)
    h = block(torch.cat([h, third], 1), 128, attends=True)
    h = block(h, 128, double)
    h = block(torch.cat([h, second], 1), 64)
    h = block(torch.cat([h, first], 1), 64)
    return conv(w, "out_conv", F.silu(norm(w, "out_norm", h, 1e-5)), outputs)


# --- EDM: what its preconditionings make of a network ---------------------------------------------

SMALL = {"channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}
DDPM = {"model_type": "SongUNet", "model_channels": WIDTH, "augment_dim": 9, **SMALL}
NCSN = DDPM | {
    "embedding_type": "fourier",
    "channel_mult_noise": 2,
    "encoder_type": "residual",
    "resample_filter": list(FIR),
}
ADM = {"model_type": "DhariwalUNet", "model_channels": 64, **SMALL}


def network_of(w, settings, outputs=3):
    """Return the network that settings of EDM's describe, as a function of a state dict."""
    if settings["model_type"] == "DhariwalUNet":
        return lambda x, c, y: adm(w, x, c, y, outputs)
    fourier = settings.get("embedding_type") == "fourier"
    beside = "enc.4x4_aux_residual" if fourier else ""
    taps = settings.get("resample_filter", [1, 1])
    return lambda x, c, y: song(w, x, c, y, Edm(beside), taps, fourier)


def edm_precond(f, x, sigma, y):
    """Karras et al. (2022), table 1, the last column."""
    n = (sigma**2 + 0.5**2).sqrt()
    inner = f(x / n, sigma.flatten().log() / 4, y)
    return 0.5**2 / n**2 * x + 0.5 * sigma / n * inner


def vp_precond(f, x, sigma, y):
    """The first column; the time is where VP has that level."""
    t = ((0.1**2 + 2 * 19.9 * (1 + sigma**2).log()).sqrt() - 0.1) / 19.9
    return x - sigma * f(x / (1 + sigma**2).sqrt(), 999 * t.flatten(), y)


def ve_precond(f, x, sigma, y):
    """The second column."""
    return x + sigma * f(x, (sigma / 2).flatten().log(), y)


def table():
    """Return iDDPM's levels ``u``, of ``j = 0`` the largest: appendix C.3.4's recursion."""
    u = [0.0]
    for j in range(1000, 0, -1):
        low, high = (math.sin(0.5 * math.pi * i / 1000 / 1.008) ** 2 for i in (j - 1, j))
        u.append(math.sqrt((u[-1] ** 2 + 1) / max(low / high, 0.001) - 1))
    return tensor(*u[::-1])


def iddpm_precond(f, x, sigma, y):
    """The third column; the network is told the index."""
    index = (sigma.flatten()[:, None] - table()).abs().argmin(1)
    return x - sigma * f(x / (1 + sigma**2).sqrt(), 999.0 - index.double(), y)[:, :3]


CASES = {
    "EDM on DDPM++": (edm_precond, "EDMPrecond", DDPM, 0, sf.EDM()),
    "EDM on NCSN++ with classes": (edm_precond, "EDMPrecond", NCSN, CLASSES, sf.EDM()),
    "EDM on ADM": (edm_precond, "EDMPrecond", ADM | {"label_dropout": 0.1}, CLASSES, sf.EDM()),
    "VP on DDPM++": (vp_precond, "VPPrecond", DDPM, 0, sf.VP()),
    "VP on NCSN++": (vp_precond, "VPPrecond", NCSN, 0, sf.VP()),
    "VE on NCSN++": (ve_precond, "VEPrecond", NCSN, 0, sf.EDM(0.02, 100.0)),
    "iDDPM on ADM": (iddpm_precond, "iDDPMPrecond", ADM, CLASSES, None),
}
Y = torch.tensor([2, 0, 1])


def imported(name, **options):
    """Return a run, and the denoiser that the paper makes of the same weights."""
    precond, cls, settings, classes, _ = CASES[name]
    w = Weights()
    f = network_of(w, settings, 6 if cls == "iDDPMPrecond" else 3)
    y = torch.eye(CLASSES).double()[Y] if classes else None

    @torch.no_grad()
    def denoise(x, sigma):
        return precond(f, x, sigma.reshape(-1, 1, 1, 1).expand(len(x), 1, 1, 1), y)

    denoise(normal(3, 3, SIDE, SIDE), tensor(1.0))  # so that there are weights
    held = {f"model.{key}": value for key, value in w.items()}
    run = edm.load(held, {"class_name": f"training.networks.{cls}", **settings}, **options)
    return run, denoise


def field_of(run):
    """Return the field of a run, of the classes `Y` if it has any, in float64."""
    field = run.field.double()
    return field.condition_on(y=Y) if run.config.data.classes else field


@pytest.mark.parametrize("name", CASES)
def test_an_imported_network_of_edm_denoises_as_its_paper_says(name):
    run, denoise = imported(name)
    process = run.field.process
    sigma = tensor(0.03, 0.9, 60.0)
    if CASES[name][4] is None:
        t = tensor(3.0, 400.0, 990.0)
        sigma = table()[999 - t.long()]
        torch.testing.assert_close(process.sigma(t) / process.alpha(t), sigma, rtol=1e-9, atol=0)
    else:
        assert process == CASES[name][4]
        t = process.time(-sigma.log())
    x = sigma[:, None, None, None] * normal(3, 3, SIDE, SIDE) + normal(3, 3, SIDE, SIDE, seed=1)
    state = process.alpha(t)[:, None, None, None] * x
    with torch.no_grad():
        found = field_of(run)(state, t[:, None, None, None]).x0
    expected = denoise(x, sigma)
    error = (found - expected).flatten(1).abs().amax(1) / expected.flatten(1).abs().amax(1)
    # frequencies are single precision, and turn up to a thousand times faster than noise levels
    assert (error < 1e-6).all(), error


# --- EDM's sampler --------------------------------------------------------------------------------


def heun(denoise, x, levels, churn=0.0, window=(0.0, math.inf), scale=1.0, seed=7):
    """Karras et al. (2022), algorithm 2; the last level is 0, where the step is Euler's."""
    generator, count = torch.Generator().manual_seed(seed), len(levels) - 1
    for i in range(count):
        sigma, lower = levels[i], levels[i + 1]
        gain = 0.0
        if churn and window[0] <= sigma <= window[1]:
            gain = min(churn / count, math.sqrt(2) - 1)
            eps = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = x + ((1 + gain) ** 2 - 1) ** 0.5 * sigma * scale * eps
        sigma = (1 + gain) * sigma
        d = (x - denoise(x, sigma)) / sigma
        end = x + (lower - sigma) * d
        if lower > 0:
            end = x + (lower - sigma) * (d + (end - denoise(end, lower)) / lower) / 2
        x = end
    return x


@pytest.mark.parametrize("name", ["EDM on DDPM++", "EDM on NCSN++ with classes"])
@pytest.mark.parametrize("churn", [0.0, 3.0])
def test_edms_own_sampler_is_heun_on_the_karras_grid(name, churn):
    """The settings of ImageNet, at fewer steps; the last step is left to the posterior mean."""
    run, denoise = imported(name)
    field, steps = field_of(run), 8
    k = torch.arange(steps).double() / (steps - 1)
    levels = (80 ** (1 / 7) + k * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    times = sf.karras(field.process, steps - 1)
    torch.testing.assert_close(times, levels)
    x = 80.0 * normal(3, 3, SIDE, SIDE)
    window = (0.05, 50.0)
    solver = sf.Churn(sf.Heun(), churn, steps, window, 1.003) if churn else sf.Heun()
    with torch.no_grad():
        *_, last = sf.integrate(field, solver, sf.State(x, times[0], Replay(7)), times)
        found = field(last.x, last.t).x0
        expected = heun(denoise, x, torch.cat([levels, tensor(0.0)]), churn, window, 1.003)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


# --- score_sde: what its SDEs make of a network ---------------------------------------------------

MODEL = {
    "name": "ncsnpp",
    "nf": WIDTH,
    "ch_mult": [1, 2],
    "num_res_blocks": 1,
    "attn_resolutions": [4],
    "fir": False,
    "fir_kernel": list(FIR),
    "skip_rescale": True,
    "resblock_type": "biggan",
    "progressive": "none",
    "progressive_input": "none",
    "embedding_type": "positional",
    "scale_by_sigma": False,
    "dropout": 0.1,
}
FEATURES = {
    "fir": True,
    "progressive_input": "residual",
    "embedding_type": "fourier",
    "scale_by_sigma": True,
}


def config_of(sde, continuous=True, centered=True, **model):
    """Return a configuration of score_sde's."""
    return {
        "data": {"image_size": SIDE, "num_channels": 3, "centered": centered, "dataset": "CIFAR10"},
        "training": {"sde": sde, "continuous": continuous, "batch_size": 128},
        "model": MODEL | (FEATURES if sde == "vesde" else {}) | model,
        "sampling": {"snr": 0.16},
    }


SDES = {
    "VP": (config_of("vpsde"), sf.VP()),
    "VP with other betas": (config_of("vpsde", beta_min=0.2, beta_max=15.0), sf.VP(0.2, 15.0)),
    "VP in steps": (config_of("vpsde", continuous=False), None),
    "sub-VP": (config_of("subvpsde"), sf.SubVP()),
    "VE": (config_of("vesde"), sf.EDM(0.01, 50.0)),
    "VE of data from 0 to 1": (config_of("vesde", centered=False), sf.EDM(0.02, 100.0)),
}


def theirs(config, w=None):
    """Return a state dict of score_sde's, and its score of ``x`` at noise of deviation ``std``."""
    w = Weights() if w is None else w
    fourier = config["training"]["sde"] == "vesde"
    taps = FIR if config["model"]["fir"] else (1, 1)

    @torch.no_grad()
    def score(x, label, std):
        names = ScoreSde(fourier)
        x = x if config["data"]["centered"] else 2 * x - 1
        out = song(w, x, label.log() if fourier else label, None, names, taps, fourier)
        return (out if fourier else -out) / std[:, None, None, None]

    score(normal(3, 3, SIDE, SIDE), tensor(1.0, 1.0, 1.0), tensor(1.0, 1.0, 1.0))
    return w, score


def checkpoint(config, seed=0):
    """Return a checkpoint, whose averages are not the last weights, and the score of the former."""
    w, score = theirs(config)
    fixed = {ScoreSde.features} if config["training"]["sde"] == "vesde" else set()
    averages = [value for name, value in w.items() if name not in fixed]
    last = {k: v if k in fixed else v + 0.1 * normal(*v.shape).float() for k, v in w.items()}
    sigmas = torch.linspace(50.0, 0.01, 1000)
    state = {f"module.{name}": value for name, value in {"sigmas": sigmas, **last}.items()}
    ema = {"decay": 0.999, "num_updates": 9, "shadow_params": averages}
    return {"model": state, "ema": ema, "step": 9, "optimizer": {"state": {}}}, score


@pytest.mark.parametrize("name", SDES)
def test_an_imported_network_of_score_sde_has_its_score(name):
    config, process = SDES[name]
    held, score = checkpoint(config)
    field = score_sde.load(held, config).field.double()
    x, times = normal(3, 3, SIDE, SIDE), tensor(0.02, 0.5, 0.97)
    if process is None:
        index = (999 * times).round()
        alpha_bar = (1 - torch.linspace(0.1, 20, 1000, dtype=torch.float64) / 1000).cumprod(0)
        std = (1 - alpha_bar[index.long()]).sqrt()
        torch.testing.assert_close(field.process.sigma(index), std)
        t, expected = index, score(x, index, std)
    else:
        assert field.process == process
        ladder = 0.01 * 5000**times
        std = ladder if name.startswith("VE") else process.sigma(times)
        label = ladder if name.startswith("VE") else 999 * times
        t, expected = times, score(x, label, std)
    if name.startswith("VE"):
        unit = process.t_min / 0.01  # of our data in theirs
        t, x, expected = unit * std, x if unit == 1 else 2 * x - 1, expected / unit
    with torch.no_grad():
        found = field(x, t[:, None, None, None]).score
    error = (found - expected).flatten(1).abs().amax(1) / expected.flatten(1).abs().amax(1)
    assert (error < 1e-6).all(), error


@torch.no_grad()
def predictor_corrector(score, x, ladder, r=0.16, seed=7):
    """Song et al. (2021), algorithms 2 and 4, with noise removed at last as in appendix G."""
    generator = torch.Generator().manual_seed(seed)

    def draw():
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    def at(x, sigma):
        return score(x, sigma.expand(len(x)), sigma.expand(len(x)))

    for sigma, lower in pairwise(ladder):
        spread = sigma**2 - lower**2
        x = x + spread * at(x, sigma) + spread.sqrt() * draw()
        z, g = draw(), at(x, lower)
        lengths = (v.flatten(1).norm(dim=1).mean() for v in (z, g))
        step = 2 * (r * next(lengths) / next(lengths)) ** 2
        x = x + step * g + (2 * step).sqrt() * z
    return x + ladder[-1] ** 2 * at(x, ladder[-1])


@pytest.mark.parametrize("centered", [True, False])
def test_score_sdes_own_sampler_is_reverse_diffusion_with_langevin_moves(centered):
    config = config_of("vesde", centered=centered)
    held, score = checkpoint(config)
    field, unit = score_sde.load(held, config).field.double(), 1.0 if centered else 2.0
    ladder = 50.0 * (0.01 / 50.0) ** (torch.arange(6).double() / 5)
    x = 50.0 * normal(3, 3, SIDE, SIDE)
    expected = predictor_corrector(score, x, ladder)
    solver = sf.PredictorCorrector(sf.ReverseDiffusion(), sf.Langevin(0.16, compat=True))
    start = sf.State(unit * x - (unit - 1), unit * ladder[0], Replay(7))
    with torch.no_grad():
        *_, last = sf.integrate(field, solver, start, unit * ladder)
        found = (field(last.x, last.t).x0 + unit - 1) / unit
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


# --- files ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Return a folder with checkpoints of both, their configurations, and data."""
    path = tmp_path_factory.mktemp("checkpoints")
    w = Weights()
    network_of(w, DDPM)(normal(2, 3, SIDE, SIDE), tensor(0.1, 0.2), None)
    w["map_augment.weight"] = torch.ones(WIDTH, 9)  # of augmentation, which generation leaves out
    w["enc.4x4_down.conv0.resample_filter"] = torch.full((1, 1, 2, 2), 0.25)
    save_file(w, path / "edm.safetensors")
    torch.save(dict(w), path / "edm.pt")
    options = {"network_kwargs": {"class_name": "training.networks.EDMPrecond", **DDPM}}
    options |= {"dataset_kwargs": {"path": "cifar10.zip", "resolution": SIDE}, "batch_gpu": 64}
    (path / "training_options.json").write_text(json.dumps(options))
    held, _ = checkpoint(config_of("vesde"))
    torch.save(held, path / "checkpoint_9.pth")
    (path / "vesde.json").write_text(json.dumps(config_of("vesde")))
    (path / "of-edm2.json").write_text(json.dumps({"class_name": "EDM2Precond"}))
    np.save(path / "x.npy", np.random.default_rng(0).integers(0, 256, (2, 3, SIDE, SIDE)))
    finishes("import", path / "edm.pt", "--config", path / "training_options.json", "--out",
             path / "run")  # fmt: skip
    return path


def test_files_of_either_kind_give_the_same_run(work):
    runs = [
        edm.load(work / f"edm.{kind}", work / "training_options.json")
        for kind in ("pt", "safetensors")
    ]
    first, second = (run.field.network.state_dict() for run in runs)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert runs[0].config.source.endswith("edm.pt: SongUNet with EDMPrecond of EDM")
    assert runs[0].config.train.levels == 256
    assert runs[0].field.variance.unique() == 0.25


def test_of_a_checkpoint_the_averages_are_taken_and_of_a_state_dict_what_it_holds(work):
    held = torch.load(work / "checkpoint_9.pth", weights_only=True)
    config, name = config_of("vesde"), "trunk.enter.weight"
    averaged, last = (
        score_sde.load(weights, config).field.network.state_dict()
        for weights in (work / "checkpoint_9.pth", held["model"])
    )
    # the parts before it are features, which are not learned, and two layers
    assert torch.equal(averaged[name], held["ema"]["shadow_params"][4])
    assert torch.equal(last[name], held["model"]["module.all_modules.3.weight"])
    assert not torch.equal(averaged[name], last[name])


def test_a_run_folder_of_an_imported_network_comes_back_bit_for_bit(work, tmp_path):
    for name in ("EDM on NCSN++ with classes", "iDDPM on ADM"):
        run, _ = imported(name)
        folder = tmp_path / name
        run.save(folder)
        again = sf.load(folder)
        assert again.config == run.config
        assert digest(again.field) == digest(run.field)
        times = sf.balanced(run.field.process, 3)
        samples = [r.sample(2, sf.Heun(), times, given=1) for r in (run, again)]
        assert torch.equal(*samples)


def test_classes_are_those_of_the_network_and_none_only_where_it_was_learned():
    run, _ = imported("EDM on NCSN++ with classes")
    assert run.config.data.classes.count == CLASSES
    with pytest.raises(ValueError, match="it cannot go without a class"):
        run.sample(1, sf.Euler(), sf.balanced(run.field.process, 2))
    with pytest.raises(UsageError, match="trained with dropout=0"):
        run.guided(2.0)
    hidden, _ = imported("EDM on ADM")
    x, t = normal(2, 3, SIDE, SIDE).float(), 1.5
    toward, none = hidden.field(x, t, y=torch.tensor(1)).x0, hidden.field(x, t).x0
    expected = none + 2.0 * (toward - none)  # Ho and Salimans (2022), eq. 6
    torch.testing.assert_close(hidden.guided(2.0).toward(1)(x, t).x0, expected)
    assert (toward - none).abs().max() > 1e-3


@pytest.mark.slow
def test_the_commands_serve_imported_runs(work, capsys):
    run = work / "run"
    finishes("sample", run, "--n", 3, "--nfe", 5, "--out", work / "samples.npy")
    expected = sf.load(run).sample(3, sf.default_plan(sf.load(run).field, 5))
    np.testing.assert_array_equal(np.load(work / "samples.npy"), expected.numpy())
    finishes("likelihood", run, work / "x.npy", "--nfe", 8, "--probes", 2, "--any-scale")
    assert "bits per dimension: " in capsys.readouterr().out
    finishes("encode", run, work / "x.npy", "--nfe", 8, "--any-scale")
    assert np.load(run / "codes-x.npy").shape == (2, 3, SIDE, SIDE)
    finishes("tune", run, "--nfe", 3, "--noises", 8, "--tries", 1, "--batch-size", 8)
    finishes("sample", run, "--n", 2, "--nfe", 3)
    assert "samples by the tuned plan: NFE" in capsys.readouterr().out
    out = work / "of-score-sde"
    finishes("import", work / "checkpoint_9.pth", "--config", work / "vesde.json", "--out", out)
    assert "ncsnpp with vesde of score_sde" in capsys.readouterr().out
    finishes("sample", out, "--n", 2, "--nfe", 4)


# --- bad input ------------------------------------------------------------------------------------


class EDMPrecond(torch.nn.Module):
    """A network in a pickle, as far as reading one goes."""

    def __init__(self):
        super().__init__()
        self.init_kwargs = {"img_resolution": SIDE, "img_channels": 3, "label_dim": 0, **DDPM}
        self.held = Weights()
        network_of(self.held, DDPM)(normal(2, 3, SIDE, SIDE), tensor(0.1, 0.2), None)

    def state_dict(self):
        return {f"model.{name}": value for name, value in self.held.items()}


def test_a_pickle_is_read_only_if_asked_for_and_with_its_own_configuration(tmp_path, monkeypatch):
    module = types.ModuleType("of_edm")
    module.EDMPrecond = EDMPrecond
    monkeypatch.setattr(EDMPrecond, "__module__", "of_edm")
    monkeypatch.setitem(sys.modules, "of_edm", module)
    network = EDMPrecond()
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps({"ema": network}))
    with pytest.raises(UsageError, match="is a pickle, which runs the program inside it"):
        edm.load(path)
    run = edm.load(path, pickle=True)
    kept = run.field.network.state_dict()["trunk.enter.weight"]
    assert torch.equal(kept, network.held["enc.8x8_conv.weight"])
    monkeypatch.delitem(sys.modules, "of_edm")
    with pytest.raises(UsageError, match="needs the module 'of_edm': put EDM's own code"):
        edm.load(path, pickle=True)
    path.write_bytes(b"no pickle")
    with pytest.raises(CheckpointError, match=r"network.pkl cannot be read: "):
        edm.load(path, pickle=True)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"class_name": "EDM2Precond"},
            UsageError,
            "class_name='EDM2Precond': must be one of EDMPrecond",
        ),
        ({"model_type": "DiT"}, UsageError, "model_type='DiT': must be one of"),
        ({"layers": 3}, UsageError, "EDMPrecond with SongUNet has no setting 'layers'"),
        (
            {"sigma_data": 1e200},
            UsageError,
            "sigma_data=1e.200: Input should be less than",
        ),
        ({"class_name": [1] * 9999}, UsageError, "class_name=.* must be one of"),
        ({"class_name": "iDDPMPrecond", "C_1": 5}, UsageError, "C_1=5: Input should be less"),
        ({"class_name": "iDDPMPrecond", "C_2": 1e300}, UsageError, "C_2=1e.300: Input should be"),
        (
            {"class_name": "VPPrecond", "beta_d": 1.7e308, "beta_min": 1.7e308},
            UsageError,
            "safetensors: beta_max=inf: Input should be a finite number.$",
        ),
        ({"sigma_data": "much"}, UsageError, "sigma_data='much': Input should be a valid number"),
        ({"channel_mult_emb": 2}, UsageError, "channel_mult_emb=2: Input should be 4"),
        (
            {"class_name": "VEPrecond"},
            UsageError,
            "VEPrecond with SongUNet and embedding_type='positional'",
        ),
        (
            {"class_name": "iDDPMPrecond"},
            UsageError,
            "iDDPMPrecond with SongUNet: must be with DhariwalUNet",
        ),
        (
            {"num_blocks": 10**9},
            UsageError,
            "the configuration is not valid: .* tensors and .* are too many",
        ),
        ({"resample_filter": [1, 2, 1]}, UsageError, "taps=.*: must be an even number"),
        (
            {"img_resolution": 16},
            CheckpointError,
            "has img_resolution=16, and the weights 8",
        ),
        ({"img_channels": 1}, CheckpointError, "has img_channels=1, and the weights 3"),
        ({"label_dim": 10}, CheckpointError, "has label_dim=10, and the weights 0"),
        (
            {"num_blocks": 2},
            CheckpointError,
            r"missing \['dec.4x4_block2.affine.bias'.* unknown \['dec.4x4_block1.norm2.bias'",
        ),
        (
            {"attn_resolutions": []},
            CheckpointError,
            r"missing \[\], unknown \['dec.4x4_block1.norm2.bias'",
        ),
        (
            {"model_channels": 32},
            CheckpointError,
            r"map_layer0.weight has shape \(64, 16\).*does not give the shape \(128, 32\)",
        ),
        ({"embedding_type": "fourier"}, CheckpointError, r"missing \['map_noise.freqs'\]"),
    ],
)
def test_what_contradicts_weights_of_edm_is_refused_with_both_sides(work, changes, error, message):
    with pytest.raises(error, match=message) as raised:
        edm.load(work / "edm.safetensors", {"class_name": "EDMPrecond", **DDPM, **changes})
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            config_of("vesde", continuous=False),
            "vesde with training.continuous=False: must be True",
        ),
        (config_of("vesde", embedding_type="positional"), "model.embedding_type='positional'"),
        (config_of("vpsde", centered=False), "vpsde with data.centered=False: must be True"),
        (config_of("vpsde", scale_by_sigma=True), "vpsde with model.scale_by_sigma=True"),
        (config_of("vesde", fir=False), "progressive_input='residual' with fir=False"),
        (config_of("vesde", name="ddpm"), "model.name='ddpm': Input should be 'ncsnpp'"),
        (config_of("vesde", resblock_type="ddpm"), "model.resblock_type='ddpm'"),
        (config_of("vesde", fir_kernel=[1]), "model.fir_kernel=.*at least 2 items"),
        (config_of("edm"), "training.sde='edm': Input should be 'vpsde', 'subvpsde' or 'vesde'"),
        ({"data": {}, "training": {}}, "data.image_size: Field required"),
        (
            config_of("vesde", centered=False, sigma_max=1.7e308),
            "pth: t_max=inf: Input should be a finite number.$",
        ),
    ],
)
def test_settings_of_score_sde_that_are_not_known_are_refused(work, config, message):
    with pytest.raises(UsageError, match=message):
        score_sde.load(work / "checkpoint_9.pth", config)


def test_averages_that_do_not_fit_the_weights_are_refused_with_both_counts():
    config = config_of("vpsde")
    held, _ = checkpoint(config)
    count = len(held["ema"]["shadow_params"])
    held["ema"]["shadow_params"].pop()
    with pytest.raises(
        CheckpointError, match=f"{count - 1} shadow_params, and model {count} param"
    ):
        score_sde.load(held, config)
    held["ema"]["shadow_params"].insert(0, torch.zeros(2, 2))
    with pytest.raises(CheckpointError, match=r"all_modules.0.weight has shape \(2, 2\)"):
        score_sde.load(held, config)
    held["ema"]["shadow_params"] = [0.0] * count
    with pytest.raises(CheckpointError, match=f"0 shadow_params, and model {count} parameters"):
        score_sde.load(held, config)
    with pytest.raises(CheckpointError, match="neither weights by name nor a model and its ema"):
        score_sde.load({"model": 3}, config)


@pytest.fixture
def fails(work, capsys, monkeypatch):
    return failing(work, capsys, monkeypatch)


@pytest.mark.parametrize(
    ("code", "arguments", "message"),
    [
        (2, ["edm.pt"], "--config: edm.pt needs a configuration: give EDM's network_kwargs"),
        (2, ["checkpoint_9.pth"], "--config: checkpoint_9.pth needs a configuration: give that of"),
        (
            2,
            ["checkpoint_9.pth", "--config", "vesde.json", "--pickle"],
            "--pickle has no effect for score_sde",
        ),
        (
            2,
            ["edm.pt", "--config", "training_options.json", "--shape", "3", "8", "8"],
            "--shape has no effect for edm",
        ),
        (2, ["edm.pt", "--config", "of-edm2.json"], "of-edm2.json: class_name='EDM2Precond'"),
        (4, ["edm.pt", "--config", "x.npy"], "x.npy cannot be read"),
        (4, ["x.npy", "--config", "training_options.json"], "x.npy cannot be read"),
        (4, ["none.pt", "--config", "training_options.json"], "none.pt does not exist"),
        (
            4,
            ["checkpoint_9.pth", "--config", "training_options.json"],
            "is not a mapping of names to tensors",
        ),
        (4, ["edm.pt", "--config", "vesde.json"], "missing"),
    ],
)
def test_bad_input_of_import_is_one_line(fails, code, arguments, message):
    assert message in fails(code, "import", *arguments, "--out", "bad")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:torch.quantize")
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: torch.eye(2).to_sparse(), "a sparse tensor, torch.sparse_coo"),
        (lambda: torch.ones(2, device="meta"), "a tensor without values, on meta"),
        (lambda: torch.nested.nested_tensor([torch.ones(1)]), "a nested tensor"),
        (
            lambda: torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8),
            "a tensor of torch.qint8",
        ),
        (lambda: torch.ones(2, dtype=torch.complex64), "a tensor of torch.complex64"),
    ],
    ids=["sparse", "meta", "nested", "quantized", "complex"],
)
def test_weights_that_are_no_plain_tensors_are_refused_by_name(work, make, kind):
    value = make()
    held = torch.load(work / "edm.pt", weights_only=True)
    name = "enc.8x8_conv.weight"
    with pytest.raises(CheckpointError, match=f"^weights: {name} is {kind}: save it as a plain"):
        edm.load({**held, name: value}, work / "training_options.json")
    config = config_of("vpsde")
    held, _ = checkpoint(config)
    with pytest.raises(CheckpointError, match=f"^weights: extra is {kind}: save it as a plain"):
        score_sde.load({**held, "model": {**held["model"], "extra": value}}, config)
    held["ema"]["shadow_params"][1] = value
    with pytest.raises(CheckpointError, match=rf"^weights: shadow_params\[1\] is {kind}: save it"):
        score_sde.load(held, config)


def test_a_layer_of_classes_that_is_none_is_refused(work):
    held = {**torch.load(work / "edm.pt", weights_only=True), "map_label.weight": torch.ones(())}
    with pytest.raises(
        CheckpointError, match=r"map_label.weight has shape \(\): must have two axes"
    ):
        edm.load(held, work / "training_options.json")


def test_a_name_that_no_run_folder_can_hold_is_refused_before_one_is_written(
    work, tmp_path, capsys, monkeypatch
):
    shutil.copy(work / "edm.pt", tmp_path / "named-\udcff.pt")
    refuses = failing(tmp_path, capsys, monkeypatch)
    options = ["--config", work / "training_options.json", "--out", "new"]
    message = refuses(2, "import", "named-\udcff.pt", *options)
    assert "holds UTF-8 only: rename the file" in message
