"""Settings that methods share when they train an adapter of an SD3 transformer."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from bench.method import AdamWConfig

TARGETS = tuple(
    f"attn.{name}"
    for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
)
"""Modules that get an adapter: flow_grpo's for SD3.5 (yifan123/flow_grpo @ ac4c86e), and its successors'."""


class LoRAConfig(AdamWConfig):
    """Adapter and optimizer. Defaults are flow_grpo's for SD3.5-Medium (``config/base.py`` @ ac4c86e)."""

    lora_rank: int = Field(32, gt=0, description="of the adapter; train_sd3.py")
    lora_alpha: float = Field(64, gt=0, description="the adapter's output is scaled by alpha / rank; train_sd3.py")
    lr: float = Field(3e-4, gt=0, description="AdamW, constant; config/base.py")
    weight_decay: float = Field(1e-4, ge=0, description="config/base.py")

    def lora(self) -> dict[str, Any]:
        """Arguments for ``job.train_lora``."""
        return {"rank": self.lora_rank, "alpha": self.lora_alpha, "target_modules": TARGETS, **self.adamw()}
