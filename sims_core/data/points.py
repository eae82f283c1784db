"""Points in the store: R replicates of N points in d dimensions, as Parquet of equal bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sims_core.common import purposes
from sims_core.common.errors import BadInput, DamagedArtifact
from sims_core.data.config import PointSourceConfig
from sims_core.diffusion.gaussian import draw_gaussian
from sims_core.diffusion.noise import generator
from sims_core.engine.stage import StageContext

POINTS_FILE = "points.parquet"


NOISE_BLOCK = 1024
"""Points of a replicate that share one generator, so that the first n never depend on how many."""


def write_points(folder: Path, points: Tensor) -> None:
    """Writes points [R, N, d], float32: a row a point, columns replicate, x0, x1, ..."""
    replicates, count, dim = points.shape
    columns = {"replicate": np.repeat(np.arange(replicates, dtype=np.int32), count)}
    flat = points.detach().cpu().float().reshape(-1, dim).numpy()
    columns |= {f"x{axis}": np.ascontiguousarray(flat[:, axis]) for axis in range(dim)}
    pq.write_table(
        pa.table(columns), folder / POINTS_FILE, compression="none", use_dictionary=["replicate"]
    )


def read_points(folder: Path, count: int | None = None) -> Tensor:
    """The first `count` points (None: all) of each replicate of a verified artifact, [R, n, d].

    Raises:
        DamagedArtifact: the replicates do not hold equally many points.
        BadInput: there are fewer than `count`.
    """
    table = pq.read_table(folder / POINTS_FILE)
    replicate = table.column("replicate").to_numpy()
    replicates = int(replicate[-1]) + 1
    if not np.array_equal(
        replicate, np.repeat(np.arange(replicates), len(replicate) // replicates)
    ):
        raise DamagedArtifact(f"{folder / POINTS_FILE}: replicates of different sizes")
    flat = np.stack([table.column(name).to_numpy() for name in table.column_names[1:]], axis=1)
    points = torch.from_numpy(flat.reshape(replicates, -1, flat.shape[1]))
    if count is not None and count > points.shape[1]:
        raise BadInput(f"{count} points wanted of {folder}, which holds {points.shape[1]}")
    return points[:, :count]


def count_points(folder: Path) -> int:
    """Points of each replicate."""
    metadata = pq.read_metadata(folder / POINTS_FILE)
    last = pq.read_table(folder / POINTS_FILE, columns=["replicate"]).column("replicate")[-1]
    return int(metadata.num_rows // (last.as_py() + 1))


def replicate_noise(seed: int, replicates: int, count: int, dim: int) -> Tensor:
    """Standard normal float32 [replicates, count, dim].

    Point i of replicate r is a function of (seed, r, i) alone: neither the number of replicates
    nor the number of points changes it.
    """
    blocks = range(-(-count // NOISE_BLOCK))
    return torch.stack(
        [
            torch.cat(
                [
                    torch.randn(
                        NOISE_BLOCK, dim, generator=generator(seed, purposes.NOISE, r, block)
                    )
                    for block in blocks
                ]
            )[:count]
            for r in range(replicates)
        ]
    )


def draw_real(config: PointSourceConfig, seed: int, count: int) -> Tensor:
    """`count` points of the true Gaussian for each replicate, float32 [R, count, d]."""
    mean = torch.tensor(config.mean, dtype=torch.float64)
    noise = replicate_noise(seed, config.replicates, count, len(mean))
    return draw_gaussian(mean, true_covariance(config), noise)


def true_covariance(config: PointSourceConfig) -> Tensor:
    """[d, d], float64.

    Raises:
        BadInput: it is not symmetric positive semi-definite.
    """
    if config.covariance is None:
        return torch.eye(len(config.mean), dtype=torch.float64)
    covariance = torch.tensor(config.covariance, dtype=torch.float64)
    if not torch.equal(covariance, covariance.T) or torch.linalg.eigvalsh(covariance)[0] < 0:
        raise BadInput("data.covariance must be symmetric and positive semi-definite")
    return covariance


def prepare_points(context: StageContext[PointSourceConfig]) -> dict[str, Any]:
    """Stage `prepare_points`: R independent data sets of the true Gaussian."""
    config = context.config
    points = draw_real(config, config.seed, config.count)
    write_points(context.directory, points)
    return {"replicates": len(points), "count": config.count, "dim": points.shape[-1]}
