"""Opens the store that the settings name."""

from __future__ import annotations

from pathlib import Path

from infra.settings import Settings
from sims_core.store import Store


def open_store() -> Store:
    """The store of this process's settings, made if it is not there.

    Raises:
        StoreError: it cannot be written.
    """
    return Store.open(Settings.read().store)


def results_folder(store: Store) -> Path:
    """Where Prefect keeps its task results: in the store, so that both live and move together."""
    return store.root / "results"
