"""Which probes an evaluation reads, on how many pairs, and what it says of those that break."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import pytest
import torch
from gaussian import GaussianField, GaussianWorld, text

from bench import records, registry
from bench.machine.engine import Engine
from bench.probes import Probe, Reading, Trajectories
from bench.probes.probe import chunks, reads, rows
from bench.probes.reader import SHARE, EncodedPairs, ProbeReader, affordable, routine_probing
from bench.probes.routes import NoisyPairs, trajectories
from bench.suite import PromptSet, Suite


def suite(images: int, steps: int = 20, scale: float = 4.5) -> Suite:
    one = fakes.suite()
    sets = (PromptSet("some", one.prompt_sets[0].prompts[:1], images, ("brightness",)),)
    return replace(one, prompt_sets=sets, sampler=replace(one.sampler, steps=steps, guidance_scale=scale))


def silent(line: str) -> None:
    raise AssertionError(line)


def test_routine_probes_read_at_the_suites_levels_and_both_scales() -> None:
    probing = routine_probing(suite(1), 3.0, silent)
    assert {probe.name for probe in probing.probes} == set(registry.table("probes")) - {"step_error"}
    assert probing.scales == (1.0, 4.5) and len(probing.route.sigmas) == 21
    assert routine_probing(suite(1, scale=1.0), 3.0, silent).scales == (1.0,)


@pytest.mark.parametrize("images", [20, 152, 900, 4000])
def test_what_is_read_costs_a_quarter_of_an_evaluation_and_one_pair_more_would_not(images: int) -> None:
    """Counted by reading: forwards of a field, for as many pairs as are affordable."""
    whole = suite(images)
    probing = routine_probing(whole, 3.0, silent)
    pairs = affordable(whole, probing)

    def spent(count: int) -> int:
        total = 0
        for number, part in enumerate(chunks(count)):
            pairs = NoisyPairs(torch.ones(len(part), 1, 2, 2), text(len(part)), tuple(part), 0)
            fit = [probe for probe in probing.probes if probe.fit]
            for probes, scales in ((probing.probes, probing.scales), (fit, (1.0,))):
                found, counted = trajectories(GaussianField(GaussianWorld(0, 1)), pairs, probing.route, scales)
                for paths in found:
                    for probe in probes:
                        if reads(probe, number):
                            rows(probe, paths)
                total += counted.forwards
        return total

    limit = images * 20 * 2 / 4
    assert SHARE == 0.25 and spent(pairs) <= limit < spent(pairs + 1)


def test_an_evaluation_that_is_too_short_affords_none() -> None:
    assert affordable(suite(1, steps=2), routine_probing(suite(1, steps=2), 3.0, silent)) == 0


def test_the_page_says_how_many_pairs_the_embedded_suite_pays_for() -> None:
    whole = registry.load("suites", "embedded")()
    pairs = affordable(whole, routine_probing(whole, 3.0, silent), 4)
    page = (Path(__file__).parents[3] / "docs/exposure-bias.md").read_text(encoding="utf-8")
    assert f"allows: {pairs} in the embedded suite with four evaluations, whose pictures take 9,480 forwards" in page
    assert whole.images(4) / 4 * whole.sampler.steps * 2 == 9_480


class Broken(Probe):
    """No number on its second pair."""

    name, label, version = "broken", "Broken", 1

    def read(self, paths: Trajectories) -> Iterable[Reading]:
        yield Reading(0, 0, torch.tensor([1.0, float("nan"), 2.0]))


class Shapeless(Probe):
    """One number for all pairs."""

    name, label, version = "shapeless", "Shapeless", 1

    def read(self, paths: Trajectories) -> Iterable[Reading]:
        yield Reading(0, 0, torch.tensor(1.0))


class Absent:
    """What a plugin is whose package lacks another one."""

    def __init__(self) -> None:
        raise ImportError("no module named other")


def test_a_probe_that_breaks_is_one_line_and_the_others_go_on(world: fakes.World, tmp_path: Path) -> None:
    lines: list[str] = []
    probing = routine_probing(suite(1), 3.0, silent)
    probing = replace(probing, probes=(Broken(), Shapeless(), probing.probes[0]), scales=(1.0,))
    data = replace(world.data, text_of=world.data.text_of[:3])
    pairs = EncodedPairs(data, "three", 7, world.engine)
    reader = ProbeReader(probing, pairs, None, Engine(), 48, lines.append)
    reader.read(GaussianField(GaussianWorld(0, 1)), tmp_path)
    assert lines == [
        f"{tmp_path}: the probe broken has 1 readings without a value, the first: not a finite number",
        f"{tmp_path}: the probe shapeless has 1 readings without a value, the first: the probe returned shape () for 3 "
        "pairs, not a number for each",
    ]
    good = [row for row in records.read_lines(tmp_path / "probes.jsonl") if row["probe"] == "heldout_loss"]
    assert good and all(row["pairs"] == [0, 1, 2] and len(row["values"]) == 3 for row in good)


def test_a_probe_that_cannot_be_loaded_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    load, lines = registry.load, list[str]()

    def some(kind: str, name: str) -> Any:
        return Absent if name == "slowness" else load(kind, name)

    monkeypatch.setattr(registry, "load", some)
    probing = routine_probing(suite(1), 3.0, lines.append)
    assert lines == ["the probe slowness is left out: no module named other"]
    assert "slowness" not in {probe.name for probe in probing.probes} and len(probing.probes) == 8


def test_encoded_pairs_are_pictures_with_their_own_captions(world: fakes.World) -> None:
    pairs = EncodedPairs(world.data, "all", 7, world.engine)
    found = pairs.pairs([3, 0])
    assert torch.equal(found.latents, world.data.latents[torch.tensor([3, 0])]) and found.indices == (3, 0)
    captions = world.data.text[world.data.text_of[torch.tensor([3, 0])]]
    assert torch.equal(found.text.prompt_embeds, captions.prompt_embeds)
    assert torch.equal(found.noise[1], pairs.pairs([0]).noise[0]) and len(pairs) == len(world.data)


class Copied(Probe):
    """A class that was copied, with the name of the first."""

    name, label, version = "velocity_norm", "Copied", 1

    def read(self, paths: Trajectories) -> Iterable[Reading]:
        return ()


class Unversioned(Copied):
    """It says no version."""

    name = "slowness"
    version = None  # type: ignore[assignment]


@pytest.mark.parametrize(("kind", "said"), [(Copied, "it calls itself 'velocity_norm'"), (Unversioned, "version")])
def test_a_probe_that_no_record_can_hold_is_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch, kind: type[Probe], said: str
) -> None:
    """Two of one name were read as one, with the pairs of both; one without a version ended the run."""
    load, lines = registry.load, list[str]()
    monkeypatch.setattr(registry, "load", lambda of, name: kind if name == "slowness" else load(of, name))
    probing = routine_probing(suite(1), 3.0, lines.append)
    assert len(lines) == 1 and lines[0].startswith("the probe slowness is left out: ") and said in lines[0]
    names = [probe.name for probe in probing.probes]
    assert len(names) == len(set(names)) == 8 and not any(isinstance(probe, Copied) for probe in probing.probes)


class Halved(Copied):
    """A number of steps that is no whole one."""

    name = "slowness"

    def read(self, paths: Trajectories) -> Iterable[Reading]:
        values = torch.zeros(len(paths.pairs))
        return (Reading(0, 1, values, 1.5),)  # type: ignore[arg-type]


def test_a_reading_that_no_record_can_hold_is_an_error_of_its_row() -> None:
    pairs = NoisyPairs(torch.ones(3, 1, 2, 2), text(3), (0, 1, 2), 0)
    probing = routine_probing(suite(1), 3.0, silent)
    (paths,), _ = trajectories(GaussianField(GaussianWorld(0, 1)), pairs, probing.route, (1.0,))
    (row,) = rows(Halved(), paths)
    assert "steps" in row["error"] and row["pairs"] == [0, 1, 2] and "values" not in row
