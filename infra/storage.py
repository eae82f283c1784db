"""Opens the store that the settings name."""

from __future__ import annotations

from pathlib import Path

from infra.settings import Settings
from sims_core.errors import StoreError
from sims_core.store import Store


def open_store() -> Store:
    """The store of this process's settings, made if it is not there and may be.

    Raises:
        StoreError: it cannot be written, or it is absent and SIMS_STORE_MUST_EXIST.
    """
    settings = Settings.read()
    root = settings.store.expanduser().absolute()
    if settings.store_must_exist and not (root / "artifacts").is_dir():
        raise StoreError(
            f"this worker sees no store at {root}: mount it there, or start the worker with "
            "SIMS_STORE naming it; `sims setup` makes a new one"
        )
    return Store.open(root)


def results_folder(store: Store) -> Path:
    """Where Prefect keeps its task results: in the store, so that both live and move together."""
    return store.root / "results"
