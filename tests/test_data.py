"""Data: what is read is what was written, and what cannot be learned from is refused."""

import math
from importlib import resources

import numpy as np
import pytest
import torch
from cases import normal, values_of

from scorefield._internal.errors import DataError
from scorefield.data import BUILTIN, Columns, Continuous, Standardize, digits, read, toy

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(6, 3)).astype(np.float32)


@pytest.fixture
def write(tmp_path):
    """Return a function that saves an array under a name and returns its path."""

    def save(array, name="x.npy"):
        np.save(tmp_path / name, array)
        return tmp_path / name

    return save


def refusal(source, conditions=None):
    with pytest.raises(DataError) as raised:
        read(source, conditions)
    assert raised.value.exit_code == 3
    assert isinstance(raised.value, ValueError)
    return str(raised.value)


# --- built-in sets --------------------------------------------------------------------------------


def test_the_digits_split_into_1297_and_500_that_share_no_image():
    (x, y), (x_test, y_test) = digits("train"), digits("test")
    assert x.shape == (1297, 1, 8, 8)
    assert y.shape == (1297,)
    assert x_test.shape == (500, 1, 8, 8)
    assert y_test.shape == (500,)

    def keys(images):
        return {bytes(image.to(torch.uint8).numpy()) for image in images}

    assert keys(x).isdisjoint(keys(x_test))


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_digits_are_seventeen_grey_levels_of_ten_classes(split):
    x, y = digits(split)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert set(x.unique().tolist()) == set(map(float, range(17)))
    counts = torch.bincount(y)
    assert counts.shape == (10,)
    assert counts.min() > 0.07 * len(y), "no class is rare"


def test_the_digits_carry_the_labels_of_the_published_set():
    """The set of UCI as scikit-learn ships it, image by image, where that is installed."""
    datasets = pytest.importorskip("sklearn.datasets")
    published = datasets.load_digits()
    whole = {}
    for split in ("train", "test"):
        for image, label in zip(*digits(split), strict=True):
            whole[bytes(image.to(torch.uint8).numpy())] = int(label)
    assert len(whole) == len(published.images)
    for image, label in zip(published.images, published.target, strict=True):
        assert whole[bytes(image.astype(np.uint8))] == label


def test_the_attribution_travels_with_the_digits():
    text = resources.files("scorefield.data").joinpath("DIGITS.md").read_text(encoding="utf-8")
    for fact in ("Alpaydin", "Kaynak", "UCI", "CC BY 4.0"):
        assert fact in text


@pytest.mark.parametrize("name", BUILTIN)
def test_a_built_in_set_is_read_by_name_and_is_the_same_every_time(name):
    first, again = read(name), read(name)
    assert torch.equal(first.x, again.x)
    assert first.name == name
    splits = {"digits": "train", "digits-test": "test"}
    expected = digits(splits[name])[0] if name in splits else toy(name)
    assert torch.equal(first.x, expected)


@pytest.mark.parametrize("name", BUILTIN[2:])
def test_a_toy_set_is_a_function_of_its_seed(name):
    assert torch.equal(toy(name, 50, seed=3), toy(name, 50, seed=3))
    assert not torch.equal(toy(name, 50, seed=3), toy(name, 50, seed=4))
    assert toy(name, 50).dtype == torch.float32


NOISE, COUNT = 0.06, 20000


def radial_noise(residual):
    """Assert that residuals are N(0, 0.06^2) within four standard errors."""
    count = len(residual)
    assert abs(float(residual.mean())) < 4 * NOISE / math.sqrt(count) + 0.5 * NOISE**2
    assert float(residual.std()) == pytest.approx(NOISE, rel=4 / math.sqrt(2 * count) + NOISE**2)


def test_rings_are_two_circles_of_radius_one_and_two():
    x = toy("rings", COUNT).double()
    radius = x.norm(dim=1)
    outer = radius > 1.5
    assert float(outer.double().mean()) == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(COUNT))
    # a tangential error adds about noise^2 / (2 r) to the radius
    radial_noise(radius[~outer] - 1 - NOISE**2 / 2)
    radial_noise(radius[outer] - 2 - NOISE**2 / 4)
    angle = torch.atan2(x[:, 1], x[:, 0])
    for k in (1, 2):  # no direction is preferred
        assert abs(float((k * angle).cos().mean())) < 4 / math.sqrt(2 * COUNT)
        assert abs(float((k * angle).sin().mean())) < 4 / math.sqrt(2 * COUNT)


