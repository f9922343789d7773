"""Small defects that the tests named in docs/coverage.md must notice.

Each row of `MUTATIONS` changes one line of a module of the library, or of a lesson, and names the
test of the row in docs/coverage.md that then fails. No file is changed: every mutation runs in a
process of its own, which imports the changed source. By hand, all of them or some rows::

    python tests/mutations.py
    python tests/mutations.py 9 E-14 X1

A test that passes with its defect is reported, and the exit status is 1.
"""

import importlib.machinery
import os
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Mutation(NamedTuple):
    """A change of one place in a file, and the test that must fail.

    Attributes:
        row: the row of docs/coverage.md.
        file: below ``scorefield``, or a lesson.
        old, new: the text and what replaces it; it occurs once.
        test: the identifier for pytest, below ``tests``.
    """

    row: str
    file: str
    old: str
    new: str
    test: str


def lesson(name: str) -> str:
    return f"test_readme.py::test_the_python_of_a_page_runs[{name}.md]"


EXACT = "test_alpha_and_sigma_equal_their_formulas_evaluated_in_sixty_digits"
WEAK = "test_solvers.py::test_the_law_of_a_stochastic_solver_converges_at_weak_order_one"
ORDER = "test_solvers.py::test_an_ode_solver_converges_at_the_order_it_claims"
BASE, BUILT, SDE = "process/base.py", "process/builtin.py", "process/linear_sde.py"
FIELD, ANALYTIC, LOSS = "field/base.py", "field/analytic.py", "training/objective.py"
RK, NOISY, STEPS = "solvers/runge_kutta.py", "solvers/stochastic.py", "solvers/multistep.py"

INTEGRAL = (
    "0.5 * t * (self.beta_max - self.beta_min))",
    "0.4 * t * (self.beta_max - self.beta_min))",
)
EULER = (
    "_EULER = Tableau(order=1, a=((),), b=(1.0,)",
    "_EULER = Tableau(order=1, a=((),), b=(0.9,)",
)
HEUN = (
    "_HEUN = Tableau(2, a=((), (1.0,)), b=(0.5, 0.5)",
    "_HEUN = Tableau(2, a=((), (1.0,)), b=(0.4, 0.6)",
)
VP_SIGMA = (
    "return (-torch.expm1(-self._integral(t))).sqrt()",
    "return (1.1 * -torch.expm1(-self._integral(t))).sqrt()",
)
EPS = (
    "eps = sigma * (scaled.flatten(1) @ axes)",
    "eps = 1.05 * sigma * (scaled.flatten(1) @ axes)",
)
NORM = (
    "(residual**2 / spread).sum(-1) + spread.log().sum(-1)",
    "(residual**2 / spread).sum(-1) + 0.9 * spread.log().sum(-1)",
)
DENOISED = (
    "x0 = share @ self.means.to(x) + alpha * pulled",
    "x0 = share @ self.means.to(x) + pulled",
)
NOISING = ("noising = -0.5 * (s.t", "noising = -1.0 * (s.t")
SPREAD = (
    "std = h.abs().sqrt() * _spread(t.process",
    "std = 0.8 * h.abs().sqrt() * _spread(t.process",
)
DDIM = ("Row(0.0, ((s.alpha, s.sigma),)))", "Row(0.0, ((s.alpha, t.sigma),)))")
POSTERIOR = ("std = s.sigma * share.sqrt()\n        if", "std = t.sigma * share.sqrt()\n        if")
SHARE = ("share = self.eta**2 * _open_share(t, s)", "share = self.eta * _open_share(t, s) ** 2")
MOVES = ("unstack(2 * alpha.clamp(max=1)", "unstack(alpha.clamp(max=1)")
KERNEL = (
    "return self.sigma(s) * (-torch.expm1(2 * gain)).sqrt()",
    "return self.sigma(s) * (-torch.expm1(gain)).sqrt()",
)
VE_SIGMA = ("torch.expm1(self._growth * t).sqrt()", "torch.expm1(0.5 * self._growth * t).sqrt()")
TABLE = ("torch.atan2(table.sqrt(), (1 - table).sqrt())", "torch.atan2(table, (1 - table).sqrt())")
PRIOR = ("(alpha**2 * variance + sigma**2).sqrt()", "(variance + 2 * sigma**2).sqrt()")
EACH = ("return t.reshape(-1, *[1] * (x.ndim - 1))", "return t[0]")
TRACE = (
    "torch.log((e + last**2) / (e + first**2)).sum()",
    "torch.log((e + last**2) / (e + first**2)).sum() * 0.9",
)
STANDARD = (
    "return ((v - self.mean.to(v)) / self.std.to(v)).to(x)",
    "return (v / self.std.to(v) ** 2).to(x)",
)

