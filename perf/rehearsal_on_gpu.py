"""Rehearsals against a real GPU: ``python perf/rehearsal_on_gpu.py [--json FILE]``.

It takes at most ten minutes on one CUDA GPU. Four things are done, and each is told with its figures:

1. SFT, SOAR and Flow-GRPO train SD3.5-Medium with random weights at full size in bfloat16, two steps each. The peak
   of torch's allocator in the second step is held against the rehearsal's (target: within 5 %).
2. What the allocator reserves beyond what it gave out: the fragmentation, for which ``bench/rehearsal/fit.py`` has 5 %.
3. What the device lost beyond the allocator: the context and workspaces, for which it has 1 GiB.
4. A group of one process over NCCL: a sum, and FSDP2's wrapping.

Without CUDA a stand-in does the same: a transformer of a few thousand weights in float32 on the CPU, whose live
storages are counted in place of the allocator's (``LiveBytes``), and no NCCL. Its figures say nothing about a GPU.
They show that the rehearsal and a real job do the same. The rehearsal alone rounds each storage up to 512 bytes, which
is some per cent of so small a job.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import common
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

METHODS = ("sft", "soar", "flow_grpo")
SMALL = ("flow_grpo.prompts=2", "flow_grpo.group_size=4")
"""Flow-GRPO's epoch, so that it takes a minute. No memory hangs on it but that of the paths."""
GIB, MIB = 2**30, 2**20


class RandomPipeline:
    """Made by ``pipeline``: a ``Backbone`` of an architecture with random weights on a real device."""


def pipeline(architecture: Any, engine: Any) -> Any:
    """A backbone with random weights that lie in no file."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

    from bench.backbone.loader import Backbone, BackboneSpec

    class Random(Backbone, RandomPipeline):
        def __init__(self) -> None:
            self.engine = engine
            self.spec = BackboneSpec("random", "", 0, architecture.resolution, architecture.scale)
            self._decoder: Any = None

        def _config(self, part: str) -> dict[str, Any]:
            return dict(getattr(architecture, part))

        def transformer(self) -> Any:
            torch.manual_seed(0)
            with engine.device:
                return SD3Transformer2DModel.from_config(architecture.transformer).eval()

        def scheduler(self) -> Any:
            return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)

        @contextmanager
        def vae_loaded(self) -> Iterator[Any]:
            if self._decoder is None:
                with engine.device:
                    self._decoder = AutoencoderKL.from_config(architecture.vae).eval().requires_grad_(False)
            yield self._decoder

    return Random()


def measured(config: Any, name: str, architecture: Any, engine: Any) -> dict[str, float]:
    """Two steps of a method: the second one's peak, and what is held before it, in bytes."""
    from bench.experiment.prompt_file import suite_of
    from bench.experiment.recipe import recipe
    from bench.experiment.session import Session, follow
    from bench.machine.engine import Compute
    from bench.rehearsal.stand_ins import StatedReward, condition, training_data
    from bench.training.average import BudgetAverage

    stage = recipe(config, name, architecture.scale).stages[0]
    compute = Compute(
        micro_batch=config.micro_batch,
        gradient_checkpointing=config.gradient_checkpointing,
        evaluation_batch=config.evaluation_batch,  # rows of a forward without a graph
    )
    backbone = pipeline(architecture, engine)
    session = Session.of(
        backbone=backbone,
        null=condition(architecture, 1),
        data=training_data(architecture).only_what(stage.needs),
        seed=0,
        reward=StatedReward(),
        engine=engine,
        compute=compute,
    )
    method = stage.make()
    if stage.needs.reward or stage.needs.differentiable_reward:
        with backbone.vae_loaded():
            pass  # it stays, as for a job with a reward
    method.setup(session.job)
    half_life = config.half_life(suite_of(config))
    average = BudgetAverage(session.job.parameters, half_life) if half_life else None

    def step() -> None:
        method.step(session.job)
        follow(method, session.job, average, half_life)
        engine.settle()
        session.ledger.finish_step(0.0, 0)

    try:
        step()
        start = time.monotonic()
        averages = average.values if average else []
        out = _on_gpu(step, engine) if engine.device.type == "cuda" else _on_cpu(step, session, backbone, averages)
        out["seconds"] = time.monotonic() - start
    finally:
        session.close()
    return out


def _on_gpu(step: Any, engine: Any) -> dict[str, float]:
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    peak, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    free, total = torch.cuda.mem_get_info(engine.device)
    outside = total - free - torch.cuda.memory_reserved()
    return {"peak": peak, "before": before, "reserved": reserved, "outside": outside}