def test_moons_are_two_half_circles_that_interlock():
    x = toy("moons", COUNT).double()
    to_upper = x.norm(dim=1) - 1
    to_lower = (x - torch.tensor([1.0, 0.5])).norm(dim=1) - 1
    upper = (to_upper.abs() < 5 * NOISE) & (x[:, 1] > -5 * NOISE)
    lower = (to_lower.abs() < 5 * NOISE) & (x[:, 1] < 0.5 + 5 * NOISE)
    assert (upper | lower).all()
    assert float(upper.double().mean()) == pytest.approx(0.5, abs=0.1)
    # the mean of a half-circle is 2/pi above its centre: (0, 2/pi) and (1, 1/2 - 2/pi)
    expected = torch.tensor([0.5, 0.25], dtype=torch.float64)
    error = x.std(0) / math.sqrt(COUNT)
    assert ((x.mean(0) - expected).abs() < 4 * error).all()


def test_the_spiral_has_two_arms_whose_radius_grows_with_the_angle():
    x = toy("spiral", COUNT).double()
    radius = x.norm(dim=1)
    angle = torch.atan2(x[:, 1], x[:, 0])
    # on an arm the radius is angle / 4, so 4 r - angle is a multiple of pi: arms lie opposite
    turns = (4 * radius - angle) / math.pi
    away = (turns - turns.round()).abs() * math.pi / 4  # as a radial distance
    assert float((away < 3.5 * NOISE)[radius > 0.5].double().mean()) > 0.99
    arm = turns.round().long() % 2
    assert float(arm[radius > 0.5].double().mean()) == pytest.approx(0.5, abs=0.02)
    assert float(radius.max()) == pytest.approx(3 * math.pi / 4, abs=5 * NOISE)
    assert float(x.mean(0).abs().max()) < 4 * float(x.std()) / math.sqrt(COUNT)


def test_the_checkerboard_fills_eight_squares_evenly():
    x = toy("checkerboard", COUNT)
    cell = (x + 2).floor().long()
    assert ((cell >= 0) & (cell < 4)).all()
    assert (cell.sum(1) % 2 == 0).all()
    counts = torch.bincount(4 * cell[:, 0] + cell[:, 1], minlength=16)
    assert int((counts > 0).sum()) == 8
    share = COUNT / 8
    assert ((counts[counts > 0] - share).abs() < 4.5 * math.sqrt(share)).all()


def test_an_unknown_toy_set_is_refused_with_the_names_there_are():
    with pytest.raises(
        ValueError, match="name='moon': not a toy set; give one of checkerboard, moons"
    ):
        toy("moon")


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 3), (6, 2, 5), (6, 3, 4, 5), (6, 1, 4, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32])
def test_an_array_comes_back_as_float32_in_its_own_shape(write, shape, dtype):
    array = (100 * RNG.normal(size=shape)).astype(dtype)
    data = read(write(array))
    assert data.x.dtype == torch.float32
    assert data.shape == shape[1:]
    assert data.is_image == (len(shape) == 4)
    assert not data.conditions
    np.testing.assert_array_equal(data.x.numpy(), array.astype(np.float32))


def test_fortran_order_and_foreign_byte_order_change_nothing(write):
    for array in (np.asfortranarray(VECTORS), VECTORS.astype(">f4"), VECTORS[::-1][::-1]):
        np.testing.assert_array_equal(read(write(array)).x.numpy(), VECTORS)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_with_the_channels_last_are_turned(write, channels):
    array = RNG.normal(size=(5, 6, 7, channels)).astype(np.float32)
    data = read(write(array))
    assert data.shape == (channels, 6, 7)
    for c in range(channels):
        np.testing.assert_array_equal(data.x[:, c].numpy(), array[..., c])


def test_images_with_the_channels_first_stay_even_if_the_width_could_be_channels(write):
    array = RNG.normal(size=(5, 3, 8, 4)).astype(np.float32)
    np.testing.assert_array_equal(read(write(array)).x.numpy(), array)


def test_unsigned_bytes_without_channels_are_grey_images(write):
    array = RNG.integers(0, 256, (5, 6, 7), dtype=np.uint8)
    data = read(write(array))
    assert data.shape == (1, 6, 7)
    np.testing.assert_array_equal(data.x[:, 0].numpy(), array)


def test_a_built_in_set_goes_before_a_file_or_folder_of_the_same_name(write, monkeypatch):
    path = write(VECTORS, "moons.npy")
    path.rename(path.with_suffix(""))
    monkeypatch.chdir(path.parent)
    assert torch.equal(read("moons").x, toy("moons"))
    assert "ends in none of .npy" in refusal("./moons")


