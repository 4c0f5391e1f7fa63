"""Operators and waits of a step. ``python perf/operators.py [--json]``.

A GPU at a small micro-batch waits for its host: each operator costs the host some microseconds, however little it
computes. So operators are counted here, on a CPU and at a small size. No clock is read, and another load on the machine
changes nothing.

What counts: every operator that a device would launch a kernel for. Views, allocations, and arithmetic on integers
alone (which is the host's) do not count. A *cast* is a copy into another type. A *wait* is an operator whose result the
host needs before it goes on: a number read from a tensor, the places of what is not zero, a mask as an index.

What the harness does on CUDA alone is counted as there: AdamW's one kernel for hundreds of tensors
(``bench/training/learner.py``), and the norms of queries and keys (``bench/backbone/kernels.py``), for which operators
of this file stand in, since a CPU has no such kernels. Copies between host and device do not show on a CPU.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import common
import torch
from common import Figure
from flow_grpo import Turns
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal", "aten::masked_select")
HOST = ("aten::randn", "aten::rand", "aten::randperm", "aten::randint")
"""Draws of named generators, which are the host's."""
NO_KERNEL = ("aten::empty", "aten::new_empty", "aten::empty_like", "aten::empty_strided", "aten::_unsafe_view")
METHODS: Mapping[str, Mapping[str, Any]] = {
    "sft": {"batch_size": 8},
    "soar": {"batch_size": 8},
    "flow_grpo": {"prompts": 2, "group_size": 4, "sampling_steps": 10},
}
"""What is counted, with settings that make 8 images a step."""
IMAGES = 8


class Operators(TorchDispatchMode):
    """Counts operators by the part of a step that they belong to.

    Attributes:
        counted: part → operators.
        casts, waits: among all of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()
        self.names: Counter[str] = Counter()
        self.casts = self.waits = 0
        self._part = "around"

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Context whose operators belong to a part."""
        before, self._part = self._part, name
        try:
            yield
        finally:
            self._part = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        masked = name == "aten::index" and any(leaf.dtype == torch.bool for leaf in given)
        self.waits += name in WAITS or masked
        if not (func.is_view or name in HOST + NO_KERNEL) and _on_device(given, result):
            self.counted[self._part] += 1
            self.names[name] += 1
            self.casts += name == "aten::_to_copy"
        return result


def _on_device(given: list[Tensor], result: Any) -> bool:
    """Whether any tensor holds numbers that are no integers."""
    tensors = [*given, *(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))]
    return any(tensor.is_floating_point() for tensor in tensors)


def started(
    name: str, backbone: Any, *, micro_batch: int | None, engine: Any, compiled: bool = False
) -> tuple[Any, Any]:
    """(session, method): a method of ``METHODS`` that is set up on random pairs and a reward that costs nothing."""
    from bench import registry
    from bench.experiment.config import method_config
    from bench.experiment.session import Session
    from bench.machine.engine import Compute
    from bench.prompt import Prompt
    from bench.training.data import TrainingData

    captions = common.captions(2 * IMAGES)
    shape = backbone.latent_shape
    data = TrainingData(
        latents=torch.randn(len(captions), *shape, generator=torch.Generator().manual_seed(0)),
        shapes=torch.tensor(shape).expand(len(captions), -1),
        text=backbone.encode_prompts(captions),
        prompts=tuple(Prompt(str(i), text) for i, text in enumerate(captions)),
        text_of=torch.arange(len(captions)),
    )
    session = Session.of(
        backbone=backbone,
        null=backbone.encode_prompts([""]),
        data=data,
        seed=0,
        reward=Turns(),
        engine=engine,
        compute=Compute(micro_batch=micro_batch, compile=compiled),
    )
    kind = registry.load("methods", name)
    method = kind(method_config(kind, "full", METHODS[name]))
    method.setup(session.job)
    return session, method


