"""GenEval's partial credit exactly as Flow-GRPO's reward server computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks import geneval_rule
from benchmarks.geneval_rule import Detection
from benchmarks.metrics.geneval_reward import GenEvalReward


class GenEvalRewardReleased(GenEvalReward):
    """``geneval_reward``, but a wrong position adds a 0 to the mean and then a 1 as well, so that it costs little.

    Source: ``score`` of ``reward_server/gen_eval.py``, yifan123/reward-server @ 92ac29f.
    """

    name = "geneval_reward_released"
    label = "GenEval reward (released)"

    def judge(self, objects: Sequence[Detection], facts: Any) -> float:
        return geneval_rule.reward_released(objects, facts["include"])
