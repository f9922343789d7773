"""Training recovers the truth, repeats itself bit for bit, and survives the trip to disk."""

import math
import tomllib

import numpy as np
import pytest
import torch
from cases import ALL_SOLVERS, MORE, PARAMETRIZATIONS, classes as of, label, normal, tensor
from safetensors.torch import load_file, save_file
from torch import nn

import scorefield as sf
from scorefield._internal.errors import CheckpointError, NumericalError, UsageError
from scorefield.data import Data
from scorefield.data.config import CategoryColumn, ColumnsConfig, NumberColumn
from scorefield.networks import MLP
from scorefield.runs.trainer import Training
from scorefield.training import (
    LogNormalTimes,
    Objective,
    Simple,
    TimeDistribution,
    UniformTimes,
    batches,
    config as c,
)
from scorefield.training.loop import fit

CORRELATED = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
SIMPLE = Objective(Simple(), UniformTimes())


def small(dim=2, width=32, depth=1, classes=0, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MLP(dim, width, depth, of(classes))


def denoiser(network=None, parametrization=None, process=None, shape=(2,)):
    return sf.Denoiser(
        small() if network is None else network,
        sf.VP() if process is None else process,
        sf.Preconditioned() if parametrization is None else parametrization,
        shape,
    )


def optim(**options):
    return c.OptimConfig(**{"steps": 10, "batch_size": 16, "warmup": 0, **options})


def weights(network):
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def same(a, b):
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def drain(steps):
    return [progress.loss for progress in steps]


def correlated(count):
    """Data of the correlated Gaussian."""
    return (normal(count, 2) @ torch.linalg.cholesky(CORRELATED).mT).float()


# --- the score that training finds ----------------------------------------------------------------


class EarlyTimes(TimeDistribution):
    """Most times near the data, where the scores of this test are the hardest."""

    def __call__(self, process, u):
        return process.t_min + u**3 * (process.t_max - process.t_min)


def error_of_score(field, truth, count=4000):
    """``sqrt(E||s_hat - s||^2 / E||s||^2)`` under p_t, averaged evenly over log-SNR."""
    process = truth.process
    x0 = truth.data(normal(count, 2, seed=7), torch.full((count,), 0.5))
    eps, errors = normal(count, 2, seed=8), []
    with torch.no_grad():
        for t in sf.even_log_snr(process, 12):
            x = process.perturb(x0, t, eps)
            exact, found = truth(x, t).score, field(x.float(), t).score
            errors.append((found - exact).square().sum().div(exact.square().sum()).sqrt())
    return float(torch.stack(errors).mean())


@pytest.mark.parametrize(
    "parametrization",
    [
        *(pytest.param(each, marks=MORE) for each in (sf.Eps(), sf.X0(), sf.V(), sf.Velocity())),
        sf.Score(),
        sf.Preconditioned(),
    ],
    ids=label,
)
def test_every_parametrization_learns_the_score_of_a_gaussian(parametrization):
    """Row 34: relative error under 5 %, from sigma/alpha = 0.17 to 150."""
    process = sf.VP(t_min=0.05)
    truth = sf.Gaussian(process, torch.zeros(2, dtype=torch.float64), CORRELATED)
    field = denoiser(parametrization=parametrization, process=process)
    before = error_of_score(field, truth)
    options = optim(steps=1200, batch_size=256, lr=1e-2, ema=0.99, warmup=100, weight_decay=0.0)
    drain(fit(field, Objective(Simple(), EarlyTimes()), correlated(50000), optim=options))
    assert error_of_score(field, truth) < 0.05
    assert before > 0.15, "an untrained network would do"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run trained on a Gaussian with mean 100 and deviations 7 and 3, saved and loaded."""
    points = correlated(20000).double() * tensor(7.0, 3.0) + tensor(100.0, -20.0)
    config = c.TrainConfig(
        process=c.VPConfig(t_min=1e-3),
        times=c.UniformConfig(),
        network=c.MLPConfig(width=32, depth=1),
        optim=c.OptimConfig(steps=1200, batch_size=256, lr=1e-2, ema=0.99, weight_decay=0.0),
    )
    folder = tmp_path_factory.mktemp("trained") / "run"
    sf.train(Data(points.float(), None, "a Gaussian"), config=config).save(folder)
    return sf.load(folder)


@pytest.mark.parametrize("solver", ALL_SOLVERS, ids=label)
def test_one_checkpoint_serves_every_solver_in_the_units_of_the_data(trained, solver):
    """Row 36: mean, spread and correlation of the data, whichever rule walks from the prior."""
    count = 4000
    times = sf.balanced(trained.field.process, 60 if solver.calls == 1 else 30)
    x = trained.sample(count, solver, times, seed=1, batch_size=count).double()
    assert x.isfinite().all()
    z = (x - tensor(100.0, -20.0)) / tensor(7.0, 3.0)
    assert z.mean(0).abs().max() < 0.04 + 4 / math.sqrt(count)
    # a standard error of the covariance is at most sqrt(2 / count); the rest is what a small
    # network and a step that is not small leave
    assert (z.T.cov() - CORRELATED).abs().max() < 0.05 + 4 * math.sqrt(2 / count)


# --- the order of the data, the noise and the times -----------------------------------------------


def items_of(size, count, total, seed=0):
    steps = -(-total // size)
    return torch.cat([batches.batch(k, size, count, seed)[0] for k in range(steps)])[:total]


@pytest.mark.parametrize("size", [1, 7, 32, 50, 120])
def test_each_epoch_visits_each_item_once_in_an_order_of_its_own(size):
    count = 50
    epochs = items_of(size, count, 4 * count).reshape(4, count)
    for epoch in epochs:
        assert torch.equal(epoch.sort().values, torch.arange(count))
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 4
    other = items_of(size, count, count, seed=1)
    assert not torch.equal(other, epochs[0])


def test_the_stream_of_items_and_their_noise_do_not_depend_on_the_batch_size():
    count, total = 50, 224
    assert torch.equal(items_of(7, count, total), items_of(32, count, total))
    drawn = {}
    for size in (7, 32):
        rows = []
        for step in range(total // size):
            _, noise = batches.batch(step, size, count, seed=3)
            rows.append(noise.draw((5,), torch.empty(0))[0])
        drawn[size] = torch.cat(rows)
    assert torch.equal(drawn[7], drawn[32])
    assert len(drawn[7].unique(dim=0)) == total, "no two visits share their noise"


def test_the_order_has_no_pattern():
    """Ranks of one epoch against the next, and against the place, are uncorrelated."""
    count = 2000
    first, second = items_of(count, count, 2 * count).reshape(2, count).double()
    place = torch.arange(count).double()
    for a, b in [(place, first), (place, second), (first, second), (first[:-1], first[1:])]:
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 4 / math.sqrt(count)


class Recorder(nn.Module):
    """Keeps what the network is called with, and still learns."""

    def __init__(self):
        super().__init__()
        self.inner = small()
        self.seen = []

    def forward(self, x, label, y=None):
        self.seen.append((x.detach().clone(), label.detach().clone(), y))
        return self.inner(x, label)


def recorded(y=None, times=None, **options):
    """Return the inputs, the noise levels and the classes of a short training, step by step."""
    process, network = sf.VP(), Recorder()
    objective = Objective(Simple(), UniformTimes() if times is None else times)
    field = denoiser(network, sf.Eps(), process)
    x = correlated(400)
    drain(fit(field, objective, x, {} if y is None else {"y": y}, optim=optim(**options)))
    levels = torch.cat([label.double() for _, label, _ in network.seen])
    return network.seen, process.time(-4 * levels)


@pytest.mark.parametrize("even", [True, False])
def test_every_sample_of_a_batch_has_a_time_of_its_own(even):
    seen, t = recorded(steps=3, batch_size=50, low_discrepancy=even)
    for x, level, _ in seen:
        assert level.shape == (50,)
        assert len(level.unique()) == 50
        assert len(x.unique(dim=0)) == 50
    assert len(t.unique()) == 150, "and no step repeats another's"


@pytest.mark.parametrize("even", [True, False])
def test_the_times_of_a_run_do_not_depend_on_the_batch_size(even):
    _, narrow = recorded(steps=30, batch_size=10, low_discrepancy=even)
    _, wide = recorded(steps=3, batch_size=100, low_discrepancy=even)
    torch.testing.assert_close(narrow, wide, rtol=1e-9, atol=0)


def discrepancy(u):
    """The star discrepancy: the largest gap between the share below a level and the level."""
    u, count = u.sort().values, len(u)
    k = torch.arange(1, count + 1, dtype=torch.float64)
    return float(torch.maximum(k / count - u, u - (k - 1) / count).max())


def test_low_discrepancy_times_fill_the_interval_more_evenly_than_independent_ones():
    """Row 35: in any one batch and over the run, as 1/N instead of 1/sqrt(N)."""
    process, size, steps = sf.VP(), 64, 20
    found = {}
    for even in (True, False):
        _, t = recorded(steps=steps, batch_size=size, low_discrepancy=even)
        u = (t - process.t_min) / (process.t_max - process.t_min)
        batches = [discrepancy(u[k * size : (k + 1) * size]) for k in range(steps)]
        found[even] = max(batches), sum(batches) / steps, discrepancy(u)
    # the golden-ratio sequence keeps N D below 1 + log(N) at every N
    assert found[True][0] < (1 + math.log(size)) / size
    assert found[True][2] < (1 + math.log(size * steps)) / (size * steps)
    # independent numbers have a mean of about 0.87 / sqrt(N)
    assert found[False][1] == pytest.approx(0.87 / math.sqrt(size), rel=0.25)
    assert found[True][1] < found[False][1] / 2
    assert found[True][2] < found[False][2] / 4


def test_times_follow_the_distribution_asked_for():
    """Quantiles of log(sigma/alpha) of a run are those of the normal it was told."""
    seen, _ = recorded(steps=20, batch_size=50, times=LogNormalTimes(-0.4, 1.4))
    levels = torch.cat([4 * level.double() for _, level, _ in seen])
    quantiles = levels.quantile(tensor(0.16, 0.5, 0.84))
    expected = -0.4 + 1.4 * torch.special.ndtri(tensor(0.16, 0.5, 0.84))
    torch.testing.assert_close(quantiles, expected, rtol=0, atol=0.05)


def test_training_sees_the_data_noised_to_its_time():
    """What the network gets is alpha x0 + sigma eps with x0 an item and eps standard normal."""
    process = sf.VP()
    seen, t = recorded(steps=40, batch_size=50)
    alpha, sigma = process.coefficients(t)
    x = torch.cat([x.double() for x, _, _ in seen])
    count = len(x)
    items = items_of(50, 400, count)
    eps = (x - alpha[:, None] * correlated(400)[items]) / sigma[:, None]
    far = sigma > 0.3  # nearer the data float32 has few digits of eps left
    eps = eps[far]
    assert eps.mean(0).abs().max() < 4 / math.sqrt(len(eps))
    assert (eps.T.cov() - torch.eye(2)).abs().max() < 4 * math.sqrt(2 / len(eps))


# --- the optimiser --------------------------------------------------------------------------------


def config_of(**options):
    return c.TrainConfig(
        network=c.MLPConfig(width=16, depth=1),
        times=c.UniformConfig(),
        optim=optim(**options.pop("optim", {})),
        **options,
    )


def points(count=200, classes=0):
    y = torch.arange(count) % classes if classes else None
    return Data(correlated(count), y, "points")


def test_the_same_seed_gives_the_same_weights_bit_for_bit_and_another_does_not():
    first, again, other = (
        weights(sf.train(points(), config=config_of(seed=seed)).field.network) for seed in (0, 0, 1)
    )
    assert same(first, again)
    assert not any(torch.equal(first[name], other[name]) for name in first if "weight" in name)


def test_the_first_weights_are_a_function_of_the_seed():
    first, again, other = (
        weights(Training(points(), config_of(seed=seed)).denoiser.network) for seed in (0, 0, 1)
    )
    assert same(first, again)
    assert not torch.equal(first["enter.weight"], other["enter.weight"])


def test_training_leaves_the_global_generator_alone_and_does_not_ask_it():
    torch.manual_seed(5)
    first = weights(sf.train(points(), config=config_of()).field.network)
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), after)
    assert same(first, weights(sf.train(points(), config=config_of()).field.network))


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_the_network_ends_with_the_moving_average_of_its_weights(decay):
    """avg <- d avg + (1 - d) w with d = min(decay, (1 + n) / (10 + n)) after n averages."""
    field, average = denoiser(), None
    for n, _ in enumerate(fit(field, SIMPLE, correlated(100), optim=optim(steps=25, ema=decay))):
        new = {name: value.double() for name, value in weights(field.network).items()}
        d = min(decay, (1 + n) / (10 + n))
        average = (
            new
            if average is None
            else {name: d * average[name] + (1 - d) * new[name] for name in new}
        )
    found = weights(field.network)
    for name in found:
        torch.testing.assert_close(found[name].double(), average[name], rtol=1e-5, atol=1e-7)
    if decay:
        assert not any(torch.equal(found[name], new[name].float()) for name in found)
    assert not field.network.training


def gradient_norm(network):
    return math.sqrt(sum(float(p.grad.double().square().sum()) for p in network.parameters()))


def test_clipping_limits_the_norm_of_the_gradient_and_keeps_smaller_ones():
    norms = {}
    for clip in (1e9, 0.3):
        field = denoiser()
        steps = fit(field, SIMPLE, 3 * correlated(100), optim=optim(steps=1, clip=clip))
        next(steps)
        norms[clip] = gradient_norm(field.network)
    assert norms[1e9] > 0.4, "clipping has something to do"
    assert norms[0.3] == pytest.approx(0.3, rel=1e-5)
    field = denoiser()
    next(fit(field, SIMPLE, 3 * correlated(100), optim=optim(steps=1, clip=2 * norms[1e9])))
    assert gradient_norm(field.network) == pytest.approx(norms[1e9], rel=1e-6)


def test_the_rate_warms_up_linearly_and_falls_to_zero_as_half_a_cosine(monkeypatch):
    rates = []

    class Recording(torch.optim.AdamW):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "AdamW", Recording)
    drain(fit(denoiser(), SIMPLE, correlated(50), optim=optim(steps=40, warmup=10, lr=2e-3)))
    k = np.arange(40)
    expected = 2e-3 * np.minimum(1, (k + 1) / 10) * np.cos(math.pi * k / 80) ** 2
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_the_first_step_moves_weights_by_the_warmed_up_rate():
    """Adam's first step is the sign of the gradient times the rate, seen in the weights."""
    field = denoiser()
    before = weights(field.network)
    options = optim(steps=50, warmup=20, lr=1e-2, weight_decay=0.0)
    next(fit(field, SIMPLE, correlated(50), optim=options))
    moved = max(float((v - before[k]).abs().max()) for k, v in weights(field.network).items())
    assert moved == pytest.approx(1e-2 / 20, rel=1e-3)


def test_progress_counts_steps_and_reports_their_loss():
    field = denoiser()
    steps = list(fit(field, SIMPLE, correlated(100), optim=optim(steps=4)))
    assert [progress.step for progress in steps] == [1, 2, 3, 4]
    training = Training(points(), config_of(optim={"steps": 130}))
    losses = drain(training)
    assert training.loss == pytest.approx(sum(losses[-100:]) / 100, rel=1e-12)
    assert training.run.config.loss == training.loss


@pytest.mark.parametrize("ahead", [False, True])
def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(ahead):
    x = correlated(64)
    items = items_of(16, 64, 64)
    bad = int(items[2 * 16 + 5])  # first visited in the third step
    x[bad, 1] = math.nan
    field = denoiser()
    steps = fit(field, SIMPLE, x, optim=optim(steps=10))
    steps.ahead = ahead  # as on a GPU
    next(steps), next(steps)
    state = {name: value.clone() for name, value in steps.state().items()}
    before = weights(field.network)
    if ahead:
        next(steps)
    with pytest.raises(NumericalError) as raised:
        next(steps)
    for fact in ("loss is nan", "step 3", f"items [{bad}]", "t = ", "lower optim.lr", "are kept"):
        assert fact in str(raised.value)
    assert raised.value.exit_code == 5
    assert same(before, weights(field.network))
    assert steps.diverged
    assert same(state, steps.state())


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_touched():
    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * math.inf

    field = denoiser()
    field.network.register_forward_hook(lambda module, given, out: Spike.apply(out))
    before = weights(field.network)
    with pytest.raises(NumericalError, match=r"norm is (inf|nan) at step 1.*are kept"):
        next(fit(field, SIMPLE, correlated(64), optim=optim(steps=3)))
    assert same(before, weights(field.network))


def test_bfloat16_trains_with_weights_in_float32():
    dtypes = set()

    class Watched(MLP):
        def forward(self, x, label, y=None):
            out = super().forward(x, label, y=y)
            dtypes.add(self.enter(x).dtype)
            return out

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Watched(2, 32, 1)
    process = sf.VP(t_min=0.05)
    field = denoiser(network, sf.Eps(), process)
    truth = sf.Gaussian(process, torch.zeros(2, dtype=torch.float64), CORRELATED)
    before = error_of_score(field, truth)
    dtypes.clear()
    options = optim(steps=300, batch_size=128, lr=1e-2, ema=0.98, precision="bfloat16")
    losses = drain(fit(field, SIMPLE, correlated(5000), optim=options))
    seen = set(dtypes)
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in field.parameters()} == {torch.float32}
    t = UniformTimes()(process, (torch.arange(1000).double() + 0.5) / 1000)
    alpha, sigma = (value[:, None] for value in process.coefficients(t))
    signal = alpha**2 * tensor(1.6, 0.4)
    least = float((signal / (signal + sigma**2)).mean())  # the variance of eps given x
    assert losses[0] > 3 * least
    assert sum(losses[-100:]) / 100 < 1.1 * least
    assert error_of_score(field, truth) < 0.2 * before


