"""Work over ids in parts: by one process or several, cut or lost on the way, to the same bytes."""

import io
import itertools
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from shell import TINY, end, failing, finishes, listing, python

import scorefield as sf
from scorefield._internal.errors import StorageError, UsageError
from scorefield._internal.statistics import ColumnStatistics
from scorefield.cli import jobs as cli_jobs
from scorefield.cli.merge import KINDS
from scorefield.cli.options import SolverOptions
from scorefield.cli.plan_options import SOLVERS, solver_plan
from scorefield.runs.jobs import parts as jobs
from scorefield.runs.jobs.engines import find_engine
from scorefield.runs.jobs.parts import Job, find_job
from scorefield.runs.jobs.shards import Shard, find_shard, owner
from scorefield.runs.jobs.tables import from_arrays, write_array, write_table


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with data, a run of it, and a run of images."""
    folder = tmp_path_factory.mktemp("jobs")
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.normal(size=(40, 3)) * [1.0, 5.0, 0.2])
    np.save(folder / "codes.npy", rng.normal(size=(40, 3)))
    np.save(folder / "images.npy", rng.integers(0, 17, (10, 4, 4), dtype=np.uint8))
    finishes("train", folder / "x.npy", "--out", folder / "run", *TINY)
    finishes("train", folder / "images.npy", "--out", folder / "pictures", *TINY)
    return folder


@pytest.fixture
def fails(files, capsys, monkeypatch):
    return failing(files, capsys, monkeypatch)


@dataclass(frozen=True)
class Sampling:
    """A sampling of 80 ids in 10 parts, and what one process makes of it."""

    command: tuple[object, ...]
    out: Path
    whole: bytes

    @property
    def parts(self):
        return self.out.with_name(f".{self.out.name}.parts")

    def shard(self, text, *options):
        finishes(*self.command, "--out", self.out, "--shard", text, *options)


@pytest.fixture
def sampling(tmp_path, files):
    whole = files.parent / "whole.npy"
    command = "sample", files / "run", "--n", 80, "--batch-size", 8, "--steps", 2, "--eta", 0.5
    if not whole.exists():
        finishes(*command, "--out", whole)
    return Sampling(command, tmp_path / "x.npy", whole.read_bytes())


# --- shards ---------------------------------------------------------------------------------------


def test_every_part_is_in_the_share_of_one_shard():
    for count, parts_ in itertools.product(range(1, 13), range(1, 31)):
        shares = [Shard(i, count).share(parts_) for i in range(count)]
        assert [k for share in shares for k in share] == list(range(parts_))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        for k in range(parts_):
            assert k in shares[owner(k, parts_, count).index]


ARRAY = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "5"}
TASK = {"SLURM_PROCID": "1", "SLURM_NTASKS": "3"}
ENVIRONMENTS = [
    ({}, 0, 1, ""),
    ({"RANK": "2", "WORLD_SIZE": "5"}, 2, 5, "RANK"),
    ({"RANK": "0", "WORLD_SIZE": "1"}, 0, 1, ""),
    ({"RANK": "2"}, 0, 1, ""),
    (TASK, 1, 3, "SLURM_PROCID"),
    (ARRAY, 2, 4, "SLURM_ARRAY_TASK_ID"),
    (
        {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"},
        3,
        8,
        "SLURM_ARRAY_TASK_ID",
    ),
    # an array 5-11:2
    (ARRAY | {"SLURM_ARRAY_TASK_STEP": "2"}, 1, 4, "SLURM_ARRAY_TASK_ID"),
    (ARRAY | TASK, 2 * 3 + 1, 12, "SLURM_ARRAY_TASK_ID and SLURM_PROCID"),
    (ARRAY | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, 2, 4, "SLURM_ARRAY_TASK_ID"),
    # torchrun started by srun counts the processes of all its nodes
    ({"RANK": "6", "WORLD_SIZE": "8"} | TASK, 6, 8, "RANK"),
    ({"JOB_COMPLETION_INDEX": "3", "SCOREFIELD_SHARDS": "4"}, 3, 4, "JOB_COMPLETION_INDEX"),
]


@pytest.mark.parametrize(("environment", "index", "count", "origin"), ENVIRONMENTS)
def test_a_launchers_variables_tell_the_shard(environment, index, count, origin):
    assert find_shard(None, environment) == Shard(index, count, origin)
    assert find_shard("1/2", environment) == Shard(1, 2)


def test_the_processes_of_an_array_are_all_different_shards():
    places = itertools.product(range(5, 9), range(3))
    found = {
        find_shard(None, ARRAY | TASK | {"SLURM_ARRAY_TASK_ID": f"{a}", "SLURM_PROCID": f"{p}"})
        for a, p in places
    }
    assert {(shard.index, shard.count) for shard in found} == {(i, 12) for i in range(12)}


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"RANK": "a", "WORLD_SIZE": "2"}, "RANK 'a' is not a whole number"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK 2 is not below WORLD_SIZE 2"),
        ({"JOB_COMPLETION_INDEX": "0"}, "SCOREFIELD_SHARDS is not: set it to the number of"),
        # an array 1,5,7
        (
            {
                "SLURM_ARRAY_TASK_ID": "7",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_ARRAY_TASK_MIN": "1",
            },
            "is not one of 3 numbers with equal steps from 1",
        ),
    ],
)
def test_variables_that_name_no_shard_are_refused(environment, says):
    with pytest.raises(UsageError, match="pass shard") as raised:
        find_shard(None, environment)
    assert says in str(raised.value)


def test_a_command_takes_its_shard_from_the_environment(sampling, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        finishes(*sampling.command, "--out", sampling.out)
        assert not sampling.out.exists()
        text = capsys.readouterr().out
        assert f"shard {rank}/3, by RANK (--shard 0/1 does all): {3 + (rank == 2)} of 10" in text
        assert f"scorefield merge {sampling.out}" in text
    finishes("merge", sampling.out)
    assert sampling.out.read_bytes() == sampling.whole
    finishes(*sampling.command, "--out", sampling.out, "--shard", "0/1", "--overwrite")
    assert "of 10 parts" not in capsys.readouterr().out
    assert sampling.out.read_bytes() == sampling.whole


# --- the same bytes -------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from scorefield._internal import atomic_files as files
from scorefield.cli import main

publish = files.publish

def dying(written, path):
    if path.name == "000005.part":
        os.kill(os.getpid(), signal.SIGKILL)
    publish(written, path)

files.publish = dying
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_five_shards_of_which_one_is_killed_make_the_bytes_of_one_process(sampling, capsys):
    for i in (4, 0, 1, 3):
        sampling.shard(f"{i}/5")
    done = python("-c", KILLED, *sampling.command, "--out", sampling.out, "--shard", "2/5")
    assert done.returncode == -signal.SIGKILL
    assert end("merge", sampling.out) == 6
    error = capsys.readouterr().err
    assert "the ids 40:48 of shard 2/5: run the command again" in error
    sampling.shard("2/5")
    assert "resuming: 1 of 2 parts are there" in capsys.readouterr().out
    finishes("merge", sampling.out)
    assert f"samples: {sampling.out}" in capsys.readouterr().out
    assert sampling.out.read_bytes() == sampling.whole
    assert [path.name for path in sampling.out.parent.iterdir()] == ["x.npy"]


@pytest.mark.parametrize(("most", "large"), [(1000, 1 << 24), (3, 1 << 24), (1, 1), (1, 600)])
def test_the_size_of_a_part_does_not_change_the_bytes(sampling, monkeypatch, most, large):
    """Ten parts; three of 32, 32 and 16; ten, since one would be large; two of 48 and 32."""
    monkeypatch.setattr(cli_jobs, "_PARTS", most)
    monkeypatch.setattr(cli_jobs, "_LARGE", large)
    made, write = [], Job.write
    monkeypatch.setattr(
        Job, "write", lambda job, part, c: (made.append(len(c["x"])), write(job, part, c))
    )
    finishes(*sampling.command, "--out", sampling.out)
    sizes = {(1000, 1 << 24): 10 * [8], (3, 1 << 24): [32, 32, 16], (1, 1): 10 * [8]}
    assert made == sizes.get((most, large), [48, 32])
    assert sampling.out.read_bytes() == sampling.whole


COMMANDS = {
    "sample": ["run", "--steps", 2, "--batch-size", 8],
    "likelihood": ["run", "x.npy", "--probes", 2, "--nfe", 8, "--batch-size", 8],
    "encode": ["run", "x.npy", "--nfe", 8, "--batch-size", 8],
    "decode": ["run", "codes.npy", "--nfe", 8, "--batch-size", 8],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_some_ids_have_what_they_have_among_all(tmp_path, files, monkeypatch, command):
    """And it does not matter that they neither begin nor end with a batch, nor who makes them."""
    monkeypatch.chdir(files)
    kind = "csv" if command == "likelihood" else "npy"
    whole, some, shared = (tmp_path / f"{name}.{kind}" for name in ("whole", "some", "shared"))
    many = ["--n", 40] if command == "sample" else []
    finishes(command, *COMMANDS[command], *many, "--out", whole)
    ids = [*COMMANDS[command], "--ids", "5:19"]
    finishes(command, *ids, "--out", some)
    for i in range(2):
        finishes(command, *ids, "--out", shared, "--shard", f"{i}/2")
    finishes("merge", shared)
    assert shared.read_bytes() == some.read_bytes()
    if kind == "csv":
        lines = whole.read_text().splitlines()
        assert some.read_text().splitlines() == [lines[0], *lines[6:20]]
    else:
        np.testing.assert_array_equal(np.load(some), np.load(whole)[5:19])


def test_a_file_of_some_ids_is_named_after_them(files, tmp_path):
    run = tmp_path / "run"
    sf.load(files / "run").save(run)
    finishes("sample", run, "--ids", "2:4", "--steps", 1)
    assert np.load(run / "samples-multistep-1-seed0-2-4.npy").shape == (2, 3)


def test_pictures_are_drawn_of_the_first_256(files, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(cli_jobs, "draw", lambda x, path: drawn.append((x.numpy(), path)))
    out = tmp_path / "x.npy"
    for i in range(2):
        finishes("sample", files / "pictures", "--n", 300, "--nfe", 2, "--out", out,
                 "--shard", f"{i}/2")  # fmt: skip
    finishes("merge", out)
    ((x, path),) = drawn
    assert path == tmp_path / "x.png"
    np.testing.assert_array_equal(x, np.load(out)[:256])


# --- what is in the way ---------------------------------------------------------------------------


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def shared(sampling):
    for i in range(3):
        sampling.shard(f"{i}/3")
    return sampling.parts


def test_a_damaged_part_is_made_again_by_its_shard(sampling, capsys):
    damage(shared(sampling) / "000004.part")
    capsys.readouterr()
    for i, there in enumerate(("3 of 3", "2 of 3", "4 of 4")):
        sampling.shard(f"{i}/3")
        assert f"resuming: {there} parts are there" in capsys.readouterr().out
    finishes("merge", sampling.out)
    assert sampling.out.read_bytes() == sampling.whole


def of_another_seed(sampling):
    other = Sampling((*sampling.command, "--seed", 1), sampling.out.with_name("y.npy"), b"")
    other.shard("0/3")
    (sampling.parts / "000001.part").write_bytes((other.parts / "000001.part").read_bytes())


def of_other_ids(sampling):
    (sampling.parts / "000001.part").write_bytes((sampling.parts / "000002.part").read_bytes())


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda s: (s.parts / "000003.part").unlink(), "24:32 of shard 1/3"),
        (lambda s: damage(s.parts / "000009.part"), "72:80 of shard 2/3"),
        (lambda s: (s.parts / "000000.part").write_bytes(b""), "0:8 of shard 0/3"),
        (of_another_seed, "8:16 of shard 0/3"),
        (of_other_ids, "8:16 of shard 0/3"),
        (
            lambda s: [(s.parts / f"00000{k}.part").unlink() for k in (1, 2, 3, 4, 8)],
            "8:24 of shard 0/3, 24:40 of shard 1/3, 64:72 of shard 2/3",
        ),
    ],
)
def test_a_merge_tells_which_ids_are_wanting_and_writes_nothing(sampling, capsys, spoil, says):
    shared(sampling)
    spoil(sampling)
    before = listing(sampling.out.parent)
    capsys.readouterr()
    assert end("merge", sampling.out) == 6
    error = capsys.readouterr().err
    assert f"Missing or damaged are the ids {says}: run the command again" in error
    assert error.count("\n") == 1
    assert listing(sampling.out.parent) == before


def test_a_long_list_of_ids_is_cut(sampling, monkeypatch):
    folder = shared(sampling)
    for k in range(1, 10, 2):
        (folder / f"00000{k}.part").unlink()
    monkeypatch.setattr(jobs, "_LISTED", 2)
    says = "are the ids 8:16 of shard 0/3, 24:32 of shard 1/3, and 3 more: run the command again"
    with pytest.raises(StorageError, match=says):
        list(find_job(sampling.out).parts())


def test_a_shard_of_another_job_is_refused(sampling, capsys):
    sampling.shard("0/3")
    before = listing(sampling.parts)
    assert end(*sampling.command, "--out", sampling.out, "--shard", "1/3", "--seed", 1) == 2
    assert "differs in seed: use the settings of that job" in capsys.readouterr().err
    assert listing(sampling.parts) == before


def test_two_that_start_at_once_share_the_folder(tmp_path, monkeypatch):
    """The second makes the folder in the very moment before the first would."""
    first, second = (Job(tmp_path / "x", {"seed": 0}, range(4), 2, 2) for _ in range(2))
    overtaken(monkeypatch, lambda: second.write(1, {"x": np.arange(2, 4)}))
    first.write(0, {"x": np.arange(2)})
    found = [columns["x"].tolist() for columns in find_job(tmp_path / "x").parts()]
    assert found == [[0, 1], [2, 3]]
    assert [path.name for path in tmp_path.iterdir()] == [".x.parts"]


def test_of_two_different_jobs_that_start_at_once_one_is_refused(tmp_path, monkeypatch):
    first, second = (Job(tmp_path / "x", {"seed": seed}, range(4), 2) for seed in (0, 1))
    overtaken(monkeypatch, lambda: second.write(0, {"x": np.arange(2)}))
    with pytest.raises(UsageError, match="differs in seed"):
        first.write(0, {"x": np.arange(2)})
    assert find_job(tmp_path / "x").missing(range(2)) == [1]
    assert [path.name for path in tmp_path.iterdir()] == [".x.parts"]


def overtaken(monkeypatch, other):
    """Let another job act just before a folder gets its name."""
    publish = jobs.publish

    def late(written, path):
        monkeypatch.setattr(jobs, "publish", publish)
        other()
        publish(written, path)

    monkeypatch.setattr(jobs, "publish", late)


@pytest.mark.parametrize(
    ("code", "command", "message"),
    [
        (2, "sample run --ids 5:2", "--ids 5:2: give a:b for a to b - 1"),
        (2, "sample run --ids 3:3", "--ids 3:3: give a:b"),
        (2, "sample run --ids 7", "--ids 7: give a:b"),
        (2, "sample run --ids=-1:2", "--ids -1:2: give a:b"),
        (2, "sample run --ids 0:4 --n 3", "--n is --ids 0:3"),
        (2, "sample run --ids 0:9223372036854775808", "the items are 0 to"),
        (2, "sample run --shard 3/3", "--shard 3/3: must be i/n, with i from 0 to n - 1"),
        (2, "sample run --shard a", "--shard a: must be i/n"),
        (2, "sample run --shard 0/0", "--shard 0/0: must be i/n"),
        (2, "sample run --engine spark", '"ray"'),
        (2, "likelihood run x.npy --ids 30:41", "--ids 30:41: the items are 0 to 39"),
        (2, "encode run x.npy --ids 40:41", "--ids 40:41: the items are 0 to 39"),
        (2, "decode run codes.npy --ids 0:99", "the items are 0 to 39"),
        (2, "likelihood run x.npy --shard 1/1", "--shard 1/1: must be i/n"),
        (6, "merge none.npy", "none.npy has no parts: .none.npy.parts does not exist"),
    ],
)
def test_what_names_no_ids_or_shard_is_refused(fails, code, command, message):
    assert message in fails(code, *command.split())


def test_a_merge_replaces_a_file_only_if_asked(sampling, capsys):
    shared(sampling)
    sampling.out.write_bytes(b"mine")
    assert end("merge", sampling.out) == 2
    assert "exists already; pass another file, or --overwrite" in capsys.readouterr().err
    assert sampling.out.read_bytes() == b"mine"
    finishes("merge", sampling.out, "--overwrite")
    assert sampling.out.read_bytes() == sampling.whole


@pytest.mark.parametrize(
    "settings", ["{", "{}", '{"ids": [0, 2], "block": 0}', '{"ids": [0, 2], "block": 1}']
)
def test_a_merge_refuses_what_is_no_jobs(tmp_path, capsys, settings):
    folder = tmp_path / ".x.npy.parts"
    folder.mkdir()
    (folder / "settings.json").write_text(settings)
    (folder / "shards").write_text("1")
    before = listing(tmp_path)
    assert end("merge", tmp_path / "x.npy") == 6
    assert "remove" in capsys.readouterr().err.lower()
    assert listing(tmp_path) == before


def test_every_kind_of_parts_can_be_merged():
    assert sorted(KINDS) == ["decoding", "encoding", "likelihood", "restoring", "sampling"]


# --- results --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7,), (7, 3), (7, 1, 2, 2)])
@pytest.mark.parametrize("kind", ["<f4", "<f8", "<i8"])
def test_an_array_in_blocks_has_the_bytes_that_numpy_writes(tmp_path, shape, kind):
    x = np.random.default_rng(0).normal(size=shape, scale=9).astype(kind)
    whole = io.BytesIO()
    np.save(whole, x)
    write_array(tmp_path / "x.npy", 7, iter([np.asfortranarray(x[:4]), x[4:5], x[5:]]))
    assert (tmp_path / "x.npy").read_bytes() == whole.getvalue()


def test_a_table_in_blocks_has_the_rows_of_the_whole(tmp_path):
    from pyarrow import parquet

    columns = {"id": np.arange(7), "value": np.random.default_rng(0).normal(size=7)}
    blocks = [{k: v[part] for k, v in columns.items()} for part in (slice(3), slice(3, 7))]
    for name, some in (("whole", [columns]), ("blocks", blocks)):
        write_table(tmp_path / f"{name}.csv", map(from_arrays, some))
    write_table(tmp_path / "x.parquet", map(from_arrays, blocks))
    assert (tmp_path / "blocks.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    found = parquet.ParquetFile(tmp_path / "x.parquet")
    assert found.num_row_groups == 2
    assert found.read().to_pydict() == {k: v.tolist() for k, v in columns.items()}


def test_a_tally_of_blocks_is_that_of_the_whole():
    """Where the mean is a hundred million deviations away, and so squares would lose it."""
    values = 1e8 + np.random.default_rng(0).normal(size=1000)
    tally = ColumnStatistics()
    for block in np.split(values, [1, 7, 400]):
        tally.add(block)
    np.testing.assert_allclose(tally.mean, values.mean(), rtol=1e-15)
    np.testing.assert_allclose(tally.stderr, values.std(ddof=1) / 1000**0.5, rtol=1e-7)
    np.testing.assert_allclose(tally.rms, np.sqrt((values**2).mean()), rtol=1e-15)
    assert (tally.count, tally.largest) == (1000, values.max())
    signed = ColumnStatistics()
    signed.add(np.array([-3.0, 1.0]))
    assert (signed.size, signed.rms**2) == (4.0, pytest.approx(5.0))


PEAK = """
import sys
from scorefield.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    assert ended.code == 0
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")
def test_memory_does_not_grow_with_the_number_of_samples(tmp_path):
    """Nineteen thousand more of 512 float32 are 37 MiB; a third of that is allowed."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 512)))
    finishes("train", tmp_path / "x.npy", "--out", tmp_path / "run", *TINY)
    peaks = []
    for n in (1000, 20_000):
        out = tmp_path / f"{n}.npy"
        done = python("-c", PEAK, "sample", tmp_path / "run", "--n", n, "--steps", 1,
                      "--batch-size", 256, "--out", out)  # fmt: skip
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.split()[-2]) / 2**10)
        assert np.load(out, mmap_mode="r").shape == (n, 512)
    kept = 19_000 * 512 * 4 / 2**20
    assert peaks[1] - peaks[0] < kept / 3


# --- Ray ------------------------------------------------------------------------------------------

DYING = """
import os, signal, sys
from scorefield.cli import main, sample as sampling
from scorefield.runs.jobs import engines

