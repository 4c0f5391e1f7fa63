"""What probes share and cost, which levels they use, what is recorded of them, and what a bad one does."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fakes
import pytest
import torch
from click.testing import CliRunner
from gaussian import GaussianField, GaussianWorld, drawn_pairs, text
from torch import Tensor

from bench import registry
from bench.backbone.policy import Policy
from bench.cli import main
from bench.probes.probe import CHUNK, LONG_EVERY, Probe, Reading, chunks, forwards, reads, rows
from bench.probes.routes import NoisyPairs, Route, Trajectories, route, trajectories
from bench.sampling import levels

WORLD = GaussianWorld(0.5, 0.6)
PROBES: list[Probe] = [registry.load("probes", name)() for name in registry.table("probes")]


def way(steps: int = 8, **chosen: int) -> Route:
    return route(torch.from_numpy(levels.sigmas(levels.SHIFTED, steps, 3.0)), 3.0, **chosen)


class Counting(GaussianField):
    """Counts the samples of each call by their level."""

    def __init__(self) -> None:
        super().__init__(WORLD, empty_mean=0.1)
        self.__dict__["seen"] = Counter[float]()

    def velocity(self, latents: Tensor, sigma: Any, text: Any) -> Tensor:
        self.__dict__["seen"][float(sigma)] += len(latents)
        return super().velocity(latents, sigma, text)

    def branches(self, latents: Tensor, sigma: Any, text: Any) -> tuple[Tensor, Tensor]:
        self.__dict__["seen"][float(sigma)] += 2 * len(latents)
        return super().branches(latents, sigma, text)


class Odd(Probe):
    """Returns what it is told to."""

    name, label, version = "odd", "Odd", 3

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def read(self, paths: Trajectories) -> Iterable[Reading]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return [Reading(0, 1, self.answer, 1)]


def at(scale: float, pairs: NoisyPairs, field: Any = None, **options: Any) -> Trajectories:
    (found,), _ = trajectories(field or GaussianField(WORLD), pairs, way(), (scale,), **options)
    return found


# -- pairs -----------------------------------------------------------------------------------------------------------


def test_noise_belongs_to_the_pair_and_the_seed_alone() -> None:
    latents = torch.zeros(4, 1, 2, 2)
    whole = NoisyPairs(latents, text(4), (0, 1, 2, 3), 5).noise
    part = NoisyPairs(latents[:2], text(2), (3, 1), 5).noise
    assert torch.equal(part, whole[[3, 1]]) and whole.flatten(1).unique(dim=0).shape[0] == 4
    assert not torch.equal(NoisyPairs(latents, text(4), (0, 1, 2, 3), 6).noise, whole)
    assert not torch.equal(NoisyPairs(latents, text(4), (0, 1, 2, 3), 5).normal("recovery"), whole)


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, []), (3, [3]), (16, [16]), (20, [20]), (24, [16, 8]), (50, [16, 16, 18])]
)
def test_chunks_depend_on_the_number_of_pairs_alone(count: int, sizes: list[int]) -> None:
    found = chunks(count)
    assert [len(part) for part in found] == sizes
    assert [position for part in found for position in part] == list(range(count)) and CHUNK == 16


def test_long_probes_read_every_fourth_chunk() -> None:
    long, short = (next(probe for probe in PROBES if probe.long == kind) for kind in (True, False))
    assert [chunk for chunk in range(9) if reads(long, chunk)] == [0, 4, 8] and LONG_EVERY == 4
    assert all(reads(short, chunk) for chunk in range(9))


# -- levels ----------------------------------------------------------------------------------------------------------


def test_every_level_from_which_a_step_leads_to_noise_is_a_start() -> None:
    found = way(8)
    assert found.starts == (0, 1, 2, 3, 4, 5, 6) and found.end == 8 and found.span == 4
    # 1, 21/22, 9/10, 5/6, 3/4, 9/14, 1/2, 3/10, 0: from 5/6 four steps lead to 3/10, from 3/4 they lead to 0.
    assert [float(found.sigmas[position]) for position in found.middle] == pytest.approx([5 / 6])


def test_starts_are_spread_and_those_in_the_middle_are_among_them() -> None:
    sigmas = torch.from_numpy(levels.sigmas(levels.DIFFUSERS, 20, 3.0))
    found = route(sigmas, 3.0, starts=5)
    chosen = [float(sigmas[position]) for position in found.middle]
    assert chosen == pytest.approx([0.7310, 0.5201], abs=1e-4)  # the nearest of its levels to 3/4 and 1/2
    assert found.starts == (0, 4, 9, 10, 14, 18)
    assert float(sigmas[found.starts[-1] + 1]) == pytest.approx(9 / 1008)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_list_of_few_levels_has_short_paths_or_none(steps: int) -> None:
    found = way(steps)
    assert found.starts == tuple(range(steps - 1)) and found.span == min(4, steps - 1)
    for probe in PROBES:
        for row in rows(probe, trajectories(GaussianField(WORLD), drawn_pairs(WORLD, 3), found, (1.0,))[0][0]):
            assert "error" not in row, row


# -- cost ------------------------------------------------------------------------------------------------------------


def test_what_lies_on_the_path_is_computed_once_for_all_probes_and_scales() -> None:
    field, pairs, route_ = Counting(), drawn_pairs(WORLD, 3), way()
    found, counted = trajectories(field, pairs, route_, (1.0, 4.5))
    for paths in found:
        for probe in PROBES:
            if probe.routine and not probe.long:
                rows(probe, paths)
    seen = field.__dict__["seen"]
    # Both branches on the path; off it after one step, and at the last level after four, 1 + 2 samples for the two
    # scales.
    first, second, last = (float(route_.sigmas[position]) for position in (0, 1, 7))
    assert (seen[first], seen[second], seen[last]) == (3 * 2, 3 * (2 + 3), 3 * (2 + 3 + 3))
    assert sum(seen.values()) == counted.forwards


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 4.5), (4.5,)])
def test_the_cost_of_a_pair_is_known_before(scales: tuple[float, ...]) -> None:
    field, pairs = Counting(), drawn_pairs(WORLD, 3)
    found, _ = trajectories(field, pairs, way(), scales)
    for paths in found:
        for probe in PROBES:
            rows(probe, paths)
    (training,), _ = trajectories(field, pairs, way(), (1.0,))  # as many pairs that methods train on, without guidance
    for probe in PROBES:
        if probe.fit:
            rows(probe, training)
    assert any(probe.fit for probe in PROBES)
    assert 3 * forwards(PROBES, way(), scales) == sum(field.__dict__["seen"].values())


def test_without_guidance_no_empty_prompt_is_asked_for() -> None:
    class Conditional(GaussianField):
        def branches(self, latents: Tensor, sigma: Any, text: Any) -> tuple[Tensor, Tensor]:
            raise AssertionError("not needed")

    for probe in PROBES:
        field = Conditional(WORLD)
        assert all("error" not in row for row in rows(probe, at(1.0, drawn_pairs(WORLD, 3), field)))


def test_the_size_of_forwards_changes_nothing() -> None:
    pairs = drawn_pairs(WORLD, 5)
    for probe in PROBES:
        field = GaussianField(WORLD, empty_mean=0.2)
        one, two = (rows(probe, at(4.5, pairs, field, batch=size)) for size in (None, 2))
        assert one == two and one


# -- records ---------------------------------------------------------------------------------------------------------


def test_a_row_says_which_pairs_and_where() -> None:
    pairs = NoisyPairs(torch.zeros(2, 1, 2, 2), text(2), (7, 9), 0)
    (row,) = rows(Odd(torch.tensor([0.25, -3.0])), at(4.5, pairs))
    sigma = round(float(way().sigmas[1]), 6)
    about = {
        "v": 1,
        "probe": "odd",
        "version": 3,
        "part": "held_out",
        "guidance": 4.5,
        "start": 1.0,
        "sigma": sigma,
        "steps": 1,
    }
    assert row == about | {"pairs": [7, 9], "values": [0.25, -3.0]}


def test_a_value_that_is_no_number_has_an_error_in_its_place() -> None:
    (row,) = rows(Odd(torch.tensor([1.0, float("nan")])), at(1.0, drawn_pairs(WORLD, 2)))
    assert row["values"] == [1.0, None] and row["error"] == "not a finite number"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (torch.zeros(3), "the probe returned shape (3,) for 2 pairs, not a number for each"),
        (torch.zeros(2, 1), "the probe returned shape (2, 1) for 2 pairs, not a number for each"),
        ([1.0, 2.0], "the probe returned list for 2 pairs, not a number for each"),
        (RuntimeError("no such\nkernel"), "RuntimeError: no such kernel"),
    ],
)
def test_a_probe_that_breaks_is_one_line(answer: Any, says: str) -> None:
    (row,) = rows(Odd(answer), at(1.0, drawn_pairs(WORLD, 2)))
    about = {"v": 1, "probe": "odd", "version": 3, "part": "held_out", "guidance": 1.0}
    assert row == about | {"pairs": [0, 1], "error": says}


def test_a_variance_of_one_pair_is_refused_in_one_line() -> None:
    (probe,) = (probe for probe in PROBES if probe.name == "variance_error")
    (row,) = rows(probe, at(1.0, drawn_pairs(WORLD, 1)))
    assert row["error"].startswith("a variance needs at least two pairs")


# -- the plugin kind -------------------------------------------------------------------------------------------------


def test_every_probe_says_what_it_is() -> None:
    assert [probe.name for probe in PROBES] == list(registry.table("probes"))
    assert len({probe.label for probe in PROBES}) == len(PROBES)
    for probe in PROBES:
        assert probe.version >= 1 and probe.describe()["name"] == probe.name


def test_probes_are_listed() -> None:
    done = CliRunner().invoke(main, ["list", "probes"])
    named = [line.split()[0] for line in done.output.splitlines() if line[2] != " "]
    assert done.exit_code == 0 and named == list(registry.BUILT_IN["probes"])
    assert "one_step_gap" in done.output and "Error of the corrective velocity after one Euler step" in done.output


def test_a_policy_is_a_field(world: fakes.World) -> None:
    """Real velocities: every routine probe reads a tiny random policy at two scales."""
    policy = Policy(world.backbone.transformer(), world.backbone.scheduler(), world.null)
    pairs = NoisyPairs(torch.randn(3, *world.backbone.latent_shape), world.text(3), (0, 1, 2), 1)
    found, _ = trajectories(policy, pairs, route(policy.sigmas(6), policy.shift), (1.0, 2.0))
    for paths in found:
        for probe in PROBES:
            assert all("error" not in row for row in rows(probe, paths)), probe.name


def test_the_probe_in_the_docs_works() -> None:
    page = (Path(__file__).parents[3] / "docs/exposure-bias.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    names: dict[str, Any] = {}
    exec(compile(code, "exposure-bias.md", "exec"), names)
    found = rows(names["Turn"](), at(1.0, drawn_pairs(WORLD, 3)))
    assert len(found) == len(way().starts)
    assert all(len(row["values"]) == 3 and min(row["values"]) > -1e-6 and max(row["values"]) < 2 for row in found)