# --- classes --------------------------------------------------------------------------------------


def two_classes(count=4000):
    """Class 0 lies around (-2, 0) and class 1 around (2, 1), each with deviation 0.5."""
    y = torch.arange(count) % 2
    centres = torch.tensor([[-2.0, 0.0], [2.0, 1.0]])
    return Data(centres[y] + 0.5 * normal(count, 2).float(), y, "two"), centres


def test_a_conditional_run_learns_each_class_and_their_mixture():
    data, centres = two_classes()
    config = c.TrainConfig(
        conditional=True,
        process=c.VPConfig(t_min=1e-3),
        times=c.UniformConfig(),
        network=c.MLPConfig(width=32, depth=2),
        optim=optim(steps=800, batch_size=128, lr=5e-3, ema=0.99, warmup=50),
    )
    run = sf.train(data, config=config)
    count = 500
    for k in (0, 1):
        x = run.sample(count, seed=1, given=k, batch_size=count)
        assert ((x - centres[k]).norm(dim=1) < 2.5).double().mean() > 0.97
        assert (x.mean(0) - centres[k]).abs().max() < 0.2
    x = run.sample(count, seed=1, batch_size=count)
    share = float((x[:, 0] > 0).double().mean())
    assert share == pytest.approx(0.5, abs=0.12), "without a class both appear"
    z, t = normal(20, 2).float(), 0.4
    with torch.no_grad():
        none, nothing = run.field(z, t, y=torch.tensor(-1)).x0, run.field(z, t).x0
        classes = [run.field(z, t, y=torch.tensor(k)).x0 for k in (0, 1)]
    assert torch.equal(none, nothing)
    assert (classes[1] - classes[0])[:, 0].min() > 0.3


