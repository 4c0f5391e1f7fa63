"""Trains every method for three steps under torchrun or alone, for test_ranks.py.

Usage: ranks.py PIPELINE OUT SHARDING [DTYPE CASE...]

Rank 0 leaves OUT/<case>.pt: what was logged, the meter, the weights, and whether a resume from a checkpoint agreed;
and OUT/alive: how many models of ended jobs were still in memory at the end.
"""

from __future__ import annotations

import copy
import gc
import sys
import weakref
from pathlib import Path

import fakes
import torch

from bench.experiment.recorded import untrained_header
from bench.machine.engine import Engine, spread, whole
from bench.trajectories import Transitions

CASES = {
    "sft": ("sft", {}, None),
    "sft-micro": ("sft", {"batch_size": 7}, 2),
    "soar-micro": ("soar", {"batch_size": 7, "sde_branches": 1, "rollout_steps": 3}, 2),
    "soar-ema": ("soar", {"ema_decay": 0.9}, None),
    "perturbed": ("input_perturbation", {"batch_size": 7}, 2),
    "mixflow": ("mixflow", {"batch_size": 7}, 2),
    "reflexflow": ("reflexflow", {"batch_size": 7, "through_rollout": True}, 2),
    "grpo-uneven": ("flow_grpo", {"prompts": 3, "clip_range": 0.9}, 2),
    "grpo-window": ("flow_grpo", {"prompts": 3, "window": 1, "guard": True, "noise_level": 1.5, "clip_range": 0.9}, 2),
    "nft": ("diffusion_nft", {"prompts": 3, "updates": 2, "old_rate": 0.1}, 2),
    "nft-turns": ("diffusion_nft", {"prompts": 3, "updates": 1}, 2),
    "dpo": ("dpo", {"batch_size": 5, "beta": 500.0}, 2),
    "dpo-own": ("dpo", {"pairs_from": "reference", "batch_size": 3, "sampling_steps": 2, "passes": 2}, 2),
    "leap": ("leap_align", {"prompts": 3, "reward_ceiling": None}, 2),
    "stages": ("sft+flow_grpo", {"prompts": 3, "clip_range": 0.9}, 2),
}
"""Name → methods that follow each other, overrides of the last one, micro-batch. Uneven shares and odd batches need
padding with two processes.

A wide clip range, since a clipped objective jumps where rounding crosses the range."""
BLIND = ("nft-turns",)
"""Cases whose reward sees no picture, so that rounding cannot move it."""
EVALUATED = ("sft", "grpo-uneven")
"""All parameters and an adapter."""


def state_of(session, method) -> dict:
    return copy.deepcopy(whole({"job": session.state_dict(), "method": method.state_dict()}))


def first_gradient(learner) -> list[torch.Tensor]:
    """Filled with the gradient that the learner's next update steps along, whole and in one row."""
    found, average = [], learner.average

    def seen(items: float) -> float:
        norm = average(items)
        if not found:
            found.append(torch.cat([whole(p.grad).flatten() for p in learner.parameters if p.grad is not None]))
        return norm

    learner.average = seen
    return found


def first_ratios() -> list[torch.Tensor]:
    """Filled with the ratios of this process's updates right after sampling; what is logged is a mean over all."""
    found, ratio = [], Transitions.ratio

    def seen(by, after, mean, std, old):
        result = ratio(by, after, mean, std, old)
        if old is None:
            found.append(result.detach())
        return result

    Transitions.ratio = seen
    return found


def main(pipeline: Path, out: Path, sharding: str, dtype: str = "auto", *cases: str) -> None:
    torch.set_num_threads(1)
    engine = Engine.from_environment(sharding=sharding, dtype=dtype)
    world = fakes.World(pipeline, engine)
    trained, ratios = [], first_ratios()
    for name in cases or CASES:
        ratios.clear()
        row, overrides, micro_batch = CASES[name]
        reward = fakes.Turns() if name in BLIND else None
        session, stages = world.session(reward=reward, micro_batch=micro_batch), None
        *earlier, method_name = row.split("+")
        job = session.job
        for first in map(fakes.small, earlier):
            first.setup(job)
            fakes.advance(job, first, 1)
            stages = out / f"{name}-from"
            with first.evaluation_weights(job):
                session.model.save(stages, merge=True)
            session.model.restart(stages)
        method = fakes.small(method_name, **overrides)
        method.setup(job)
        before, gradient = whole(fakes.weights(job)), first_gradient(fakes.learner(job))
        logs = fakes.advance(job, method, 2)
        state = state_of(session, method)
        if name in EVALUATED:
            # One batch: the second rank has none.
            with method.evaluation_weights(job), session.ledger.unmetered(), torch.no_grad():
                world.evaluator.run(world.evaluator.painter(job.policy), out / name, header=untrained_header())
        logs += fakes.advance(job, method, 1)
        resumed, twin = world.session(reward=reward, micro_batch=micro_batch), fakes.small(method_name, **overrides)
        if stages:
            resumed.model.restart(stages)
        again = resumed.job
        twin.setup(again)
        resumed.load_state_dict(state["job"])
        twin.load_state_dict(spread(state["method"], twin.state_dict()))
        relogged = fakes.advance(again, twin, 1)
        with method.evaluation_weights(job):
            evaluated = whole(fakes.weights(job))
        result = {
            "logs": logs,
            "first_ratios": [value for part in ratios for value in part.tolist()],
            "gradient": gradient[0],
            "resumed": relogged == logs[2:],
            "meter": job.meter.counts(),
            "bucket_views": getattr(job.policy.module, "gradient_as_bucket_view", None),
            "before": before,
            "weights": whole([p.detach() for p in job.parameters]),
            "evaluated": evaluated,
        }
        if engine.is_main:
            torch.save(result, out / f"{name}.pt")
        for one in (session, resumed):
            trained.append(weakref.ref(one.job.policy.transformer))
            one.close()
        engine.barrier()
    del job, again, session, resumed, one, gradient
    gc.collect()
    if engine.is_main:
        (out / "alive").write_text(str(sum(model() is not None for model in trained)))
    engine.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
