"""What measures of exposure bias cost an evaluation. ``python perf/probes.py [--cpu-time] [--json] [--machine WORDS]``.

The pictures of the embedded suite are drawn, decoded and saved by the shipped base. Its probes are read on as many
held-out pairs, and on as many training pairs, as an evaluation affords (a quarter of the forwards). Pairs are random
latents: what they show changes no time.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import common
import torch
from common import Figure

from bench.backbone.condition import TextCondition
from bench.backbone.loader import Backbone
from bench.backbone.policy import Policy
from bench.probes.routes import NoisyPairs
from bench.suite import Suite


class RandomPairs:
    """Latents of noise with the empty prompt."""

    def __init__(self, count: int, shape: tuple[int, ...], text: TextCondition) -> None:
        self.identity, self._text = "noise", text
        self._latents = torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self._latents)

    def pairs(self, positions: Sequence[int]) -> NoisyPairs:
        return NoisyPairs(self._latents[list(positions)], self._text.expand(len(positions)), tuple(positions), 0)


def evaluation(
    backbone: Backbone, suite: Suite, folder: Path, repeats: int, device: torch.device, *, cpu_time: bool = False
) -> list[Figure]:
    """Seconds of drawing and of probes, and their forwards."""
    from bench.evaluation import Conditions, PolicyPainter, draw_suite
    from bench.experiment.recorded import untrained_header
    from bench.machine.engine import Engine
    from bench.probes.reader import affordable, routine_probing
    from bench.probes.records import probe_pairs

    null, engine, turn = backbone.encode_prompts([""]), Engine(), itertools.count()
    policy = Policy(backbone.transformer(), backbone.scheduler(), null, engine)
    painter = PolicyPainter(policy, backbone, suite.sampler, Conditions(backbone, suite.texts()))
    probing = routine_probing(suite, policy.shift, print)
    pairs, training = (RandomPairs(affordable(suite, probing), backbone.latent_shape, null) for _ in range(2))
    with backbone.vae_loaded():
        seconds = common.alternate(
            {
                "pictures": lambda: draw_suite(
                    suite, painter, folder / f"{next(turn)}", header=untrained_header(), engine=engine, batch=48
                ),
                "probes": lambda: probe_pairs(
                    policy, pairs, probing, folder / f"p{next(turn)}", engine=engine, training=training, batch=48
                ),
            },
            repeats,
            device,
            cpu_time=cpu_time,
        )
    figures = [Figure(f"{suite.images()} pictures drawn", seconds["pictures"], "s")]
    figures.append(Figure(f"probes on {len(pairs)} pairs", seconds["probes"], "s"))
    return [*figures, Figure("probes / pictures", seconds["probes"] / seconds["pictures"], "", "at most 0.25")]


def main() -> None:
    """Measure and tell."""
    from bench import registry
    from bench.backbone import loader

    parser = common.parser(__doc__, models=False)
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds: for a machine with other work")
    arguments = parser.parse_args()
    device = common.start(arguments)
    suite: Suite = registry.load("suites", "embedded")()
    with tempfile.TemporaryDirectory() as folder:
        figures = evaluation(
            loader.find("tiny-sd3"), suite, Path(folder), arguments.repeats, device, cpu_time=arguments.cpu_time
        )
    common.tell("probes", figures, [], arguments, device)


if __name__ == "__main__":
    main()