@pytest.mark.parametrize("dropout", [0.0, 0.1, 1.0])
def test_the_class_is_hidden_as_often_as_dropout_says(dropout):
    network = Recorder()
    field = denoiser(network, sf.Eps())
    y = torch.arange(300) % 3
    drain(
        fit(
            field,
            SIMPLE,
            correlated(300),
            {"y": y},
            optim=optim(steps=60, batch_size=50),
            dropout=dropout,
        )
    )
    seen = torch.cat([classes for _, _, classes in network.seen])
    shown = seen >= 0
    share = 1 - float(shown.double().mean())
    assert abs(share - dropout) <= 4 * math.sqrt(dropout * (1 - dropout) / len(seen))
    items = items_of(50, 300, len(seen))
    assert torch.equal(seen[shown], y[items][shown]), "and else it is the item's own"


def test_a_conditional_run_needs_classes():
    with pytest.raises(UsageError, match="points has no conditions; pass them as conditions"):
        Training(points(), config_of(conditional=True))


@pytest.mark.parametrize(
    "network", [c.SongConfig(classless=False), c.ADMConfig(classless=False, head=4)]
)
def test_classes_are_left_out_only_where_the_network_has_one_for_none(network):
    data = Data(normal(8, 1, 4, 4).float(), torch.arange(8) % 2, "pictures")
    config = c.TrainConfig(conditional=True, network=network.model_copy(update={"width": 4}))
    with pytest.raises(
        UsageError, match=r"dropout=0.1: this network needs a class for every sample"
    ):
        Training(data, config)
    config = config.model_copy(update={"dropout": 0.0})
    assert Training(data, config).config.dropout == 0
    with pytest.raises(UsageError, match="pictures has samples without a class, but this network"):
        Training(Data(data.x, torch.arange(8) % 3 - 1, data.name), config)


