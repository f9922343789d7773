"""Networks: every part takes part, and a sample's result is nobody else's business."""

import pytest
import torch
from cases import classes as of, normal
from torch import nn

from scorefield.networks import ADM, MLP, DiT, SongUNet, UNet
from scorefield.networks.dit import positions
from scorefield.networks.unet import coordinates


def mlp(classes=0, **options):
    return MLP(6, width=16, depth=2, conditions=of(classes), **options)


def unet(classes=0, **options):
    return UNet(2, **{"width": 8, "multipliers": (1, 2), "conditions": of(classes), **options})


def song(classes=0, **options):
    return SongUNet(2, **{"width": 8, "attention": (1,), "conditions": of(classes), **options})


def features(classes=0):
    return song(classes, embedding="fourier", widening=2, encoder="residual", taps=(1, 3, 3, 1))


def adm(classes=0, **options):
    return ADM(2, **{"width": 8, "head": 8, "conditions": of(classes), **options})


def dit(classes=0, **options):
    return DiT(2, **{"width": 64, "layers": 1, "head": 32, "conditions": of(classes), **options})


IMAGE = (2, 8, 8)


def dims(make, count):
    """Return the maker of a network of so many axes."""
    return lambda classes=0, **options: make(classes, dims=count, **options)


KINDS = {
    "mlp": (mlp, (6,)),
    "unet": (unet, IMAGE),
    "song": (song, IMAGE),
    "song with features": (features, IMAGE),
    "adm": (adm, IMAGE),
    "dit": (dit, IMAGE),
    "unet of signals": (dims(unet, 1), (2, 9)),
    "unet of volumes": (dims(unet, 3), (2, 4, 3, 4)),
    "dit of signals": (dims(dit, 1), (2, 7)),
}
every_kind = pytest.mark.parametrize(("make", "shape"), KINDS.values(), ids=KINDS)


def awake(make, classes=0, **options):
    """A network whose layers that start at zero have been moved off it."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = make(classes, **options)
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return network.eval()


@every_kind
def test_a_fresh_network_says_the_same_of_every_input(make, shape):
    """So training starts from what the parametrization alone makes of x."""
    with torch.no_grad():
        out = make()(normal(3, *shape).float(), torch.tensor([-1.0, 0.0, 2.0]))
        moved = awake(make)(normal(3, *shape).float(), torch.tensor([-1.0, 0.0, 2.0]))
    spread = (out - out[:1]).abs().max()
    assert spread == 0
    assert (moved - moved[:1]).abs().max() > 0.1


@every_kind
@pytest.mark.parametrize("classes", [0, 3])
def test_every_parameter_receives_a_gradient(make, shape, classes):
    network = awake(make, classes)
    y = torch.tensor([-1, 0, 1, 2]) if classes else None
    out = network(normal(4, *shape).float(), torch.linspace(-2, 2, 4), y=y)
    torch.autograd.backward((out * normal(4, *shape, seed=1).float()).sum())
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@every_kind
def test_layers_that_start_at_zero_wake_up_within_a_few_steps(make, shape):
    """Zero layers shield those before them only until their own first update."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = make(2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    x, target = normal(4, *shape).float(), normal(4, *shape, seed=1).float()
    for _ in range(5):
        optimizer.zero_grad()
        out = network(x, torch.linspace(-2, 2, 4), y=torch.tensor([-1, 0, 1, 1]))
        torch.autograd.backward(((out - target) ** 2).mean())
        optimizer.step()
    silent = [name for name, p in network.named_parameters() if not p.grad.any()]
    assert silent == []


@every_kind
@pytest.mark.parametrize("classes", [0, 3])
def test_a_sample_does_not_depend_on_the_rest_of_the_batch(make, shape, classes):
    network = awake(make, classes)
    x, label = normal(5, *shape).float(), torch.linspace(-2, 2, 5)
    y = torch.tensor([0, 1, 2, -1, 0]) if classes else None
    others, labels = 9 * normal(5, *shape, seed=8).float(), torch.full((5,), 7.0)
    others[2], labels[2] = x[2], label[2]
    ys = torch.full((5,), 2) if classes else None
    with torch.no_grad():
        whole, among_others = network(x, label, y=y), network(others, labels, y=ys)
        alone = network(x[2:3], label[2:3], y=None if y is None else y[2:3])
    assert torch.equal(whole[2], among_others[2]), "same place, same batch size: the same bits"
    assert not torch.equal(whole[1], among_others[1])
    torch.testing.assert_close(alone[0], whole[2], rtol=1e-4, atol=1e-5)


