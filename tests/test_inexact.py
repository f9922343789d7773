"""Fields with errors of a stated size: the size, its smoothness, and where it is."""

import pytest
import torch
from cases import ALL_PROCESSES, PROCESS_IDS, interior_times, mixture, normal

import scorefield as sf


def target_scale(field, of, t):
    """Return the size of what a network of this kind has to predict, by its definition."""
    c, t = field.data_std, torch.tensor(t, dtype=torch.float64)
    (alpha, sigma), (alpha_rate, sigma_rate) = field.process.coefficients(t), field.process.rates(t)
    given_x = (1 / (1 / c**2 + (alpha / sigma) ** 2)) ** 0.5
    return {"eps": 1.0, "x0": given_x, "velocity": torch.hypot(c * alpha_rate, sigma_rate)}[of]


@pytest.mark.parametrize("process", ALL_PROCESSES, ids=PROCESS_IDS)
@pytest.mark.parametrize("of", ["eps", "x0", "velocity"])
def test_the_error_has_the_stated_size_in_the_quantity_it_is_of(process, of):
    exact, size = mixture(process), 0.025
    data = exact.data(normal(512, 2), torch.linspace(0, 0.999, 512).double())
    squares = []
    for t in interior_times(process):
        x = process.perturb(data, t, normal(512, 2, seed=1))
        clean = getattr(exact(x, t), of)
        off = [getattr(sf.Inexact(exact, size, of, seed=k)(x, t), of) - clean for k in range(8)]
        squares.append(torch.stack(off).square().mean() / target_scale(exact, of, float(t)) ** 2)
    assert float(torch.stack(squares).mean().sqrt()) == pytest.approx(size, rel=0.2)


def test_the_error_is_a_smooth_function_of_x_and_of_the_level():
    """Its change over a small step is in proportion; noise of the same size would not shrink."""
    exact = mixture(sf.VP())
    field, x = sf.Inexact(exact, 0.025), normal(64, 2)

    def error(x, t):
        return field(x, t).eps - exact(x, t).eps

    changes = [
        (error(x + h, 0.4 + h) - error(x, 0.4)).square().mean().sqrt() for h in (1e-2, 1e-3, 1e-4)
    ]
    assert 0 < changes[0] < 0.025
    assert changes[0] / changes[1] == pytest.approx(10, rel=0.1)
    assert changes[1] / changes[2] == pytest.approx(10, rel=0.01)


def test_an_error_around_a_level_is_there_and_hardly_elsewhere():
    process = sf.VP()
    exact = mixture(process)
    field, x = sf.Inexact(exact, 0.025, around=(1.0, 0.5)), normal(64, 2)

    def size(ratio):
        t = process.time(-torch.tensor(ratio, dtype=torch.float64).log())
        return (field(x, t).eps - exact(x, t).eps).square().mean().sqrt()

    assert size(1.0) > 0.01
    assert size(1.0 * torch.e**2) < 1e-3 * size(1.0)


def test_rounding_is_that_of_the_type():
    exact = mixture(sf.VP())
    got = sf.Inexact(exact, 0.0, "x0", dtype=torch.bfloat16)(x := normal(64, 2), 0.4).x0
    assert torch.equal(got, exact(x, 0.4).x0.to(torch.bfloat16).double())
    assert not torch.equal(got, exact(x, 0.4).x0)


def test_a_field_without_error_is_the_field_itself_also_under_another_process():
    exact = mixture(sf.VP())
    torch.testing.assert_close(sf.Inexact(exact, 0.0)(x := normal(8, 2), 0.4).x0, exact(x, 0.4).x0)
    off = sf.Inexact(exact, 0.025)
    other = sf.Cosine(t_min=0.01, t_max=0.9)
    s = other.time(exact.process.half_log_snr(torch.tensor(0.4, dtype=torch.float64)))
    scale = other.alpha(s) / exact.process.alpha(torch.tensor(0.4, dtype=torch.float64))
    torch.testing.assert_close(off.under(other)(scale * x, s).x0, off(x, 0.4).x0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": -0.1}, "size=-0.1"),
        ({"size": 0.1, "of": "v"}, "of='v'"),
        ({"size": 0.1, "around": (1.0, 0.0)}, "width=0"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        sf.Inexact(mixture(sf.VP()), **settings)