# --- checkpoints ----------------------------------------------------------------------------------

PROCESSES = {
    "vp": c.VPConfig(beta_max=15.0),
    "subvp": c.SubVPConfig(),
    "ve": c.VEConfig(sigma_max=20.0),
    "cosine": c.CosineConfig(),
    "sigmoid": c.SigmoidConfig(),
    "flow": c.FlowConfig(),
    "edm": c.EDMConfig(t_min=0.01),
    "tabulated": c.TabulatedConfig(alpha_bar=(0.99, 0.8, 0.4, 0.1, 0.01)),
}
KINDS = {
    "eps": c.PlainParametrization(kind="eps"),
    "x0": c.PlainParametrization(kind="x0"),
    "score": c.PlainParametrization(kind="score"),
    "v": c.PlainParametrization(kind="v"),
    "velocity": c.PlainParametrization(kind="velocity"),
    "preconditioned": c.PreconditionedConfig(data_std=0.8),
}
LABELS = {
    "noise": c.PlainLabel(kind="noise"),
    "ratio": c.PlainLabel(kind="ratio"),
    "time": c.TimeLabelConfig(scale=3.0),
}
NETWORKS = {
    "vectors": ((3,), c.AutoNetwork()),
    "mlp": ((3,), c.MLPConfig(width=16, depth=1)),
    "signals": ((2, 5), c.AutoNetwork()),
    "volumes": ((2, 3, 4, 3), c.UNetConfig(width=8)),
    "mlp on signals": ((2, 5), c.MLPConfig(width=16, depth=2)),
    "images": ((1, 5, 6), c.AutoNetwork()),
    "unet": ((2, 8, 8), c.UNetConfig(width=8, multipliers=(1, 2, 2), blocks=2, heads=4)),
    "song": ((2, 8, 8), c.SongConfig(width=8, embedding="fourier", attention=(1,))),
    "adm": ((2, 8, 8), c.ADMConfig(width=8, head=8, variances=True)),
    "dit": ((2, 8, 8), c.DiTConfig(width=16, head=8, layers=2, variances=True)),
    "dit of signals": ((2, 7), c.DiTConfig(width=16, head=8, layers=2)),
    "mlp on images": ((1, 4, 4), c.MLPConfig(width=16)),
}


