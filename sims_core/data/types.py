"""Arrays of images, latents and labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
"""[N, channels, height, width], channels 1 (grey) or 3 (RGB)."""


Latents = NDArray[np.float16]
"""[N, channels, height, width] of an autoencoder's latents."""


Labels = NDArray[np.int64]
"""[N], the class of each image."""
