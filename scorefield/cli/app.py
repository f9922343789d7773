"""The commands and how they end: a result on stdout, or one message on stderr and an exit code."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NoReturn

from cyclopts import App, CycloptsError, Parameter
from pydantic import ValidationError
from rich.console import Console

from scorefield.cli.options import ReadOptions
from scorefield.cli.settings import named, source
from scorefield.config import TrainConfig
from scorefield.errors import Stopped

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
]
GridName = Literal["balanced", "uniform", "quadratic", "even-log-snr", "karras"]
VarianceName = Literal["posterior", "forward"]
PredictionName = Literal["angle", "data", "noise"]
PriorName = Literal["moments", "standard"]

app = App(
    name="scorefield",
    help="Diffusion models in continuous time: learn one score field, choose the integrator "
    "afterwards.",
    help_format="markdown",
    suppress_keyboard_interrupt=False,  # `main` says so instead
)
console = Console(highlight=False, markup=False, emoji=False)


@app.command
def train(
    data: str,
    /,
    *,
    out: Path | None = None,
    reading: Annotated[ReadOptions | None, Parameter(name="*")] = None,
    config: Path | None = None,
    checkpoint_every: int = 500,
    print_config: bool = False,
    dry_run: bool = False,
    settings: Annotated[TrainConfig | None, Parameter(name="*")] = None,
) -> None:
    """Train a score field on data and write a run folder.

    A training that was stopped or killed goes on when the same command is given again. Asked to
    stop, by Ctrl-C or SIGTERM, it keeps what it has after the next step.

    Parameters
    ----------
    data
        A file of vectors (N, D), signals (N, C, L) or images (N, C, H, W): .npy, .npz, idx; a
        table: .csv, .parquet; cells: .h5ad; a folder of images; or a built-in set: digits,
        digits-test, checkerboard, moons, rings, spiral.
    out
        The run folder to write; it must not exist, or be empty.
    reading
        How data is read.
    config
        A TOML file of the settings below, or a run's config.toml; flags go before it.
    checkpoint_every
        Steps between checkpoints, beside the run folder until it is written; 0 for none. The same
        command goes on from the last, to the same weights.
    print_config
        Print the settings as they would be used, as TOML, and end.
    dry_run
        Take three steps, tell time, memory and sizes, and end.
    settings
        How to train.
    """
    from scorefield.cli import commands

    commands.train(
        console,
        data,
        out,
        reading or ReadOptions(),
        settings or TrainConfig(),
        checkpoint_every=checkpoint_every,
        print_config=print_config,
        dry_run=dry_run,
    )


@app.command
def sample(
    run: Path,
    /,
    *,
    n: int = 64,
    nfe: int | None = None,
    solver: SolverName | None = None,
    steps: int | None = None,
    grid: GridName | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
    y: int | None = None,
    order: int | None = None,
    prediction: PredictionName | None = None,
    corrector: bool | None = None,
    sde: bool | None = None,
    eta: float | None = None,
    variance: VarianceName | None = None,
    dial: float | None = None,
    tile: int = 64,
    out: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Generate samples from a run, as a .npy file in the data's units, and a picture of images.

    Parameters
    ----------
    run
        A run folder.
    n
        How many samples.
    nfe
        How many calls of the network a sample may cost, 20 unless given: solver and steps are those
        of the general plan. The options below choose them by hand.
    solver
        The rule of a step; multistep unless given.
    steps
        How many steps, 20 unless given; one more call of the network ends the run.
    grid
        How the steps are spaced, balanced unless given.
    rtol
        Instead of steps: each sample chooses its own, to this tolerance relative to its size.
    atol
        With or without rtol: the absolute tolerance of a step; equal to rtol unless given.
    seed
        Sample k is a function of the seed and k.
    y
        The class, for a conditional run.
    order
        Of multistep (1 to 5), singlestep (2, 3), dpm-solver, dpm-solver++, deis and unipc.
    prediction
        Of multistep, singlestep and unipc: what is interpolated.
    corrector
        Of multistep: correct each step in the next, at no cost.
    sde
        Of dpm-solver++: its form for the SDE.
    eta
        Of ddim: 0 is deterministic, 1 is ddpm.
    variance
        Of ddpm: of the noise a step adds, the posterior's or the forward kernel's.
    dial
        Of multistep, euler-maruyama and stochastic-heun: 0 is the ODE, 1 the reverse SDE.
    tile
        Samples per call of the network; the same tile gives the same bits.
    out
        The .npy file to write; named after solver, steps and seed in the run folder unless given.
    overwrite
        Replace the files if they exist.
    """
    from scorefield.cli import commands

    options = {
        "order": order,
        "prediction": prediction,
        "corrector": corrector,
        "sde": sde,
        "eta": eta,
        "variance": variance,
        "dial": dial,
    }
    given = {name: value for name, value in options.items() if value is not None}
    commands.sample(
        console,
        run,
        n=n,
        choice=commands.choose_plan(
            nfe=nfe,
            solver=solver,
            steps=steps,
            grid=grid,
            rtol=rtol,
            atol=atol,
            given=given,
        ),
        seed=seed,
        y=y,
        tile=tile,
        out=out,
        overwrite=overwrite,
    )