def untrained(shape=(3,), classes=0, **options):
    """A run whose weights are random throughout, as if training had moved them all."""
    y = torch.arange(20) % classes if classes else None
    data = Data(7 * normal(20, *shape).float() + 100, y, "noise")
    config = c.TrainConfig(conditional=bool(classes), **options)
    found = Training(data, config).run
    for k, parameter in enumerate(found.field.network.parameters()):
        parameter.data += 0.05 * normal(*parameter.shape, seed=k).float()
    found.field.eval()
    return found


def survives(run, folder, **options):
    run.save(folder)
    again = sf.load(folder)
    assert again.config == run.config
    assert same(weights(again.field.network), weights(run.field.network))
    assert again.field.process == run.field.process
    assert again.field.parametrization == run.field.parametrization
    assert again.field.label == run.field.label
    assert again.field.shape == run.field.shape
    first, second = (r.sample(3, times=TIMES(r), seed=4, **options) for r in (run, again))
    assert first.isfinite().all()
    assert torch.equal(first, second)
    assert not torch.equal(first, again.sample(3, times=TIMES(again), seed=5, **options))


def TIMES(run):
    return sf.balanced(run.field.process, 3)


@pytest.mark.parametrize("kind", PROCESSES)
def test_every_process_survives_saving_and_loading(tmp_path, kind):
    survives(untrained(process=PROCESSES[kind]), tmp_path / "run")


