"""The files of the reference experiments hold what they say: every method, its subsets, seeds, default rates."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import registry
from bench.experiment.config import ExperimentConfig, method_config, read_experiment
from bench.experiment.recipe import recipe

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def read(name: str) -> ExperimentConfig:
    return read_experiment(EXPERIMENTS / f"{name}.toml", {})


@pytest.mark.parametrize("name", ["embedded", "embedded_main", "embedded_steps", "embedded_ablation"])
def test_every_row_can_be_made_at_its_default_rate_and_has_three_seeds(name: str) -> None:
    """Nothing was tuned on this base yet, and what was tuned on an earlier one met prompts that are tested now."""
    config = read(name)
    assert config.name == name and len(config.seeds) >= 3 and config.tuned is None
    assert {config.backbone, config.corpus, config.suite} == {"tiny-sd3", "world", "embedded"}
    for row in config.methods:
        for stage in recipe(config, row, "embedded").stages:
            assert stage.config.lr == method_config(stage.method, "embedded", {}).lr


def test_the_main_comparison_has_every_method_on_three_subsets_at_equal_flops() -> None:
    config = read("embedded")
    assert {config.method_of(name) for name in config.trained} == set(registry.BUILT_IN["methods"])
    assert "soar+flow_grpo" in config.methods and config.split_of("soar+flow_grpo") == (0.5, 0.5)
    assert config.subsets == ("high_aesthetic", "high_clipscore", "random") and config.budget.startswith("flops=")


def test_variants_have_their_released_settings() -> None:
    """docs/protocol.md names them."""
    config = read("embedded")
    fast, guard = (recipe(config, f"flow_grpo_{name}", "embedded").stages[0].config for name in ("fast", "guard"))
    assert (fast.window, fast.noise_level, fast.clip_range, fast.kl_weight) == (2, 0.8, 1e-5, 0.0)
    assert (guard.guard, guard.clip_range, guard.kl_weight) == (True, 2e-6, 0.0)


def test_the_whole_corpus_is_trained_on_at_equal_flops_and_at_equal_steps() -> None:
    flops, steps = read("embedded_main"), read("embedded_ablation")
    assert flops.subsets == steps.subsets == ("all",) and {"sft", "soar"} <= set(steps.methods)
    assert flops.methods == ("sft", "soar") and flops.budget == read("embedded").budget


def test_the_ablation_is_table_3_and_the_weightings() -> None:
    config = read("embedded_ablation")
    rows = {row: recipe(config, row, "embedded").stages[0].config for row in config.methods if row != "sft"}
    assert rows["soar"].aux_weighting == "inherited" and rows["soar_sde"].sde_branches == 1
    assert rows["soar_fresh"].fresh_noise and not rows["soar"].fresh_noise
    assert (rows["soar"].guidance_scale, rows["soar_unguided"].guidance_scale) == (4.5, 1.0)
    assert {config.aux_weighting for config in rows.values()} == {"inherited", "sigma_squared", "clipped", "mid"}
    assert not config.budget.startswith("flops=") and read("embedded_steps").budget.startswith("steps=")
