"""References as files: an .npz of the mean and covariance of features, which FID is made from.

EDM's fid-refs and guided-diffusion's have this form: `mu` [d] and `sigma` [d, d]. KID, precision
and recall need the features of images and cannot be made from it.
"""

from __future__ import annotations

import io
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sims_core.common.errors import BadInput
from sims_core.common.files import write_atomically

FEATURES = {"inception": 2048, "resnet20": 64, "resnet56": 64}
"""How many features each space has."""
MOST_FEATURES = 8192
"""The most features of a reference; Inception has 2,048."""
TOLERANCE = 1e-4
"""Largest asymmetry and negative eigenvalue that pass, in units of the largest (of float32)."""

UNREADABLE = (
    *(OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, SyntaxError),
    *(MemoryError, RuntimeError, zlib.error, tokenize.TokenError),
)
"""What zipfile and numpy raise for files that are damaged, encrypted, or claim too much."""

Moments = dict[str, NDArray[np.float64]]
"""`mu` [d] and `sigma` [d, d]."""


def read_reference(path: Path) -> Moments:
    """Mean and covariance of an .npz, float64, checked.

    Raises:
        BadInput: it is no such file, or they are no mean and covariance; says why.
    """
    found = {name: _read_member(path, name) for name in ("mu", "sigma")}
    mu, sigma = found["mu"], found["sigma"]
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or len(mu) < 2:
        raise BadInput(
            f"{path}: want mu of shape [d] and sigma of [d, d], got {list(mu.shape)} and "
            f"{list(sigma.shape)}"
        )
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise BadInput(f"{path}: a number is not finite")
    scale = float(np.abs(sigma).max())
    if float(np.abs(sigma - sigma.T).max()) > TOLERANCE * scale:
        raise BadInput(f"{path}: sigma is not symmetric, so it is no covariance")
    sigma = (sigma + sigma.T) / 2
    eigenvalues = np.linalg.eigvalsh(sigma)
    if scale == 0 or eigenvalues[0] < -TOLERANCE * eigenvalues[-1]:
        raise BadInput(
            f"{path}: sigma has the eigenvalue {eigenvalues[0]:.3g}, so it is no covariance "
            "(none of them may be negative, nor all zero)"
        )
    return {"mu": mu, "sigma": sigma}


def _read_member(path: Path, name: str) -> NDArray[np.float64]:
    """One array of an .npz; its size is looked at before it is unpacked."""
    try:
        if not path.is_file():
            raise BadInput(f"{path} is no file: want an .npz with mu and sigma")
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if f"{name}.npy" not in names:
                had = ", ".join(each.removesuffix(".npy") for each in names[:10]) or "nothing"
                raise BadInput(f"{path} has no {name!r} (it has {had}): want mu and sigma")
            if archive.getinfo(f"{name}.npy").file_size > 8 * MOST_FEATURES**2 + 1000:
                raise BadInput(f"{path}: {name} is of more than {MOST_FEATURES} features")
            with archive.open(f"{name}.npy") as member:
                found = np.load(io.BytesIO(member.read()), allow_pickle=False)
    except UNREADABLE as error:
        raise BadInput(f"{path} is no readable .npz: {error}") from None
    if not np.issubdtype(found.dtype, np.floating):
        raise BadInput(f"{path}: {name} must be of floats, got {found.dtype}")
    return np.asarray(found, dtype=np.float64)


def write_reference(path: Path, moments: Moments) -> None:
    """Writes an .npz that `read_reference`, EDM and guided-diffusion read."""
    buffer = io.BytesIO()
    np.savez(buffer, mu=moments["mu"], sigma=moments["sigma"])
    try:
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}") from None
