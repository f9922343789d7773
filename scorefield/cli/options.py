"""Options that several commands share, with their help, grouped under headings.

Nothing here imports torch, so that a command prints its help at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from scorefield._internal.errors import UsageError

# the headings of all commands, in the order of a command's help
ITEMS = Group.create_ordered("What")
MEASUREMENT = Group.create_ordered("Measurement")
MODEL = Group.create_ordered(
    "Process, network and loss",
    help="Give the kind together with its settings: `--process vp --process.beta-max 10`, where "
    "`--process vp` is short for `--process.kind vp`.",
)
OPTIMIZER = Group.create_ordered("Optimization")
CALLS = Group.create_ordered("Network calls")
SOLVER = Group.create_ordered("Solver")
PRECISION = Group.create_ordered("Precision")
PROGRESS = Group.create_ordered("Log and checkpoints")
TEXT = Group.create_ordered(
    "Tables of text",
    help="The format of .csv, .tsv and .txt files, which is detected and printed.",
)
WHERE = Group.create_ordered("Where")

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
GridName = Literal["balanced", "uniform", "quadratic", "even-log-snr", "karras"]
VarianceName = Literal["posterior", "forward"]
PredictionName = Literal["angle", "data", "noise"]
EngineName = Literal["here", "ray"]


def option(group: Group, default: str | None = None) -> Parameter:
    """Return the heading of an option, and the text of a default that depends on other options."""
    return Parameter(group=group, show_default=default, negative=())


RunPath = Annotated[Path, Parameter(help="A run folder.")]
Items = Annotated[
    str,
    Parameter(help="A file of items of the kind the run was trained on, or a built-in set."),
]
Network = Annotated[
    str | None,
    option(WHERE),
    Parameter(
        help="Your own network, for a run that was trained with it: package.module:factory. The "
        "factory is called without arguments and returns a torch.nn.Module or a Denoiser."
    ),
]
Device = Annotated[
    str,
    option(WHERE),
    Parameter(help="Where the network runs: cpu, cuda, cuda:1, mps or another device of torch."),
]
Embeddings = Annotated[
    Path | None,
    option(ITEMS),
    Parameter(
        help="Embeddings of K texts, for a network with cross attention: a .npy or .safetensors "
        "file of shape (K, tokens, width)."
    ),
]
Prompt = Annotated[
    int | None,
    option(ITEMS, "0"),
    Parameter(help="The number of the text in the file of embeddings, from 0."),
]
AnyScale = Annotated[
    bool,
    option(ITEMS),
    Parameter(help="Accept data whose scale differs strongly from that of the training data."),
]
Seed = Annotated[int, option(ITEMS), Parameter(help="Seed of all noise.")]
Length = Annotated[
    int | None,
    option(ITEMS, "as in the data"),
    Parameter(help="Length of all signals, for a run of signals of several lengths."),
]
Overwrite = Annotated[bool, option(WHERE), Parameter(help="Replace existing files.")]
Guidance = Annotated[
    float,
    option(ITEMS),
    Parameter(
        help="Scale of classifier-free guidance towards the conditions of --given. A scale other "
        "than 1 evaluates the network twice in each call."
    ),
]
Scales = Annotated[
    str,
    option(ITEMS),
    Parameter(
        help="Scale of classifier-free guidance towards the conditions of --given, or one for each "
        "of them, as dose=2,drug=1.5. Scales other than 1 evaluate the network twice in each call, "
        "or once more than there are scales."
    ),
]
Conditions = Annotated[
    str | None,
    option(ITEMS),
    Parameter(
        name=("--condition", "--conditions"),
        help="Conditions of the items: columns of a table, annotations of cells or arrays of an "
        ".npz file, as dose,drug; or files with a row for each item, as labels.npy or "
        "low=low.npy. A kind may follow: dose=log, low=image:low.npy. Kinds are class, number, "
        "log, embedding, set and image. Images in folders have the folders' names as classes.",
    ),
]
Given = Annotated[
    tuple[str, ...],
    option(ITEMS, "none"),
    Parameter(
        consume_multiple=True,
        help="Conditions of all items: dose=0.3 drug=abc, or the value alone for a run of one "
        "condition. A class is a name, or a number from 0.",
    ),
]
GivenFrom = Annotated[
    Path | None,
    option(ITEMS),
    Parameter(
        help="Conditions of each item: a table with a column for each condition, or a .npy file "
        "for a run of one condition; row k is for item k."
    ),
]


@Parameter(name="*")
@dataclass(frozen=True)
class ReadOptions:
    """How data is read: the arguments of `scorefield.data.read`."""

    conditions: Conditions = None

    embeddings: Annotated[tuple[str, ...], option(ITEMS)] = ()
    """Tables of vectors for conditions that are names of them, as drug=fingerprints.csv: a column
    of names, and columns of numbers."""

    missing: Annotated[
        Literal["refuse", "drop", "keep"] | None, option(ITEMS, "keep for tables, else refuse")
    ] = None
    """Missing values in vectors: refuse the data, drop the samples, or keep them and learn where
    values are missing."""

    without: Annotated[tuple[str, ...], option(ITEMS)] = ()
    """Columns to leave out."""

    key: Annotated[
        str | None, option(ITEMS, "x, or the only array"), Parameter(name=("--key", "--sample"))
    ] = None
    """Array of an .npz file to read; its other arrays can be conditions, by name."""

    matrix: Annotated[str | None, option(ITEMS, "X")] = None
    """Matrix of an .h5ad file to read: X, raw, layers/NAME or obsm/NAME."""

    layout: Annotated[
        Literal["vectors", "signals", "images", "volumes"] | None, option(ITEMS, "by the shape")
    ] = None
    """Kind of samples in an array; vectors are flattened."""

    channels: Annotated[Literal["first", "last"] | None, option(ITEMS, "by the shape")] = None
    """Place of the channels in an array."""

    background: Annotated[str | None, option(ITEMS, "white")] = None
    """Colour under the transparent pixels of images, as black or #8040ff."""

    resize: Annotated[str | None, option(ITEMS)] = None
    """Pixels that images are scaled to cover, as 64 or 64x48 (width and height); the rest is cut
    off."""

    crop: Annotated[str | None, option(ITEMS)] = None
    """Pixels in the middle of images to keep, as 64 or 64x48, without scaling."""

    delimiter: Annotated[str | None, option(TEXT, "detected")] = None
    """Separator of the cells: one character, or tab."""

    decimal: Annotated[Literal[".", ","] | None, option(TEXT, "detected")] = None
    """Decimal mark of numbers. The other mark may group digits by three."""

    encoding: Annotated[str | None, option(TEXT, "detected")] = None
    """Encoding of the file, such as latin-1 or utf-16."""

    comment: Annotated[str | None, option(TEXT, "# if the file begins with it")] = None
    """First character of lines to leave out; an empty text if no lines are comments."""

    header: Annotated[
        bool | None, Parameter(group=TEXT, show_default="detected", negative="--no-header")
    ] = None
    """Whether the first row names the columns."""

    na: Annotated[tuple[str, ...] | None, option(TEXT, "NA, N/A, NaN, null, None, ?")] = None
    """Cells that stand for missing values, in addition to empty cells."""

    columns: Annotated[
        str | None, option(ITEMS, "quantile"), Parameter(name=("--column", "--columns"))
    ] = None
    """Kinds of columns of a table, such as price=log,day=date,id=drop: number, whole, date,
    category, ordered or drop, or the map of a number: standard, log, logit or normal, or its
    bounds, such as score=0..100 or age=0.. with one bound. A single word is for all numbers:
    quantile, standard or normal. With --space, the columns of its points, as lat,lon."""

    space: Annotated[str | None, option(ITEMS)] = None
    """Space that the items are points of: sphere, torus:2, so3, or a product such as
    so3:quaternion,euclidean:3. The form of the columns may follow a part: latlon or xyz for the
    sphere; quaternion (w,x,y,z), matrix or euler (yaw,pitch,roll) for so3."""

    angles: Annotated[
        Literal["degrees", "radians"] | None, option(ITEMS, "degrees for latitudes and longitudes")
    ] = None
    """Unit of the angles of points; needed for torus and euler."""


