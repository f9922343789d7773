"""Options that commands share, with the help they get.

Nothing here imports torch, so that a command line can print its help at once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

SolverName = Literal[
    "multistep",
    "singlestep",
    "dpm-solver",
    "dpm-solver++",
    "deis",
    "unipc",
    "ddim",
    "ddpm",
    "euler",
    "midpoint",
    "heun",
    "bosh3",
    "rk4",
    "dopri5",
    "tsit5",
    "euler-maruyama",
    "stochastic-heun",
    "reverse-diffusion",
    "predictor-corrector",
]
ComparedName = Literal["default", "tuned"] | SolverName
MetricName = Literal["sliced", "energy", "mmd", "frechet", "c2st", "prdc"]
GridName = Literal["balanced", "uniform", "quadratic", "even-log-snr", "karras"]
VarianceName = Literal["posterior", "forward"]
PredictionName = Literal["angle", "data", "noise"]
ImportName = Literal["diffusers", "edm", "score_sde"]
EngineName = Literal["here", "ray"]
MethodName = Literal["mmps", "pigdm", "dps", "replacement", "repaint"]
MissingName = Literal["refuse", "drop", "keep"]


@dataclass(frozen=True)
class ReadOptions:
    """How data is read."""

    labels: Path | None = None
    """A file of N integers from 0, the classes; or the name of a column of the table, or of what an
    .h5ad file says of its cells. A folder's images have its folders' names."""

    missing: MissingName | None = None
    """What to do about missing values in vectors: refuse them, drop the samples, or keep them and
    learn where they are. For tables keep, for the rest refuse, unless given."""

    without: tuple[str, ...] = ()
    """Columns to leave out."""

    layer: str | None = None
    """Of an .h5ad file, instead of X."""

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `scorefield.data.read`."""
        return asdict(self)


@dataclass(frozen=True)
class ItemOptions:
    """Of every command that makes something of each item."""

    y: str | None = None
    """The class, for a conditional run: its name, or its number from 0."""

    batch_size: int = 64
    """Batch size. Results are bit-identical only for the same batch size."""

    out: Path | None = None
    """The file to write; unless given it is named after what was asked for, in the run folder, or
    beside the codes that are decoded."""

    overwrite: bool = False
    """Replace the files if they exist."""


@dataclass(frozen=True)
class JobOptions(ItemOptions):
    """Of the commands whose work is done in parts, by one process or by several."""

    ids: str | None = None
    """Only the items a to b - 1, given as a:b."""

    shard: str | None = None
    """Do the i-th of n shares alone, given as i/n with i from 0; `scorefield merge` makes the file
    when all are done. Taken from torchrun, SLURM or Kubernetes unless given; 0/1 does all."""

    engine: EngineName = "here"
    """Where the work is done: in this process, or by the workers of Ray."""


@dataclass(frozen=True)
class ImportOptions:
    """What a source does not say."""

    kind: ImportName | None = None
    """What the source was trained with, where it cannot be told."""

    config: Path | None = None
    """Of edm and score_sde, the JSON file of what the network was made and trained with."""

    shape: tuple[int, ...] | None = None
    """Of a sample, such as 3 32 32; as the source says unless given."""

    unconditional: int | None = None
    """The class that stands for none, if the network has learned one."""

    data_std: float | None = None
    """The deviation of the data as the network sees it; 0.5 of pictures unless given."""

    levels: int | None = None
    """Of whole numbers from 0, how many values there are, 256 of pictures unless given; 0 for data
    that is continuous."""

    data: str | None = None
    """Data like that the network was trained on, to measure its mean and deviation."""

    pickle: bool = False
    """Read weights that are a pickle, if there are no others and you trust them."""


