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
    assert not texts[0] & texts[1] and len(texts[1]) == len(suites[1].texts())
    seeds = [
        {s.noise_seed(p.name, prompt, i) for p in s.prompt_sets for prompt in p.prompts for i in range(p.repeats)}
        for s in suites
    ]
    assert not seeds[0] & seeds[1] and [len(each) for each in seeds] == [suite.images() for suite in suites]


def test_only_the_tasks_that_the_test_suite_uses_up_are_validated_on_training_captions():
    held_out = Counter(BY_TEXT[text].tag for text in embedded_validation.suite().texts() if BY_TEXT[text].held_out)
    trained = Counter(BY_TEXT[text].tag for text in embedded_validation.suite().texts() if not BY_TEXT[text].held_out)
    assert held_out == {"two_object": 4, "colors": 4, "position": 8, "color_attr": 8, "sign": 24}
    assert trained == {"single_object": 4, "counting": 4}
    tested = set(embedded.suite().texts())
    for tag in trained:
        assert {p.text for p in S.all_prompts(tag) if p.held_out} <= tested


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
