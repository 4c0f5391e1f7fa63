"""The paper's subsets (SOAR, section 3.1): thresholds on a corpus's own scores, and rules on what captions say.

And the control of both: as many pairs, drawn without looking at them.
"""

from __future__ import annotations

from bench.corpus import Subset

ALL = Subset("all")
"""Every pair of the corpus."""

HIGH_AESTHETIC = Subset("high_aesthetic", role="aesthetic", threshold=6.8)
"""Aesthetic score of at least 6.8 (3,725 of the paper's 286,119 pairs); the best fifth of the shape world."""

HIGH_CLIPSCORE = Subset("high_clipscore", role="clipscore", threshold=0.40)
"""ClipScore of at least 0.40 (6,857 of the paper's 286,119 pairs); the best fifth of the shape world."""

RANDOM = Subset("random", share=3725 / 286_119)
"""A control, drawn by a hash: as large a share as `high_aesthetic` is of the paper's corpus; a fifth of the world."""

POSTERS = Subset(
    "posters",
    caption=r"(?i)\b(posters?|flyers?|leaflets?|playbills?|placards?|brochures?"
    r"|(movie|film|book|album|magazine) covers?)\b",
)
"""Captions that speak of a poster or a cover: a rule of this project, since the paper shows posters and gives none."""

WEB_UI = Subset(
    "web_ui",
    caption=r"(?i)\b(web ?sites?|web ?pages?|home ?pages?|landing pages?|web design|(user|web|app) interfaces?|UIs?"
    r"|dashboards?|(mobile|web) apps?|app screens?)\b",
)
"""Captions that speak of a web page or an interface: a rule of this project, since the paper gives none."""
