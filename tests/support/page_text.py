"""What a reader of a report's page gets without scripts: its text and tables."""

from __future__ import annotations

import re
from pathlib import Path


def page_text(folder: Path) -> str:
    """The page of a report without its style and scripts."""
    html = (folder / "index.html").read_text(encoding="utf-8")
    return re.sub(r"<(style|script)\b.*?</\1>", "", html, flags=re.DOTALL)
