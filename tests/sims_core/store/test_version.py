"""A store says its version; a newer one is refused."""

from __future__ import annotations

import pytest

from sims_core.common.errors import StoreError
from sims_core.store.store import Store
from sims_core.store.version import VERSION


def test_a_new_store_says_its_version(tmp_path):
    Store.open(tmp_path / "store")
    assert (tmp_path / "store" / "version").read_text() == f"{VERSION}\n"


@pytest.mark.parametrize("content", [None, b"", b"\0\0"])
def test_an_older_store_is_read_and_marked_by_who_writes_it(content, tmp_path):
    """So is one whose file a power cut has emptied."""
    Store.open(tmp_path)
    (tmp_path / "version").unlink()
    if content is not None:
        (tmp_path / "version").write_bytes(content)
    Store.open(tmp_path, create=False)
    assert not (tmp_path / "version").exists() or (tmp_path / "version").read_bytes() == content
    Store.open(tmp_path)
    assert (tmp_path / "version").read_text() == f"{VERSION}\n"


def test_a_newer_store_is_refused_and_stays_as_it_is(tmp_path):
    Store.open(tmp_path)
    (tmp_path / "version").write_text(f"{VERSION + 1}\n")
    before = sorted(tmp_path.rglob("*"))
    for use in (Store, Store.open, lambda root: Store.open(root, create=False)):
        with pytest.raises(StoreError, match=f"is of version {VERSION + 1}, and this program"):
            use(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("content", ["\n", "one", "0", "-1", "1" * 10_000])
def test_what_names_no_version_is_one_clear_error(content, tmp_path):
    Store.open(tmp_path)
    (tmp_path / "version").write_text(content)
    with pytest.raises(StoreError, match=r"names no version|is of version 1{32}"):
        Store(tmp_path)


def test_a_folder_in_its_place_is_one_clear_error(tmp_path):
    (tmp_path / "version").mkdir()
    with pytest.raises(StoreError, match="in the way"):
        Store.open(tmp_path)
