"""A filled cache does for reading, whatever its permissions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from permissions import read_only
from PIL import Image

from bench.cli import main


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}")
    return folder


def test_a_filled_cache_is_read_where_nothing_can_be_written(pictures: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    command = ["curate", "--corpus", str(pictures), "--subset", "high_aesthetic", "--quantile", "0.5"]
    filled = CliRunner().invoke(main, [*command, "--cache", str(cache)])
    assert filled.exit_code == 0, filled.output
    before = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    with read_only(cache):
        with pytest.raises(PermissionError):
            (cache / "anything").touch()
        again = CliRunner().invoke(main, [*command, "--cache", str(cache)])
    assert again.exit_code == 0, again.output
    assert again.stdout == filled.stdout
    assert {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()} == before


def test_a_cache_that_lacks_something_and_is_read_only_is_one_line(pictures: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    with read_only(cache):
        result = CliRunner().invoke(
            main, ["curate", "--corpus", str(pictures), "--subset", "all", "--cache", str(cache)]
        )
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(f"bench: {cache}")
    assert "cannot be written" in result.stderr