def test_labels_come_along(write):
    y = np.array([0, 2, 1, 1, 0, 2], dtype=np.uint8)
    data = read(write(VECTORS), write(y, "y.npy"))
    assert values_of(data).dtype == torch.int64
    assert values_of(data).tolist() == y.tolist()
    assert data.conditions.channels[0].count == 3
    assert read("digits").conditions.channels[0].count == 10


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "meant"), [("digit", "digits"), ("moon", "moons")])
def test_an_unknown_name_is_answered_with_the_nearest(given, meant):
    message = refusal(given)
    assert f"data {given}" in message
    assert f"Did you mean {meant}?" in message


def test_a_name_near_to_none_is_answered_with_all():
    assert "digits, digits-test, checkerboard, moons, rings, spiral" in refusal(
        "/nowhere/at/all.npy"
    )


@pytest.mark.parametrize(
    ("array", "facts"),
    [
        (np.array([["a", "b"], ["c", "d"]]), ["type <U1", "needs numbers"]),
        (VECTORS.astype(complex), ["complex128", "needs numbers"]),
        (np.float32(3.0), ["one number, 3.0", "(N, ...)"]),
        (VECTORS[:, 0], ["shape (6,)", "(N, D)"]),
        (np.zeros((2, 1, 2, 2, 2, 2)), ["shape (2, 1, 2, 2, 2, 2)", "(N, C, H, W)"]),
        (np.zeros((5, 0)), ["shape (5, 0)"]),
        (VECTORS[:1], ["1 sample(s)", "two or more"]),
        (VECTORS[:0], ["has no samples"]),
    ],
    ids=["strings", "complex", "scalar", "1-d", "6-d", "no features", "one", "none"],
)
def test_an_array_that_holds_no_samples_is_refused_with_what_it_holds(write, array, facts):
    path = write(array)
    message = refusal(path)
    for fact in [str(path), *facts]:
        assert fact in message


@pytest.mark.parametrize(
    ("bad", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf"), (1e300, "1e+300")]
)
def test_a_value_that_is_not_finite_in_float32_is_named_by_its_place(write, bad, shown):
    array = VECTORS.astype(np.float64)
    array[4, 1] = array[5, 2] = bad
    message = refusal(write(array))
    for fact in ("2 value(s)", "not finite", "index (4, 1)", f": {shown}.", "impute"):
        assert fact in message


@pytest.mark.parametrize("shape", [(3, 2, 5, 5), (3, 5, 5, 4)])
def test_a_bad_pixel_is_named_by_its_place_in_the_file_even_if_channels_are_turned(write, shape):
    array = RNG.normal(size=shape).astype(np.float32)
    array[2, 1, 0, 3] = np.nan
    assert "index (2, 1, 0, 3): nan" in refusal(write(array))


def test_constant_features_are_known_by_their_columns(write):
    array = RNG.normal(size=(4, 12)).astype(np.float32)
    array[:, [1, 4]] = 7.0
    data = read(write(array))
    always = {c.name: c.low for c in data.columns.kinds if c.low == c.high}
    assert always == {"1": 7.0, "4": 7.0}
    x = Columns(data.columns, 12).inverse(torch.zeros(3, 10))
    assert (x[:, [1, 4]] == 7).all()


def test_where_all_features_are_constant_the_first_ones_are_named(write):
    message = refusal(write(np.ones((4, 20))))
    assert "20 constant feature(s), 0, 1, 2, 3, 4, 5, 6, 7 …:" in message
    assert "Remove them" in message


@pytest.mark.parametrize("shape", [(4, 3, 7), (4, 3, 5, 5)])
def test_a_channel_that_never_changes_is_refused_by_number(write, shape):
    """An opaque alpha channel, for one: it cannot be standardised."""
    array = RNG.normal(size=shape)
    array[:, 2] = 255
    message = refusal(write(array))
    assert "1 constant channel(s), 2:" in message
    assert "Remove" in message


def test_a_pixel_that_never_changes_is_fine_as_long_as_its_channel_does(write):
    border = np.zeros((4, 1, 3, 3))
    border[:, 0, 1, 1] = [1, 2, 3, 4]
    assert read(write(border)).shape == (1, 3, 3)
    assert "1 constant channel(s), 0:" in refusal(write(np.full((4, 1, 3, 3), 5.0)))


def test_what_is_not_an_array_file_is_refused(tmp_path, write):
    text = tmp_path / "x.xyz"
    text.write_text("1,2\n3,4\n")
    assert "x.xyz ends in none of .npy, .npz, .csv" in refusal(text)
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY nonsense")
    assert "broken.npy cannot be read as a .npy file" in refusal(tmp_path / "broken.npy")
    (tmp_path / "empty.npy").write_bytes(b"")
    assert "empty.npy cannot be read" in refusal(tmp_path / "empty.npy")
    whole = write(VECTORS).read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-5])
    assert "cut.npy cannot be read" in refusal(tmp_path / "cut.npy")
    np.savez(tmp_path / "many.npz", a=VECTORS)
    (tmp_path / "many.npz").rename(tmp_path / "many.npy")
    assert "an archive, not one array" in refusal(tmp_path / "many.npy")
    folder = tmp_path / "folder.npy"
    folder.mkdir()
    assert "folder.npy holds no images" in refusal(folder)