MUTATIONS = [
    Mutation("1", RK, *EULER, lesson("decay")),
    Mutation(
        "2",
        "noise/draws.py",
        "gap > 0, gap, 1.0).sqrt()",
        "gap > 0, gap, 1.0)",
        "test_path.py::test_an_increment_is_standard_normal_however_short_or_long_the_stretch",
    ),
    Mutation(
        "3",
        "theory/sde.py",
        "along + 0.5 * curvature",
        "along + curvature",
        "test_theory.py::test_itos_sum_falls_as_the_root_of_the_step_and_the_chain_rule_does_not",
    ),
    Mutation(
        "4",
        SDE,
        "f @ cov + cov @ f.T + g @ g.T",
        "f @ cov + cov @ f + g @ g.T",
        "test_process.py::test_moments_of_matrix_coefficients_equal_the_matrix_exponential_and_lyapunov_forms",
    ),
    Mutation(
        "5",
        "theory/fokker_planck.py",
        "z = velocity * width / d",
        "z = 0.9 * velocity * width / d",
        "test_theory.py::test_one_dimension_has_order_two_and_constant_mass",
    ),
    Mutation("6", NOISY, *DDIM, lesson("ddim")),
    Mutation("7", NOISY, *SPREAD, lesson("design")),
    Mutation(
        "8",
        SDE,
        "decay = torch.exp(2 * (total - _integral(self.drift_fn, u)))",
        "decay = torch.exp(total - _integral(self.drift_fn, u))",
        "test_process.py::test_a_process_is_rebuilt_from_drift_and_diffusion_alone_to_eight_digits",
    ),
    Mutation(
        "9",
        BUILT,
        "return (-torch.expm1(-self._integral(t))).sqrt()",
        "return (1 - torch.exp(-self._integral(t))).sqrt()",
        "test_process.py::test_vp_sigma_keeps_six_digits_in_float32_at_the_earliest_time",
    ),
    Mutation(
        "10",
        BUILT,
        *VE_SIGMA,
        "test_process.py::test_ve_diffusion_is_the_ladder_times_the_root_of_twice_its_log_growth",
    ),
    Mutation(
        "11",
        BUILT,
        "return -torch.expm1(-self._integral(t))\n",
        "return -torch.expm1(-0.5 * self._integral(t))\n",
        "test_process.py::test_sub_vp_diffusion_is_root_beta_times_one_minus_alpha_to_the_fourth",
    ),
    Mutation(
        "12",
        SDE,
        "return 0.5 * t * (_WEIGHTS.to(t) * f(u)).sum(-1)",
        "return 0.4 * t * (_WEIGHTS.to(t) * f(u)).sum(-1)",
        "test_process.py::test_constant_coefficients_give_ornstein_uhlenbeck_and_brownian_motion",
    ),
    Mutation(
        "13",
        BUILT,
        "return torch.cos(self._angle(t)) / math.cos(self._start)",
        "return torch.cos(self._angle(t))",
        f"test_process.py::{EXACT}",
    ),
    Mutation("14", BUILT, *INTEGRAL, f"test_process.py::{EXACT}"),
    Mutation(
        "15",
        BASE,
        *KERNEL,
        "test_process.py::test_noising_in_two_stages_has_the_law_of_noising_at_once",
    ),
    Mutation(
        "16",
        BASE,
        *EACH,
        "test_process.py::test_perturb_noises_each_sample_of_any_shape_at_its_own_time",
    ),
    Mutation(
        "17",
        BUILT,
        *TABLE,
        "test_process.py::test_a_ddpm_table_is_met_exactly_at_its_knots_in_log_snr",
    ),
    Mutation(
        "18",
        BUILT,
        *VE_SIGMA,
        "test_process.py::test_the_noise_ladder_of_smld_is_the_ve_kernel_between_its_rungs",
    ),
    Mutation(
        "19",
        BUILT,
        *INTEGRAL,
        "test_process.py::test_vp_moves_a_covariance_towards_the_identity_by_its_decay",
    ),
    Mutation(
        "20",
        BASE,
        *PRIOR,
        "test_process.py::test_the_prior_is_the_noised_law_of_data_with_the_given_moments",
    ),
    Mutation(
        "21",
        BASE,
        *EACH,
        "test_process.py::test_perturb_noises_each_sample_of_any_shape_at_its_own_time",
    ),
    Mutation("22", ANALYTIC, *EPS, "test_field.py::test_the_score_needs_no_normaliser"),
    Mutation(
        "23",
        ANALYTIC,
        *EPS,
        "test_field.py::test_the_density_of_noised_data_is_normalised_its_score_averages_zero",
    ),
    Mutation(
        "24",
        ANALYTIC,
        *NORM,
        "test_field.py::test_the_density_of_noised_data_is_normalised_its_score_averages_zero",
    ),
    Mutation(
        "25",
        ANALYTIC,
        *EPS,
        "test_field.py::test_the_score_of_a_gaussian_is_minus_precision_times_offset",
    ),
    Mutation("26", ANALYTIC, *EPS, lesson("score")),
    Mutation(
        "27",
        ANALYTIC,
        "share = self._log_joint(x, at).softmax(1)",
        "share = (0.9 * self._log_joint(x, at)).softmax(1)",
        "test_field.py::test_a_data_set_is_the_mixture_of_its_points_without_spread",
    ),
    Mutation(
        "28",
        FIELD,
        "return cls(x, at, (x, score), of_x0, (0.0, -at.sigma))",
        "return cls(x, at, (x, score), of_x0, (0.0, at.sigma))",
        "test_field.py::test_every_view_of_an_estimate_leads_back_to_all_the_others",
    ),
    Mutation(
        "29",
        FIELD,
        "return self.combine(0.0, -1 / self.at.sigma)",
        "return self.combine(0.0, -1.02 / self.at.sigma)",
        "test_field.py::test_the_marginal_score_is_the_posterior_mean_of_the_conditional_score",
    ),
    Mutation(
        "30", ANALYTIC, *DENOISED, "test_field.py::test_denoising_is_the_posterior_mean_of_the_data"
    ),
    Mutation(
        "31",
        "field/parametrization.py",
        "return Coefficients(1 / alpha, -sigma / alpha, torch.ones_like(alpha))",
        "return Coefficients(1 / alpha, sigma / alpha, torch.ones_like(alpha))",
        "test_field.py::test_each_parametrization_predicts_what_its_name_says",
    ),
    Mutation(
        "32",
        LOSS,
        "(alpha * out / sigma**2) ** 2\n        if",
        "(out / sigma**2) ** 2\n        if",
        "test_objective.py::test_the_loss_is_the_weighted_distance_between_scores",
    ),
    Mutation(
        "33",
        LOSS,
        "return torch.as_tensor(at.sigma**2)",
        "return torch.as_tensor(at.sigma)",
        "test_objective.py::test_sigma_squared_gives_ddpms_mean_squared_error_of_eps",
    ),
    Mutation(
        "34",
        LOSS,
        "x = cast(alpha, x0) * x0 + cast(sigma, x0) * eps",
        "x = x0 + cast(sigma, x0) * eps",
        "test_training.py::test_training_sees_the_data_noised_to_its_time",
    ),
    Mutation(
        "35",
        LOSS,
        "return process.t_min + u * (process.t_max - process.t_min)",
        "return process.t_min + u**2 * (process.t_max - process.t_min)",
        "test_objective.py::test_uniform_times_have_uniform_quantiles",
    ),
    Mutation(
        "37",
        "likelihood/bound.py",
        "+ difference.mean(0)",
        "- difference.mean(0)",
        "test_likelihood.py::test_the_bound_of_an_exact_score_is_the_log_density",
    ),
    Mutation("38", NOISY, *NOISING, WEAK),
    Mutation(
        "39",
        NOISY,
        *SPREAD,
        "test_solvers.py::test_stochastic_samples_of_a_gaussian_have_its_moments_within_four_standard_errors",
    ),
    Mutation(
        "40",
        BASE,
        "_with_rate(self.sigma, t)[1]",
        "0.9 * _with_rate(self.sigma, t)[1]",
        "test_solvers.py::test_the_probability_flow_carries_a_gaussian_by_its_exact_map",
    ),
    Mutation(
        "41",
        NOISY,
        *NOISING,
        "test_solvers.py::test_the_ode_and_the_sde_take_different_paths_to_the_same_law",
    ),
    Mutation("42", NOISY, *NOISING, WEAK),
    Mutation(
        "43",
        "solvers/program.py",
        "parts = self.solvers[segment].moves(",
        "parts = self.solvers[0].moves(",
        "test_combine.py::test_a_program_is_its_parts_run_in_turn_each_with_a_memory_of_its_own",
    ),
    Mutation(
        "44",
        STEPS,
        "std = n * prediction.spread(u, end, self.eta)",
        "std = 0.5 * n * prediction.spread(u, end, self.eta)",
        "test_solvers.py::test_noise_forgives_the_score_its_earlier_errors",
    ),
    Mutation("45", NOISY, *NOISING, WEAK),
    Mutation(
        "46",
        NOISY,
        *POSTERIOR,
        "test_solvers.py::test_ddpm_has_the_mean_of_ddim_with_the_posterior_variance_or_beta",
    ),
    Mutation("47", RK, *EULER, "test_solvers.py::test_one_step_is_the_formula_written_out_by_hand"),
    Mutation(
        "48",
        NOISY,
        *DDIM,
        "test_solvers.py::test_ddim_is_euler_on_the_scaled_state_against_the_noise_to_signal_ratio",
    ),
    Mutation(
        "49", NOISY, *SHARE, "test_diffusers.py::test_each_step_of_ddim_equals_the_schedulers"
    ),
    Mutation(
        "50",
        "solvers/corrector.py",
        *MOVES,
        "test_combine.py::test_a_langevin_move_is_its_formula_and_keeps_the_time",
    ),
    Mutation("51", RK, *HEUN, ORDER),
    Mutation("52", RK, "b=(1 / 6, 1 / 3, 1 / 3, 1 / 6)", "b=(1 / 5, 3 / 10, 3 / 10, 1 / 5)", ORDER),
    Mutation(
        "53",
        "solvers/singlestep.py",
        "_STAGES = {2: (0.5,), 3: (1 / 3, 2 / 3)}",
        "_STAGES = {2: (0.4,), 3: (1 / 3, 1 / 2)}",
        "test_diffusers.py::test_singlestep_dpm_solver_equals_the_schedulers_where_its_stages_lie_evenly",
    ),
    Mutation(
        "54",
        "solvers/prediction.py",
        "weights.append(total(measure * lagrange))",
        "weights.append(1.02 * total(measure * lagrange))",
        ORDER,
    ),
    Mutation(
        "55",
        "sampling/adaptive.py",
        "accept = active & (e <= 1)",
        "accept = active & (e <= 1000)",
        "test_adaptive.py::test_the_error_at_the_end_is_of_the_size_of_the_tolerance",
    ),
    Mutation(
        "56",
        "sampling/integrate.py",
        "calls.count += 1",
        "calls.count += 2",
        "test_sample.py::test_every_call_of_the_field_is_counted",
    ),
    Mutation(
        "57",
        "solvers/renoise.py",
        "torch.minimum(log_ratio + gain, top)",
        "torch.minimum(log_ratio + 1.2 * gain, top)",
        "test_combine.py::test_a_run_with_churn_is_algorithm_2_of_karras_et_al",
    ),
    Mutation(
        "58",
        RK,
        *HEUN,
        "test_solvers.py::test_euler_heun_and_predictor_corrector_compared_at_equal_calls",
    ),
    Mutation("60", "likelihood/moments.py", *TRACE, "test_likelihood.py::test_closed_form"),
    Mutation(
        "61",
        "likelihood/moments.py",
        "totals.std(0) / math.sqrt(count)",
        "totals.std(0) / count",
        "test_likelihood.py::test_standard_error_falls_as_the_root_of_the_probes",
    ),
    Mutation(
        "62", "likelihood/moments.py", *TRACE, "test_likelihood.py::test_density_integrates_to_one"
    ),
    Mutation(
        "64",
        BASE,
        *STANDARD,
        "test_latents.py::test_a_code_is_where_the_exact_flow_of_a_gaussian_leads",
    ),
    Mutation(
        "65",
        "sampling/codes.py",
        "((1 - weight) * angle).sin() * p",
        "(1 - weight) * angle.sin() * p",
        "test_latents.py::test_slerp_turns_at_a_constant_rate",
    ),
    Mutation(
        "66",
        "sampling/sample.py",
        "Noise(seed, slots.to(like.device)).draw",
        "Noise(seed, torch.arange(len(slots)).to(like.device)).draw",
        "test_sample.py::test_a_sample_by_id_is_the_same_bits_alone_in_any_order_and_in_any_split",
    ),
    Mutation(
        "67",
        "field/guidance.py",
        "self.scale * at.sigma**2 / at.alpha * push",
        "self.scale * at.sigma**2 * push",
        "test_guidance.py::test_a_potential_of_clean_data_pushes_through_the_posterior_mean",
    ),
    Mutation(
        "68",
        LOSS,
        "(sigma_rate - alpha_rate * at.sigma / at.alpha)",
        "(sigma_rate + alpha_rate * at.sigma / at.alpha)",
        "test_couplings.py::test_the_weighting_of_flow_matching_is_the_error_of_the_velocity",
    ),
    Mutation(
        "69",
        "_internal/assignment.py",
        "maximize=True",
        "maximize=False",
        "test_couplings.py::test_the_assignment_is_the_best_of_all_orders",
    ),
    Mutation(
        "70",
        "spaces/kernels.py",
        "weight = count * (-k * (k + d - 1) * t / 2).exp()",
        "weight = count * (-k * (k + d) * t / 2).exp()",
        "test_spaces.py::test_mass_is_one_and_moments_decay_by_the_eigenvalues",
    ),
    Mutation(
        "72",
        "evaluate/metrics/frechet.py",
        "c_q.trace() - 2 * overlap",
        "c_q.trace() - overlap",
        "test_metrics.py::test_frechet_distance_is_its_formula_with_scipys_root",
    ),
    Mutation(
        "73",
        "solvers/base.py",
        "own = memory.owner == self",
        "own = True",
        "test_combine.py::test_a_state_may_be_handed_from_one_solver_to_another",
    ),
    Mutation(
        "74",
        NOISY,
        *NOISING,
        "test_report.py::test_both_kinds_of_path_have_the_exact_marginals",
    ),
    Mutation(
        "75",
        BUILT,
        *INTEGRAL,
        "test_process.py::test_ddpm_products_tend_to_the_vp_exponential_at_first_order",
    ),
    Mutation("E-1", NOISY, *SPREAD, "test_source_errors.py::test_e1_time_runs_down_from_t_max"),
    Mutation(
        "E-2",
        NOISY,
        *NOISING,
        "test_source_errors.py::test_e2_a_step_towards_data_subtracts_the_reverse_drift",
    ),
    Mutation("E-3", "likelihood/moments.py", *TRACE, "test_likelihood.py::test_closed_form"),
    Mutation(
        "E-4", BASE, "- 0.5 * math.log(2 * math.pi)\n", "\n", "test_likelihood.py::test_closed_form"
    ),
    Mutation(
        "E-5",
        "likelihood/divergence.py",
        "place=(node << PROBE_BITS) + p",
        "place=p",
        "test_likelihood.py::test_probes_belong_to_sample_and_node",
    ),
    Mutation(
        "E-6",
        "likelihood/divergence.py",
        ".flatten(2).sum(2) for v",
        ".flatten(2).sum(2).mean(1, True).expand(len(v), len(x)) for v",
        "test_likelihood.py::test_each_sample_has_its_own_divergence",
    ),
    Mutation(
        "E-7",
        "likelihood/moments.py",
        "return 0.5 * (trace - self._first)",
        "return 0.5 * trace",
        "test_likelihood.py::test_truncation_is_what_the_last_noise_hides",
    ),
    Mutation(
        "E-8",
        "likelihood/nodes.py",
        "_CAUTION = 1.5",
        "_CAUTION = 0.01",
        "test_likelihood.py::test_solver_error_is_of_the_size_of_the_error",
    ),
    Mutation(
        "E-9",
        "field/parametrization.py",
        "return Coefficients(1 / alpha, sigma**2 / alpha, torch.ones_like(alpha))",
        "return Coefficients(1 / alpha, sigma / alpha, torch.ones_like(alpha))",
        "test_source_errors.py::test_e9_regressing_the_score_needs_the_weight_sigma_squared",
    ),
    Mutation(
        "E-10",
        BASE,
        *EACH,
        "test_source_errors.py::test_e10_time_starts_after_zero_and_every_sample_has_its_own",
    ),
    Mutation(
        "E-11",
        BUILT,
        *VP_SIGMA,
        "test_source_errors.py::test_e11_variance_preserving_noise_is_the_root_of_beta",
    ),
    Mutation(
        "E-12",
        BUILT,
        *VP_SIGMA,
        "test_source_errors.py::test_e12_a_discrete_beta_is_the_squared_diffusion_times_the_step",
    ),
    Mutation(
        "E-13",
        BUILT,
        *TABLE,
        "test_source_errors.py::test_e13_one_minus_half_beta_is_the_root_of_one_minus_beta",
    ),
    Mutation(
        "E-14",
        BUILT,
        *TABLE,
        "test_source_errors.py::test_e14_a_product_of_alphas_is_not_quite_the_exponential",
    ),
    Mutation("E-15", BUILT, *INTEGRAL, lesson("ddpm")),
    Mutation(
        "E-16",
        NOISY,
        *DDIM,
        "test_solvers.py::test_ddim_is_euler_on_the_scaled_state_against_the_noise_to_signal_ratio",
    ),
    Mutation(
        "E-17",
        "solvers/corrector.py",
        *MOVES,
        "test_combine.py::test_a_langevin_move_is_its_formula_and_keeps_the_time",
    ),
    Mutation(
        "E-18",
        "solvers/corrector.py",
        *MOVES,
        "test_combine.py::test_many_langevin_moves_settle_at_a_variance_that_is_too_wide_by_the_known_factor",
    ),
    Mutation("E-19", RK, *HEUN, lesson("solvers")),
    Mutation(
        "E-20",
        NOISY,
        *NOISING,
        "test_source_errors.py::test_e2_a_step_towards_data_subtracts_the_reverse_drift",
    ),
    Mutation("E-21", ANALYTIC, *EPS, lesson("reversal")),
    Mutation("E-22", ANALYTIC, *EPS, lesson("score")),
    Mutation("E-23", ANALYTIC, *EPS, lesson("score")),
    Mutation("E-24", ANALYTIC, "+ alpha * pulled", "+ 0.9 * alpha * pulled", lesson("score")),
    Mutation(
        "E-25",
        LOSS,
        "return at.process.diffusion(at.t) ** 2",
        "return at.process.diffusion(at.t)",
        "test_objective.py::test_the_likelihood_weight_of_vp_is_beta",
    ),
    Mutation(
        "E-26",
        BUILT,
        "return -torch.expm1(-self._integral(t))\n",
        "return -torch.expm1(-0.5 * self._integral(t))\n",
        "test_source_errors.py::test_e26_sub_vp_lies_below_vp_and_is_worse_conditioned_near_the_data",
    ),
    Mutation(
        "E-27",
        FIELD,
        "return self.combine(0.0, -1 / self.at.sigma)",
        "return self.combine(0.0, -1.02 / self.at.sigma)",
        "test_source_errors.py::test_e27_the_conditional_score_is_minus_eps_over_sigma_of_the_process",
    ),
    Mutation(
        "E-28",
        NOISY,
        *SHARE,
        "test_solvers.py::test_the_ancestral_step_has_the_posterior_variance_and_not_beta",
    ),
    Mutation("E-29", ANALYTIC, *EPS, lesson("reversal")),
    Mutation(
        "E-30", NOISY, *SHARE, "test_source_errors.py::test_e30_each_coefficient_has_one_name"
    ),
    Mutation(
        "E-31",
        "solvers/reversible.py",
        "return self._state(state, u - self._increment(w",
        "return self._state(state, u - 0.9 * self._increment(w",
        "test_latents.py::test_reversible_steps_undo_themselves_whatever_their_size",
    ),
    Mutation(
        "E-32",
        BASE,
        *PRIOR,
        "test_source_errors.py::test_e32_vp_preserves_variance_only_of_standardised_data",
    ),
    Mutation(
        "E-33",
        BASE,
        *PRIOR,
        "test_source_errors.py::test_e33_generation_starts_from_the_noised_data_and_not_from_the_standard_normal",
    ),
    Mutation(
        "E-34",
        BUILT,
        *VE_SIGMA,
        "test_source_errors.py::test_e34_ve_noise_is_bounded_and_its_kernel_starts_from_none",
    ),
    Mutation(
        "E-35",
        "docs/lessons/brownian.md",
        "math.sqrt((1 - math.exp(-4 * step)) / 4)",
        "(1 - math.exp(-4 * step)) / 4",
        lesson("brownian"),
    ),
    Mutation(
        "E-36",
        "theory/fokker_planck.py",
        "z = velocity * width / d",
        "z = 0.8 * velocity * width / d",
        lesson("fokker-planck"),
    ),
    Mutation(
        "E-37", "theory/sde.py", "along + 0.5 * curvature", "along + curvature", lesson("ito")
    ),
    Mutation("E-38", RK, *HEUN, lesson("solvers")),
    Mutation(
        "E-39",
        "_internal/assignment.py",
        "maximize=True",
        "maximize=False",
        "test_couplings.py::test_optimal_transport_makes_paths_straighter_for_the_same_data",
    ),
    Mutation(
        "E-40",
        "field/denoiser.py",
        "c.isfinite().all()",
        "True",
        "test_field.py::test_a_table_that_ends_without_signal_refuses_a_noise_prediction",
    ),
    Mutation("E-41", BUILT, *INTEGRAL, lesson("ddpm")),
    Mutation("E-42", BUILT, *TABLE, lesson("ddpm")),
    Mutation("X1", ANALYTIC, *EPS, lesson("reversal")),
    Mutation("X2", RK, *HEUN, lesson("solvers")),
    Mutation("X3", BUILT, *INTEGRAL, lesson("ddpm")),
    Mutation(
        "X4", "likelihood/moments.py", *TRACE, "test_likelihood.py::test_density_integrates_to_one"
    ),
    Mutation(
        "X5",
        RK,
        *HEUN,
        "test_solvers.py::test_euler_heun_and_predictor_corrector_compared_at_equal_calls",
    ),
    Mutation(
        "X6",
        NOISY,
        *NOISING,
        "test_solvers.py::test_the_ode_and_the_sde_take_different_paths_to_the_same_law",
    ),
]