@Parameter(name="*")
@dataclass(frozen=True)
class ExamineOptions:
    """Options of every command that measures the field of a run on items."""

    given: Given = ()

    given_from: GivenFrom = None

    length: Length = None

    conditions: Conditions = None

    embeddings: Embeddings = None

    prompt: Prompt = None

    seed: Seed = 0

    device: Device = "cpu"

    network: Network = None


@Parameter(name="*")
@dataclass(frozen=True)
class ItemOptions:
    """Options of every command that computes something for each item."""

    given: Given = ()

    given_from: GivenFrom = None

    length: Length = None

    out: Annotated[Path | None, option(WHERE, "named after the options, in the run folder")] = None
    """The file to write."""

    overwrite: Overwrite = False

    batch_size: Annotated[int | None, option(WHERE, "equal batches of at most 64")] = None
    """Items per network call. Results are bit-identical only for the same batch size."""

    device: Device = "cpu"

    network: Network = None


@Parameter(name="*")
@dataclass(frozen=True)
class JobOptions(ItemOptions):
    """Options of the commands whose work is divided into parts, for one worker or for several."""

    ids: Annotated[str | None, option(ITEMS, "all")] = None
    """Only the items a to b - 1, written a:b."""

    shard: Annotated[str | None, option(WHERE, "from torchrun, SLURM or Kubernetes")] = None
    """Do only share i of n, written i/n with i from 0; `scorefield merge` writes the file when all
    shares are done. 0/1 does all."""

    engine: Annotated[EngineName, option(WHERE)] = "here"
    """Do the work in this process, or on the workers of a Ray cluster."""