def count_step(name: str, backbone: Any, *, micro_batch: int, dtype: torch.dtype) -> tuple[Operators, dict[str, int]]:
    """(operators of a method's second step, what the meter counted in it)."""
    from bench.machine.engine import Engine

    session, method = started(name, backbone, micro_batch=micro_batch, engine=Engine(dtype=dtype))
    _as_on_cuda(session)
    for _ in range(2):  # the first makes the optimizer's states
        before = session.job.meter
        with Operators() as operators, _parts(operators, session), _one_operator():
            method.step(session.job)
            session.ledger.finish_step(0.0, 0)
    after = session.job.meter.counts()
    return operators, {key: value - getattr(before, key) for key, value in after.items()}


def _as_on_cuda(session: Any) -> None:
    from bench.backbone import kernels

    for group in session.model.learner.optimizer.param_groups:
        group["fused"] = True
    kernels.fuse(session.job.policy.transformer)


@torch.library.custom_op("perf::rms_norm", mutates_args=())
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """One operator, as ``aten::_fused_rms_norm`` on CUDA."""
    return torch.rms_norm(x, weight.shape, weight, eps)


@torch.library.custom_op("perf::rms_norm_backward", mutates_args=())
def rms_norm_backward(gradient: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """One operator, as ``aten::_fused_rms_norm_backward`` on CUDA."""
    scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    unit, weighted = x * scale, gradient * weight
    of_x = scale * (weighted - unit * (weighted * unit).mean(-1, keepdim=True))
    return of_x, (gradient * unit).flatten(0, -2).sum(0)


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    x, weight, ctx.eps = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, gradient: Tensor) -> Any:
    return (*rms_norm_backward(gradient, *ctx.saved_tensors, ctx.eps), None)


rms_norm.register_autograd(_backward, setup_context=_keep)


@contextmanager
def _one_operator() -> Iterator[None]:
    """Inside, torch's RMS norm is the operator above."""
    usual = torch.nn.functional.rms_norm
    torch.nn.functional.rms_norm = lambda x, shape, weight, eps: rms_norm(x, weight, eps)
    try:
        yield
    finally:
        torch.nn.functional.rms_norm = usual


@contextmanager
def _parts(operators: Operators, session: Any) -> Iterator[None]:
    """Context in which operators know their part: the model's forward, its backward, the optimizer, or around them."""
    job, learner, module = session.job, session.model.learner, session.job.policy.module

    def within(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def tagged(*args: Any, **kwargs: Any) -> Any:
            with operators.part(part):
                return call(*args, **kwargs)

        return tagged

    patched = [(module, "forward", "forward"), (job, "accumulate", "backward")]
    patched += [(learner, "average", "optimizer"), (learner, "step", "optimizer")]
    for owner, name, part in patched:
        setattr(owner, name, within(part, getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name, _ in patched:
            delattr(owner, name)


def main() -> None:
    """Count, print a table, write JSON if asked to."""
    parser = common.parser(__doc__)
    parser.set_defaults(dtype="bfloat16")
    parser.add_argument("--micro-batch", type=int, default=4, help="rows per forward with a graph")
    parser.add_argument("--names", type=int, default=0, help="also print so many of the most frequent operators")
    arguments = parser.parse_args()
    device = common.start(arguments)
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        backbone = common.backbone(arguments, Path(folder), device)
        for name in METHODS:
            operators, spent = count_step(
                name, backbone, micro_batch=arguments.micro_batch, dtype=getattr(torch, arguments.dtype)
            )
            figures += _figures(name, operators, spent)
            for operator, times in operators.names.most_common(arguments.names):
                print(f"  {name}: {operator} {times}")
    notes = [f"{IMAGES} images a step, {arguments.micro_batch} rows per forward with a graph, {arguments.dtype}"]
    common.tell("operators", figures, notes, arguments, device)


def _figures(name: str, operators: Operators, spent: Mapping[str, int]) -> list[Figure]:
    total = operators.counted.total()
    parts = [Figure(f"{name}: {part}", operators.counted[part], "operators") for part in sorted(operators.counted)]
    return [
        Figure(f"{name}: an image", total / IMAGES, "operators"),
        Figure(f"{name}: an update", total / spent["updates"], "operators"),
        *parts,
        Figure(f"{name}: casts", operators.casts, "operators"),
        Figure(f"{name}: waits", operators.waits, "waits"),
    ]


if __name__ == "__main__":
    main()