@dataclass(frozen=True)
class PlanOptions:
    """How samples are made: by the default plan, or solver and times by hand."""

    nfe: int | None = None
    """How many calls of the network a sample may cost, 20 unless given: solver and steps are those
    of the plan that tune has fitted, or else of the default plan. The options below choose them by
    hand."""

    plan: str | None = None
    """Instead: a file that tune has written; or default, for the default plan."""

    solver: SolverName | None = None
    """The rule of a step; multistep unless given."""

    steps: int | None = None
    """How many steps, 20 unless given; one more call of the network ends the run."""

    grid: GridName | None = None
    """How the steps are spaced, balanced unless given."""

    rtol: float | None = None
    """Instead of steps: each sample chooses its own, to this tolerance relative to its size."""

    atol: float | None = None
    """With or without rtol: the absolute tolerance of a step; equal to rtol unless given."""

    order: int | None = None
    """Of multistep (1 to 5), singlestep (2, 3), dpm-solver, dpm-solver++, deis and unipc."""

    prediction: PredictionName | None = None
    """Of multistep, singlestep and unipc: what is interpolated."""

    corrector: bool | None = None
    """Of multistep: correct each step in the next, at no cost."""

    sde: bool | None = None
    """Of dpm-solver++: its form for the SDE."""

    variance: VarianceName | None = None
    """Of ddpm: of the noise a step adds, the posterior's or the forward kernel's."""

    eta: float | None = None
    """Noise added (ddim, multistep, euler-maruyama, stochastic-heun): 0 is the ODE, 1 the reverse
    SDE; for ddim, 1 is ddpm."""


@dataclass(frozen=True)
class RestoreOptions:
    """What was measured, and how it is restored."""

    mask: str | None = None
    """What is unknown: top, bottom, left or right, that half of an image; box:top,left,height,width
    in pixels; random:0.7, that share of the pixels, others for each item; or a file, .npy or .png,
    0 or black where unknown. Empty cells and NaN are unknown without it."""

    downsample: int | None = None
    """The items are means over blocks of this side."""

    grey: bool = False
    """The items are grey versions of what the run has in red, green and blue."""

    blur: float | None = None
    """The items were blurred by a Gaussian of this deviation in pixels; beyond an edge is the
    opposite one."""

    noise: float = 0.0
    """The deviation of the noise in the items, in the data's units."""

    method: MethodName = "mmps"
    """mmps, by the covariance that the field tells; pigdm, with a single variance; dps, a push of
    fixed length; with masks, replacement and repaint put what is known in place."""

    n: int = 1
    """Samples of each item."""

    corrupt: bool = False
    """For trying: the items are whole, and are masked, measured and made noisy first."""

    seed: int = 0
    """Of all noise, and of a random mask."""


@dataclass(frozen=True)
class PickOptions:
    """Plans that `scorefield compare` has measured, instead of the options that choose one."""

    tolerance: float | None = None
    """The cheapest plan whose error, by the upper bound of its confidence interval, is within this:
    the mean distance to the exact path's end, in deviations of the data."""

    time_per_sample: float | None = None
    """In milliseconds: the best plan that takes no longer, by whole batches."""


@dataclass(frozen=True)
class CompareOptions:
    """What is compared, and by what."""

    nfe: tuple[str, ...] = ("5,10,20",)
    """How many calls of the network a sample may cost; each solver takes as many steps as fit."""

    solvers: tuple[ComparedName, ...] | None = None
    """Which: the default plan, plans that were tuned and lie in the run folder, and solvers by
    name; bosh3, dopri5 and tsit5 choose their own steps, to tolerances of 0.01 and 0.001."""

    metrics: tuple[MetricName, ...] | None = None
    """Distances to the data: sliced, energy and c2st unless given."""

    n: int | None = None
    """How many samples of each plan: 512, or as many as there is data for, unless given."""

    guidance: float = 1.0
    """The scale of guidance towards the class of --y; 1 is none."""

    seed: int = 0
    """Of the noises that all plans start from, and of what data is for the floor."""

    labels: Path | None = None
    """With --y: what tells the classes of the data, as for train."""

    held_out: bool = False
    """The data is what the run was trained on: take what was held out of it."""


@dataclass(frozen=True)
class TuneOptions:
    """How plans are fitted."""

    noises: int | None = None
    """That the steps are fitted to, and as many again to choose levels by, and to judge; from 32 to
    512 by the dimension unless given."""

    tries: int | None = None
    """Of noise levels, for each plan; 1200 / nfe and at least 80 unless given."""

    guidance: float = 1.0
    """The scale of guidance towards a class that the plans are for, for a conditional run."""

    polish: int = 0
    """Rounds at the end that move all steps together by the gradient through the network, whose
    memory grows with the number of calls; 30 may take up to a third off the error, or nothing."""

    seed: int = 0
    """Of the noises."""

    batch_size: int | None = None
    """Samples per call of the network; from 64 to 512 by the dimension unless given."""

    overwrite: bool = False
    """Fit plans again that are there."""
