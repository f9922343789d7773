"""Folders and files made to do harm: refused in one line, at no cost, with nothing run or written.

All go through the command line in one process of their own, which tells of each how it ended, what
it printed and how far memory grew.
"""

import gzip
import io
import json
import math
import os
import pickle
import re
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from safetensors.torch import load_file, save_file
from shell import TINY, end, finishes, python

from scorefield._internal import sizes, toml

MIB = 2**20
MOST = {"model": 200 * MIB, "data": 500 * MIB}  # what memory may grow by

X = np.random.default_rng(0).normal(size=(20, 3))


class Payload:
    """What a pickle can do to whoever reads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


# --- model folders --------------------------------------------------------------------------------

MODELS = {}


def model(change):
    """List a function that spoils a good run folder."""
    MODELS[change.__name__] = change
    return change


def config(name, *changes):
    """List changes of the configuration's text, each from a pattern to what replaces it."""

    def change(folder):
        path = folder / "config.toml"
        text = path.read_text(encoding="utf-8")
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            assert re.search(old, text, flags=re.MULTILINE), old
            text = re.sub(old, lambda found, new=new: new, text, count=1, flags=re.MULTILINE)
        path.write_text(text)

    change.__name__ = name
    return model(change)


WHY = {}


def unet(name, settings, kind="unet", why=""):
    """List settings of a U-Net, in a run of images."""
    WHY[name] = why
    whole = MLP + ("" if kind == "unet" else r"\nrecompute = false")
    config(name, SHAPE, "shape = [1, 4, 4]", whole, f'kind = "{kind}"\n{settings}')


def foreign(name, why, arguments, architecture="UNet2DModel"):
    """List arguments of a network of diffusers, in a run of images, as an object or as text."""
    WHY[name] = why
    text = arguments if isinstance(arguments, str) else json.dumps({**SMALL, **arguments})
    settings = f"architecture = '{architecture}'\narguments = '{text}'"
    whole = MLP + r"\nrecompute = false\ncomponents = 0"
    config(name, SHAPE, "shape = [1, 4, 4]", whole, f'kind = "diffusers"\n{settings}')


SHAPE, MLP = r"^shape = \[\s*3,?\s*\]", r'kind = "mlp"\nwidth = 8\ndepth = 1'
config("a_width_of_a_billion", r"^width = 8", "width = 1000000000")
config("a_width_beyond_all_integers", r"^width = 8", f"width = {10**30}")
config("a_depth_of_a_billion", r"^depth = 1", "depth = 1000000000")
config("a_depth_beyond_all_integers", r"^depth = 1", f"depth = {10**30}")
unet("levels_of_a_unet_without_end", f"multipliers = [{'1,' * 100_000}]")
unet("heads_of_a_unet_without_end", f"heads = {10**12}")
unet("blocks_of_a_unet_without_end", f"blocks = {10**12}")
unet("channels_of_a_unet_without_end", f"multipliers = [{10**12}]")
unet("heads_that_do_not_divide", "width = 8\nheads = 3")
for kind in ("song", "adm"):
    unet(f"blocks_of_{kind}_without_end", f"blocks = {10**12}", kind, "tensors or more")
    unet(f"channels_of_{kind}_without_end", f"multipliers = [{10**12}]", kind, "than any memory")
    unet(f"a_width_of_{kind}_without_end", f"width = {10**12}", kind, "width=")
    unet(f"a_level_of_{kind}_that_is_not_there", "attention = [2]", kind, "attention=2: must be")
    unet(f"levels_of_{kind}_without_pixels", "multipliers = [1, 1, 1, 1]", kind, "multiples of 8")
