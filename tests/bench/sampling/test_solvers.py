"""Solvers on an ODE whose solution is known, on our levels, and against their pipelines' own loops; remedies."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import fakes
import numpy as np
import pytest
import torch
from gaussian import GaussianField, GaussianWorld, text
from torch import Tensor

from bench import flow
from bench.backbone.policy import Policy
from bench.errors import BenchError
from bench.sampling import levels
from bench.sampling.names import evaluations
from bench.sampling.remedies import DifferentialCorrection, EpsilonScaling, Remedy
from bench.sampling.solvers import SOLVERS, solve

WORLD = GaussianWorld(0.4, 0.5)
NOISE = torch.randn(3, 2, 4, 6, generator=torch.Generator().manual_seed(0))


def field(latents: Tensor, sigma: Tensor) -> Tensor:
    return GaussianField(WORLD).velocity(latents, sigma, text(len(latents)))


def sigmas(steps: int, name: str = levels.SHIFTED) -> Tensor:
    return torch.from_numpy(levels.sigmas(name, steps, 3.0))


def error(solver: str, steps: int) -> float:
    """Distance to the exact solution: y is scaled with s / sqrt(V), and V is 1 at level 1, where y is the noise."""
    found = solve(field, NOISE, sigmas(steps), solver)
    return float((found - (WORLD.mean + WORLD.std * NOISE)).abs().max())


# -- solvers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("dpm++", 2)])
def test_a_solver_converges_to_the_exact_solution_in_its_order(solver: str, order: int) -> None:
    """Four times the steps leave 4^-order of the error."""
    coarse, fine = error(solver, 128), error(solver, 512)
    assert abs(math.log(coarse / fine, 4) - order) < 0.45


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", levels.GRIDS)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20])
def test_a_solver_visits_our_levels_and_no_others(solver: str, name: str, steps: int) -> None:
    visited: list[float] = []

    def spy(latents: Tensor, sigma: Tensor) -> Tensor:
        visited.append(float(sigma))
        return field(latents, sigma)

    found = solve(spy, NOISE, sigmas(steps, name), solver)
    given = sigmas(steps, name)[:-1].tolist()
    twice = [given[0], *(level for level in given[1:] for _ in (0, 1))]
    assert visited == (twice if solver == "heun" else given) and len(visited) == evaluations(solver, steps)
    assert found.dtype == torch.float32 and torch.isfinite(found).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_step_leads_to_the_endpoint(solver: str) -> None:
    found = solve(field, NOISE, sigmas(1), solver)
    torch.testing.assert_close(found, flow.endpoint(NOISE, field(NOISE, torch.tensor(1.0)), 1.0))


def test_two_steps_of_heun_and_of_dpm_are_those_on_paper() -> None:
    """Levels 1, 3/4, 0. Heun: the mean of both slopes, then a step to 0. DPM++: first order both times."""
    one, half = torch.tensor(1.0), torch.tensor(0.75)
    first = field(NOISE, one)
    guess = NOISE - 0.25 * first
    mean = NOISE - 0.25 * (first + field(guess, half)) / 2
    torch.testing.assert_close(solve(field, NOISE, sigmas(2), "heun"), mean - 0.75 * field(mean, half))
    torch.testing.assert_close(solve(field, NOISE, sigmas(2), "dpm++"), guess - 0.75 * field(guess, half))


def test_a_later_step_of_dpm_is_that_on_paper() -> None:
    """Three steps at 1, 9/10, 3/4, 0 with ``lambda = log((1 - sigma) / sigma)`` (Lu et al. 2022, 2M, midpoint).

    The first predicted picture weighs nothing in the second step, since lambda begins at minus infinity. So it takes
    four levels above 0 to see the second order: D = x + (x - x_before) / (2 r), r = h_before / h.
    """
    list_ = sigmas(4).double().tolist()  # 1, 9/10, 3/4, 1/2, 0
    lam = [math.log((1 - sigma) / sigma) for sigma in list_[1:4]]
    state, pictures = NOISE.double(), []
    for position, (sigma, after) in enumerate(pairwise(list_)):
        picture = state - sigma * field(state.float(), torch.tensor(sigma)).double()
        pictures.append(picture)
        used = picture
        if position == 2:  # the last step is of first order, the second has no lambda before it
            ratio = (lam[1] - lam[0]) / (lam[2] - lam[1])
            used = picture + (picture - pictures[-2]) / (2 * ratio)
        # x' = (sigma'/sigma) x - (1 - sigma') (e^-h - 1) D, with e^-h = sigma' (1 - sigma) / (sigma (1 - sigma'))
        state = after / sigma * state + (1 - after - after * (1 - sigma) / sigma) * used
    torch.testing.assert_close(solve(field, NOISE, sigmas(4), "dpm++").double(), state, rtol=1e-4, atol=1e-5)


def test_an_unknown_solver_is_one_line() -> None:
    with pytest.raises(BenchError, match=r"^unknown solver 'heum'; did you mean 'heun'\?$"):
        solve(field, NOISE, sigmas(2), "heum")


def test_a_policy_samples_with_each_solver(world: fakes.World) -> None:
    """Euler steps are those of the formula, to the bit; all solvers come near to where many steps end."""
    policy = Policy(world.backbone.transformer(), world.backbone.scheduler(), world.null)
    noise = torch.randn(2, *world.backbone.latent_shape, generator=torch.Generator().manual_seed(1))
    words = world.text(2)

    def sample(steps: int, solver: str) -> Tensor:
        return policy.sample(noise, words, steps=steps, guidance_scale=2.0, levels=levels.SHIFTED, solver=solver)

    euler, exact = noise, sample(200, "heun")
    with torch.no_grad():
        for sigma, after in pairwise(sigmas(8)):
            euler = flow.euler(euler, policy.guided_velocity(euler, sigma, words, 2.0), sigma, after)
    assert torch.equal(sample(8, "euler"), euler)
    for solver in SOLVERS:
        assert (sample(64, solver) - exact).norm() < 0.5 * (sample(8, solver) - exact).norm()
        assert torch.equal(sample(8, solver), euler) == (solver == "euler")


# -- remedies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("remedy", [EpsilonScaling(1.0), DifferentialCorrection(0.0)])
def test_a_remedy_of_no_strength_changes_no_bit(remedy: Remedy) -> None:
    assert torch.equal(solve(field, NOISE, sigmas(5), remedy=remedy), solve(field, NOISE, sigmas(5)))


def test_epsilon_scaling_predicts_less_noise_as_well_in_the_picture() -> None:
    """A DDIM step with ``e / k``: ``x0 = (z - sigma e / k) / (1 - sigma)``, ``z' = (1 - sigma') x0 + sigma' e / k``."""
    k, state = 1.03, NOISE.double()
    list_ = sigmas(6).double().tolist()
    for sigma, after in pairwise(list_):
        velocity = field(state.float(), torch.tensor(sigma)).double()
        noise = state + (1 - sigma) * velocity
        if sigma == 1:  # the state is the noise
            state = state + (after - sigma) * velocity
        else:
            picture = (state - sigma * noise / k) / (1 - sigma)
            state = (1 - after) * picture + after * noise / k
    found = solve(field, NOISE, sigmas(6), remedy=EpsilonScaling(k))
    torch.testing.assert_close(found.double(), state, rtol=1e-4, atol=1e-5)