@every_kind
def test_the_output_depends_on_the_noise_label_of_its_own_sample(make, shape):
    network = awake(make)
    x = normal(1, *shape).float().expand(4, *shape)
    with torch.no_grad():
        out = network(x, torch.tensor([0.5, 0.5, 0.7, -3.0]))
    torch.testing.assert_close(out[0], out[1])
    for other in (2, 3):
        assert (out[0] - out[other]).abs().max() > 1e-3 * out.abs().max()


@every_kind
def test_noise_levels_from_the_faintest_to_the_strongest_are_told_apart(make, shape):
    """Labels are log(sigma/alpha)/4, about -3 to 3: a hundredth apart, they embed differently."""
    labels = torch.linspace(-3, 3, 601)
    with torch.no_grad():
        vectors = awake(make).embedding(labels)
    distance = torch.cdist(vectors.double(), vectors.double())
    distance.fill_diagonal_(torch.inf)
    assert distance.min() > 1e-3 * vectors.norm(dim=1).mean()


@every_kind
def test_classes_give_different_outputs_and_minus_one_stands_for_none(make, shape):
    network = awake(make, 3)
    x, label = normal(1, *shape).float().expand(4, *shape), torch.zeros(4)
    with torch.no_grad():
        out = network(x, label, y=torch.tensor([-1, 0, 1, 2]))
        without = network(x, label)
        shared = network(x, label, y=torch.tensor(1))
    for a in range(4):
        for b in range(a):
            assert (out[a] - out[b]).abs().max() > 1e-3 * out.abs().max()
    assert torch.equal(out[0], without[0])
    assert torch.equal(shared[2], out[2]), "one class may stand for the whole batch"


@every_kind
@pytest.mark.parametrize("y", [[0, 3], [-2, 0]])
def test_a_class_the_network_does_not_know_is_refused(make, shape, y):
    with pytest.raises(ValueError, match=r"has the classes 0 to 2, or -1 for none") as raised:
        make(3)(normal(2, *shape).float(), torch.zeros(2), y=torch.tensor(y))
    assert f"y from {min(y)} to {max(y)}" in str(raised.value)


@every_kind
def test_a_network_without_classes_refuses_any(make, shape):
    with pytest.raises(ValueError, match="y: this network has no such condition; it has none"):
        make()(normal(2, *shape).float(), torch.zeros(2), y=torch.tensor([0, 0]))


@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 2, 3)])
def test_the_perceptron_takes_samples_of_any_shape_as_vectors(shape):
    network = awake(mlp)
    x, label = normal(3, 6).float(), torch.zeros(3)
    with torch.no_grad():
        flat, shaped = network(x, label), network(x.reshape(3, *shape), label)
    assert torch.equal(shaped, flat.reshape(3, *shape))


SIZES = [(8, 8), (7, 8), (5, 7), (1, 1), (9, 4), (3, 13), (8,), (13,), (1,), (3, 5, 4), (1, 1, 2)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("make", "options"),
    [(unet, {"multipliers": (1, 2, 2), "positions": False}), (dit, {"width": 96, "patch": 4})],
    ids=["unet", "dit"],
)
def test_samples_of_any_size_come_back_as_if_padded_by_hand(make, options, size):
    """Padding with zeros to multiples of 4 and cropping is all that odd sizes change."""
    network = awake(dims(make, len(size)), **options)
    x, label = normal(2, 2, *size).float(), torch.tensor([0.1, 0.9])
    clean = torch.zeros(2, 2, *(-(-side // 4) * 4 for side in size))
    inside = (..., *map(slice, size))
    clean[inside] = x
    with torch.no_grad():
        found, padded = network(x, label), network(clean, label)
    assert found.shape == x.shape
    assert torch.equal(found, padded[inside])


def test_attention_at_the_coarse_level_lets_far_corners_speak():
    """With convolutions alone a corner of 64 pixels would never hear of the other."""
    network = awake(unet)
    x = normal(1, 2, 64, 64).float()
    moved = x.clone()
    moved[..., 0, 0] += 5.0

    class Silent(nn.Module):
        def forward(self, h):
            return h

    with torch.no_grad():
        change = (network(moved, torch.zeros(1)) - network(x, torch.zeros(1))).abs()
        network.attention = Silent()
        for block in network.modules():  # group norms too mix the whole image
            if isinstance(block, nn.GroupNorm):
                block.forward = lambda h: h
        local = (network(moved, torch.zeros(1)) - network(x, torch.zeros(1))).abs()
    assert change[0, :, -1, -1].min() > 0
    assert local[0, :, 0, 0].min() > 0
    assert local[0, :, -1, -1].max() == 0


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"width": 12}, ["width=12", "multiple of 8"]),
        ({"width": 8, "heads": 3}, ["heads=3", "16 channels"]),
    ],
)
def test_channels_that_do_not_divide_are_refused(options, facts):
    with pytest.raises(ValueError, match="must be a multiple") as raised:
        UNet(1, **options)
    for fact in facts:
        assert fact in str(raised.value)


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 2, 3)])
def test_the_levels_and_blocks_asked_for_are_built_and_used(blocks, multipliers):
    network = awake(unet, blocks=blocks, multipliers=multipliers)
    assert len(network.down) == len(network.up) == blocks * len(multipliers)
    assert len(network.shrink) == len(network.grow) == len(multipliers) - 1
    seen = []
    for module in [*network.down, *network.up, *network.middle, network.attention]:
        module.register_forward_hook(lambda module, _, out: seen.append((module, out.shape)))
    out = network(normal(1, 2, 8, 8).float(), torch.zeros(1))
    assert out.shape == (1, 2, 8, 8)
    assert [module for module, _ in seen[: len(network.down)]] == list(network.down)
    assert {module for module, _ in seen} >= {*network.down, *network.up, *network.middle}
    coarsest = dict(seen)[network.attention]
    side = 8 // 2 ** (len(multipliers) - 1)
    assert coarsest == (1, 8 * multipliers[-1], side, side)