@pytest.mark.parametrize("kind", KINDS)
def test_every_parametrization_survives_saving_and_loading(tmp_path, kind):
    survives(untrained(parametrization=KINDS[kind]), tmp_path / "run")


@pytest.mark.parametrize("kind", LABELS)
def test_every_label_survives_saving_and_loading(tmp_path, kind):
    survives(untrained(label=LABELS[kind]), tmp_path / "run")


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_network_survives_saving_and_loading(tmp_path, kind):
    shape, network = NETWORKS[kind]
    survives(untrained(shape, network=network), tmp_path / "run")


def test_a_conditional_run_survives_saving_and_loading(tmp_path):
    survives(untrained(classes=3), tmp_path / "run", given=2)


def test_the_lists_of_these_tests_leave_out_no_kind():
    from scorefield.runs import build

    assert {*PROCESSES, "brownian"} == set(build.PROCESSES)  # of points, in test_points.py
    assert set(KINDS) == set(build.PARAMETRIZATIONS)
    assert set(LABELS) == set(build.LABELS)
    assert {type(p) for p in PARAMETRIZATIONS} == set(build.PARAMETRIZATIONS.values())


def test_a_trained_run_gives_the_same_samples_after_loading(tmp_path):
    survives(sf.train(points(), config=config_of()), tmp_path / "run")


