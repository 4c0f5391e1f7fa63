"""GenEval's partial credit, as a reward that tells nearly right from quite wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks import geneval_rule
from benchmarks.geneval_detector import MOST
from benchmarks.geneval_rule import Detection
from benchmarks.metrics.geneval import GenEval


class GenEvalReward(GenEval):
    """Mean over clauses of 1 - |want - found| / want for the count, then the colour, and of 1 or 0 for the position.

    Colour and position earn 0 where the count is wrong. 1 where all is right; at least -14, for 16 objects instead of
    one. Source: ``score`` of ``reward_server/gen_eval.py``, yifan123/reward-server @ 92ac29f, but a wrong position
    earns a 0 alone; ``geneval_reward_released`` has the released value.
    """

    name = "geneval_reward"
    label = "GenEval reward"
    low = float(2 - MOST)

    def judge(self, objects: Sequence[Detection], facts: Any) -> float:
        return geneval_rule.reward(objects, facts["include"])
