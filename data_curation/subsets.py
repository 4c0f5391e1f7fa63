"""The paper's subsets (SOAR, section 3.1): thresholds on a corpus's own scores."""

from __future__ import annotations

from bench.corpus import Subset

ALL = Subset("all")
"""Every pair of the corpus."""

HIGH_AESTHETIC = Subset("high_aesthetic", role="aesthetic", threshold=6.8)
"""Aesthetic score of at least 6.8 (3,725 of the paper's 286,119 pairs); the best fifth of the shape world."""

HIGH_CLIPSCORE = Subset("high_clipscore", role="clipscore", threshold=0.40)
"""ClipScore of at least 0.40 (6,857 of the paper's 286,119 pairs); the best fifth of the shape world."""