def test_a_run_folder_holds_weights_and_a_readable_configuration_and_no_pickle(tmp_path):
    run = untrained()
    run.save(tmp_path / "deep" / "run")
    folder = tmp_path / "deep" / "run"
    names = ["SHA256SUMS", "config.toml", "model.safetensors"]
    assert sorted(p.name for p in folder.iterdir()) == names
    assert sorted(p.name for p in folder.parent.iterdir()) == ["run"]
    tensors = load_file(folder / "model.safetensors")
    expected = {f"network.{name}" for name in run.field.network.state_dict()}
    assert set(tensors) == expected | {
        "transform.mean",
        "transform.std",
        "data.mean",
        "data.variance",
    }
    header = int.from_bytes((folder / "model.safetensors").read_bytes()[:8], "little")
    assert (folder / "model.safetensors").read_bytes()[8:9] == b"{"
    assert header < 10000
    values = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
    assert values["train"]["process"]["kind"] == "vp"
    assert values["data"] == {"name": "noise", "shape": [3], "count": 20}
    assert c.RunConfig.model_validate(values) == run.config


def test_texts_with_many_dots_survive_saving_and_loading(tmp_path):
    kinds = (
        NumberColumn(name="a", low=-9, high=9),
        CategoryColumn(name="b." * 40, labels=("." * 39, '"#"')),
    )
    columns = ColumnsConfig(names=("a", "b." * 40), kinds=kinds)
    x = torch.stack([normal(20).float(), torch.arange(20.0) % 2], 1)
    run = Training(Data(x, None, "noise", columns=columns), c.TrainConfig()).run
    run.save(tmp_path / "run")
    assert sf.load(tmp_path / "run").config.data.columns == columns


@pytest.mark.parametrize(
    ("count", "given", "message"),
    [
        (2, {"name": "x\udcff.npy"}, r"'name = \"x\\udcff.npy\"': config.toml holds UTF-8 only"),
        (2, {"names": ("a", "\udcff")}, "rename the file, its columns or classes"),
        (2**18, {}, "more than 8,388,608 bytes; use fewer columns"),
    ],
)
def test_a_run_that_could_not_be_loaded_is_not_trained(count, given, message):
    names = given.get("names", tuple(f"{k:030d}" for k in range(count)))
    columns = ColumnsConfig(names=names)
    data = Data(torch.zeros(2, count), None, given.get("name", "x"), columns=columns)
    with pytest.raises(UsageError, match=message):
        Training(data, c.TrainConfig(network=c.MLPConfig(width=8)))


def test_samples_come_in_the_units_of_the_data(tmp_path):
    """The transform is undone: the estimate of the standardised field, scaled by 7 around 100."""
    run = untrained(shape=(2, 5))
    run.save(tmp_path / "run")
    again = sf.load(tmp_path / "run")
    times = TIMES(run)
    z = sf.sample(run.field, 6, times=times, seed=2)
    mean, std = run.transform.mean.double(), run.transform.std.double()
    assert ((mean - 100).abs() < 7).all()
    assert ((std / 7 - 1).abs() < 0.5).all()
    expected = z.double() * std + mean
    found = again.sample(6, times=times, seed=2).double()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.fixture
def saved(tmp_path):
    """A run folder of a small network."""
    untrained(network=c.MLPConfig(width=16, depth=1)).save(tmp_path / "run")
    return tmp_path / "run"


def refusal(folder):
    with pytest.raises(CheckpointError) as raised:
        sf.load(folder)
    assert raised.value.exit_code == 4
    return str(raised.value)


def test_a_missing_folder_or_file_is_refused_by_name(saved, tmp_path):
    assert f"{tmp_path / 'nothing'}: this run folder does not exist" in refusal(
        tmp_path / "nothing"
    )
    text = tmp_path / "text"
    text.write_text("hello")
    assert f"{text}: this run folder does not exist" in refusal(text)
    (saved / "model.safetensors").unlink()
    assert f"{saved / 'model.safetensors'} cannot be read" in refusal(saved)
    (saved / "config.toml").unlink()
    assert f"{saved / 'config.toml'} cannot be read" in refusal(saved)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_weights_cut_short_are_refused(saved, keep):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert f"{path} cannot be read" in refusal(saved)