@app.command
def likelihood(
    run: Path,
    data: str,
    /,
    *,
    nfe: int | None = None,
    rtol: float | None = None,
    probes: int | None = None,
    stderr: float | None = None,
    max_probes: int | None = None,
    draws: int | None = None,
    prior: PriorName | None = None,
    bound: bool = False,
    any_scale: bool = False,
    y: int | None = None,
    seed: int = 0,
    tile: int = 64,
    out: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Tell the log-density of every item of data under a run, with what is uncertain in it.

    Writes a table with a row for each item, in nats in the data's own units; for a run with levels
    also bits per dimension. Prints the mean. A run that was cut goes on when started again.

    Parameters
    ----------
    run
        A run folder.
    data
        A file of items like those the run was trained on, or a built-in set.
    nfe
        Calls of the network for each item, 40 unless given; for --bound 128.
    rtol
        Instead of nfe: each item chooses its steps, to this tolerance.
    probes
        For the trace of the Jacobian: 0 is exact; exact up to 128 dimensions unless given, and 8
        beyond.
    stderr
        Instead of probes: as many as it takes for this standard error of each item, in nats.
    max_probes
        How far --stderr may go.
    draws
        Of the noise between levels, combined to a tighter bound.
    prior
        The law at the noisiest end: of the data's moments, or standard normal.
    bound
        The lower bound of the reverse SDE, which needs no Jacobian.
    any_scale
        Take data that spreads much wider or narrower than what the run was trained on.
    y
        The class, for a conditional run.
    seed
        Of the probes, and of the noise between levels.
    tile
        Items per call of the network.
    out
        The table to write, .csv or .parquet; in the run folder unless given.
    overwrite
        Replace the table if it exists.
    """
    from scorefield.cli import likelihood as command

    settings = {
        "nfe": nfe,
        "rtol": rtol,
        "probes": probes,
        "stderr": stderr,
        "max_probes": max_probes,
        "draws": draws,
        "prior": prior,
    }
    command.likelihood(
        console,
        run,
        data,
        settings=settings,
        bound=bound,
        any_scale=any_scale,
        y=y,
        seed=seed,
        tile=tile,
        out=out,
        overwrite=overwrite,
    )


@app.command
def encode(
    run: Path,
    data: str,
    /,
    *,
    nfe: int | None = None,
    reversible: bool = False,
    any_scale: bool = False,
    y: int | None = None,
    tile: int = 64,
    out: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Carry data to its latent codes, standard normal numbers, as a .npy file.

    Goes back as well, and prints how much a round trip changes.

    Parameters
    ----------
    run
        A run folder.
    data
        A file of items like those the run was trained on, or a built-in set.
    nfe
        Calls of the network each way, 80 unless given.
    reversible
        Steps that are undone to the last digits; the codes are pairs.
    any_scale
        Take data that spreads much wider or narrower than what the run was trained on.
    y
        The class, for a conditional run.
    tile
        Items per call of the network.
    out
        The .npy file to write; in the run folder unless given.
    overwrite
        Replace the file if it exists.
    """
    from scorefield.cli import latents as command

    command.encode(
        console,
        run,
        data,
        nfe=nfe,
        reversible=reversible,
        any_scale=any_scale,
        y=y,
        tile=tile,
        out=out,
        overwrite=overwrite,
    )


@app.command
def decode(
    run: Path,
    codes: Path,
    /,
    *,
    nfe: int | None = None,
    y: int | None = None,
    tile: int = 64,
    out: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Carry latent codes back to data, as a .npy file, and a picture of images.

    Parameters
    ----------
    run
        A run folder.
    codes
        A .npy file that encode has written, or any numbers of its shape.
    nfe
        Calls of the network each way, as for encode.
    y
        The class, for a conditional run.
    tile
        Items per call of the network.
    out
        The .npy file to write; beside the codes unless given.
    overwrite
        Replace the files if they exist.
    """
    from scorefield.cli import latents as command

    command.decode(console, run, codes, nfe=nfe, y=y, tile=tile, out=out, overwrite=overwrite)


@app.command
def interpolate(
    run: Path,
    data: str,
    /,
    *,
    pairs: Annotated[list[str], Parameter(consume_multiple=True)],
    points: int = 9,
    nfe: int | None = None,
    y: int | None = None,
    tile: int = 64,
    out: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Write the way between items of data, by their latent codes, and a picture of images.

    Parameters
    ----------
    run
        A run folder.
    data
        A file of items like those the run was trained on, or a built-in set.
    pairs
        Numbers of items, from 0: --pairs 0:7 3:12.
    points
        Of each strip, the two items included.
    nfe
        Calls of the network each way, 80 unless given.
    y
        The class, for a conditional run.
    tile
        Items per call of the network.
    out
        The .npy file to write; in the run folder unless given.
    overwrite
        Replace the files if they exist.
    """
    from scorefield.cli import latents as command

    command.interpolate(
        console,
        run,
        data,
        pairs=pairs,
        points=points,
        nfe=nfe,
        y=y,
        tile=tile,
        out=out,
        overwrite=overwrite,
    )


@app.command
def certify(what: str = "all", /, *, out: Path | None = None, overwrite: bool = False) -> None:
    """Check solvers against exact truths: order of convergence, law of the samples, calls per step.

    Prints a Markdown table, a line for each solver, with a column for each process: the orders seen
    to data and to noise; for solvers of the SDE the weak orders of mean and covariance and the
    smallest p-value of the tests of the law. Ends with 5 if a solver fails.

    Parameters
    ----------
    what
        all, a process (such as vp), or a solver's name or its beginning (such as heun, multistep).
    out
        A file to write the table to as well.
    overwrite
        Replace the file if it exists.
    """
    from scorefield.cli import commands

    commands.certify(console, what, out, overwrite)


data_app = App(name="data", help="Look at data.", help_format="markdown")
app.command(data_app)


@data_app.command(name="inspect")
def inspect_data(
    data: str, /, *, reading: Annotated[ReadOptions | None, Parameter(name="*")] = None
) -> None:
    """Show what a file of data holds, and what training would make of it.

    Parameters
    ----------
    data
        As for train.
    reading
        How data is read.
    """
    from scorefield.cli import commands

    commands.inspect_data(console, data, reading or ReadOptions())


@app.command
def info(run: Path, /) -> None:
    """Show what a run folder holds.

    Parameters
    ----------
    run
        A run folder.
    """
    from scorefield.cli import commands

    commands.info(console, run)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0, 2 usage, 3 data, 4 checkpoint, 5 numerical, 6 storage, 130."""
    # cyclopts asks for the source of every base of every configuration, each time anew
    inspect.getsource = functools.cache(inspect.getsource)  # type: ignore[assignment]
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        file = named(given) if given[:1] == ["train"] else None
        app["train"].config = () if file is None else (source(file, given),)
        app(given, exit_on_error=False, print_error=False)
    except Stopped as stopped:
        _fail(str(stopped), stopped.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted.", 130)
    except (CycloptsError, ValueError, ImportError) as error:
        _fail(_message(error), getattr(error, "exit_code", 2))
    except OSError as error:
        _fail(f"{error.strerror}: {error.filename}." if error.filename else str(error), 6)
    except (MemoryError, RuntimeError) as error:
        _fail(str(error).splitlines()[0] if str(error) else "out of memory.", 5)
    sys.exit(0)


def _message(error: Exception) -> str:
    """Return one line; of a rejected configuration, the field and what was given."""
    rejected = getattr(error, "__cause__", None)
    if not isinstance(rejected, ValidationError):
        return str(error)
    first = rejected.errors()[0]
    place = [str(part).replace("_", "-") for part in first["loc"]]
    option = "--" + ".".join([place[0], *place[-1:]] if len(place) > 1 else place)
    if first["type"] == "union_tag_not_found":
        return f"{option}: name the kind as well, with {option}.kind."
    if first["type"] == "union_tag_invalid":
        context = first["ctx"]
        return f"{option}.kind: no kind {context['tag']!r}; give one of {context['expected_tags']}."
    if first["type"] == "extra_forbidden" and len(place) > 2:
        return f"{option}: {place[0]} of kind {place[1]} has no such setting."
    return f"{option}: {first['msg']}; given {first['input']!r}."


def _fail(message: str, code: int) -> NoReturn:
    print(f"scorefield: {message}", file=sys.stderr)
    sys.exit(code)
