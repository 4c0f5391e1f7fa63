"""What the benchmarks share: clocks, the peak of live bytes, a pipeline shrunk from SD3.5-Medium, tables and JSON."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HERE = Path(__file__).parent
WORDS = ("a", "and", "blue", "circle", "green", "big", "red", "small", "square", "triangle")
CLIP_TOKENS = 77


@dataclass
class Figure:
    """One measured number and, if there is one, the target it is held against."""

    what: str
    value: float
    unit: str = ""
    target: str = ""


def speeds(seconds: Mapping[str, float], count: int, unit: str, target: str) -> list[Figure]:
    """How many things a second each side does, and the harness's gain over the reference, compiled too if it ran.

    Args:
        seconds: of one run of each side, as ``alternate`` gives them.
        count: things in a run.
        unit: their name, in plural.
        target: of the gain.
    """
    figures = [Figure("speed, reference", count / seconds["reference"], f"{unit}/s")]
    for side, label in {"harness": "harness", "compiled": "harness with --compile"}.items():
        if side in seconds:
            gain = seconds["reference"] / seconds[side]
            figures.append(Figure(f"speed, {label}", count / seconds[side], f"{unit}/s"))
            figures.append(Figure(f"speed, {label} / reference", gain, "", target))
    return figures


# -- measuring -------------------------------------------------------------------------------------------------------


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def alternate(
    sides: Mapping[str, Callable[[], object]], repeats: int, device: torch.device, *, cpu_time: bool = False
) -> dict[str, float]:
    """Median seconds of each side. They take turns, so that what else the machine does hits all of them alike.

    The first turn of each is not counted: it compiles, tunes and fills pools.

    Args:
        cpu_time: count the CPU seconds of this process (all its threads) instead of the wall clock's.
    """
    clock = time.process_time if cpu_time else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, run in sides.items():
            _wait(device)
            start = clock()
            run()
            _wait(device)
            if turn:
                seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of every storage that an operator makes, for as long as anything holds it: graphs included.

    Storages that were there before (weights, data) are not counted, and neither is a parameter's gradient from the
    moment it lies in ``.grad``: what remains are activations and temporaries. Workspaces inside kernels are not seen.
    """

    def __init__(self, parameters: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._bytes: dict[int, int] = {}  # by address; 0 for what is not counted
        self._hooks = [p.register_post_accumulate_grad_hook(self._release) for p in parameters if p.requires_grad]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for hook in self._hooks:
            hook.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for storage in _storages((args, kwargs)):
            if storage._cdata not in self._bytes:
                self._watch(storage, 0)
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage._cdata not in self._bytes:
                self._watch(storage, storage.nbytes())
        return result

    def _watch(self, storage: torch.UntypedStorage, size: int) -> None:
        self._bytes[storage._cdata] = size
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._drop, storage._cdata)  # a storage keeps its Python object until it is freed

    def _drop(self, key: int) -> None:
        self.live -= self._bytes.pop(key)

    def _release(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        key = parameter.grad.untyped_storage()._cdata
        self.live -= self._bytes.get(key, 0)
        self._bytes[key] = 0


def _storages(tree: Any) -> Iterable[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def peak_activation(run: Callable[[], object], device: torch.device, parameters: Iterable[Tensor]) -> int:
    """Bytes that ``run`` needs at its worst moment beyond what is held before it (weights, optimizer, data).

    On CUDA: the allocator's peak less what was allocated before. On a CPU: ``LiveBytes``.
    """
    if device.type == "cuda":
        _wait(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        _wait(device)
        return torch.cuda.max_memory_allocated(device) - before
    with LiveBytes(parameters) as counter:
        run()
    return counter.peak


@dataclass
class Update:
    """The loss and the gradients that an optimizer update sees."""

    loss: float
    gradients: list[Tensor]


def first_update(session: Any, run: Callable[[], object]) -> Update:
    """What the first ``job.update`` inside ``run`` sees: gradients of the mean loss, before they are clipped."""
    seen: list[Update] = []
    job = session.job
    update = job.update

    def recording() -> None:
        if not seen:
            total, items = session.ledger.logged("loss")
            seen.append(Update(total / items, [p.grad / items for p in job.parameters]))
        update()

    job.update = recording
    try:
        run()
    finally:
        del job.update
    return seen[0]


def distance(one: Update, other: Update) -> float:
    """Norm of the difference of two sides' gradients over the norm of the first's."""
    pairs = list(zip(one.gradients, other.gradients, strict=True))
    difference = sum(float((a - b).double().square().sum()) for a, b in pairs)
    return (difference / sum(float(a.double().square().sum()) for a, _ in pairs)) ** 0.5


# -- what is measured ------------------------------------------------------------------------------------------------


def make_pipeline(folder: Path, *, width: int, depth: int, resolution: int) -> None:
    """Save SD3.5-Medium shrunk to ``width`` (1536) and ``depth`` (24), with random weights, as a diffusers folder.

    Text encoders and VAE shrink in proportion, so that they cost about the same share of a step as in the full model.

    Args:
        width: of the transformer; a multiple of 64.
        depth: its blocks.
        resolution: side of a picture in pixels; a multiple of 16.
    """
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    from bench.backbone.pretrain.text import make_clip_tokenizer, make_t5_tokenizer

    def shrunk(size: int, multiple: int) -> int:
        return max(multiple, round(size * width / 1536 / multiple) * multiple)

    def layers(count: int) -> int:
        return max(2, round(count * depth / 24))

    clip, t5 = make_clip_tokenizer(WORDS), make_t5_tokenizer(WORDS)
    clip.model_max_length = CLIP_TOKENS
    widths, text_width = (shrunk(768, 16), shrunk(1280, 16)), shrunk(4096, 64)
    torch.manual_seed(0)
    towers = [
        CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=len(clip),
                hidden_size=size,
                intermediate_size=4 * size,
                num_hidden_layers=layers(count),
                num_attention_heads=size // 16,
                max_position_embeddings=CLIP_TOKENS,
                projection_dim=size,
                bos_token_id=clip.bos_token_id,
                eos_token_id=clip.eos_token_id,
                pad_token_id=clip.pad_token_id,
            )
        )
        for size, count in zip(widths, (12, 32), strict=True)
    ]
    encoder = T5EncoderModel(
        T5Config(
            vocab_size=len(t5),
            d_model=text_width,
            d_kv=64,
            d_ff=text_width * 5 // 2,
            num_layers=layers(24),
            num_heads=text_width // 64,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
        )
    )
    channels = [shrunk(size, 8) for size in (128, 256, 512, 512)]
    StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=resolution // 8,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=depth,
            attention_head_dim=64,
            num_attention_heads=width // 64,
            joint_attention_dim=text_width,
            caption_projection_dim=width // 64 * 64,
            pooled_projection_dim=sum(widths),
            pos_embed_max_size=max(resolution // 16, 16),
            dual_attention_layers=tuple(range((depth + 1) * 13 // 24)),
            qk_norm="rms_norm",
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0),
        vae=AutoencoderKL(
            block_out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=16,
            norm_num_groups=math.gcd(32, *channels),
            use_quant_conv=False,
            use_post_quant_conv=False,
            sample_size=resolution,
            shift_factor=0.0609,
            scaling_factor=1.5305,
        ),
        text_encoder=towers[0],
        tokenizer=clip,
        text_encoder_2=towers[1],
        tokenizer_2=clip,
        text_encoder_3=encoder,
        tokenizer_3=t5,
    ).save_pretrained(folder)


def backbone(arguments: argparse.Namespace, folder: Path, device: torch.device) -> Any:
    """The backbone that the options name; ``shrunk`` is made in ``folder``."""
    from bench.backbone import loader
    from bench.machine.engine import Engine

    engine = Engine(device=device, dtype=getattr(torch, arguments.dtype))
    if arguments.backbone != "shrunk":
        return loader.find(arguments.backbone, engine=engine)
    make_pipeline(folder, width=arguments.width, depth=arguments.depth, resolution=arguments.resolution)
    return loader.find(str(folder), engine=engine, max_sequence_length=arguments.t5_tokens)


def captions(count: int) -> list[str]:
    """Up to 342 different captions in words that the embedded vocabularies know; none is longer than 9 words."""
    sizes, colours, shapes = ("small", "big"), ("red", "blue", "green"), ("circle", "square", "triangle")
    one = [f"a {size} {colour} {shape}" for size in sizes for colour in colours for shape in shapes]
    return (one + [f"{first} and {second}" for first in one for second in one])[:count]


# -- telling ---------------------------------------------------------------------------------------------------------


def parser(description: str | None, *, models: bool = True) -> argparse.ArgumentParser:
    """The options of every benchmark; with ``models``, also those of the two that compare loops."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    result.add_argument("--repeats", type=int, default=3, help="counted steps of each side; the median is taken")
    result.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")
    result.add_argument("--machine", default="", help="name of this machine in the JSON's file name")
    result.add_argument("--json", action="store_true", help="write perf/<benchmark>-<machine>.json")
    if models:
        result.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of matrix products")
        result.add_argument("--compile", action="store_true", help="also time the harness with compiled blocks")
        result.add_argument("--cpu-time", action="store_true", help="count CPU seconds: for a machine with other work")
        result.add_argument("--backbone", default="tiny-sd3", help="a backbone, or 'shrunk': SD3.5-M shrunk as follows")
        result.add_argument("--width", type=int, default=192, help="of the shrunk transformer (SD3.5-M: 1536)")
        result.add_argument("--depth", type=int, default=6, help="its blocks (SD3.5-M: 24)")
        result.add_argument("--resolution", type=int, default=128, help="its pictures' side (the paper: 512)")
        result.add_argument("--t5-tokens", type=int, default=77, help="length of its T5 embeddings (released SOAR: 77)")
    return result


def start(arguments: argparse.Namespace) -> torch.device:
    """Apply the shared options."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return torch.device(arguments.device)


def machine(device: torch.device) -> dict[str, Any]:
    """What a reader needs to know about where figures come from: hardware, versions, commit."""
    from bench.machine.versions import git_state, versions

    card = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return {
        "device": card.name if card else _processor(),
        "device_memory": card.total_memory if card else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "load_average": list(os.getloadavg()),
        "versions": versions() | {"torch": torch.__version__, "cuda": torch.version.cuda},
        "git": git_state(),
    }


def _processor() -> str:
    try:
        lines = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return f"{fields.get('Model name', platform.machine()).strip()} (family {fields.get('CPU family', '?').strip()})"


def tell(
    name: str,
    figures: Sequence[Figure],
    notes: Sequence[str],
    arguments: argparse.Namespace,
    device: torch.device,
) -> None:
    """Print the table and, if asked for, write it as JSON."""
    for figure in figures:
        target = f"target {figure.target}" if figure.target else ""
        print(f"{figure.what:<62} {figure.value:>12.4g} {figure.unit:<12} {target}".rstrip())
    for note in notes:
        print(f"- {note}")
    if arguments.json:
        place = arguments.machine or ("cpu" if device.type == "cpu" else torch.cuda.get_device_name(device))
        path = HERE / f"{name}-{'-'.join(place.lower().split())}.json"
        settings = {key: value for key, value in vars(arguments).items() if key not in ("json", "machine")}
        content = {
            "benchmark": name,
            "machine": machine(device),
            "settings": settings,
            "figures": [asdict(figure) for figure in figures],
            "notes": list(notes),
        }
        path.write_text(json.dumps(content, indent=1, default=str) + "\n")
        print(f"written to {path}")
