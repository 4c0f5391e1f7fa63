"""Every probe against its value on paper in a world of one Gaussian, whose notation ``gaussian.py`` derives.

``a``, ``V``, ``c`` belong to the level that a path starts at, ``a'``, ``V'``, ``c'`` to the level s where it is read.
R is the product of ``1 - (sigma - sigma') c`` over the Euler steps between them. Then the sampler's state is

    z^ = a' m + R y        (the mean m is transported without error, y is multiplied with R)

The pairs' moments are exact (``exact_pairs``), so measures equal their expectations up to float32.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from gaussian import GaussianField, GaussianWorld, drawn_pairs, exact_pairs

from bench import registry
from bench.probes.probe import Probe, rows
from bench.probes.routes import Field, NoisyPairs, Route, Trajectories, route, trajectories
from bench.sampling import levels

WORLDS = (GaussianWorld(0.0, 1.0), GaussianWorld(0.7, 0.4), GaussianWorld(-0.3, 1.8))
WORLD = pytest.mark.parametrize("world", WORLDS, ids=lambda world: f"m{world.mean:g} s{world.std:g}")
SCALE = 4.5


def probe(name: str) -> Probe:
    made: Probe = registry.load("probes", name)()
    return made


def levels_of(steps: int, shift: float = 3.0, **chosen: int) -> Route:
    return route(torch.from_numpy(levels.sigmas(levels.SHIFTED, steps, shift)), shift, **chosen)


def paths_of(field: Field, pairs: NoisyPairs, way: Route, scale: float = 1.0) -> Trajectories:
    (found,), _ = trajectories(field, pairs, way, (scale,))
    return found


def read(name: str, paths: Trajectories) -> dict[tuple[float, float, int], np.ndarray]:
    """(start, level, steps) → a value for each pair."""
    found: dict[tuple[float, float, int], list[float]] = {}
    for row in rows(probe(name), paths):
        assert "error" not in row, row
        found.setdefault((row["start"], row["sigma"], row["steps"]), []).extend(row["values"])
    return {key: np.array(values) for key, values in found.items()}


def between(way: Route, start: float, steps: int) -> list[float]:
    """The levels of a path, in float64."""
    sigmas = way.sigmas.double().tolist()
    (first,) = [position for position, sigma in enumerate(sigmas) if round(sigma, 6) == start]
    return sigmas[first : first + steps + 1]


def near(found: np.ndarray, expected: float, rel: float = 2e-5) -> None:
    np.testing.assert_allclose(found, expected, rtol=rel, atol=2e-6)


# -- the field itself ------------------------------------------------------------------------------------------------


@WORLD
def test_the_closed_form_is_the_optimal_field(world: GaussianWorld) -> None:
    """Least squares of z1 - z0 on z, from exact moments, gives its two coefficients."""
    pairs = exact_pairs(world, 1)
    for sigma in (0.1, 0.5, 0.9):
        z = ((1 - sigma) * pairs.latents + sigma * pairs.noise).flatten().double()
        target = (pairs.noise - pairs.latents).flatten().double()
        design = torch.stack([torch.ones_like(z), z], 1)
        intercept, slope = torch.linalg.lstsq(design, target[:, None]).solution.flatten().tolist()
        assert slope == pytest.approx(world.slope(sigma), abs=1e-5)
        assert intercept == pytest.approx(-world.mean * (1 + world.slope(sigma) * (1 - sigma)), abs=1e-5)


@WORLD
def test_many_steps_along_it_end_at_the_exact_solution(world: GaussianWorld) -> None:
    """The exact flow scales y with sqrt(V): from sigma to 0 with s / sqrt(V)."""
    for sigma in (1.0, 0.75, 0.5):
        fine = levels.sigmas_from(sigma, 20_000, 3.0).astype(np.float64).tolist()
        assert world.shrink(fine) == pytest.approx(world.std / math.sqrt(world.variance(sigma)), rel=2e-3)


# -- on the path -----------------------------------------------------------------------------------------------------


@WORLD
def test_heldout_loss(world: GaussianWorld) -> None:
    """The optimal field errs by the variance of z1 - z0 given z:

    ``(1 + s²) - (sigma - a s²)² / V = s² (a + sigma)² / V = s² / V``.
    """
    found = read("heldout_loss", paths_of(GaussianField(world), exact_pairs(world), levels_of(10)))
    assert len(found) == 10 and all(start == sigma and steps == 0 for start, sigma, steps in found)
    for (_, sigma, _), values in found.items():
        near(values, world.std**2 / world.variance(sigma))


@WORLD
def test_heldout_loss_with_guidance(world: GaussianWorld) -> None:
    """``v_c - v_0 = -(1 + c a)(m - m_0) = -(sigma / V)(m - m_0)``, since ``V + a sigma - a² s² = sigma (sigma + a)``.

    Guidance w moves the optimal field by ``(w - 1)`` times that, and is uncorrelated with its error.
    """
    field = GaussianField(world, empty_mean=world.mean - 0.5)
    found = read("heldout_loss", paths_of(field, exact_pairs(world), levels_of(6), SCALE))
    for (_, sigma, _), values in found.items():
        v = world.variance(sigma)
        near(values, world.std**2 / v + ((SCALE - 1) * 0.5 * sigma / v) ** 2)


@WORLD
@pytest.mark.parametrize("wrong", [0.9, 1.0, 1.3])
def test_velocity_norm_beside_that_of_the_right_field_is_the_scale_error(world: GaussianWorld, wrong: float) -> None:
    """Alone it is ``sqrt(E v²)``, and ``v = -m + c y``. Guidance adds ``-(w - 1)(sigma / V) m`` (see above)."""
    for scale in (1.0, SCALE):
        found, base = (
            read("velocity_norm", paths_of(field, exact_pairs(world), levels_of(6), scale))
            for field in (GaussianField(world, wrong=wrong), GaussianField(world))
        )
        assert len(found) == 6
        for (start, sigma, steps), values in found.items():
            near(values / base[start, sigma, steps], wrong)
            v = world.variance(sigma)
            mean = world.mean * (1 + (scale - 1) * sigma / v)
            near(values, wrong * math.sqrt(mean**2 + world.slope(sigma) ** 2 * v))


# -- where the sampler leads -----------------------------------------------------------------------------------------


def gap(world: GaussianWorld, sigmas: list[float]) -> float:
    """The target at z^ is ``(z^ - z0) / s = -m + (R y - e0) / s``, so the error is ``(c' - 1/s) R y + e0 / s``.

    ``c' - 1/s = -a' s0² / (s V')`` with the world's variance s0², ``Var y = V`` and ``Cov(y, e0) = a s0²`` give its
    mean square. On the path it is ``s0² / V'``.
    """
    start, level, var = sigmas[0], sigmas[-1], world.std**2
    shrink, rest = world.shrink(sigmas), -(1 - level) * var / (level * world.variance(level))
    error = (rest * shrink) ** 2 * world.variance(start) + var / level**2
    error += 2 * rest * shrink / level * (1 - start) * var
    return error - var / world.variance(level)


@WORLD
def test_one_step_gap(world: GaussianWorld) -> None:
    way = levels_of(10)
    found = read("one_step_gap", paths_of(GaussianField(world), exact_pairs(world), way))
    assert len(found) == 9
    for (start, sigma, steps), values in found.items():
        sigmas = between(way, start, steps)
        assert steps == 1 and round(sigmas[-1], 6) == sigma
        near(values, gap(world, sigmas), rel=2e-4)


@WORLD
def test_k_step_gap(world: GaussianWorld) -> None:
    way = levels_of(12)
    found = read("k_step_gap", paths_of(GaussianField(world), exact_pairs(world), way))
    assert [steps for _, _, steps in found] == [4, 4]
    for (start, _, steps), values in found.items():
        near(values, gap(world, between(way, start, steps)), rel=2e-4)


@WORLD
def test_response(world: GaussianWorld) -> None:
    """``v(z, s) - v(z^, s) = c' (y' - R y)``, and ``y' - R y = (a' - R a) e0 + (s - R sigma) z1``."""
    way = levels_of(12)
    found = read("response", paths_of(GaussianField(world), exact_pairs(world), way))
    assert sum(steps == 4 for *_, steps in found) == 2 and len(found) == 13
    for (start, _, steps), values in found.items():
        sigmas = between(way, start, steps)
        first, level, shrink = sigmas[0], sigmas[-1], world.shrink(sigmas)
        kept, noise = (1 - level) - shrink * (1 - first), level - shrink * first
        near(values, world.slope(level) ** 2 * (kept**2 * world.std**2 + noise**2), rel=2e-4)


@WORLD
def test_response_with_guidance(world: GaussianWorld) -> None:
    """Guided steps lead elsewhere: guidance w adds ``-g = -(w - 1)(sigma / V)(m - m_0)`` to a velocity (see above).

    A step from sigma to s then adds ``(sigma - s) g`` to z^, and later steps shrink it as they do y. At one level g is
    the same at both states, so the difference of guided velocities is ``c' (y' - R y - shift)``.
    """
    way = levels_of(12)
    field = GaussianField(world, empty_mean=world.mean - 0.5)
    found = read("response", paths_of(field, exact_pairs(world), way, SCALE))
    assert len(found) == 13
    for (start, _, steps), values in found.items():
        sigmas, shift = between(way, start, steps), 0.0
        for sigma, after in pairwise(sigmas):
            shift *= 1 - (sigma - after) * world.slope(sigma)
            shift += (sigma - after) * (SCALE - 1) * 0.5 * sigma / world.variance(sigma)
        first, level, shrink = sigmas[0], sigmas[-1], world.shrink(sigmas)
        kept, noise = (1 - level) - shrink * (1 - first), level - shrink * first
        near(values, world.slope(level) ** 2 * (kept**2 * world.std**2 + noise**2 + shift**2), rel=2e-4)


def slowness(world: GaussianWorld, sigmas: list[float], wrong: float = 1.0) -> float:
    """``z^ - z0 = D m + R y - e0`` and ``z1 - z0 = -m + z1 - e0``, where ``D = -s`` for the right field.

    A field that is k times the right one moves m by ``k (sigma - s)`` in all: ``D = -sigma + k (sigma - s)``. With
    ``Cov(y, z1) = sigma``, ``Cov(y, e0) = a s0²``: the product is ``-D m² + R (sigma - a s0²) + s0²`` over
    ``m² + 1 + s0²``.
    """
    start, level, var = sigmas[0], sigmas[-1], world.std**2
    moved = -start + wrong * (start - level)
    shrink = world.shrink(sigmas, wrong)
    product = -moved * world.mean**2 + shrink * (start - (1 - start) * var) + var
    return product / (world.mean**2 + 1 + var) - level


@WORLD
@pytest.mark.parametrize("wrong", [0.9, 1.0, 1.2])
def test_slowness_of_the_right_field_and_the_drift_of_one_with_a_scale_error(
    world: GaussianWorld, wrong: float
) -> None:
    way = levels_of(12)
    found = read("slowness", paths_of(GaussianField(world, wrong=wrong), exact_pairs(world), way))
    for (start, _, steps), values in found.items():
        # Of a wrong field y is not centred, so only its first step has so short a form where m is not 0.
        if steps == 1 or wrong == 1 or world.mean == 0:
            near(values, slowness(world, between(way, start, steps), wrong), rel=1e-4)


def test_velocities_that_are_too_short_leave_noise_over() -> None:
    """In the world N(0, 1) the level 1/2 has c = 0; from above it, where c > 0, short steps stay behind."""
    world, way = WORLDS[0], levels_of(40)
    found = {
        wrong: read("slowness", paths_of(GaussianField(world, wrong=wrong), exact_pairs(world), way))
        for wrong in (0.9, 1.0, 1.1)
    }
    for key in found[1.0]:
        if key[1] > 0.5:
            short, right, long = (found[wrong][key].mean() for wrong in (0.9, 1.0, 1.1))
            assert short > right > long


@WORLD
def test_variance_error(world: GaussianWorld) -> None:
    """``z^ - a' z0 = R y - a' e0 = (R a - a') e0 + R sigma z1``; its variance over pairs, less s²."""
    way = levels_of(12)
    found = read("variance_error", paths_of(GaussianField(world), exact_pairs(world, 8, over_pairs=True), way))
    for (start, _, steps), values in found.items():
        sigmas = between(way, start, steps)
        first, level, shrink = sigmas[0], sigmas[-1], world.shrink(sigmas)
        clean = (shrink * (1 - first) - (1 - level)) * world.std
        near(values.mean(), clean**2 + (shrink * first) ** 2 - level**2, rel=2e-4)


@WORLD
def test_noise_ratio(world: GaussianWorld) -> None:
    """The predicted noise is ``z + a v = (1 + a c) y = (sigma / V) y``: the ratio is ``R sqrt(V / V')``."""
    way = levels_of(12)
    found = read("noise_ratio", paths_of(GaussianField(world), exact_pairs(world), way))
    for (start, _, steps), values in found.items():
        sigmas = between(way, start, steps)
        ratio = world.variance(sigmas[0]) / world.variance(sigmas[-1])
        near(values, abs(world.shrink(sigmas)) * math.sqrt(ratio))


# -- to the end ------------------------------------------------------------------------------------------------------


@WORLD
def test_recovery_is_what_euler_steps_shrink_y_by(world: GaussianWorld) -> None:
    way = levels_of(12)
    found = read("recovery", paths_of(GaussianField(world), exact_pairs(world), way))
    assert [sigma for _, sigma, _ in found] == [0, 0]
    for (start, _, steps), values in found.items():
        near(values, abs(world.shrink(between(way, start, steps))), rel=1e-4)


@WORLD
def test_recovery_in_many_steps_is_the_contraction_of_the_exact_flow(world: GaussianWorld) -> None:
    found = read("recovery", paths_of(GaussianField(world), exact_pairs(world), levels_of(1500, starts=1)))
    assert len(found) == 2
    for (start, _, _), values in found.items():
        near(values, world.std / math.sqrt(world.variance(start)), rel=5e-3)


@WORLD
def test_step_error(world: GaussianWorld) -> None:
    """Both samples are the mean plus a multiple of y: ``V (R_N - R_ref)²``."""
    way = levels_of(12)
    found = read("step_error", paths_of(GaussianField(world), exact_pairs(world), way))
    assert {steps for *_, steps in found} == {2, 4, 8} and len(found) == 6
    for (start, _, steps), values in found.items():
        first = between(way, start, 0)[0]
        coarse, fine = (
            world.shrink(levels.sigmas_from(first, count, 3.0).astype(np.float64).tolist()) for count in (steps, 32)
        )
        near(values, world.variance(first) * (coarse - fine) ** 2, rel=1e-3)


def test_step_error_falls_with_the_square_of_the_steps() -> None:
    """Euler's error is of first order: four times less after twice the steps, less what the reference lacks."""
    world = WORLDS[1]
    found = read("step_error", paths_of(GaussianField(world), exact_pairs(world), levels_of(12)))
    for start in {start for start, *_ in found}:
        two, four, eight = (found[start, 0.0, steps].mean() for steps in (2, 4, 8))
        assert two > 2 * four > 4 * eight > 0


# -- what all of them have in common ---------------------------------------------------------------------------------


@WORLD
def test_without_exposure_bias_and_in_many_steps_every_measure_is_ideal(world: GaussianWorld) -> None:
    """Of first order in the size of a step: ten times the steps bring each ten times nearer, at levels above 0.1.

    Further down a step halves the level however many there are, and the gap's target grows as the level vanishes.
    """
    field = GaussianField(world)
    for name in registry.table("probes"):
        if (ideal := probe(name).ideal) is None or name in ("step_error", "velocity_norm"):
            continue  # these two do not depend on the sampler's steps
        pairs, far = exact_pairs(world, 8, over_pairs=name == "variance_error"), []
        for steps in (150, 1500):
            found = read(name, paths_of(field, pairs, levels_of(steps, starts=5)))
            off = [abs(values.mean() - ideal) for (_, sigma, _), values in found.items() if sigma > 0.1]
            far.append(max(off))
        assert far[1] < 2e-5 or far[1] < far[0] / 5, name


@pytest.mark.parametrize("name", ["heldout_loss", "one_step_gap", "k_step_gap", "slowness", "variance_error"])
def test_pairs_by_chance_agree_within_their_error(name: str) -> None:
    """4 standard errors of the mean over 256 pairs, none of which is exact."""
    world, way = WORLDS[1], levels_of(12)
    expected = read(
        name, paths_of(GaussianField(world), exact_pairs(world, 8, over_pairs=name == "variance_error"), way)
    )
    for key, values in read(name, paths_of(GaussianField(world), drawn_pairs(world, 256), way)).items():
        assert abs(values.mean() - expected[key].mean()) < 4 * values.std(ddof=1) / math.sqrt(len(values)), key