log, mark, *arguments = sys.argv[1:]
whole = sampling._samples

def dying(run, task, **settings):
    with open(log, "a") as file:
        file.write(f"{task.part} {os.getpid()} {engines._loaded.cache_info().misses}\\n")
    if task.part == 3 and not os.path.exists(mark):
        open(mark, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(run, task, **settings)

sampling._samples = dying
main(arguments)
"""


@pytest.mark.slow
def test_ray_makes_the_same_bytes_though_a_worker_is_killed(sampling, tmp_path):
    """Two workers where there are two CPUs, and one more for the one that kills itself."""
    log = tmp_path / "log"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    command = ["-c", DYING, log, tmp_path / "mark", *sampling.command, "--out", sampling.out]
    done = subprocess.run(
        [sys.executable, *map(str, command), "--engine", "ray"],
        env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert sampling.out.read_bytes() == sampling.whole
    calls = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    lost, again = (pid for part, pid, _ in calls if part == 3)
    assert lost != again
    assert {part for part, _, _ in calls} == set(range(10))
    assert all(misses == 1 for _, _, misses in calls), "each worker has read the run once"


def test_without_ray_it_is_said_how_to_get_it(fails, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'scorefield[ray]'" in fails(2, "sample", "run", "--engine", "ray")
    assert find_engine("here") is not None


@pytest.mark.parametrize("name", SOLVERS)
def test_every_plan_can_be_sent_to_a_worker(files, name):
    run = sf.load(files / "run")
    plan = solver_plan(run, SolverOptions(solver=name, steps=3)).plan
    sent = pickle.loads(pickle.dumps(plan))
    assert run.sample(4, sent).equal(run.sample(4, plan))
    # what shards compare their settings by
    assert repr(sent.solver) == repr(plan.solver)
    assert " at 0x" not in repr(plan.solver)