def test_a_pickle_is_refused_and_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.save(tmp_path / "trap.npy", np.array([Trap(), Trap()], dtype=object), allow_pickle=True)
    assert "trap.npy cannot be read" in refusal(tmp_path / "trap.npy")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("labels", "facts"),
    [
        (np.arange(5), ["shape (5,)", "needs 6 integers"]),
        (np.arange(12).reshape(6, 2), ["shape (6, 2)"]),
        (np.array([0, 1, -1, 0, 1, 1]), ["labels from -1 to 1", "count from 0"]),
        (np.array([0, 1, 10**9, 0, 1, 1]), ["to 1000000000 for 6 samples", "without large jumps"]),
    ],
    ids=["too few", "2-d", "negative", "stray"],
)
def test_labels_that_do_not_fit_are_refused(write, labels, facts):
    path = write(labels, "y.npy")
    message = refusal(write(VECTORS), path)
    for fact in [str(path), *facts]:
        assert fact in message


def test_missing_labels_are_refused(write, tmp_path):
    assert "y.npy" in refusal(write(VECTORS), tmp_path / "y.npy")


# --- the transform --------------------------------------------------------------------------------

SHAPES = [(200, 5), (50, 3, 7), (50, 2, 6, 4)]


def skewed(shape):
    """Data whose features, or channels, differ a thousandfold in scale and lie far from 0."""
    scale = torch.logspace(-1, 2, shape[1], dtype=torch.float64).reshape(-1, *[1] * len(shape[2:]))
    return ((normal(*shape) + 3) * scale).float()


@pytest.mark.parametrize("shape", SHAPES)
def test_standardised_data_has_zero_mean_and_unit_variance_per_feature_or_channel(shape):
    x = skewed(shape)
    transform = Standardize.fit(*Continuous().moments(x))
    z = transform.forward(x).double().transpose(0, 1).flatten(1)
    assert z.mean(1).abs().max() < 1e-5
    assert (z.var(1, correction=0) - 1).abs().max() < 1e-5
    assert transform.mean.numel() == transform.std.numel() == shape[1]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_transform_is_undone_by_its_inverse(shape):
    x = skewed(shape)
    transform = Standardize.fit(*Continuous().moments(x))
    back = transform.inverse(transform.forward(x))
    torch.testing.assert_close(back, x, rtol=1e-5, atol=1e-5)
    wide = x.double()
    torch.testing.assert_close(
        transform.inverse(transform.forward(wide)), wide, rtol=1e-13, atol=1e-13
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_the_log_determinant_is_that_of_the_jacobian(shape):
    x = skewed(shape)
    transform, one = Standardize.fit(*Continuous().moments(x)), x[:1].double()
    jacobian = torch.autograd.functional.jacobian(transform.forward, one)
    size = one.numel()
    sign, expected = torch.linalg.slogdet(jacobian.reshape(size, size))
    assert sign == 1
    torch.testing.assert_close(transform.log_det(one)[0], expected, rtol=1e-10, atol=1e-10)


def test_a_feature_that_never_changes_cannot_be_standardised():
    x = normal(10, 3).float()
    x[:, 1] = 4.0
    with pytest.raises(ValueError, match=r"\[1\] never change"):
        Standardize.fit(*Continuous().moments(x))


def test_data_to_look_at_need_not_be_data_to_learn_from(write):
    """One sample, and a feature that never changes, have a likelihood all the same."""
    for array in (VECTORS[:1], np.ones((4, 3))):
        assert torch.equal(read(write(array), learn=False).x, torch.from_numpy(array).float())