@Parameter(name="*")
@dataclass(frozen=True)
class PlanOptions:
    """A plan by its number of network calls, by its file, or by its measured error or time."""

    nfe: Annotated[int | None, option(CALLS, "20")] = None
    """Network calls per sample. Uses the tuned plan for this number if there is one, otherwise the
    default plan. To choose solver and steps yourself, use the options of the solver."""

    plan: Annotated[str | None, option(CALLS)] = None
    """A plan file written by `scorefield tune`, or `default` for the default plan."""

    tolerance: Annotated[float | None, option(CALLS)] = None
    """Use the cheapest plan of `scorefield compare` whose error is at most this: the upper end of
    its confidence interval, in standard deviations of the data."""

    time_per_sample: Annotated[float | None, option(CALLS)] = None
    """Use the most accurate plan of `scorefield compare` that takes at most this many
    milliseconds per sample, in full batches."""


@Parameter(name="*")
@dataclass(frozen=True)
class SolverOptions:
    """A solver and its steps, chosen by hand."""

    solver: Annotated[SolverName | None, option(SOLVER, "multistep")] = None
    """The rule of a step. With --steps or --grid alone, that of the default plan."""

    steps: Annotated[int | None, option(SOLVER, "20")] = None
    """Number of steps. One more network call ends the sample."""

    grid: Annotated[GridName | None, option(SOLVER, "balanced")] = None
    """Spacing of the steps."""

    rtol: Annotated[float | None, option(SOLVER)] = None
    """Relative tolerance. Each sample chooses its own steps; replaces --steps and --grid."""

    atol: Annotated[float | None, option(SOLVER, "equal to --rtol")] = None
    """Absolute tolerance of a step."""

    order: Annotated[int | None, option(SOLVER, "3 for multistep and deis, else 2")] = None
    """Order (multistep 1 to 5; singlestep 2 or 3; dpm-solver, dpm-solver++, deis, unipc)."""

    prediction: Annotated[
        PredictionName | None, option(SOLVER, "angle for multistep, else data")
    ] = None
    """The interpolated quantity (multistep, singlestep, unipc)."""

    corrector: Annotated[bool | None, option(SOLVER)] = None
    """Correct each step in the next one, without more network calls (multistep)."""

    sde: Annotated[bool | None, option(SOLVER)] = None
    """Use the form for the SDE (dpm-solver++)."""

    eta: Annotated[float | None, option(SOLVER, "0 for multistep and ddim, else 1")] = None
    """Amount of noise: 0 is the ODE, 1 the reverse SDE (multistep, euler-maruyama,
    stochastic-heun) or ddpm (ddim)."""

    variance: Annotated[VarianceName | None, option(SOLVER, "posterior")] = None
    """Variance of the noise in a step (ddpm)."""


@Parameter(name="*")
@dataclass(frozen=True)
class RestoreSolver(SolverOptions):
    """`SolverOptions` with the default of a restoration."""

    solver: Annotated[
        SolverName | None, option(SOLVER, "multistep with --order 2 --eta 1; --order 1 for repaint")
    ] = None
    """The rule of a step."""

    eta: Annotated[
        float | None, option(SOLVER, "1; 0 for --solver multistep and --solver ddim")
    ] = None
    """Amount of noise: 0 is the ODE, 1 the reverse SDE (multistep, euler-maruyama,
    stochastic-heun) or ddpm (ddim)."""


def whole_numbers(name: str, words: Sequence[str]) -> list[int]:
    """Return the whole numbers of an option, separated by commas or blanks, sorted, each once.

    Raises:
        UsageError: something else.
    """
    parts = [part for word in words for part in word.split(",")]
    if not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise UsageError(f"--{name} {' '.join(words)}: give whole numbers, such as 5,10,20.")
    return sorted({int(part) for part in parts})
