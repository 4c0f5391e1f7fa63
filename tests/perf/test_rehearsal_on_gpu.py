"""The check against a GPU's allocator runs in its stand-in form, and a rehearsed peak is that of a real job."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rehearsal_on_gpu import METHODS, compared

from bench.rehearsal import answers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(answers.why_not() is not None, reason=str(answers.why_not())),
    pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the full size is measured"),
]


def test_rehearsed_peaks_are_those_of_real_jobs(tmp_path: Path) -> None:
    found = compared(tmp_path, tmp_path / "cache")
    assert found["benchmark"] == "rehearsal_on_gpu-stand-in" and "nccl" not in found
    assert tuple(found["methods"]) == METHODS
    errors = {name: each["error"] for name, each in found["methods"].items()}
    assert errors == {name: pytest.approx(0, abs=0.05) for name in METHODS}
