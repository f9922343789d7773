"""The commands and how they end: a result on stdout, or one message on stderr and an exit code."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NoReturn

from cyclopts import App, CycloptsError, Parameter
from pydantic import ValidationError
from rich.console import Console

from scorefield._internal.errors import Stopped
from scorefield._internal.text import one_line
from scorefield.cli.options import (
    CompareOptions,
    ImportOptions,
    ItemOptions,
    JobOptions,
    PickOptions,
    PlanOptions,
    ReadOptions,
    RestoreOptions,
    TuneOptions,
)
from scorefield.cli.settings import named, source
from scorefield.cli.text import numbers
from scorefield.training.config import TrainConfig

TrackerName = Literal["tensorboard", "wandb", "trackio"]
PriorName = Literal["moments", "standard"]

app = App(
    name="scorefield",
    help="Diffusion models in continuous time: learn one score field, choose the integrator "
    "afterwards.",
    help_format="markdown",
    default_parameter=Parameter(consume_multiple=True),  # --without a b, --optim.ema 0.99 0.9
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
    log_every: int = 50,
    evaluate_every: int = 500,
    sample_every: int = 1000,
    checkpoint_every: int = 500,
    keep_every: int = 0,
    keep_best: bool = False,
    tracker: TrackerName | None = None,
    distributed: Literal["auto", "ddp", "fsdp"] = "auto",
    device: Literal["cpu", "cuda"] = "cpu",
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
    log_every
        Steps between lines of log.jsonl, which has the last step as well; 0 for none.
    evaluate_every
        Steps between evaluations on held-out data, with --held-out; also after the last; 0 for
        none.
    sample_every
        Steps between grids of samples 0 to 63, in samples/; 0 for none.
    checkpoint_every
        Steps between checkpoints, beside the run folder until it is written; 0 for none. The same
        command goes on from the last, to the same weights.
    keep_every
        Steps between checkpoints that stay, in checkpoints/; 0 for none.
    keep_best
        Let the checkpoint of the smallest error on held-out data stay, too.
    tracker
        Where the log's numbers go as well.
    distributed
        How processes that torchrun started share the work: ddp (which auto stands for) gives each a
        share of every batch, fsdp of the weights as well.
    device
        Where to train.
    print_config
        Print the settings as they would be used, as TOML, and end.
    dry_run
        Take three steps, tell time, memory and sizes, and end.
    settings
        How to train.
    """
    from scorefield.cli import train as command
    from scorefield.cli.session import Every

    command.train(
        console,
        data,
        out,
        reading or ReadOptions(),
        settings or TrainConfig(),
        every=Every(log_every, evaluate_every, sample_every, checkpoint_every, keep_every),
        keep_best=keep_best,
        tracker=tracker,
        distributed=distributed,
        device=device,
        print_config=print_config,
        dry_run=dry_run,
    )


@app.command(name="import")
def import_run(
    source: str,
    /,
    *,
    out: Path,
    options: Annotated[ImportOptions | None, Parameter(name="*")] = None,
) -> None:
    """Write a run folder from a network that was trained elsewhere.

    Every command serves it as one that was trained here.

    Parameters
    ----------
    source
        A folder of diffusers, of a pipeline that save_pretrained wrote; or a file of weights of EDM
        or of score_sde, with --config.
    out
        The run folder to write; it must not exist, or be empty.
    options
        What the source does not say.
    """
    from scorefield.cli import importing

    importing.import_run(console, source, out, options or ImportOptions())


@app.command
def sample(
    run: Path,
    /,
    *,
    n: int | None = None,
    seed: int = 0,
    guidance: float = 1.0,
    plan: Annotated[PlanOptions | None, Parameter(name="*")] = None,
    pick: Annotated[PickOptions | None, Parameter(name="*")] = None,
    options: Annotated[JobOptions | None, Parameter(name="*")] = None,
) -> None:
    """Generate samples from a run in the data's units: a table for a run of one, otherwise a .npy
    file, and a picture of images.

    A command that was cut goes on when started again.

    Parameters
    ----------
    run
        A run folder.
    n
        How many samples, 64 unless given: those of the ids 0 to n - 1.
    seed
        Sample k is a function of the seed and k.
    guidance
        The scale of guidance towards the class of --y, by two evaluations of the network a call; 1
        is none.
    plan
        How samples are made.
    pick
        Or by which of the plans that were compared.
    options
        Which, and where.
    """
    from scorefield.cli import sampling

    sampling.sample(
        console,
        run,
        n,
        seed,
        guidance,
        plan or PlanOptions(),
        pick or PickOptions(),
        options or JobOptions(),
    )