unet("layers_of_dit_without_end", f"layers = {10**12}", "dit", "tensors or more")
unet("a_width_of_dit_without_end", f"width = {64 * 10**12}", "dit", "than any memory")
unet("a_patch_of_dit_without_end", f"patch = {10**12}", "dit", "than any memory")
FEATURES = 'embedding = "fourier"\nwidening'
unet("features_without_end", f"{FEATURES} = {10**12}", "song", "does not match config.toml")
unet("a_filter_of_nothing", "taps = [1, -1]", "song", "do not sum to 0")
unet("a_filter_that_is_too_long", f"taps = {[1] * 1000}", "song", "at most 16 items")
SMALL = {"in_channels": 1, "out_channels": 1, "norm_num_groups": 4, "layers_per_block": 1}
SMALL |= {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
SMALL |= {"block_out_channels": [8]}
foreign(
    "layers_of_a_foreign_network_without_end",
    "layers_per_block contains a number beyond",
    {"layers_per_block": 10**9},
)
foreign(
    "many_layers_of_many_levels",
    "50,000 blocks",
    {"layers_per_block": 100, "norm_num_groups": [1] * 500},
)
foreign(
    "channels_of_a_foreign_network_without_end",
    "block_out_channels contains a number beyond",
    {"block_out_channels": [10**12]},
)
foreign(
    "channels_beyond_all_memory",
    "does not match config.toml",
    {"block_out_channels": [2**20], "norm_num_groups": 1},
)
foreign(
    "classes_of_a_foreign_network_without_end",
    "num_class_embeds contains a number beyond",
    {"num_class_embeds": 10**12},
)
foreign("groups_of_nothing", "cannot be built from its arguments", {"norm_num_groups": 0})
foreign("a_block_nobody_knows", "os.system does not exist", {"down_block_types": ["os.system"]})
foreign("an_argument_nobody_knows", "has no argument '__reduce__'", {"__reduce__": "os.system"})
foreign(
    "an_argument_in_arguments", "act_fn contains a value that is not a number", {"act_fn": {"a": 1}}
)
foreign(
    "a_foreign_network_of_other_channels",
    "3 input and 3 output channels: the data has 1",
    {"in_channels": 3, "out_channels": 3},
)
foreign(
    "a_vector_for_each_step",
    "time_embedding_type='learned'",
    {"time_embedding_type": "learned", "num_train_timesteps": 9},
)
foreign(
    "a_class_nobody_lists",
    "architecture: Input should be 'UNet2DModel'",
    {},
    "StableDiffusionPipeline",
)
foreign(
    "positions_without_end",
    "more positions than any image",
    '{"in_channels": 1, "sample_size": 100000}',
    "DiTTransformer2DModel",
)
foreign("arguments_that_are_a_list", "not a JSON object", "[1, 2]")
foreign("arguments_that_are_no_json", "are not JSON", "{")
foreign("arguments_in_arguments", "are not JSON: maximum recursion depth", "[" * 50_000)
foreign(
    "arguments_of_large_numbers",
    "are not JSON: Exceeds the limit",
    '{"in_channels": ' + "9" * 5000 + "}",
)
foreign("arguments_that_are_no_numbers", "NaN is not a number", '{"norm_eps": NaN}')
foreign("arguments_without_end", "at most 65536 characters", '{"act_fn": "' + "a" * 100_000 + '"}')
foreign(
    "very_many_arguments",
    "contain more than 1,000 values",
    json.dumps({"block_out_channels": [8] * 5000}),
)


def codec(name, why, arguments, shape="3, 8, 8"):
    """List arguments of an autoencoder of pictures, as an object."""
    WHY[name] = why
    settings = f"architecture = 'VQModel', arguments = '{json.dumps(arguments)}'"
    config(name, SHAPE, f"codec = {{{settings}}}\nshape = [{shape}]")


codec("layers_of_an_autoencoder_without_end", "layers_per_block", {"layers_per_block": 10**9})
codec("vectors_of_a_code_without_end", "does not match", {"num_vq_embeddings": 2**20})
codec(
    "an_autoencoder_that_makes_no_pictures", "in_channels=3 and out_channels=9", {"out_channels": 9}
)
codec("an_autoencoder_of_other_pictures", "needs 3 channels", {}, "1, 8, 8")
config("a_million_million_classes", r"^shape", "classes = 1000000000000\nshape")
config("a_sample_of_a_billion", SHAPE, "shape = [1000000000]")
config("a_sample_of_no_sides", SHAPE, "shape = []")
config("a_sample_of_very_many_sides", SHAPE, f"shape = [{'1,' * 10_000}]")
config("a_negative_count", r"^count = 20", "count = -20")
config("a_time_that_is_no_number", r"^t_max = 1.0", "t_max = nan")
config("a_beta_that_is_infinite", r"^beta_max = 20.0", "beta_max = inf")
config("names_nobody_knows", r"^seed = 0", "seed = 0\n__class__ = 'os.system'")
config("another_version", r"^version = 1", "version = 2")
config("an_integer_of_many_digits", r"^count = 20", f"count = {'9' * 5000}")
config("lists_in_lists", r"^seed = 0", f"seed = {'[' * 50_000}{']' * 50_000}")
config("tables_in_tables", r"^version = 1", f"{'a.' * 50_000}b = 1\nversion = 1")
config("a_name_without_end", r"^version = 1", f"{'a' * 500_000} = 1\nversion = 1")
config(
    "a_table_of_very_many_times",
    r'kind = "vp"\nt_min = .*\nt_max = 1.0\nbeta_min = 0.1\nbeta_max = 20.0',
    'kind = "tabulated"\nalpha_bar = '
    + "[" + ",".join(f"0.{k}" for k in range(999_999, 900_000, -1)) + "]",
)  # fmt: skip


config(
    "tables_in_tables_between_remarks",
    r"^version = 1",
    f'version = 1 # """\n{"a." * 50_000}b = 1 # """',
)


@model
def no_configuration(folder):
    (folder / "config.toml").unlink()


@model
def a_configuration_of_many_remarks(folder):
    with (folder / "config.toml").open("a") as file:
        file.write("# and so on\n" * 800_000)


@model
def a_configuration_of_a_terabyte(folder):
    os.truncate(folder / "config.toml", 2**40)


@model
def a_configuration_that_is_no_text(folder):
    (folder / "config.toml").write_bytes(os.urandom(1000))


@model
def a_configuration_that_is_a_folder(folder):
    (folder / "config.toml").unlink()
    (folder / "config.toml").mkdir()


@model
def a_configuration_that_never_ends(folder):
    (folder / "config.toml").unlink()
    os.mkfifo(folder / "config.toml")


@model
def a_configuration_elsewhere(folder):
    (folder / "config.toml").rename(folder.parent / "config-elsewhere.toml")
    (folder / "config.toml").symlink_to(folder.parent / "config-elsewhere.toml")


@model
def a_link_to_itself(folder):
    (folder / "config.toml").unlink()
    (folder / "config.toml").symlink_to("config.toml")


@model
def no_weights(folder):
    (folder / "model.safetensors").unlink()


@model
def weights_elsewhere(folder):
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    (folder / "model.safetensors").symlink_to("../elsewhere.safetensors")


@model
def weights_from_a_device(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/dev/zero")


@model
def weights_that_never_come(folder):
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


@model
def weights_of_nothing(folder):
    (folder / "model.safetensors").write_bytes(b"")


@model
def a_pickle(folder):
    (folder / "model.safetensors").write_bytes(pickle.dumps(Payload(folder.parent / "canary")))


@model
def a_pickle_as_torch_saves_it(folder):
    torch.save({"weights": Payload(folder.parent / "canary")}, folder / "model.safetensors")


def header(name, make):
    """List a change of the weights' header; ``make`` returns it, as text, and the bytes after."""

    def change(folder):
        path = folder / "model.safetensors"
        content = path.read_bytes()
        size = int.from_bytes(content[:8], "little")
        text, data = make(json.loads(content[8 : 8 + size]), content[8 + size :])
        text = text if isinstance(text, str) else json.dumps(text)
        path.write_bytes(len(text).to_bytes(8, "little") + text.encode() + data)

    change.__name__ = name
    return model(change)


def entry(key, **facts):
    return lambda entries, data: ({**entries, key: {**entries[key], **facts}}, data)


STD = "transform.std"
header("offsets_that_overlap", entry(STD, data_offsets=[0, 12]))
header("offsets_beyond_the_file", entry(STD, data_offsets=[10**15, 10**15 + 12]))
header("offsets_below_zero", entry(STD, data_offsets=[-12, 0]))
header("a_shape_that_its_bytes_are_not", entry(STD, shape=[10**15]))
header("a_shape_below_zero", entry(STD, shape=[-3]))
header("a_shape_of_very_many_sides", entry(STD, shape=[3] + [1] * 100_000))
header("a_type_twice_as_wide", entry(STD, dtype="F64"))
header("a_type_nobody_knows", entry(STD, dtype="O"))
header("names_that_are_paths", lambda e, d: ({f"../../{k}": v for k, v in e.items()}, d))
header("bytes_that_nobody_declared", lambda e, d: (e, d + bytes(100)))
header("fewer_bytes_than_declared", lambda e, d: (e, d[:-4]))
header("a_header_of_lists_in_lists", lambda e, d: ("[" * 100_000 + "]" * 100_000, d))
header("a_header_that_is_a_list", lambda e, d: ([1, 2, 3], d))
header("a_header_that_is_no_json", lambda e, d: ("{" * 1000, d))
header("a_header_of_large_numbers", lambda e, d: (json.dumps(e).replace("12", "9" * 5000), d))
header("a_header_of_very_many_tensors", lambda e, d: (
    {f"network.{k}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for k in range(30_000)},
    b"",
))  # fmt: skip


@model
def a_header_beyond_all_files(folder):
    (folder / "model.safetensors").write_bytes((2**63).to_bytes(8, "little") + b"{}")


@model
def a_header_of_a_gigabyte(folder):
    (folder / "model.safetensors").write_bytes((2**30).to_bytes(8, "little") + b"{")
    os.truncate(folder / "model.safetensors", 2**31)


@model
def values_that_are_no_numbers(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["network.leave.bias"].fill_(math.nan)
    save_file(tensors, path)


@model
def weights_larger_than_memory(folder):
    """Everything fits, in a file that takes no room on the disk but would in memory."""
    width = math.isqrt(sizes.memory() // 4) + 1
    path = folder / "model.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    entries, end = json.loads(content[8 : 8 + size]), 0
    for place in entries.values():
        # 8 and 16 are the width and twice the width; data has 3 features and 32 frequencies
        place["shape"] = [width * side // 8 if side in (8, 16) else side for side in place["shape"]]
        place["data_offsets"] = [end, end + 4 * math.prod(place["shape"])]
        end = place["data_offsets"][1]
    text = json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + end)
    settings = folder / "config.toml"
    settings.write_text(settings.read_text().replace("width = 8", f"width = {width}"))


# --- data files -----------------------------------------------------------------------------------

DATA = {}
CAN_BE_LOOKED_AT = set()


def data(ending, readable=False):
    """List a function that writes a file of data; ``readable`` if `inspect` has what to show."""

    def keep(make):
        DATA[make.__name__] = (ending, make)
        if readable:
            CAN_BE_LOOKED_AT.add(make.__name__)
        return make

    return keep


def content(name, ending, what, readable=False):
    """List what a file holds."""

    def make(path):
        path.write_bytes(what if isinstance(what, bytes) else what.encode())

    make.__name__ = name
    return data(ending, readable)(make)


def npy(text, values=b"", version=1):
    """Return a .npy file of a header as it is given."""
    form = "<H" if version == 1 else "<I"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(form, len(text)) + text + values


def described(descr, shape, values=b""):
    return npy(
        f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}\n".encode(), values
    )


content("an_array_of_petabytes", ".npy", described("<f8", (10**9, 10**6), X.tobytes()))
content("an_array_beyond_all_integers", ".npy", described("<f8", (10**20, 10**20), X.tobytes()))
content("an_array_of_sides_below_zero", ".npy", described("<f8", (-20, -3), X.tobytes()))
content("an_array_cut_short", ".npy", described("<f8", (20, 3), X.tobytes()[:-1]))
content("an_array_with_more_after_it", ".npy", described("<f8", (20, 3), X.tobytes() * 2))
content("an_array_of_nothing_many_times", ".npy", described("|S0", (10**9, 3)))
content("an_array_of_long_texts", ".npy", described("<U1000000000", (20, 3)))
content("an_array_of_records", ".npy", described([("a", "<f8")], (20, 3), X.tobytes()))
content("an_array_of_complex_numbers", ".npy", described("<c16", (30, 1), X.tobytes()), True)
content("an_array_of_70_sides", ".npy", described("<f8", (1,) * 70, bytes(8)))
content("a_header_that_is_a_program", ".npy", npy(b"__import__('os').mkdir('canary')\n"))
content("a_header_of_brackets", ".npy", npy(b"(" * 9000))
content("a_header_of_signs", ".npy", npy(b"-" * 9000 + b"1"))
content("a_header_of_another_version", ".npy", npy(b"{}", version=9))


@data(".npy")
def a_header_longer_than_memory(path):
    path.write_bytes(npy(b"", version=2)[:8] + struct.pack("<I", 2**32 - 1))
    os.truncate(path, 2**33)


@data(".npy")
def samples_larger_than_memory(path):
    side = sizes.memory() // 16 + 1
    head = described("<f8", (2, side))
    path.write_bytes(head)
    os.truncate(path, len(head) + 16 * side)


@data(".npy")
def an_array_of_pickles(path):
    array = np.array([[Payload(path.parent / "canary")]], dtype=object)
    np.save(path, array, allow_pickle=True)


@data(".npy")
def a_pickle_instead_of_an_array(path):
    path.write_bytes(pickle.dumps(Payload(path.parent / "canary")))


@data(".npy")
def a_file_that_never_comes(path):
    os.mkfifo(path)


@data(".npy")
def a_device(path):
    path.symlink_to("/dev/zero")


@data(".npy")
def a_name_that_a_terminal_obeys(path):
    path.write_bytes(b"\x1b]0;")


def bomb(size, start=b"x"):
    """Return the deflated stream of a start and many zeros, at a thousandth of their size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + block * (size // MIB) + packer.flush()


def archive(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, what in members.items():
            file.writestr(name, what)


def forge(path, old, size, packed):
    """Give the one member of an archive another stream, and any size for what comes out of it."""
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        (info,) = file.infolist()
    start = 30 + len(info.filename)
    local, rest = bytearray(whole[:start]), bytearray(whole[start + info.compress_size :])
    struct.pack_into("<II", local, 18, len(packed), size)
    struct.pack_into("<II", rest, 20, len(packed), size)
    struct.pack_into("<I", rest, len(rest) - 6, start + len(packed))
    path.write_bytes(bytes(local) + packed + bytes(rest))


@data(".npz")
def an_archive_of_very_many_zeros(path):
    archive(path, {"x.npy": b"x"})
    forge(path, b"x", 2**31, bomb(2**31))


@data(".npz")
def an_archive_that_says_it_is_small(path):
    head = described("<f8", (2**20, 3))
    archive(path, {"x.npy": head})
    forge(path, head, len(head) + 24 * 2**20, bomb(2**30, head))


@data(".npz")
def an_archive_of_very_many_members(path):
    archive(path, {f"{k}.npy": b"" for k in range(50_000)}, zipfile.ZIP_STORED)


@data(".npz")
def an_archive_of_paths(path):
    archive(path, {"../canary.npy": b"x", "/tmp/canary.npy": b"x"})


@data(".npz")
def an_archive_of_an_archive(path):
    inner = io.BytesIO()
    np.savez(inner, x=X)
    archive(path, {"x.npy": inner.getvalue()})


@data(".npz")
def an_archive_of_pickles(path):
    array = np.array([[Payload(path.parent / "canary")]], dtype=object)
    np.savez(path, allow_pickle=True, x=array)


@data(".npz")
def an_archive_that_wants_a_password(path):
    np.savez(path, x=X)
    whole = bytearray(path.read_bytes())
    whole[6] |= 1
    whole[whole.rfind(b"PK\1\2") + 8] |= 1
    path.write_bytes(whole)


@data(".npz")
def an_archive_compressed_as_it_likes(path):
    archive(path, {"x.npy": described("<f8", (20, 3), X.tobytes())}, zipfile.ZIP_LZMA)


@data(".npz")
def an_archive_with_a_damaged_stream(path):
    np.savez_compressed(path, x=X)
    whole = bytearray(path.read_bytes())
    whole[100:130] = bytes(30)
    path.write_bytes(whole)


content("a_table_of_one_word", ".csv", "word\n")
content("a_table_of_zero_bytes", ".csv", "a,b\n1,\0\n2,3\n")
content("a_table_of_other_bytes", ".csv", bytes(range(256)) * 100)
content("a_table_in_utf_16", ".csv", "a,b\n1,2\n".encode("utf-16"), True)
content("a_cell_that_never_ends", ".csv", 'a,b\n1,"' + "2" * 10**6)
content("rows_of_other_lengths", ".csv", "a,b\n1,2\n" + "3," * 10**6 + "\n")
content("cells_that_are_programs", ".csv", "a,b\n1,2\n=cmd|' /C calc'!A0,4\n")
content("numbers_beyond_all_numbers", ".csv", "a,b\n1,2\n1e999,4\n", True)
content("a_number_of_a_million_digits", ".csv", "a,b\n1,2\n3," + "9" * 10**5 + "\n")


@data(".csv")
def a_line_of_gigabytes(path):
    path.write_bytes(b"1,2")
    os.truncate(path, 2**31)


@data(".csv")
def a_row_without_end(path):
    path.write_bytes(b"1," * 2**26)


@data(".csv")
def a_table_larger_than_memory(path):
    path.write_bytes(b"a,b\n1,2\n")
    os.truncate(path, sizes.memory() + 1)


@data(".parquet")
def one_number_for_very_many_rows(path):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"a": np.zeros(30_000_000, np.int8)}), path)


@data(".parquet")
def one_text_for_very_many_rows(path):
    import pyarrow
    from pyarrow import parquet

    numbers = pyarrow.array(np.zeros(100_000, np.int32))
    texts = pyarrow.DictionaryArray.from_arrays(numbers, ["a" * 10**5])
    parquet.write_table(pyarrow.table({"a": texts}), path)


@data(".parquet", True)
def tables_in_tables_in_parquet(path):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"a": [[[1.0]], [[2.0, 3.0]]]}), path)


content("parquet_of_a_footer_without_end", ".parquet", b"PAR1" + b"\xff" * 100 + b"PAR1")
content("parquet_of_nothing", ".parquet", b"PAR1\0\0\0\0PAR1")


def idx(*shape, kind=8):
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, kind, len(shape), *shape)


content("idx_of_very_many_images", ".idx", idx(2**32 - 1, 2**32 - 1, 2**32 - 1))
content("idx_of_255_sides", ".idx", idx(*[2] * 255))
content("idx_of_no_images_of_any_size", ".idx", idx(0, 2**32 - 1, 2**32 - 1))
content("idx_of_another_type", ".idx", idx(4, kind=0x0A) + bytes(8))
content("gzip_of_half_a_stream", ".idx.gz", gzip.compress(idx(20, 3) + bytes(60))[:-12])
content("gzip_of_another_stream", ".idx.gz", b"\x1f\x8b\x08" + bytes(100))


@data(".idx.gz")
def gzip_of_very_many_zeros(path):
    path.write_bytes(b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + bomb(2**31, idx(2**11, 2**20)))


content("an_ending_nobody_knows", ".pkl", pickle.dumps(X))

# --- what comes of them ---------------------------------------------------------------------------

CHILD = """
import contextlib, io, json, sys, traceback
from pathlib import Path

from scorefield.cli import main


def memory(name):
    text = Path("/proc/self/status").read_text()
    return int(text.split(name + ":")[1].split()[0]) * 1024


def growth(work):
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    work()
    return memory("VmHWM") - before


def run(arguments):
    out, error, code = io.StringIO(), io.StringIO(), None

    def work():
        nonlocal code
        try:
            main(arguments)
        except SystemExit as ended:
            code = ended.code
        except BaseException:
            traceback.print_exc(file=error)

    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        grown = growth(work)
    return {"code": code, "error": error.getvalue(), "grown": grown}


for line in sys.stdin:
    name, arguments = json.loads(line)
    print(json.dumps([name, run(arguments)]), file=sys.__stdout__, flush=True)
"""


def everything(folder):
    """Return all that lies in a folder, as far as it can be told without reading it."""
    return {str(p): (s.st_size, s.st_mtime_ns, s.st_mode) for p in folder.rglob("*")
            for s in [p.lstat()]}  # fmt: skip


def outcomes(folder, commands):
    """Run commands in one process of their own, and return how each ended."""
    before = everything(folder)
    lines = "".join(json.dumps([k, [str(w) for w in c]]) + "\n" for k, c in commands.items())
    ended = python("-c", CHILD, cwd=folder, stdin=lines)
    assert everything(folder) == before, "nothing is written, and no program of theirs is run"
    found = dict(json.loads(line) for line in ended.stdout.splitlines())
    assert found.keys() == commands.keys(), ended.stderr
    return found


def check(found, code, most):
    """Assert that a command was refused as it should be, and at no cost."""
    assert found["code"] == code, found
    assert found["error"].startswith("scorefield: ")
    assert found["error"].endswith("\n")
    assert found["error"].count("\n") == 1, "one line"
    assert found["error"].rstrip("\n").isprintable()
    assert len(found["error"]) < 1100
    assert "Traceback" not in found["error"]
    assert found["grown"] <= most, f"{found['grown'] / MIB:.0f} MiB"


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="measures memory by /proc")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    np.save(folder / "x.npy", X)
    for name in ["good", *MODELS]:
        if name == "good":
            finishes("train", folder / "x.npy", "--out", folder / name, *TINY)
        else:
            (folder / name).mkdir()
            for file in ("config.toml", "model.safetensors"):
                (folder / name / file).write_bytes((folder / "good" / file).read_bytes())
    for name, change in MODELS.items():
        change(folder / name)
    commands = {"good": ["info", "good"]}
    for k, name in enumerate(MODELS):  # in turns, since both open a run by one function
        words = ["info", name] if k % 2 else ["sample", name, "--n", 1, "--nfe", 2]
        commands[name] = words
    return outcomes(folder, commands)


@needs_linux
def test_a_folder_that_nobody_spoiled_is_taken(models):
    assert models["good"]["code"] == 0


@needs_linux
@pytest.mark.parametrize("name", MODELS)
def test_a_spoiled_model_folder_is_refused_at_no_cost(models, name):
    check(models[name], 4, MOST["model"])
    assert WHY.get(name, "") in models[name]["error"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    np.save(folder / "good.npy", X)
    commands = {"good": ["train", "good.npy", "--dry-run", *TINY]}
    for k, (name, (ending, make)) in enumerate(DATA.items()):
        escape = "\x1b[2J\n" if name == "a_name_that_a_terminal_obeys" else ""
        path = folder / f"{name}{escape}{ending}"
        make(path)
        commands[f"inspect {name}"] = ["data", "inspect", path.name]
        if k % 3 == 0:
            commands[f"train {name}"] = ["train", path.name, "--dry-run", *TINY]
    return outcomes(folder, commands)


@needs_linux
def test_a_file_that_nobody_spoiled_is_taken(files):
    assert files["good"]["code"] == 0


@needs_linux
@pytest.mark.parametrize("name", DATA)
def test_a_spoiled_file_of_data_is_refused_at_no_cost(files, name):
    if f"train {name}" in files:
        check(files[f"train {name}"], 3, MOST["data"])
    looked = files[f"inspect {name}"]
    if name in CAN_BE_LOOKED_AT:
        assert looked["code"] == 0
        assert looked["grown"] <= MOST["data"]
    else:
        check(looked, 3, MOST["data"])


HIDDEN = {
    "after a remark with a quote": '# "\n{} = 1 # "\n',
    "after a remark with three": "# '''\n{} = 1 # '''\n",
    "after a text that ends with a quote": 'a = {{b = """x"""", {} = 1, c = ""}}',
    "after a plain text of a quote": "a = {{b = '\"', {} = 1, c = '\"'}}",
    "after a backslash that escapes nothing": "a = {{b = '\\', {} = 1, c = '\\'}}",
    "after an escaped backslash": 'a = {{b = "\\\\", {} = 1, c = "\\\\"}}',
    "after an escaped quote": 'a = {{b = """\\"""", {} = 1, c = """\\""""}}',
    "in a head": "[{}]",
    "before quotes": '{}."a" = 1',
}


@pytest.mark.parametrize("place", HIDDEN)
def test_a_name_of_many_parts_is_found_wherever_it_is(place):
    def text(parts):
        return HIDDEN[place].format(".".join("d" * parts)).encode()

    assert toml.parse(text(31))
    with pytest.raises(ValueError, match="a name of more than 32 parts"):
        toml.parse(text(33))


def test_dots_in_a_text_part_no_name():
    """Texts that hold each sign which ends one or begins a remark, as a configuration has them."""
    values = {"a" + "." * 50: ["." * 50, '"' + "." * 50, "'\"'\"#\\" + "." * 50, "\n=" + "." * 50]}
    assert toml.parse(tomli_w.dumps(values).encode()) == values
    long = "a = '''#\"" + "." * 50 + "''''\nb = \"\"\"" + "." * 50 + '\\""""'
    assert toml.parse(long.encode()) == {"a": '#"' + "." * 50 + "'", "b": "." * 50 + '"'}


@pytest.mark.parametrize("unit", ['"', "'", '"""', '\\"""', "\"'", '"\n', "#\n", '""" ', "'''\\"])
def test_quotes_without_end_cost_no_more_than_reading_them(unit):
    """As a pattern that tries again from each of them would, by the square: for hours."""
    content = ("a = " + unit * (toml.LARGEST // 4 // len(unit))).encode()
    with pytest.raises(ValueError, match="line"):
        toml.parse(content)


@pytest.mark.parametrize("words", [["--process", "1.0"], ["--ema", "0.9"], ["x.npy"]])
def test_a_command_line_of_many_words_is_refused_before_it_is_read(words, capsys):
    """Reading it takes minutes: cyclopts takes a time that grows as the square of its options."""
    assert end("train", "x.npy", *(words * 10_000)) == 2
    error = capsys.readouterr().err
    assert "words were given; a command line has at most 1,000" in error
    assert error.count("\n") == 1


def test_names_are_shown_and_not_obeyed(tmp_path, capsys):
    """A name from a configuration that would clear the screen, and one of two lines."""
    np.save(tmp_path / "x.npy", X)
    finishes("train", tmp_path / "x.npy", "--out", tmp_path / "run", *TINY)
    path = tmp_path / "run" / "config.toml"
    text = re.sub(r"^name = .*$", r'name = "\\u001b[2J\\nx"', path.read_text(), flags=re.MULTILINE)
    path.write_text(text)
    (tmp_path / "run" / "SHA256SUMS").unlink()
    capsys.readouterr()
    finishes("info", tmp_path / "run")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"\x1b[2J\nx: 20 samples" in out


def test_there_are_forty_of_each():
    assert len(MODELS) >= 40
    assert len(DATA) >= 40
