"""What a step logs."""

from __future__ import annotations

import torch
from dispatched import Dispatched

from bench.machine.engine import Engine
from bench.training.ledger import Ledger


def test_all_scalars_of_a_step_are_fetched_from_the_device_together():
    ledger = Ledger(Engine())
    for name, value in (("one", 1.0), ("two", 2.0), ("three", 3.0)):
        ledger.log(name, torch.tensor(value), 2)
        ledger.log(name, torch.tensor(value), 2)
    ledger.log("plain", 5.0, 1)
    with Dispatched() as dispatched:
        means = ledger.finish_step(0.0, 0)
    assert means == {"one": 0.5, "plain": 5.0, "three": 1.5, "two": 1.0}
    assert "aten::_local_scalar_dense" not in dispatched.names  # a fetch of one number
    assert dispatched.names.count("aten::stack") == 1
