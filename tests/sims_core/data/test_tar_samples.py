"""Our tar files against webdataset's own, both ways."""

from __future__ import annotations

import io

import pytest
import webdataset as wds
from hypothesis import given
from hypothesis import strategies as st

from sims_core.common.errors import DamagedArtifact
from sims_core.data.tar_samples import SampleWriter, key_and_rest, stream_members

NAMES = st.from_regex(r"[a-c0-9_./-]{1,12}", fullmatch=True)
SAMPLES = st.lists(
    st.dictionaries(st.sampled_from(["png", "cls", "npy"]), st.binary(max_size=2000), min_size=1),
    max_size=12,
)


@given(samples=SAMPLES)
def test_the_bytes_are_those_of_webdatasets_writer(samples):
    ours, theirs = io.BytesIO(), io.BytesIO()
    writer, expected = SampleWriter(ours), wds.TarWriter(theirs, mtime=0, encoder=False)
    for number, members in enumerate(samples):
        writer.write(f"{number:08d}", members)
        expected.write({"__key__": f"{number:08d}", **members})
    writer.close()
    expected.close()
    assert ours.getvalue() == theirs.getvalue()


@given(name=NAMES)
def test_names_are_split_as_webdataset_splits_them(name):
    key, rest = wds.tariterators.base_plus_ext(name)
    assert key_and_rest(name) == ((name, "") if key is None else (key, rest))


@given(samples=SAMPLES)
def test_what_webdataset_wrote_is_read(samples, tmp_path_factory):
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    with path.open("wb") as stream, wds.TarWriter(stream, encoder=False) as writer:
        for number, members in enumerate(samples):
            writer.write({"__key__": f"x/{number}", **members})
    assert list(stream_members(path)) == [(f"x/{n}", m) for n, m in enumerate(samples)] or (
        not samples
    )


def test_a_member_that_stands_there_twice_is_damage(tmp_path):
    path = tmp_path / "a.tar"
    with path.open("wb") as stream:
        writer = SampleWriter(stream)
        writer.write("0", {"png": b"one"})
        writer.write("0", {"png": b"two"})
        writer.close()
    with pytest.raises(DamagedArtifact, match=r"a\.tar: .*0\.png stands there twice"):
        list(stream_members(path))
