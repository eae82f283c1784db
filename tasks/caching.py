"""The one place where Prefect cache keys are made: a task's key is its artifact's digest.

Prefect answers from its cache whether or not the artifact still exists, so the key alone is not
enough: `TaskStep` refreshes the cache whenever the store does not hold a whole artifact.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.cache_policies import CacheKeyFnPolicy
from prefect.context import TaskRunContext

from sims_core.store.store import Store


def artifact_digest(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """Cache key of a stage task: the digest of the artifact, or artifacts, that it makes."""
    return str(parameters["digest"])


BY_DIGEST = CacheKeyFnPolicy(cache_key_fn=artifact_digest)


def results_folder(store: Store) -> Path:
    """Where Prefect keeps its task results: in the store, so that both live and move together."""
    return store.root / "results"
