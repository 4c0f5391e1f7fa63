"""Environment variables that libraries read. A word in place of a number would end in a library's traceback."""

from __future__ import annotations

import os

from bench.errors import BenchError, shortened

LARGEST_RANK = 100_000
GROUP = {
    "RANK": (0, LARGEST_RANK),
    "WORLD_SIZE": (1, LARGEST_RANK),
    "LOCAL_RANK": (-1, LARGEST_RANK),
    "LOCAL_WORLD_SIZE": (1, LARGEST_RANK),
    "GROUP_RANK": (0, LARGEST_RANK),
    "MASTER_PORT": (0, 65_535),
}
"""torchrun's: variable → least and largest value. accelerate takes -1 for no local rank."""
MPI = (
    "PMI_RANK", "PMI_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK",
    "MV2_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS",
)  # fmt: skip
"""accelerate reads these of MPI launchers, each a whole number."""
HUB = ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")
"""huggingface_hub reads these as it is imported, each a whole number of seconds."""


def check_environment() -> None:
    """What every command needs. Matplotlib draws into files here, whatever ``MPLBACKEND`` asks for.

    Raises:
        BenchError: one line that names a variable and what it takes.
    """
    os.environ["MPLBACKEND"] = "agg"
    for name in HUB:
        _whole(name, 0, 10**9)


def check_group() -> None:
    """What says which process of a group this one is.

    Raises:
        BenchError: one line that names a variable and what it takes.
    """
    values = {name: _whole(name, low, high) for name, (low, high) in GROUP.items()}
    for name in MPI:
        _whole(name, -1, LARGEST_RANK)
    for of, among in (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE")):
        rank, size = values[of], values[among]
        if rank is not None and size is not None and rank >= size:
            raise BenchError(
                f"{of} is {rank} and {among} is {size}, but ranks count from 0; set them right or unset both"
            )
    size = values["WORLD_SIZE"]
    if size is not None and size > 1:
        for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            if not os.environ.get(name):
                raise BenchError(
                    f"WORLD_SIZE is {size}, and {name} is not set: torchrun sets all of them; start this through it, "
                    "or unset WORLD_SIZE"
                )


def _whole(name: str, low: int, high: int) -> int | None:
    """The value of a variable; None where it is not set."""
    text = os.environ.get(name, "")
    if not text:
        return None
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise BenchError(
            f"the environment variable {name} is {shortened(text, 40)!r}, and takes a whole number from {low} to "
            f"{high}; set it right or unset it"
        )
    return value
