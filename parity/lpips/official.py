"""LPIPS by the package ``lpips``. Runs inside .venv-parity-lpips.

``official.py FOLDER``: reads ``job.json`` ({"groups": [[0, 1], …]}), the PNGs of those numbers and ``alexnet.pth``,
random weights that take the place of torchvision's; writes ``distances.json``, the matrix of each group, and
``heads.pth``, the package's own learnt weights.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import lpips
import numpy as np
import torch
from PIL import Image


def main(folder: Path) -> None:
    """Distances of all pairs of each group."""
    model = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
    weights = torch.load(folder / "alexnet.pth", weights_only=True)
    # "slice2.3.weight" there is "features.3.weight" of torchvision
    model.net.load_state_dict({name: weights[f"features.{name.split('.', 1)[1]}"] for name in model.net.state_dict()})
    shutil.copyfile(Path(lpips.__file__).parent / "weights" / "v0.1" / "alex.pth", folder / "heads.pth")
    matrices = []
    for group in json.loads((folder / "job.json").read_text())["groups"]:
        pictures = [lpips.im2tensor(np.asarray(Image.open(folder / f"{number}.png"))) for number in group]
        with torch.no_grad():
            matrices.append([[float(model(one, other)) for other in pictures] for one in pictures])
    (folder / "distances.json").write_text(json.dumps(matrices))


main(Path(sys.argv[1]))
