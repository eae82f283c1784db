"""One accelerator, many runs: a stage that needs it holds a slot of the server's limit `gpu`."""

from __future__ import annotations

GPU_LIMIT = "gpu"
"""Name of the global concurrency limit, made by `sims setup`."""
