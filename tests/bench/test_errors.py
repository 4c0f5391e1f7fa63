"""A mistyped name ends in one line with the nearest known one."""

from __future__ import annotations

import pytest
import torch

from bench.errors import BenchError, DeviceLost, DiskFull, JobFailure, device_lost, stop_if_lost, unknown


def test_the_nearest_name_is_proposed():
    error = unknown("method", "sor", ["sft", "soar", "flow_grpo"])
    assert isinstance(error, BenchError)
    assert str(error) == "unknown method 'sor'; did you mean 'soar'?"


def test_without_a_near_name_all_are_listed_in_order():
    assert str(unknown("method", "xyzzy", ["soar", "dpo", "sft"])) == "unknown method 'xyzzy'; known: dpo, sft, soar"


def test_any_iterable_of_names_will_do_and_the_message_is_one_line():
    message = str(unknown("key", "bath_size", iter({"batch_size": 1, "lr": 2})))
    assert message == "unknown key 'bath_size'; did you mean 'batch_size'?"
    assert "\n" not in message


class AcceleratorError(RuntimeError):
    """As torch calls it since 2.8."""


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


ASSERT = RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later")


@pytest.mark.parametrize(
    "error",
    [
        ASSERT,
        AcceleratorError("CUDA error: an illegal memory access was encountered"),
        AcceleratorError("whatever it says"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`"),
        caused(JobFailure("the method broke"), ASSERT),
        DeviceLost("the device is lost"),
    ],
)
def test_an_error_of_cuda_loses_the_device(error: Exception) -> None:
    assert device_lost(error)
    with pytest.raises(DeviceLost) as stopped:
        stop_if_lost(error)
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        AcceleratorError("CUDA error: out of memory"),
        RuntimeError("the size of tensor a (3) must match"),
        ValueError("CUDA error: said by something else"),
        BenchError("no such file"),
    ],
)
def test_no_other_error_does(error: Exception) -> None:
    assert not device_lost(error)
    stop_if_lost(error)


def test_a_full_disk_ends_everything() -> None:
    with pytest.raises(DiskFull, match="the disk is full"):
        stop_if_lost(DiskFull("the disk is full"))
