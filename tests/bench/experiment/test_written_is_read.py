"""What a configuration accepts, a report reads: names, seeds, shares and budgets over their whole range."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from fake_run import FakeRun

from bench import records, registry
from bench.errors import BenchError
from bench.experiment.config import ExperimentConfig
from bench.experiment.keys import job_keys
from bench.experiment.toml import validated
from bench.machine.bounds import LARGEST_INTEGER, MOST_EVALUATIONS
from bench.records.schema import ExperimentRecord, identity
from bench.report.study import read_job, read_study
from bench.rng import numpy_generator
from bench.training.budget import CURRENCIES, Budget

SEEDS = (0, 1, -1, 7, -(2**31), 2**32, LARGEST_INTEGER, -LARGEST_INTEGER)
NAMES = (
    "sft", "a.t00", "a+b", "a-b", "a-", "-a", "a---b", "s0", "x--s1", "a--b", "café", "日本", "с", "a b", "a_b",
    "A",     "base", "context", "evaluated",
    "context--x", "evaluated--x", "..", ".a", "a/b", "", "a\\b", "a\tb", "\x1b[31m",
    "x" * 120,
)  # fmt: skip


def accepted(**values: object) -> ExperimentConfig | None:
    try:
        config: ExperimentConfig = validated(ExperimentConfig, values, "experiment: ")
    except BenchError:
        return None
    return config


def test_seeds_are_read_back() -> None:
    config = accepted(methods=("sft",), subsets=("all",), seeds=SEEDS)
    assert config is not None
    assert [identity(plan.name) for plan in job_keys(config)] == [("sft", "all", seed) for seed in SEEDS]


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1, 10**400])
def test_a_seed_beyond_64_bits_is_refused(seed: int) -> None:
    assert accepted(seeds=(seed,)) is None


def test_every_name_that_is_accepted_is_read_back() -> None:
    told = []
    for method, subset, seed in itertools.product(NAMES, NAMES, (0, -1)):
        if config := accepted(methods=(method,), subsets=(subset,), seeds=(seed,)):
            (plan,) = job_keys(config)
            told.append((method, subset))
            assert identity(plan.name) == (method, subset, seed)
            assert records.is_name(plan.name)
    assert ("a.t00", "日本") in told and ("a---b", "all") not in told
    assert not [names for names in told if any("--" in name or "/" in name for name in names)]


def test_every_registered_name_is_accepted() -> None:
    assert accepted(methods=tuple(registry.table("methods")), subsets=tuple(registry.table("subsets"))) is not None


def test_a_run_with_negative_seeds_has_a_report(tmp_path: Path) -> None:
    run = FakeRun(tmp_path / "run", per_group=1, repeats=1, signs=1)
    run.base()
    names = [run.job("alpha", 0.1, seed=seed) for seed in (0, -1, -(2**31))]
    assert [job.seed for job in read_study([run.folder]).jobs] == [0, -1, -(2**31)]
    assert read_job(run.folder / names[1]).jobs[0].seed == -1


def test_fractions_are_read_back_and_told_apart(tmp_path: Path) -> None:
    run = FakeRun(tmp_path / "run", per_group=1, repeats=1, signs=1)
    for evaluations in (1, 2, 3, 7, 999, MOST_EVALUATIONS):
        config = accepted(evaluations=evaluations)
        assert config is not None
        text = records.dumps(run.experiment | {"fractions": list(config.fractions)})
        read = ExperimentRecord.model_validate(json.loads(text)).fractions
        assert tuple(read) == config.fractions and read[-1] == 1.0
        assert all(later - earlier > 1e-6 for earlier, later in itertools.pairwise([0.0, *read]))
    assert accepted(evaluations=MOST_EVALUATIONS + 1) is None


def test_a_budget_is_read_back_to_the_last_digit() -> None:
    random = numpy_generator("budgets")
    amounts = [1.0, 1234567.0, 123456789.0, 0.1 + 0.2, 1e9, *(10 ** random.uniform(-3, 9, 200)).tolist()]
    for currency, amount in itertools.product(CURRENCIES, amounts):
        least = 1.0 if currency in ("steps", "updates") else 0.0
        if amount >= least:
            assert Budget.parse(str(Budget(currency, amount))) == Budget(currency, amount)
    assert str(Budget("flops", 7.07e12)) == "flops=7.07e+12"
