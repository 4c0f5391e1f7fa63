"""The built-in rules on captions: what they take and what they leave."""

from __future__ import annotations

import re

import pytest

from data_curation.subsets import HIGH_AESTHETIC, POSTERS, RANDOM, WEB_UI
from data_curation.world.corpus import WorldCorpus


@pytest.mark.parametrize(
    ("subset", "caption", "taken"),
    [
        (POSTERS, "A vintage travel poster of Lisbon", True),
        (POSTERS, "Two POSTERS on a wall", True),
        (POSTERS, "a flyer for a jazz night", True),
        (POSTERS, "A movie cover with a man in black", True),
        (POSTERS, "a magazine cover", True),
        (POSTERS, "a four-poster bed", True),  # the price of a rule on words
        (POSTERS, "a dog under a blanket cover", False),
        (POSTERS, "an imposter", False),
        (WEB_UI, "A landing page of a bank", True),
        (WEB_UI, "the website of a shop", True),
        (WEB_UI, "a clean UI with three buttons", True),
        (WEB_UI, "user interface of a music player", True),
        (WEB_UI, "a dashboard with charts", True),
        (WEB_UI, "a suit and a guitar", False),
        (WEB_UI, "a spider in its web", False),
        (WEB_UI, "an apple on a page", False),
    ],
)
def test_captions_are_taken_by_their_words(subset, caption, taken):
    assert bool(re.search(subset.caption, caption)) == taken


@pytest.mark.parametrize("subset", [POSTERS, WEB_UI])
def test_they_ask_for_no_score(subset):
    assert subset.role is None and subset.threshold is None and not subset.tags


def test_the_random_part_has_the_share_of_the_best_by_aesthetic():
    assert round(RANDOM.share * 286_119) == 3725  # SOAR, section 3.1
    assert WorldCorpus.quantiles[RANDOM.name] == WorldCorpus.quantiles[HIGH_AESTHETIC.name]
    assert RANDOM.role is None