def test_weights_that_are_something_else_are_refused(saved):
    path = saved / "model.safetensors"
    for content in (b"\x80\x04 not a pickle, please", bytes(500), b"\xff" * 500):
        path.write_bytes(content)
        assert f"{path} cannot be read" in refusal(saved)


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"network.enter.weight": torch.zeros(16, 4)}, ["enter.weight", "(16, 4)", "(16, 3)"]),
        ({"network.more": torch.zeros(2)}, ["does not match", "network.more"]),
        (
            {"network.leave.bias": None},
            ["does not match", "missing tensors ['network.leave.bias']"],
        ),
        ({"transform.std": None}, ["does not match", "transform.std"]),
        ({"transform.mean": torch.zeros(4)}, ["transform.mean", "(4,)", "(3,)"]),
        ({"transform.std": torch.ones(3, 3)}, ["transform.std", "(3, 3)", "(3,)"]),
        ({"network.leave.bias": torch.full((3,), math.inf)}, ["network.leave.bias", "not finite"]),
        ({"transform.std": torch.zeros(3)}, ["transform.std", "must be positive"]),
    ],
    ids=[
        "wrong shape",
        "extra",
        "missing",
        "no transform",
        "mean's shape",
        "deviation's shape",
        "not finite",
        "no deviation",
    ],
)
def test_weights_that_do_not_match_the_configuration_are_refused(saved, change, facts):
    path = saved / "model.safetensors"
    tensors = {k: v for k, v in (load_file(path) | change).items() if v is not None}
    save_file(tensors, path)
    message = refusal(saved)
    for fact in [str(path), *facts]:
        assert fact in message


@pytest.mark.parametrize(
    ("old", "new", "facts"),
    [
        ("version = 1", "version = 2", ["version"]),
        ("width = 16", 'width = "wide"', ["train.network.mlp.width"]),
        ("width = 16", "width = 16\nwidht = 3", ["train.network.mlp.widht"]),
        ("width = 16", "width = -3", ["train.network.mlp.width"]),
        ("version = 1", "version = 1\ncolour = 3", ["colour"]),
        ("version = 1", "version = = 1", ["cannot be read", "line 1"]),
        ('kind = "vp"', 'kind = "vq"', ["train.process", "vq"]),
        ("t_max = 1.0", "t_max = -1.0", ["t_min < t_max"]),
    ],
)
def test_an_edited_configuration_is_refused_by_file_and_place(saved, old, new, facts):
    path = saved / "config.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    message = refusal(saved)
    for fact in [str(path), *facts]:
        assert fact in message


def test_a_configuration_of_another_network_is_refused(saved):
    path = saved / "config.toml"
    path.write_text(path.read_text().replace("width = 16", "width = 24"))
    message = refusal(saved)
    assert str(saved / "model.safetensors") in message
    assert "has shape (16, 32), but config.toml describes (24, 32)" in message


def test_a_unet_whose_channels_do_not_divide_is_refused_as_a_bad_checkpoint(tmp_path):
    untrained((1, 4, 4), network=c.UNetConfig(width=8)).save(tmp_path / "run")
    path = tmp_path / "run" / "config.toml"
    path.write_text(path.read_text().replace("width = 8", "width = 9"))
    message = refusal(tmp_path / "run")
    assert str(path) in message
    assert "multiple of 8" in message


def test_a_configuration_that_is_not_text_is_refused(saved):
    (saved / "config.toml").write_bytes(b"\xff\xfe\x00")
    assert f"{saved / 'config.toml'} cannot be read" in refusal(saved)


def listing(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in folder.rglob("*")
    }


def test_saving_never_touches_what_is_there(saved, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    before = listing(tmp_path)
    for target in (saved, other, other / "notes.txt"):
        with pytest.raises(UsageError, match="exists already: choose another folder"):
            untrained().save(target)
        assert listing(tmp_path) == before


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(UsageError, match=r"cannot be created.*file is not a folder"):
        sf.RunFolder(tmp_path / "file" / "deep" / "run").refuse_existing()
    assert listing(tmp_path) == before


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "run").mkdir()
    survives(untrained(), tmp_path / "run")


@pytest.mark.parametrize("where", ["publish", "config_text"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["disk", "key"])
def test_a_save_that_fails_midway_leaves_nothing_behind(tmp_path, monkeypatch, where, error):
    def half(written, path):
        (written / "config.toml").write_bytes(b"half")
        raise error

    def fails(config):
        raise error

    failing = {"publish": half, "config_text": fails}[where]
    monkeypatch.setattr(f"scorefield.runs.folder.{where}", failing)
    with pytest.raises(type(error)):
        untrained().save(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