def _on_cpu(step: Any, session: Any, backbone: Any, averages: list[torch.Tensor]) -> dict[str, float]:
    """Live storages: what lies there before the step, and what the step makes."""
    transformer, policy = session.job.policy.transformer, session.job.policy
    states = [value for state in session.model.learner.optimizer.state.values() for value in state.values()]
    held = [*transformer.parameters(), *transformer.buffers(), *states, *(session.model.learner.ema or []), *averages]
    held += [policy.null.prompt_embeds, policy.null.pooled_prompt_embeds]
    if backbone._decoder is not None:
        held += backbone._decoder.parameters()
    sizes = {x.untyped_storage()._cdata: x.untyped_storage().nbytes() for x in held if isinstance(x, torch.Tensor)}
    before = sum(sizes.values())
    with common.LiveBytes() as live:
        step()
    return {"peak": before + live.peak, "before": before}


def nccl() -> dict[str, Any]:
    """A group of one process on the GPU: a sum, and a sharded layer's forward and backward."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29533", "RANK": "0", "WORLD_SIZE": "1"}.items():
        os.environ.setdefault(name, value)
    dist.init_process_group("nccl", device_id=torch.device("cuda:0"))
    try:
        held = torch.arange(4, device="cuda")
        dist.all_reduce(held)
        layer = torch.nn.Linear(64, 64, device="cuda")
        fully_shard(layer, mesh=init_device_mesh("cuda", (1,)))
        layer(torch.ones(2, 64, device="cuda")).sum().backward()
        finite = all(bool(torch.isfinite(p.grad.full_tensor()).all()) for p in layer.parameters())
        return {"sum": held.tolist() == [0, 1, 2, 3], "sharded_gradients_finite": finite}
    finally:
        dist.destroy_process_group()


def compared(folder: Path, cache: Path) -> dict[str, Any]:
    """The report: every method's peak by the rehearsal and in truth."""
    from bench.experiment.config import read_experiment
    from bench.machine.engine import Engine
    from bench.plan.architecture import find
    from bench.rehearsal.ask import rehearsed
    from bench.rehearsal.results import setting_of

    full = torch.cuda.is_available()
    device, dtype = ("cuda:0", "bfloat16") if full else ("cpu", "float32")
    source = "stabilityai/stable-diffusion-3.5-medium" if full else str(_small(folder))
    flags: dict[str, Any] = {"methods": METHODS, "backbone": source, "dtype": dtype, "evaluation_batch": 8}
    flags |= {"reward": "brightness"}  # no torch model, so that the stated reward scores on both sides
    flags |= {"resolution": 512, "micro_batch": 4, "gradient_checkpointing": True} if full else {}
    flags |= {} if full else {"resolution": 16, "micro_batch": 2, "evaluation_batch": 4}
    rows = 2 * flags["micro_batch"]
    config = read_experiment(None, flags, (*SMALL, f"sft.batch_size={rows}", f"soar.batch_size={rows}"))
    architecture = find(config, None)
    found = {each.stage: each for each in rehearsed(config, setting_of(config, 1), cache, grid="")}
    benchmark = "rehearsal_on_gpu" if full else "rehearsal_on_gpu-stand-in"
    out: dict[str, Any] = {"benchmark": benchmark, "machine": common.machine(torch.device(device)), "methods": {}}
    unit, word = (GIB, "GiB") if full else (MIB, "MiB")
    for name in METHODS:
        step = found[name].part("step")
        assert step is not None, found[name].problem
        engine = Engine(device=device, dtype=getattr(torch, dtype))
        real = measured(config, name, architecture, engine)
        error = step.peak / real["peak"] - 1
        out["methods"][name] = real | {"rehearsed": step.peak, "error": error, "within_5_percent": abs(error) <= 0.05}
        both = f"rehearsed {step.peak / unit:8.3f} {word}, in truth {real['peak'] / unit:8.3f}"
        print(f"{name:>10}: {both} ({error:+.1%})", flush=True)
        gc.collect()
    if full:
        out["nccl"] = nccl()
    return out


def _small(folder: Path) -> Path:
    from bench.check.world import TRANSFORMER, VAE

    roomy = TRANSFORMER | {"pos_embed_max_size": 32}  # the suite's pictures are larger than those that train
    for part, values in (("transformer", roomy), ("vae", VAE)):
        (folder / "small" / part).mkdir(parents=True)
        (folder / "small" / part / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return folder / "small"


def main() -> None:
    """Compare, print, write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=ROOT / "cache")
    parser.add_argument("--json", type=Path, help="file to write")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA here: a few thousand weights on the CPU stand in; no figure is a GPU's")
    with tempfile.TemporaryDirectory() as folder:
        out = compared(Path(folder), arguments.cache)
    if arguments.json:
        arguments.json.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
