"""The transformer that a job trains: what of it trains, what its forwards cost, and its weights on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench.backbone.condition import TextCondition
from bench.backbone.loader import Backbone
from bench.backbone.loading import load_transformer
from bench.backbone.policy import Policy
from bench.backbone.weights import check_seal, save_weights, seal, unseal, with_adapter
from bench.errors import BenchError
from bench.flops import Flops, meta_twin, reference_cost, transformer_cost
from bench.machine.engine import Compute, Engine, whole
from bench.sampling.levels import DIFFUSERS
from bench.training.learner import Learner
from bench.training.ledger import Ledger

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel

Shape = tuple[int, ...]


class TrainedModel:
    """A transformer as a policy, and as what learns. A pipeline's later stage begins it anew.

    Args:
        levels: name of the list of noise levels that its policy samples with.

    Attributes:
        policy: the model as a velocity field; its forwards are charged to the ledger.
        learner: what trains; None before ``train_full`` or ``train_lora``.
    """

    policy: Policy
    learner: Learner | None

    def __init__(
        self,
        backbone: Backbone,
        null: TextCondition,
        engine: Engine,
        compute: Compute,
        ledger: Ledger,
        levels: str = DIFFUSERS,
    ) -> None:
        self._backbone, self._null, self._engine, self._compute = backbone, null, engine, compute
        self._ledger, self._levels = ledger, levels
        self._started_from: Path | None = None
        transformer = backbone.transformer()
        self._pretrained = transformer.config.get("_name_or_path")
        self._begin(transformer)

    def _begin(self, transformer: SD3Transformer2DModel) -> None:
        """Nothing trains yet."""
        transformer.requires_grad_(False)
        scheduler = self._backbone.scheduler()
        self.policy = Policy(transformer, scheduler, self._null, self._engine, self._charge_forward, self._levels)
        self.learner = None
        self._twin: SD3Transformer2DModel | None = None
        self._costs: dict[tuple[Shape, bool], Flops] = {}

    # -- what trains ---------------------------------------------------------------------------------------------

    def train_full(self, **optimizer: Any) -> None:
        """Train every parameter, in float32, with AdamW's settings ``optimizer``."""
        self.policy.transformer.requires_grad_(True)
        self._start_training(shard=True, **optimizer)

    def train_lora(
        self, seed: torch.Generator, *, rank: int, alpha: float, target_modules: Sequence[str], **optimizer: Any
    ) -> None:
        """Train a PEFT adapter in float32 (gaussian initialisation, drawn from ``seed``)."""
        from peft import LoraConfig
        from peft.tuners.tuners_utils import BaseTunerLayer

        transformer = self.policy.transformer
        config = LoraConfig(r=rank, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=list(target_modules))
        with torch.random.fork_rng(devices=[]):  # PEFT draws the initial values from the global generator
            torch.manual_seed(seed.initial_seed())
            transformer.add_adapter(config)
        for module in transformer.modules():
            if isinstance(module, BaseTunerLayer):  # autocast casts what goes in; PEFT would first undo its last cast
                module.cast_input_dtype_enabled = False
        for parameter in transformer.parameters():
            if not parameter.requires_grad:  # what stays as it is needs no more than the precision it computes in
                parameter.data = parameter.data.to(self._engine.dtype)
        self._start_training(shard=False, **optimizer)

    def _start_training(self, *, shard: bool, **optimizer: Any) -> None:
        transformer = self.policy.transformer
        self._twin = meta_twin(transformer).float()  # counted in one precision, whatever it computes in
        if self._compute.gradient_checkpointing:
            transformer.train()  # diffusers checkpoints in training mode only; SD3 has no dropout
            transformer.enable_gradient_checkpointing()
        if self._compute.compile:
            # Adapter on and off, with and without a graph, kinds of blocks, sizes of batches: more than the default 8.
            torch._dynamo.config.recompile_limit = 64
            for block in transformer.transformer_blocks:
                block.compile()
        self.policy.module = self._engine.wrap(transformer, list(transformer.transformer_blocks), shard=shard)
        trained = [p for p in transformer.parameters() if p.requires_grad]
        self.learner = Learner(self._engine, trained, adam_8bit=self._compute.adam_8bit, **optimizer)

    # -- what a forward costs --------------------------------------------------------------------------------------

    def _charge_forward(self, latents: Tensor, graph: bool, bare: bool) -> None:
        samples, cost, charge = len(latents), self._cost(tuple(latents.shape[1:]), bare), self._ledger.charge
        charge("forwards", samples)
        charge("reference_forwards", samples * bare)
        charge("flops", samples * cost.forward)
        if graph:  # charged with the forward, so that a graph that is built and thrown away is paid for
            charge("backwards", samples)
            charge("flops", samples * cost.backward)

    def _cost(self, shape: Shape, bare: bool) -> Flops:
        if self._twin is None:
            return Flops(0, 0)
        if (shape, bare) not in self._costs:
            tokens = self.policy.null.prompt_embeds.shape[1]
            count = reference_cost if bare else transformer_cost
            self._costs[shape, bare] = count(self._twin, shape, tokens)
        return self._costs[shape, bare]

    # -- weights on disk -------------------------------------------------------------------------------------------

    def restart(self, folder: Path) -> None:
        """Begin another stage: nothing trains yet, and the weights are what ``save`` left in ``folder``."""
        self._started_from = folder
        if damage := self._engine.broadcast(_damage(folder) if self._engine.is_main else None):
            raise BenchError(damage)
        self._begin(self._start())

    def _start(self) -> SD3Transformer2DModel:
        """A fresh transformer with the weights that this stage started from."""
        if self._started_from is None:
            return self._backbone.transformer()
        transformer = load_transformer(self._started_from, torch.float32, self._engine.device)
        # Its config names the folder that it was loaded from, which differs from run to run.
        transformer.register_to_config(_name_or_path=self._pretrained)
        return transformer

    def save(self, folder: Path, *, merge: bool) -> None:
        """Leave the present weights in ``folder``. Every process must call it.

        Args:
            merge: of an adapter, leave the whole transformer that it makes, where otherwise it is left alone.
        """
        transformer, main = self.policy.transformer, self._engine.is_main
        if main:
            unseal(folder)
        if not getattr(transformer, "peft_config", None):
            state = whole(transformer.state_dict(), keep=main)
            if main:
                save_weights(transformer, folder, state)
        elif main and merge:
            save_weights(with_adapter(self._start(), transformer), folder)
        elif main:
            save_weights(transformer, folder)
        if main:
            seal(folder)
        self._engine.barrier()


def _damage(folder: Path) -> str | None:
    """What is wrong with weights on disk, if anything is."""
    try:
        check_seal(folder)
    except BenchError as error:
        return str(error)
    return None
