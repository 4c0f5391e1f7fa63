"""A training of `bench pretrain` that is killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.backbone.pretrain import training
from bench.records import saved


class Kill(BaseException):
    """What ends the process."""


@contextmanager
def killed_after(steps: int) -> Iterator[None]:
    """A context in which a training saves each step, and is killed after a number of them."""
    save = saved.save

    def save_and_die(state: Any, path: Path) -> None:
        save(state, path)
        if state["step"] == steps:
            raise Kill

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Kill):
        patch.setattr(training, "SAVE_EVERY", 0.0)
        patch.setattr(saved, "save", save_and_die)
        yield
