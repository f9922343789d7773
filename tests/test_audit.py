"""The audit of a field: nothing is wrong with exact ones, and errors are at their noise levels."""

import math

import pytest
import torch
from cases import PROCESSES, mixture, normal
from shell import end, finishes

import scorefield as sf
from scorefield.evaluate.check.trial import LEVELS, noise_levels


def data(field, count=4096):
    """Draw from the mixture of `cases.mixture`, without a solver."""
    g = torch.Generator().manual_seed(3)
    weights = torch.tensor([0.5, 0.3, 0.2])
    which = torch.multinomial(weights, count, replacement=True, generator=g)
    roots = torch.linalg.cholesky(field.covariances)
    z = torch.randn(count, 2, 1, generator=g, dtype=torch.float64)
    return field.means.reshape(-1, 2)[which] + (roots[which] @ z)[..., 0]


@pytest.mark.parametrize("name", ["VP", "Flow", "EDM"])
def test_nothing_is_wrong_with_an_exact_field(name):
    field = mixture(PROCESSES[name])
    result = sf.audit(field, data(field))
    assert result.worst is None
    assert result.inconsistent == ()
    assert abs(result.gap) < 4 * result.stderr
    for level in result.levels:
        assert level.residual < 1e-3
        assert level.curl < 1e-9
        assert level.mean < 3
        assert abs(level.fisher) < 4 * level.stderr


@pytest.mark.parametrize("of", ["eps", "x0"])
@pytest.mark.parametrize("place", [2, 3, 5])
def test_an_error_is_named_at_its_level_and_bounded_from_below(of, place):
    """Against the true error, which the mixture's exact score gives."""
    exact = mixture(PROCESSES["VP"])
    x = data(exact)
    half_log_snr = noise_levels(exact.process, float(x.var(0).mean().sqrt()))[:LEVELS]
    off = sf.Inexact(exact, 0.4, of, around=(math.exp(-float(half_log_snr[place])), 0.4))
    result = sf.audit(off, x)
    assert result.worst is result.levels[place]
    assert result.levels[place] in result.inconsistent
    t = exact.process.time(half_log_snr[place])
    noised = exact.process.perturb(x, t, normal(*x.shape, seed=9))
    true = float((off(noised, t).eps - exact(noised, t).eps).square().mean().sqrt())
    assert 0.5 * true < result.worst.at_least < true
    clean = [level for k, level in enumerate(result.levels) if abs(k - place) > 2]
    assert not any(level.at_least for level in clean)


def test_a_rotated_score_has_a_curl_and_a_scaled_one_violates_fishers_identity():
    class Changed(sf.FieldWrapper):
        def __init__(self, base, matrix):
            super().__init__(base)
            self.matrix = matrix

        def estimate(self, x, at, **condition):
            return sf.Estimate.from_eps(x, at, self.base(x, at).eps @ self.matrix)

    field = sf.Gaussian(sf.EDM(), torch.zeros(2), torch.eye(2, dtype=torch.float64))
    x = normal(2048, 2)
    turn = torch.tensor([[1.0, 0.2], [-0.2, 1.0]], dtype=torch.float64)
    turned = sf.audit(Changed(field, turn), x)
    # J - J^T of I + a (antisymmetric) is twice the antisymmetric part: 2 a / sqrt(1 + a^2)
    for level in turned.levels:
        assert level.curl == pytest.approx(0.4 / math.sqrt(1.04), rel=1e-6)
    scaled = sf.audit(Changed(field, 1.5 * torch.eye(2, dtype=torch.float64)), x)
    for level in scaled.levels:
        # 2.25 E|s|^2 - 1.5 E|s|^2 over 2.25 E|s|^2
        assert abs(level.fisher - 1 / 3) < 4 * level.stderr
    assert len(scaled.inconsistent) == LEVELS


def test_more_dimensions_use_probes_and_an_exact_field_still_passes():
    covariance = torch.diag(torch.linspace(0.2, 2.0, 12, dtype=torch.float64))
    field = sf.Gaussian(sf.VP(), torch.zeros(3, 4), covariance)
    x = (normal(1024, 12, seed=5) @ covariance.sqrt()).reshape(-1, 3, 4)
    result = sf.audit(field, x, n=1024)
    assert result.worst is None
    assert result.inconsistent == ()


def test_each_item_has_its_own_condition():
    class Shifted(sf.FieldWrapper):
        def estimate(self, x, at, *, shift):
            alpha = torch.as_tensor(at.alpha).to(x)
            part = self.base(x - alpha * shift[:, None], at)
            return sf.Estimate.from_eps(x, at, part.eps)

    field = Shifted(sf.Gaussian(sf.VP(), torch.zeros(2), torch.eye(2, dtype=torch.float64)))
    shift = torch.linspace(-3, 3, 500, dtype=torch.float64)
    x = normal(500, 2) + shift[:, None]
    assert sf.audit(field.condition_on(shift=shift), x, n=256).worst is None
    wrong = sf.audit(field.condition_on(shift=shift.flip(0)), x, n=256)
    assert wrong.worst is not None


@pytest.mark.parametrize(
    ("x", "n", "message"),
    [
        (normal(63, 2), 2048, "63 samples: give at least 64"),
        (torch.zeros(100, 2, dtype=torch.float64), 2048, "different"),
        (normal(100, 2), 8, "n=8"),
        (normal(100, 3), 100, "shape"),
    ],
)
def test_unfit_data_are_rejected(x, n, message):
    with pytest.raises(ValueError, match=message):
        sf.audit(mixture(PROCESSES["VP"]), x, n=n)


def test_the_command_prints_every_level(tmp_path, capsys):
    run = tmp_path / "run"
    sf.train("moons", steps=20, batch_size=64).save(run)
    finishes("audit", run, "moons", "--n", "128")
    text = " ".join(capsys.readouterr().out.split())
    assert "error \u2265" in text
    assert "ODE minus bound" in text
    assert end("audit", run, "moons", "--n", "8") == 2
    assert "--n 8: give at least 64" in capsys.readouterr().err
