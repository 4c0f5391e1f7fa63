"""What methods are tuned on is not what they are compared on."""

from __future__ import annotations

from collections import Counter

from benchmarks.suites import embedded, embedded_validation
from data_curation.world import scene as S
from data_curation.world import vocabulary as V

BY_TEXT = {p.text: p for tag in (*V.TASKS, "sign") for p in S.all_prompts(tag)}


def test_validation_and_test_share_no_prompt_and_no_noise():
    suites = embedded.suite(), embedded_validation.suite()
    texts = [set(suite.texts()) for suite in suites]
    assert not texts[0] & texts[1]
    seeds = [
        {s.noise_seed(p.name, prompt, i) for p in s.prompt_sets for prompt in p.prompts for i in range(p.repeats)}
        for s in suites
    ]
    assert not seeds[0] & seeds[1] and [len(each) for each in seeds] == [suite.images() for suite in suites]


def test_validation_is_on_held_out_captions_of_every_task():
    scenes = [prompt for prompts in embedded_validation.suite().prompt_sets for prompt in prompts.prompts]
    assert all(BY_TEXT[prompt.text].held_out for prompt in scenes)
    texts = {prompt.text for prompt in scenes}
    assert Counter(BY_TEXT[text].tag for text in texts) == dict.fromkeys(V.TASKS, 12) | {"sign": 24}


def test_the_test_suite_has_eighty_held_out_prompts_of_each_task_and_120_words():
    signs, scenes, variety = embedded.suite().prompt_sets
    assert Counter(p.group for p in scenes.prompts) == dict.fromkeys(V.TASKS, 80) and len(signs.prompts) == 120
    assert all(BY_TEXT[text].held_out for text in embedded.suite().texts())
    assert {p.text for p in variety.prompts} <= {p.text for p in scenes.prompts} and variety.repeats == 4


def test_on_the_way_eight_prompts_of_each_task_are_drawn():
    suite = embedded.suite()
    signs, scenes, variety = suite.part().prompt_sets
    assert Counter(p.group for p in scenes.prompts) == dict.fromkeys(V.TASKS, 8) and len(signs.prompts) == 12
    assert Counter(p.group for p in variety.prompts) == dict.fromkeys(V.TASKS, 1)
    assert (suite.images(), suite.part().images()) == (696, 84)


def test_facts_are_the_scenes_own():
    for prompts in embedded_validation.suite().prompt_sets:
        for prompt in prompts.prompts:
            truth = BY_TEXT[prompt.text]
            facts = {"word": truth.word} if truth.word else {"include": truth.include, "exclude": truth.exclude}
            assert (prompt.facts, prompt.group) == (facts, truth.tag)


def test_it_measures_what_the_test_suite_measures_in_the_same_way():
    test, validation = embedded.suite(), embedded_validation.suite()
    names = [[(metric, prompts.name) for metric, prompts in suite.metrics()] for suite in (test, validation)]
    assert names[0] == names[1]
    assert (test.sampler, test.roles) == (validation.sampler, validation.roles)
