"""GenEval with exact counts: an object too many is wrong in every task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.geneval_rule import Detection, is_strictly_correct
from benchmarks.metrics.geneval import GenEval


class GenEvalStrict(GenEval):
    """1 for a picture with exactly the objects that its prompt asks for, else 0; overall the mean of six task means.

    Source: ``strict_correct`` of ``reward_server/gen_eval.py``, yifan123/reward-server @ 92ac29f, which Flow-GRPO
    reports beside the reward. Classes that the prompt does not name are not looked at.
    """

    name = "geneval_strict"
    label = "GenEval strict"

    def judge(self, objects: Sequence[Detection], facts: Any) -> float:
        return float(is_strictly_correct(objects, facts["include"]))
