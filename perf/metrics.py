"""How fast each metric scores. ``python perf/metrics.py [NAME]... [--networks] [--cpu-time] [--json]``.

Two tables, one of what was measured and one that holds on every machine:

- pictures a second of every registered metric through ``Metric.score``, with all that surrounds the network. A metric
  whose models are in the cache folder (``BENCH_CACHE``) or named by ``BENCH_ASSET_<NAME>`` is measured with them. Other
  models are replaced by the tests' tiny ones in the real format (``tests/support``): those rows are marked, and show
  what preparing pictures costs and not what the real model costs. LPIPS' stand-in has the real size;
- FLOPs a picture of the networks at their real size, counted on the meta device, which needs no weights.
  ``--networks`` also runs them with random weights, which cost what real ones cost: pictures a second of the network
  alone, in float32 without TF32.

Every turn of every metric scores other pictures, since some remember what they have seen: GenEval's four share what was
found in a picture, so that all of them together cost about as much as one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from common import Figure
from torch import Tensor, nn

WORLD, PAPER = 64, 512
"""Sides of the embedded world's pictures, the only ones that its own metrics take, and of the paper's, in pixels."""
GROUP = 5
"""Pictures that a metric of a prompt's pictures is given together: the paper's DrawBench."""
REAL_SIZE = frozenset({"lpips_alexnet", "lpips_heads"})
"""Assets whose stand-ins have random weights in the real number."""

# -- pictures and models ----------------------------------------------------------------------------------------------


def pictures(name: str, count: int, side: int, turn: int) -> list[np.ndarray]:
    """Scenes of the embedded world, uint8 (side, side, 3), enlarged without smoothing; others for every turn."""
    from bench.rng import numpy_generator
    from data_curation.world import scene
    from data_curation.world import vocabulary as V
    from data_curation.world.render import render

    rng = numpy_generator(6, turn, side, f"perf of {name}")
    prompts = [scene.all_prompts(V.TASKS[i % len(V.TASKS)]) for i in range(count)]
    small = [render(scene.compose(those[int(rng.integers(len(those)))], rng, style=0.7)) for those in prompts]
    return [np.repeat(np.repeat(one, side // one.shape[0], 0), side // one.shape[1], 1) for one in small]


def prompts(count: int, metric: Any) -> list[Any]:
    """Prompts with the facts that the metric looks at; one for all pictures where it compares them."""
    from bench.suite import Prompt

    thing = "circle" if _of_the_world(metric.name) else "person"
    facts = {"word": "stop", "include": [{"class": thing, "count": 1, "color": "red"}], "exclude": []}
    texts = [f'{caption} and a sign "stop"' for caption in common.captions(1 if metric.per_prompt else count)]
    made = [Prompt(f"{i:05d}", text, "single_object", facts) for i, text in enumerate(texts)]
    return made * count if metric.per_prompt else made


def _of_the_world(name: str) -> bool:
    return name.startswith("world_")


def equip(names: Sequence[str], folder: Path) -> set[str]:
    """Give every absent asset its stand-in, through the environment. Returns the assets that are stood in for."""
    from bench import assets

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    from stand_ins import stand_ins

    makers, replaced = stand_ins(folder, common.WORDS), set()
    for name in names:
        variable = f"BENCH_ASSET_{name.upper()}"
        if not os.environ.get(variable) and assets.state(name, assets.cache_folder(), hashed=False) == "present":
            continue
        if not os.environ.get(variable) and name in makers:
            os.environ[variable] = str(makers[name]())
        replaced.add(name)
    return replaced


# -- what is measured -------------------------------------------------------------------------------------------------


def speeds(
    name: str, replaced: set[str], count: int, repeats: int, device: torch.device, *, cpu_time: bool
) -> Iterator[Figure]:
    """Pictures a second of a metric at each size. Raises BenchError where something that it needs is not there."""
    from bench import registry

    metric = registry.load("metrics", name)()
    metric.prepare()
    count = GROUP if metric.per_prompt else count
    words = prompts(count, metric)
    absent = replaced & set(metric.assets)
    tiny = "" if not absent else ", random weights" if absent <= REAL_SIZE else ", tiny stand-in"
    for side in (WORLD,) if _of_the_world(name) else (WORLD, PAPER):
        turns = iter([pictures(name, count, side, turn) for turn in range(repeats + 1)])
        seconds = common.alternate(
            {name: lambda turns=turns: metric.score(next(turns), words)}, repeats, device, cpu_time=cpu_time
        )
        yield Figure(f"{name}, {side} px{tiny}", count / seconds[name], "pictures/s")
    metric.release()


class _Pair(nn.Module):
    """ImageReward's encoders: the text's first token, which has looked at the picture."""

    def __init__(self) -> None:
        from transformers import BlipTextConfig, BlipVisionConfig, BlipVisionModel
        from transformers.models.blip.modeling_blip_text import BlipTextModel

        super().__init__()
        sizes = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16)
        self.vision: Any = BlipVisionModel(BlipVisionConfig(image_size=224, patch_size=16, **sizes))
        reader = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
        self.text: Any = BlipTextModel(
            BlipTextConfig(vocab_size=30524, encoder_hidden_size=1024, is_decoder=True, **reader),
            add_pooling_layer=False,
        )

    def forward(self, picture: Tensor) -> Tensor:
        seen = self.vision(pixel_values=picture).last_hidden_state
        words = torch.zeros(len(picture), 35, dtype=torch.long, device=picture.device)
        mask = torch.zeros(len(picture), 1, 1, 35, device=picture.device)  # added to the weights: no word is hidden
        return self.text(input_ids=words, attention_mask=mask, encoder_hidden_states=seen).last_hidden_state[:, 0]


def _clip_tower(**sizes: int) -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(CLIPVisionConfig(image_size=224, patch_size=14, **sizes))


def _clip_l() -> nn.Module:
    sizes = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16)
    return _clip_tower(projection_dim=768, **sizes)


def _clip_h() -> nn.Module:
    sizes = dict(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16)
    return _clip_tower(projection_dim=1024, **sizes)


def _mask2former() -> nn.Module:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    swin = SwinConfig(
        image_size=224,
        embed_dim=96,
        depths=[2, 2, 18, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(
            backbone_config=swin,
            num_queries=100,
            num_labels=80,
            encoder_feedforward_dim=1024,
            dim_feedforward=2048,
            encoder_layers=6,
            decoder_layers=10,
        )
    )


def _alexnet() -> nn.Module:
    from torchvision.models import alexnet

    return alexnet().features[:12]


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "CLIP ViT-L/14 (clipscore, aesthetic, vendi, GenEval's colours)": (_clip_l, 224),
    "CLIP ViT-H/14 (pickscore, hpsv2)": (_clip_h, 224),
    "BLIP ViT-L/16 with BERT on 35 tokens (imagereward)": (_Pair, 224),
    "Mask2Former Swin-S at 800 px (geneval)": (_mask2former, 800),
    "AlexNet at 512 px (lpips_diversity)": (_alexnet, 512),
}
"""What scores a picture → its network, and the side of the picture that it is given. Texts of the CLIPs are embedded
once for all pictures of a prompt and not counted."""


def flops(what: str) -> int:
    """FLOPs of a network of the real size for one picture: products and convolutions."""
    from bench.flops import count

    build, side = NETWORKS[what]
    with torch.device("meta"):
        network = build().eval().to("meta")  # transformers keeps a tensor of Swin's elsewhere
        picture = torch.empty(1, 3, side, side)
    with torch.no_grad():
        return count(lambda: network(picture))


def network_speed(what: str, batch: int, repeats: int, device: torch.device, *, cpu_time: bool) -> float:
    """Pictures a second of a network of the real size with random weights, in float32 without TF32."""
    from benchmarks.inference import exact

    build, side = NETWORKS[what]
    with torch.device(device):
        network, picture = build().eval(), torch.rand(batch, 3, side, side)
    with torch.no_grad(), exact():
        return batch / common.alternate({what: lambda: network(picture)}, repeats, device, cpu_time=cpu_time)[what]


def main() -> None:
    """Measure and tell."""
    from bench import registry
    from bench.backbone.loader import quiet
    from bench.errors import BenchError

    quiet()
    parser = common.parser(__doc__, models=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help="metrics to measure; default: all")
    parser.add_argument("--pictures", type=int, default=8, help="scored together")
    parser.add_argument("--networks", action="store_true", help="also run the networks at their real size")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds: for a machine with other work")
    arguments: argparse.Namespace = parser.parse_args()
    device = common.start(arguments)
    clock = dict(cpu_time=arguments.cpu_time)
    figures, notes = [], []
    names = arguments.names or list(registry.table("metrics"))
    with tempfile.TemporaryDirectory() as folder:
        wanted = {asset for name in names for asset in registry.load("metrics", name).assets}
        replaced = equip(sorted(wanted), Path(folder))
        for name in names:
            try:
                figures += speeds(name, replaced, arguments.pictures, arguments.repeats, device, **clock)
            except BenchError as error:
                notes.append(f"{name}: not measured: {error}")
    for what in NETWORKS:
        figures.append(Figure(what, flops(what) / 1e9, "GFLOP/picture"))
        if arguments.networks:
            speed = network_speed(what, 1 if device.type == "cpu" else 32, arguments.repeats, device, **clock)
            figures.append(Figure(f"{what.partition(' (')[0]}, random weights", speed, "pictures/s"))
    if replaced:
        notes.append(
            "tiny stand-in: models of the tests in place of the real ones, so the figure is what preparing pictures "
            f"and the code around the network cost; stood in for: {', '.join(sorted(replaced))}"
        )
    if arguments.cpu_time:
        notes.append("seconds are the CPU's, of all threads together")
    common.tell("metrics", figures, notes, arguments, device)


if __name__ == "__main__":
    main()