def test_epsilon_scaling_of_the_optimal_field_is_on_paper() -> None:
    """``e = (sigma / V) y``: each step adds ``(sigma - s)/(1 - sigma) (1 - 1/k)`` of it to y, and the mean stays."""
    k, list_, shrink = 0.97, sigmas(9).double().tolist(), 1.0
    for sigma, after in pairwise(list_):
        step = 1 - (sigma - after) * WORLD.slope(sigma)
        if sigma < 1:
            step += (sigma - after) / (1 - sigma) * (1 - 1 / k) * sigma / WORLD.variance(sigma)
        shrink *= step
    found = solve(field, NOISE, sigmas(9), remedy=EpsilonScaling(k))
    torch.testing.assert_close(found, WORLD.mean + shrink * NOISE, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_epsilon_scaling_by_nothing_is_refused(scale: float) -> None:
    with pytest.raises(BenchError, match="divides by a scale above 0"):
        EpsilonScaling(scale)


def stepped(remedy: Remedy, sigma: float, after: float) -> tuple[Tensor, Tensor, Tensor]:
    """Where one step leads with a remedy and without, and the velocity."""
    pair = torch.tensor([sigma, after])
    return solve(field, NOISE, pair, remedy=remedy), solve(field, NOISE, pair), field(NOISE, pair[0])


def test_differential_correction_in_pixel_space() -> None:
    """``z' - x0 = sigma' v``, so a constant scale in both bands lengthens a step by ``scale sigma' v``."""
    moved, before, velocity = stepped(DifferentialCorrection(0.05, 0.05, constant=True), 0.8, 0.6)
    torch.testing.assert_close(moved, before + 0.05 * 0.6 * velocity)
    moved, before, _ = stepped(DifferentialCorrection(0.05, 0.05, constant=True), 0.8, 0.0)
    torch.testing.assert_close(moved, before)


@pytest.mark.parametrize(("low", "high"), [(0.3, 0.0), (0.0, -0.2), (0.3, -0.2)])
def test_differential_correction_in_the_bands_of_a_haar_transform(low: float, high: float) -> None:
    """Redone with the orthogonal Haar matrix: rows of sums and of differences of neighbours, over sqrt(2)."""

    def haar(size: int) -> np.ndarray:
        rows = np.zeros((size, size))
        for band in range(size // 2):
            rows[band, 2 * band : 2 * band + 2] = 1 / math.sqrt(2)
            rows[size // 2 + band, 2 * band : 2 * band + 2] = (1 / math.sqrt(2), -1 / math.sqrt(2))
        return rows

    sigma, after = 0.8, 0.6
    moved, before, velocity = stepped(DifferentialCorrection(low, high), sigma, after)
    down, across = haar(4), haar(6)
    bands = down @ (after * velocity.double().numpy()) @ across.T
    weights = np.full((4, 6), high * (1 - sigma))
    weights[:2, :3] = low * sigma
    expected = before.double().numpy() + down.T @ (weights * bands) @ across
    np.testing.assert_allclose(moved.numpy(), expected, rtol=1e-4, atol=1e-5)


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: solve(field, NOISE, sigmas(2), "heun", DifferentialCorrection(0.1)), "steps lead, and heun takes none"),
    (lambda: solve(field, NOISE[..., :5], sigmas(2), remedy=DifferentialCorrection(0.1)), r"have sides \(4, 5\)"),
]


@pytest.mark.parametrize(("call", "says"), REFUSED, ids=["solver", "odd"])
def test_a_remedy_that_cannot_be_had_is_one_line(call: Callable[[], object], says: str) -> None:
    with pytest.raises(BenchError, match=says):
        call()


@pytest.mark.parametrize("solver", SOLVERS)
def test_epsilon_scaling_goes_with_every_solver(solver: str) -> None:
    plain, scaled = (solve(field, NOISE, sigmas(6), solver, remedy) for remedy in (None, EpsilonScaling(1.02)))
    assert torch.isfinite(scaled).all() and not torch.allclose(plain, scaled)
