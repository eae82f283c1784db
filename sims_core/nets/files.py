"""Where the files of a stored model lie, and how large its network is, without reading it."""

from __future__ import annotations

import math
from pathlib import Path

NET_FOLDER = "net"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"  # the name that diffusers reads
MODEL_FILE = "model.json"


def count_weights(folder: Path) -> int:
    """How many numbers the network of a model artifact has; 0: it is a model without a network."""
    from safetensors import safe_open

    path = folder / NET_FOLDER / WEIGHTS_FILE
    if not path.exists():
        return 0
    with safe_open(path, framework="numpy") as file:  # reads the header alone
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