@app.command
def tune(
    run: Path,
    /,
    *,
    nfe: list[str],
    options: Annotated[TuneOptions | None, Parameter(name="*")] = None,
    device: Literal["cpu", "cuda"] = "cpu",
) -> None:
    """Fit plans to a run: the noise levels and steps that a number of calls is best spent on.

    Writes them into the run's folder, where `scorefield sample --nfe` finds them. Fresh noises
    decide whether a plan is better than the default one, which is kept otherwise. A command that
    was cut goes on when started again.

    Parameters
    ----------
    run
        A run folder.
    nfe
        Calls of the network for a sample, a plan for each: --nfe 4,5,6,8,10,15,20.
    options
        How plans are fitted.
    device
        Where the network runs.
    """
    from scorefield.cli import tuning

    tuning.tune(console, run, numbers("nfe", nfe), device, options or TuneOptions())


@app.command
def compare(
    run: Path,
    data: str | None = None,
    /,
    *,
    how: Annotated[CompareOptions | None, Parameter(name="*")] = None,
    options: Annotated[ItemOptions | None, Parameter(name="*")] = None,
) -> None:
    """Compare plans on a run: calls and time, error to the exact path, distance to real data.

    Each with its confidence interval, and the distance beside its floor, that of real data to real
    data. Prints a table, and writes frontier.json to the run folder, from which sample --tolerance
    and sample --time-per-sample pick, and a picture.

    Parameters
    ----------
    run
        A run folder.
    data
        Held-out data: a file of items like those the run was trained on, or a built-in set; with
        --held-out what it was trained on. Without, only errors and times are told.
    how
        What is compared.
    options
        Of which class, and where.
    """
    from scorefield.cli import comparing

    comparing.compare(console, run, data, how or CompareOptions(), options or ItemOptions())


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
    seed: int = 0,
    options: Annotated[JobOptions | None, Parameter(name="*")] = None,
) -> None:
    """Tell the log-density of every item of data under a run, with what is uncertain in it.

    Writes a .csv or .parquet table with a row for each item, in nats in the data's own units; for a
    run with levels also bits per dimension. Prints the mean. A command that was cut goes on when
    started again.

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
    seed
        Of the probes, and of the noise between levels.
    options
        Of which items, and where.
    """
    from scorefield.cli import likelihood as command

    how = {
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
        options or JobOptions(),
        how=how,
        bound=bound,
        any_scale=any_scale,
        seed=seed,
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
    options: Annotated[JobOptions | None, Parameter(name="*")] = None,
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
    options
        Of which items, and where.
    """
    from scorefield.cli import latents

    latents.encode(
        console,
        run,
        data,
        options or JobOptions(),
        nfe=nfe,
        reversible=reversible,
        any_scale=any_scale,
    )


@app.command
def decode(
    run: Path,
    codes: Path,
    /,
    *,
    nfe: int | None = None,
    options: Annotated[JobOptions | None, Parameter(name="*")] = None,
) -> None:
    """Carry latent codes back to data: a table for a run of one, otherwise a .npy file, and a
    picture of images.

    Parameters
    ----------
    run
        A run folder.
    codes
        A .npy file that encode has written, or any numbers of its shape.
    nfe
        Calls of the network each way, as for encode.
    options
        Of which codes, and where.
    """
    from scorefield.cli import latents

    latents.decode(console, run, codes, options or JobOptions(), nfe=nfe)


@app.command
def interpolate(
    run: Path,
    data: str,
    /,
    *,
    pairs: list[str],
    points: int = 9,
    nfe: int | None = None,
    options: Annotated[ItemOptions | None, Parameter(name="*")] = None,
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
    options
        Of what class, and where.
    """
    from scorefield.cli import latents

    latents.interpolate(
        console, run, data, options or ItemOptions(), pairs=pairs, points=points, nfe=nfe
    )


@app.command
def restore(
    run: Path,
    data: str,
    /,
    *,
    how: Annotated[RestoreOptions | None, Parameter(name="*")] = None,
    plan: Annotated[PlanOptions | None, Parameter(name="*")] = None,
    options: Annotated[JobOptions | None, Parameter(name="*")] = None,
) -> None:
    """Sample what items may have been that were measured in part, at low resolution or with noise.

    Fills the gaps of a table by default. Writes a table for a run of one, otherwise a .npy file,
    and a picture of images: what was measured, and what it may have been. Takes 20 steps of ddim
    with eta 1 unless told otherwise; a plan that was tuned is for samples of nothing measured. A
    command that was cut goes on when started again.

    Parameters
    ----------
    run
        A run folder.
    data
        What was measured: a file of items in the units of what the run was trained on, or a
        built-in set.
    how
        What was measured, and how it is restored.
    plan
        How samples are made.
    options
        Of which items, and where.
    """
    from scorefield.cli import restoring

    restoring.restore(
        console,
        run,
        data,
        how or RestoreOptions(),
        plan or PlanOptions(),
        options or JobOptions(),
    )


@app.command
def report(
    run: Path,
    data: str | None = None,
    /,
    *,
    out: Path | None = None,
    held_out: bool = False,
    seed: int = 0,
    n: int | None = None,
    items: int | None = None,
    overwrite: bool = False,
) -> None:
    """Write a report of a run: one HTML file that opens offline.

    It tells what was trained on what, and shows samples, the ways from noise to data by several
    solvers, more and more calls of the network, and what lies in the run folder of log, tuned plans
    and measured solvers. Likelihoods and interpolations need data.

    Parameters
    ----------
    run
        A run folder.
    data
        A file of items like those the run was trained on, or a built-in set.
    out
        The file to write, report.html in the run folder unless given.
    held_out
        Take of the data, which is the run's own then, only what was held out from training.
    seed
        Of all noise.
    n
        How many samples a panel of the sliders shows; as suits the data unless given.
    items
        How many items of the data the likelihood is told of; 64, or fewer large ones, unless given.
    overwrite
        Replace the file if it exists.
    """
    from scorefield.cli import report as command

    settings = {"data": data, "held_out": held_out, "seed": seed, "n": n, "items": items}
    command.report(console, run, out, settings | {"overwrite": overwrite})


@app.command
def merge(out: Path, /, *, overwrite: bool = False) -> None:
    """Put together what the shards of a command have made, when all are done.

    Checks that every item is there once and as it was written, writes the file, and removes the
    parts. Ends with 6 if something is missing, and tells which items and whose.

    Parameters
    ----------
    out
        The file that the shards were told to write, by --out or by name.
    overwrite
        Replace the files if they exist.
    """
    from scorefield.cli import merging

    merging.merge(console, out, overwrite)


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
def check(
    run: Path,
    data: str | None = None,
    /,
    *,
    y: str | None = None,
    labels: Path | None = None,
    n: int = 64,
    seed: int = 0,
) -> None:
    """Check that a run's network is what its configuration says: what it predicts, of which noise
    levels, and how it is told of them.

    Measures its error, and that of other interpretations, such as v-prediction for
    eps-prediction or another table. Exits with 4, and names the best one, if another
    interpretation is better.

    Parameters
    ----------
    run
        A run folder.
    data
        A file of items like those the run was trained on, or a built-in set. Without, each
        prediction is tried on the samples that are generated by it.
    y
        The class of all items, by its number or name.
    labels
        What tells the classes of the data, as for train.
    n
        How many items are tried.
    seed
        Of the noise.
    """
    from scorefield.cli import checking

    checking.check(console, run, data, y=y, labels=labels, n=n, seed=seed)


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
    _leave(0)


def _message(error: Exception) -> str:
    """Return one line; of a rejected configuration, the field and what was given."""
    rejected = getattr(error, "__cause__", None)
    if not isinstance(rejected, ValidationError):
        return str(error)
    first = rejected.errors()[0]
    place = [str(p).replace("_", "-") for p in first["loc"] if not isinstance(p, int)]
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
    print(f"scorefield: {one_line(message)}", file=sys.stderr)
    _leave(code)


def _leave(code: int) -> NoReturn:
    distributed = sys.modules.get("torch.distributed")
    if "WORLD_SIZE" in os.environ and distributed is not None and distributed.is_initialized():
        # see scorefield.training.distributed.group
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
