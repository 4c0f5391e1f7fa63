"""A backbone says which sizes of pictures it takes, before anything is spent."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from bench.backbone import loader
from bench.backbone.family import check_sides
from bench.cli import main
from bench.errors import BenchError

SD35_MEDIUM = {"patch_size": 2, "pos_embed_max_size": 384}


@pytest.mark.parametrize("side", [16, 512, 1024, 6144])
def test_a_multiple_of_a_patch_of_latents_is_taken(side: int) -> None:
    check_sides("sd35", SD35_MEDIUM, 8, [side])


@pytest.mark.parametrize(
    ("side", "nearest"), [(63, "48 or 64"), (8, "16"), (1, "16"), (513, "512 or 528"), (6160, "6144"), (6145, "6144")]
)
def test_another_side_is_refused_with_the_nearest(side: int, nearest: str) -> None:
    with pytest.raises(BenchError, match=f"multiple of 16 px up to 6144 px, and not of {side} px; .*: {nearest}$"):
        check_sides("sd35", SD35_MEDIUM, 8, [512, side])


@pytest.mark.parametrize("resolution", [63, 4, 136])
def test_the_embedded_backbone_refuses_as_it_is_opened(resolution: int) -> None:
    with pytest.raises(BenchError, match=f"tiny-sd3 takes .* of 8 px up to 128 px, and not of {resolution} px"):
        loader.find("tiny-sd3", resolution=resolution)


@pytest.mark.parametrize("extra", [[], ["--dry-run"]])
def test_a_command_refuses_it_before_anything_is_written(extra, tmp_path) -> None:
    places = [part for name in ("cache", "runs", "reports") for part in (f"--{name}", str(tmp_path / name))]
    result = CliRunner().invoke(main, ["run", "--methods", "sft", "--resolution", "63", *extra, *places])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("bench: tiny-sd3 takes pictures with sides of a multiple of 8 px")
    assert not list(tmp_path.iterdir())
