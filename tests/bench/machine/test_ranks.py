"""One process and two give the same loss and weights on the same global batch, with DDP and with FSDP."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import CASES, EVALUATED

from bench import records

SCRIPT = Path(__file__).parents[2] / "support" / "ranks.py"
ROUNDING = 2e-6
"""Relative, of logged scalars: float32 sums in another order."""
PIXELS = 1e-2
"""The same where rewards come from images: a pixel that rounds the other way moves every advantage a little, and Adam
makes a whole step of a gradient that is rounding. Which ones do depends on the processor."""
STEADY = {"rel": 1e-4, "abs": 1e-4}
"""Of scalars there that stay near a constant or nearly cancel, so that a share of them says little: a reward of 0.527
has a deviation of 0.003 over samples, a policy gradient's loss is 1e-4 to 3e-3."""
STEADY_ONES = ("reward", "ratio", "loss", "margin")
RATIO = 1e-3
"""Absolute, of a mean ratio whose old policy is from a forward of another shape, in bfloat16: it is up to 1e-4 here."""


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
KINDS = {"one": ((), "ddp"), "ddp": (TORCHRUN, "ddp"), "fsdp": (TORCHRUN, "fsdp")}
HALF = (
    "sft-micro", "soar-micro", "perturbed", "mixflow", "reflexflow", "dpo", "grpo-uneven", "nft-turns", "leap",
)  # fmt: skip
"""Cases that are also run in bfloat16: every method once."""


def run(kind: str, pipeline: Path, out: Path, *more: str) -> None:
    launch, sharding = KINDS[kind]
    done = subprocess.run(
        [sys.executable, *launch, str(SCRIPT), str(pipeline), str(out), sharding, *more],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def halves(tiny_pipeline, tmp_path_factory) -> dict[str, dict[str, Any]]:
    """Kind of run → case → what it left in bfloat16."""
    found = {}
    for kind in KINDS:
        out = tmp_path_factory.mktemp(f"{kind}-half")
        run(kind, tiny_pipeline, out, "bfloat16", *HALF)
        found[kind] = {case: torch.load(out / f"{case}.pt") for case in HALF}
    return found


@pytest.fixture(scope="module")
def results(tiny_pipeline, tmp_path_factory) -> dict[str, dict[str, Any]]:
    """Kind of run → case → what it left; ``alive`` → models that outlive their jobs."""
    found = {}
    for kind in KINDS:
        out = tmp_path_factory.mktemp(kind)
        run(kind, tiny_pipeline, out)
        found[kind] = {case: torch.load(out / f"{case}.pt") for case in CASES}
        for case in EVALUATED:
            found[kind][case]["samples"] = list(records.read_lines(out / case / "samples.jsonl"))
        found[kind]["alive"] = int((out / "alive").read_text())
    return found


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(results, kind, case):
    one, two = results["one"][case], results[kind][case]
    images = case in ("dpo", "dpo-own", "leap", "stages") or case.startswith(("grpo", "nft"))
    for a, b in zip(one["logs"], two["logs"], strict=True):
        assert b == {name: near(name, value, images) for name, value in a.items()}
    for kept in ("weights", "evaluated"):
        expected, found = moved(one, kept), moved(two, kept)
        assert (found - expected).norm() < (3 * PIXELS if images else 1e-4) * expected.norm() > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", HALF)
def test_a_step_in_bfloat16_is_near_float32_on_one_process(results, halves, kind, case):
    """The bounds are those of test_precision.py."""
    fine, coarse = results["one"][case], halves[kind][case]
    if case == "grpo-uneven":
        log = coarse["logs"][0]
        assert coarse["first_ratios"] and set(coarse["first_ratios"]) == {1.0}
        # The logged mean is over both updates. The second has a changed policy, and old values that are rounded.
        assert 0 <= log["noise"] < RATIO and log["ratio"] == pytest.approx(fine["logs"][0]["ratio"], abs=RATIO)
    else:
        assert coarse["logs"][0]["loss"] == pytest.approx(fine["logs"][0]["loss"], rel=0.02)
        assert torch.nn.functional.cosine_similarity(fine["gradient"], coarse["gradient"], dim=0) > 0.97
    assert coarse["gradient"].dtype == torch.float32 and {w.dtype for w in coarse["weights"]} == {torch.float32}
    assert coarse["resumed"]


def near(name: str, value: float, images: bool) -> Any:
    """What a logged scalar may be; ``images`` says whether rounded pixels have a part in it."""
    if not images:
        return pytest.approx(value, rel=ROUNDING, abs=0)
    return pytest.approx(value, **STEADY if name in STEADY_ONES else {"rel": PIXELS, "abs": 1e-6})


def moved(result: dict[str, Any], kept: str) -> torch.Tensor:
    """How far training moved each weight. Single ones differ more: Adam makes a step of a gradient that is rounding."""
    return torch.cat([(a - b).flatten().double() for a, b in zip(result[kept], result["before"], strict=True)])


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("case", EVALUATED)
def test_two_processes_evaluate_as_one(results, kind, case):
    one, two = results["one"][case]["samples"], results[kind][case]["samples"]
    assert len(one) == len(two) == 4
    for a, b in zip(one, two, strict=True):
        assert a | {"scores": None} == b | {"scores": None}
        assert b["scores"]["brightness"]["score"] == pytest.approx(a["scores"]["brightness"]["score"], abs=1e-3)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_charged_as_one(results, kind, case):
    assert results[kind][case]["meter"] == results["one"][case]["meter"]


@pytest.mark.parametrize("kind", ["one", "ddp", "fsdp"])
@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_resumes_bit_for_bit(results, kind, case):
    assert results[kind][case]["resumed"]


@pytest.mark.parametrize("case", CASES)
def test_gradients_lie_in_the_buckets_that_are_sent(results, case):
    assert results["ddp"][case]["bucket_views"] is True


@pytest.mark.parametrize("kind", ["one", "ddp", "fsdp"])
def test_no_model_outlives_its_job(results, kind):
    assert results[kind]["alive"] == 0


def test_the_comparison_would_notice_a_rank_that_draws_the_same_noise(results):
    """The tolerance is far below what one wrong row changes."""
    whole, micro = results["one"]["sft"], results["one"]["sft-micro"]  # batches of 4 and of 7
    assert abs(whole["logs"][0]["loss"] / micro["logs"][0]["loss"] - 1) > 1000 * ROUNDING


@pytest.mark.parametrize("name", ["reward", "loss", "grad_norm", "kl"])
def test_the_comparison_would_notice_other_weights(results, name):
    """Flow-GRPO from the weights that it is given, and from those after one step of SFT."""
    plain, later = results["one"]["grpo-uneven"]["logs"][0], results["one"]["stages"]["logs"][0]
    assert later[name] != near(name, plain[name], images=True)
