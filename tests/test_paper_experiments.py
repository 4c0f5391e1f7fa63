"""The paper's experiment files, shortened, on tiny weights in SD3.5-Medium's layout and a corpus in the release's."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import fakes
import numpy as np
import pipelines
import pytest
from click.testing import CliRunner
from PIL import Image

from bench import registry
from bench.cli import main
from bench.suite import Prompt, PromptSet, Sampler, Suite

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
ROWS = {
    "main": ("sft", "soar"),
    "ablation": ("soar", "soar_sde", "soar_fresh"),
    "dynamics_aesthetic": ("sft", "soar", "flow_grpo"),
    "dynamics_clipscore": ("sft", "soar", "flow_grpo"),
    "qualitative": ("sft", "soar"),
}
SUBSETS = {
    "dynamics_aesthetic": ("high_aesthetic",),
    "dynamics_clipscore": ("high_clipscore",),
    "qualitative": ("high_aesthetic", "posters", "web_ui"),
}
SMALLER = {
    "sft": ("sft.batch_size=3",),
    "soar": ("soar.batch_size=3", "soar.aux_points=2"),
    "flow_grpo": ("flow_grpo.prompts=2", "flow_grpo.group_size=2", "flow_grpo.sampling_steps=2"),
    "high_aesthetic": ("high_aesthetic.threshold=0",),
    "high_clipscore": ("high_clipscore.threshold=0",),
}
CAPTIONS = ("a red circle", "a poster of a blue square", "a web page with a red square")
SIZES = ((32, 32), (48, 16))  # of buckets at 32 px


def few() -> Suite:
    """Two prompts, with mean brightness in the place of both metrics."""
    prompts = (Prompt("0", "a red circle"), Prompt("1", "a blue square"))
    return Suite(
        name="few",
        version=1,
        prompt_sets=(PromptSet("few", prompts, 1, ("brightness",)),),
        sampler=Sampler(steps=2, guidance_scale=4.5, resolution=32),
        seed=7,
        roles={"aesthetic": "brightness", "clipscore": "brightness"},
        notice="Pictures of noise.",
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``backbone`` and ``corpus``."""
    folder = tmp_path_factory.mktemp("paper")
    pipelines.make_sd35(folder / "backbone", size="medium")
    images, lines = folder / "corpus" / "images", []
    images.mkdir(parents=True)
    noise = np.random.default_rng(0)
    for i in range(12):
        (width, height), file = SIZES[i % 2], io.BytesIO()
        Image.fromarray(noise.integers(0, 256, (height, width, 3), np.uint8)).save(file, "JPEG")
        name, text = hashlib.md5(file.getvalue()).hexdigest(), CAPTIONS[i % 3]
        (images / f"{name}.jpg").write_bytes(file.getvalue())
        caption = json.dumps({"long": text, "short": "a circle"}) if i % 4 == 0 else text
        lines.append(json.dumps({"md5": name, "caption_en": caption, "bw": width, "bh": height}))
    (folder / "corpus" / "train.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("name", ROWS)
def test_the_paper_s_experiments_run_shortened(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, entry in (("suites", {"few": f"{__name__}:few"}), ("metrics", {"brightness": "fakes:Brightness"})):
        monkeypatch.setitem(registry.BUILT_IN, kind, registry.BUILT_IN[kind] | entry)
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda kind, key: few if key == "few" else load(kind, key))
    registry.table.cache_clear()
    subsets = SUBSETS.get(name, ("all",))
    sets = [part for key in (*ROWS[name], *subsets) for part in SMALLER.get(key, ())]
    command = [
        "run", str(EXPERIMENTS / f"paper_{name}.toml"), "--budget", "updates=2", "--evaluations", "1", "--context", "",
        "--backbone", str(place / "backbone"), "--corpus", str(place / "corpus"), "--suite", "few",
        "--resolution", "32", "--max-sequence-length", "12", "--dtype", "float32", "--micro-batch", "2",
        *(part for setting in sets for part in ("--set", setting)),
        *(part for folder in ("cache", "runs", "reports") for part in (f"--{folder}", str(place / folder))),
    ]  # fmt: skip
    try:
        result = CliRunner().invoke(main, command)
    finally:
        registry.table.cache_clear()
    assert result.exit_code == 0, result.output
    runs = place / "runs" / f"paper_{name}"
    for row in ROWS[name]:
        for subset in subsets:
            job = runs / f"{row}--{subset}--s0"
            assert json.loads((job / "status.json").read_text())["status"] == "finished"
            spent = [json.loads(line) for line in (job / "meter.jsonl").read_text().splitlines()]
            assert spent[-1]["updates"] == 2
            (evaluation,) = (job / "evaluations").iterdir()
            assert len((evaluation / "samples.jsonl").read_text().splitlines()) == 2
    assert (runs / "base" / "evaluations" / "0" / "samples.jsonl").exists()
    assert (place / "reports" / f"paper_{name}" / "index.html").exists()


def test_brightness_is_the_metric_of_the_small_suite() -> None:
    assert {metric for metric, _ in few().metrics()} == {fakes.Brightness.name}