def mutated(mutation: Mutation) -> tuple[Path, str]:
    """Return the file of a mutation, and its changed text.

    Raises:
        ValueError: the text to change does not occur once.
    """
    folder = ROOT if mutation.file.startswith("docs/") else ROOT / "scorefield"
    path = folder / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise ValueError(f"row {mutation.row}: {mutation.old!r} is not once in {mutation.file}")
    return path, text.replace(mutation.old, mutation.new)


def _change(path: Path, text: str) -> None:
    """Make this process import, or read, the changed text."""
    loader = importlib.machinery.SourceFileLoader
    get_code, read_text = loader.get_code, Path.read_text

    def code(self: importlib.machinery.SourceFileLoader, fullname: str) -> object:
        if Path(self.get_filename(fullname)) == path:
            return self.source_to_code(text.encode(), str(path))
        return get_code(self, fullname)

    def read(self: Path, *args: object, **kwargs: object) -> str:
        return text if self == path else read_text(self, *args, **kwargs)  # type: ignore[arg-type]

    loader.get_code, Path.read_text = code, read  # type: ignore[method-assign, assignment]


def notices(mutation: Mutation) -> bool:
    """Return whether the test fails with the change, in a copy of this process."""
    import pytest

    path, text = mutated(mutation)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1), os.dup2(quiet, 2)
        _change(path, text)
        os.chdir(ROOT)
        options = ["-q", "-x", "-p", "no:cacheprovider", "-o", "addopts="]
        code = pytest.main([*options, str(ROOT / "tests" / mutation.test)])
        os._exit(int(code))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status in (3, 5) or status < 0:
        raise ValueError(f"row {mutation.row}: {mutation.test} ended with {status}")
    return status > 0  # 1, or 2 and 4 where the defect stops the tests from being imported


def main(rows: list[str]) -> int:
    import torch  # noqa: F401  # once for all copies

    blind = []
    for mutation in MUTATIONS:
        if rows and mutation.row not in rows:
            continue
        seen = notices(mutation)
        print(f"{'noticed' if seen else 'NOT NOTICED'}: row {mutation.row}, {mutation.test}")
        if not seen:
            blind.append(mutation.row)
    return int(bool(blind))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