# --- signals and volumes --------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_a_network_of_more_axes_makes_the_same_of_samples_of_one_place_along_the_first(count):
    """There, the middle of each kernel is all that meets the sample."""
    options = {"multipliers": (1,), "positions": False}
    small, large = (awake(dims(unet, n), **options) for n in (count, count + 1))
    given, own = large.state_dict(), small.state_dict()
    for name, tensor in given.items():
        if tensor.ndim == count + 3:
            given[name] = tensor[:, :, tensor.shape[2] // 2]
    assert {k: v.shape for k, v in given.items()} == {k: v.shape for k, v in own.items()}
    small.load_state_dict(given)
    x, label = normal(3, 2, *(7, 6)[:count]).float(), torch.linspace(-1, 1, 3)
    with torch.no_grad():
        flat, deep = small(x, label), large(x[:, :, None], label)[:, :, 0]
    torch.testing.assert_close(flat, deep, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positions", [False, True])
def test_a_moved_bump_gives_a_moved_result_only_without_positions(positions):
    network = awake(unet, dims=1, positions=positions)
    x = torch.zeros(2, 2, 128)
    x[0, :, 40:46] = x[1, :, 72:78] = normal(2, 6).float()
    with torch.no_grad():
        first, second = network(x, torch.zeros(2))
    around = (first[:, 20:66], second[:, 52:98])
    change = float((around[0] - around[1]).abs().max() / first.std())
    assert change > 0.1 if positions else change < 1e-4


def test_coordinates_are_waves_along_each_axis_that_differ_at_all_places():
    found = coordinates((5, 30), torch.zeros((), dtype=torch.float64))
    assert found.shape == (16, 5, 30)
    u = (torch.arange(30) + 0.5) / 30
    for k in range(4):
        torch.testing.assert_close(found[8 + k, 3].float(), (2**k * torch.pi * u).cos())
        torch.testing.assert_close(found[12 + k, 0].float(), (2**k * torch.pi * u).sin())
    assert torch.equal(found[:8].std(2), torch.zeros(8, 5, dtype=torch.float64))
    distances = torch.cdist(found.flatten(1).T, found.flatten(1).T).fill_diagonal_(1)
    assert distances.min() > 0.1


def test_positions_of_patches_are_those_of_a_row_of_an_image():
    like = torch.zeros((), dtype=torch.float64)
    image = positions(24, (3, 5), like)
    assert torch.equal(image[:, :12], positions(12, (5,), like).repeat(3, 1))
    assert torch.equal(image[:, 12:], positions(12, (3,), like).repeat_interleave(5, 0))
    torch.testing.assert_close(positions(12, (5,), like)[3, 0], torch.tensor(3.0).double().sin())


@pytest.mark.parametrize("make", [unet, dit])
@pytest.mark.parametrize("count", [0, 4])
def test_other_numbers_of_axes_are_refused(make, count):
    with pytest.raises(ValueError, match=r"must be 1 \(signals\), 2 \(images\) or 3 \(volumes\)"):
        make(dims=count)
