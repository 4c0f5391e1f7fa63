"""What a suite draws, and the part of it that evaluations before a job's last draw."""

from __future__ import annotations

from dataclasses import replace

import fakes
import pytest
from fakes import Brightness

from bench.errors import BenchError
from bench.prompt import Prompt
from bench.suite import PromptSet, Suite


@pytest.fixture
def suite() -> Suite:
    """Groups of seven and four prompts drawn twice, and five in no group."""
    grouped = [
        Prompt(f"{group}{i}", f"{group} {i}", group) for i in range(7) for group in ("a", "b") if i < 4 or group == "a"
    ]
    alone = [Prompt(f"s{i}", f"sign {i}") for i in range(5)]
    sets = PromptSet("grouped", tuple(grouped), 2, ("brightness",)), PromptSet("alone", tuple(alone), 1, ())
    return replace(fakes.suite(), prompt_sets=sets, on_the_way=3)


def test_a_part_has_every_so_many_th_prompt_of_each_group(suite):
    part = suite.part()
    assert [[p.id for p in prompts.prompts] for prompts in part.prompt_sets] == [
        ["a0", "b0", "a3", "b3", "a6"],
        ["s0", "s3"],
    ]
    assert [prompts.repeats for prompts in part.prompt_sets] == [2, 1]
    assert part.part() == part and replace(suite, on_the_way=1).part().prompt_sets == suite.prompt_sets


def test_images_are_drawn_from_the_noise_of_the_whole_suite(suite):
    first, of_part = suite.prompt_sets[0], suite.part().prompt_sets[0]
    assert first.prompts[6] == of_part.prompts[2]
    assert suite.noise_seed("grouped", first.prompts[6], 1) == suite.part().noise_seed("grouped", of_part.prompts[2], 1)


def test_the_images_of_a_job_are_those_of_its_evaluations(suite):
    assert (suite.images(), suite.part().images()) == (27, 12)
    assert suite.images(4) == 27 + 3 * 12
    assert replace(suite, on_the_way=1).images(4) == 4 * 27


def test_records_say_which_part_is_drawn_and_nothing_where_all_is(suite):
    metrics = {"brightness": Brightness()}
    record = suite.describe(metrics).model_dump(exclude_unset=True)
    assert record["on_the_way"] == 3
    assert [(m["images"], m["images_on_the_way"]) for m in record["metrics"]] == [(22, 10)]
    whole = replace(suite, on_the_way=1).describe(metrics).model_dump(exclude_unset=True)
    assert "on_the_way" not in whole and "images_on_the_way" not in whole["metrics"][0]


def test_a_prompt_set_without_prompts_or_repeats_is_refused():
    """A run on it trained, scored nothing and ended well."""
    with pytest.raises(BenchError, match="the prompt set empty has no prompt"):
        PromptSet("empty", (), 1, ("brightness",))
    with pytest.raises(BenchError, match="the prompt set none has 0 repeats"):
        PromptSet("none", (Prompt("0", "x"),), 0, ("brightness",))


def test_a_role_that_a_suite_lacks_is_one_line(suite):
    assert suite.metric_of("aesthetic") == suite.roles["aesthetic"]
    with pytest.raises(BenchError, match=f"unknown role in the suite {suite.name} 'aesthetics'; did you mean"):
        suite.metric_of("aesthetics")
