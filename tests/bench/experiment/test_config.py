"""Configuration: defaults, files, flags and --set, and one line for everything that is mistyped."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import registry
from bench.errors import BenchError
from bench.experiment.config import ExperimentConfig, method_config, read_experiment, rows_at_once


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "experiment.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_the_default_experiment_is_the_readmes_first_command():
    config = read_experiment(None, {"methods": ("sft", "soar", "flow_grpo"), "subsets": ("high_aesthetic",)})
    assert config == ExperimentConfig()
    assert config.run_name == "high_aesthetic"


def test_micro_batches_of_a_full_size_backbone_are_small_unless_the_user_says_otherwise():
    assert rows_at_once(ExperimentConfig(), "embedded", "sft") is None
    assert rows_at_once(ExperimentConfig(), "full", "sft") == 4
    for scale in ("embedded", "full"):
        assert rows_at_once(ExperimentConfig(micro_batch=9), scale, "sft") == 9


def test_micro_batches_that_auto_chose_are_those_of_their_rows():
    asked = ExperimentConfig(micro_batch="auto")
    assert rows_at_once(asked, "embedded", "sft") is None and rows_at_once(asked, "full", "sft") == 4
    chosen = ExperimentConfig(micro_batch="auto", micro_batches={"sft": 7})
    assert rows_at_once(chosen, "full", "sft") == 7 and rows_at_once(chosen, "full", "soar") == 4


@pytest.mark.parametrize("value", [0, -1, 65_537, True, 1.5, "four", "4"])
def test_a_micro_batch_is_a_number_of_rows_or_auto(value):
    with pytest.raises(BenchError, match="micro_batch: a number of rows is from 1 to 65,536, or auto"):
        read_experiment(None, {"micro_batch": value})


def test_flags_go_over_the_file_and_unset_flags_do_not(tmp_path):
    path = written(tmp_path, 'methods = ["sft"]\nseeds = [3]\nbudget = "steps=5"\n[method.sft]\nlr = 1e-4\n')
    config = read_experiment(path, {"seeds": (1, 2), "budget": None}, ["sft.batch_size=8"])
    assert (config.methods, config.seeds, config.budget) == (("sft",), (1, 2), "steps=5")
    assert config.method == {"sft": {"lr": 1e-4, "batch_size": 8}}


@pytest.mark.parametrize(
    ("flags", "setting", "named"),
    [
        ({}, "sft.batch_size=true", "SFTConfig: batch_size"),
        ({}, "sft.weight_decay=false", "SFTConfig: weight_decay"),
        ({}, "sft.betas=[false, 0.9]", "SFTConfig: betas"),
        ({"seeds": (True,)}, None, "experiment: seeds"),
        ({"evaluations": True}, None, "experiment: evaluations"),
        ({}, "high_aesthetic.quantile=true", "experiment: subset"),
    ],
)
def test_true_and_false_are_no_numbers(flags, setting, named):
    with pytest.raises(BenchError, match=f"{named}: true and false are no numbers"):
        config = read_experiment(None, {"methods": ("sft",), "plugins": ()} | flags, [setting] if setting else [])
        method_config(registry.load("methods", "sft"), "full", config.method["sft"])


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("soar.aux_points=2", 2),
        ("soar.aux_weight=0.5", 0.5),
        ("soar.fresh_noise=true", True),
        ('soar.sde_kind="sde"', "sde"),
        ("soar.sde_kind=sde", "sde"),
        ("soar.betas=[0.9, 0.95]", [0.9, 0.95]),
        ("soar.note=a=b", "a=b"),
    ],
)
def test_set_reads_values_as_toml_or_as_plain_text(setting, expected):
    (value,) = read_experiment(None, {}, [setting]).method["soar"].values()
    assert value == expected and type(value) is type(expected)


def test_set_reaches_subsets_too():
    config = read_experiment(None, {}, ["high_aesthetic.quantile=0.1", "sft.lr=1.0"])
    assert config.subset["high_aesthetic"].quantile == 0.1 and config.method == {"sft": {"lr": 1.0}}


def test_the_last_setting_wins():
    assert read_experiment(None, {}, ["sft.lr=1.0", "sft.lr=2.0"]).method == {"sft": {"lr": 2.0}}


@pytest.mark.parametrize("setting", ["soar.aux_points", "aux_points=2", "=2", "soar.=2", ""])
def test_a_setting_without_its_parts_is_refused(setting):
    with pytest.raises(BenchError, match=r"--set takes name\.key=value"):
        read_experiment(None, {}, [setting])


@pytest.mark.parametrize(
    ("flags", "settings", "message"),
    [
        ({"methods": ("soer",)}, [], "unknown method 'soer'; did you mean 'soar'"),
        ({"subsets": ("high_aesthetics",)}, [], "unknown subset 'high_aesthetics'; did you mean 'high_aesthetic'"),
        ({"suite": "embeded"}, [], "unknown suite 'embeded'; did you mean 'embedded'"),
        ({"budget": "flop=3"}, [], "did you mean 'flops'"),
        ({}, ["sotf.lr=1"], "unknown method in settings 'sotf'"),
        ({"methods": ("sft",)}, ["soar.lr=1"], "unknown method in settings 'soar'"),
        ({"subsets": ("all",)}, ["high_aesthetic.quantile=0.1"], "unknown subset in settings 'high_aesthetic'"),
        ({}, ["high_aesthetic.quantile=1.5"], "quantile"),
        ({}, ["high_aesthetic.quantil=0.5"], "quantil"),
        ({"methods": ("sft", "sft")}, [], "methods names something twice"),
        ({"context": ("tiny-sd3", "tiny-sd3")}, [], "context names something twice"),
        ({"context": ("",)}, [], "context"),
        ({"micro_batches": {"nosuch": 4}}, [], "unknown micro-batch in settings 'nosuch'"),
        ({}, ["high_aesthetic.quantile=0.5", "high_aesthetic.threshold=1"], "by its threshold or by its quantile"),
        ({"subsets": ("all",)}, ["all.quantile=0.5"], "all keeps all pairs that meet it; it has no use for a quantile"),
        (
            {"subsets": ("posters",)},
            ["posters.threshold=5"],
            "posters asks for no score; it has no use for a threshold",
        ),
        ({"subsets": ("random",)}, ["random.threshold=0"], "random asks for no score"),
        ({"seeds": (1, 1)}, [], "seeds names something twice"),
        ({"methods": ()}, [], "methods"),
        ({"seeds": ()}, [], "seeds"),
        ({"evaluations": 0}, [], "evaluations"),
        ({"evaluate_at": [0.5, 1]}, [], "evaluate_at"),
        ({"evaluate_at": [0]}, [], "evaluate_at"),
        ({"name": "a/b"}, [], "name"),
        ({"name": ".."}, [], "name"),
    ],
)
def test_every_mistyped_value_ends_in_one_line(flags, settings, message):
    with pytest.raises(BenchError, match=message) as caught:
        read_experiment(None, flags, settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("methods = [", r"experiment\.toml is no valid TOML"),
        (b"\xff\xfe", r"experiment\.toml is no valid TOML"),
        ('metods = ["sft"]', "unknown experiment key 'metods'; did you mean 'methods'"),
        ('methods = "sft"', "methods"),
        ('method = "sft"', "method"),
        ("[method]\nsft = 3", "method"),
        ("seeds = [0.5]", "seeds"),
    ],
)
def test_a_damaged_file_ends_in_one_line(tmp_path, content, message):
    with pytest.raises(BenchError, match=message) as caught:
        read_experiment(written(tmp_path, content), {})
    assert "\n" not in str(caught.value)


FILE = """
methods = ["sft", "few", "sft+flow_grpo"]
subsets = ["high_aesthetic", "all"]
[variant.few]
method = "soar"
aux_points = 2
[method.soar]
lr = 1e-5
[method.flow_grpo]
lr = 1e-4
[pipeline."sft+flow_grpo"]
split = [0.7, 0.3]
[subset.high_aesthetic]
quantile = 0.1
"""


def test_flags_choose_among_a_files_rows_and_subsets(tmp_path):
    path = written(tmp_path, FILE)
    few = read_experiment(path, {"methods": ("few",), "subsets": ("all",)})
    assert (few.methods, few.subsets, few.subset, few.pipeline) == (("few",), ("all",), {}, {})
    assert few.overrides_of("few") == {"aux_points": 2, "lr": 1e-5} and set(few.method) == {"soar"}
    two = read_experiment(path, {"methods": ("sft", "sft+flow_grpo")})
    assert two.split_of("sft+flow_grpo") == (0.7, 0.3) and (set(two.method), two.variant) == ({"flow_grpo"}, {})
    assert set(two.subset) == {"high_aesthetic"}
    one = read_experiment(written(tmp_path, "[method.soar]\nlr = 1e-5"), {"methods": ("sft",)})
    assert one.method == {} and one.subsets == ("high_aesthetic",)


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (FILE + "[variant.fewer]\nmethod = 'soar'", [], "no row of methods trains with the variant 'fewer'"),
        (FILE + "[method.diffusion_nft]\nlr = 1", [], "unknown method in settings 'diffusion_nft'"),
        (FILE, ["flow_grpo.lr=1"], "unknown method in settings 'flow_grpo'"),
    ],
)
def test_what_has_no_place_in_the_file_or_is_set_for_what_is_left_out_is_refused(tmp_path, content, settings, message):
    with pytest.raises(BenchError, match=message):
        read_experiment(written(tmp_path, content), {"methods": ("sft",)}, settings)


def test_a_missing_file_ends_in_one_line(tmp_path):
    with pytest.raises(BenchError, match=r"experiment file .*none\.toml is not there"):
        read_experiment(tmp_path / "none.toml", {})


def test_further_evaluations_stand_where_they_are_asked_for():
    config = ExperimentConfig(evaluations=2, evaluate_at=(0.25, 0.05, 0.5, 0.05))
    assert config.fractions == (0.05, 0.25, 0.5, 1.0)
    assert ExperimentConfig(evaluations=1, evaluate_at=(0.9999999,)).fractions == (1.0,)


@pytest.mark.parametrize("evaluations", [1, 3, 7])
def test_evaluations_stand_at_equal_shares_up_to_all_of_the_budget(evaluations):
    fractions = ExperimentConfig(evaluations=evaluations).fractions
    assert fractions[-1] == 1.0
    assert fractions == pytest.approx([(i + 1) / evaluations for i in range(evaluations)], abs=1e-6)


def test_a_methods_configuration_is_default_then_embedded_then_the_users():
    sft = registry.load("methods", "sft")
    assert method_config(sft, "full", {}) == sft.Config()
    assert method_config(sft, "embedded", {}).lr == sft.embedded["lr"] != sft.Config().lr
    assert method_config(sft, "embedded", {"lr": 0.5}).lr == 0.5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"aux_pointz": 3}, "unknown configuration key 'aux_pointz'; did you mean 'aux_points'"),
        ({"aux_points": "many"}, "aux_points"),
        ({"aux_points": 0}, "aux_points"),
        ({"sde_kind": "ode"}, "sde_kind"),
    ],
)
def test_a_mistyped_setting_of_a_method_ends_in_one_line(overrides, message):
    with pytest.raises(BenchError, match=message) as caught:
        method_config(registry.load("methods", "soar"), "full", overrides)
    assert "\n" not in str(caught.value)


def test_configurations_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        ExperimentConfig().seeds = (1,)
    with pytest.raises(ValueError, match="frozen"):
        registry.load("methods", "sft").Config().lr = 1.0
