"""Mixing refers to images and copies none."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput, DamagedArtifact
from sims_core.data.config import MixConfig, MixPart
from sims_core.data.mixing import load_training_set, read_first_labelled, read_training_set
from sims_core.data.stages import MIX
from sims_core.engine.execution import Execution
from sims_core.store.store import Store

EXECUTION = Execution(threads=1)


def part(name, count=None, synthetic=True):
    return MixPart(input=name, synthetic=synthetic, count=count)


def mix(store, *parts, **inputs):
    return run_stage(store, MIX.request(MixConfig(parts=parts), **inputs), EXECUTION)


@hypothesis_settings(max_examples=20)
@given(data=st.data(), sizes=st.lists(st.integers(1, 13), min_size=1, max_size=3))
def test_mix_holds_the_first_images_of_each_part(data, sizes, random_images, put_images):
    counts = [data.draw(st.none() | st.integers(1, size)) for size in sizes]
    with tempfile.TemporaryDirectory() as root:
        store = Store.open(root)
        sets = [random_images(size, seed=i) for i, size in enumerate(sizes)]
        inputs = {f"p{i}": put_images(store, images) for i, images in enumerate(sets)}
        parts = [part(f"p{i}", count, bool(i % 2)) for i, count in enumerate(counts)]
        folder = store.open_artifact(ref := mix(store, *parts, **inputs))
        expected = np.concatenate([s[:n] for s, n in zip(sets, counts, strict=True)])
        images, labels = load_training_set(store, folder)
        assert np.array_equal(images[torch.arange(len(images))], expected)
        assert labels is None
        training_set = read_training_set(folder)
        assert training_set.count == len(expected)
        taken = [n or size for n, size in zip(counts, sizes, strict=True)]
        assert [p.count for p in training_set.parts] == taken
        details = store.manifest(ref).details
        assert details == {"count": sum(taken), "synthetic": sum(taken[1::2])}


def test_nothing_is_copied(store, put_images, random_images):
    images = put_images(store, random_images(6))
    folder = store.open_artifact(mix(store, part("a"), a=images))
    assert sorted(p.name for p in folder.rglob("*")) == ["manifest.json", "mix.json"]


def test_mix_of_a_mix_flattens(store, put_images, random_images):
    real, fake, more = (put_images(store, random_images(6, seed=seed)) for seed in range(3))
    inner = mix(store, part("a", synthetic=False), part("b", 2), a=real, b=fake)
    # The outer flag must not overwrite what the inner mix knows of its own parts.
    outer = mix(store, part("kept", synthetic=False), part("c", 3), kept=inner, c=more)
    parts = read_training_set(store.open_artifact(outer)).parts
    assert [(p.artifact, p.synthetic, p.count) for p in parts] == [
        (real, False, 6),
        (fake, True, 2),
        (more, True, 3),
    ]
    assert store.manifest(outer).details == {"count": 11, "synthetic": 5}


def test_a_mix_is_taken_whole(store, put_images, random_images):
    """A count on a mix would be ambiguous: it is refused, not ignored."""
    inner = mix(store, part("a"), a=put_images(store, random_images(6)))
    with pytest.raises(BadInput, match="taken whole"):
        mix(store, part("kept", 4), kept=inner)


def test_more_images_than_there_are_is_bad_input(store, put_images, random_images):
    images = put_images(store, random_images(6))
    with pytest.raises(BadInput, match=r"wants 7 images of images/\w{12}, which holds 6"):
        mix(store, part("a", 7), a=images)


def test_a_mix_needs_a_part():
    with pytest.raises(ValueError, match="parts"):
        MixConfig(parts=())


@pytest.mark.parametrize("count", [1, 4, 5, 6, 12, None])
def test_first_images_across_shards(store, put_images, random_images, count):
    folder = store.open_artifact(put_images(store, random_images(12), per_shard=5))
    assert np.array_equal(read_first_labelled(folder, count)[0], random_images(12)[:count])


def test_labels_go_with_their_images(store, put_images, random_images):
    one = put_images(store, random_images(7), labels=list(range(7)))
    two = put_images(store, random_images(6, seed=1), labels=[9] * 6)
    none = put_images(store, random_images(6, seed=2))
    labelled = mix(store, part("a", 6), part("b", 2), a=one, b=two)
    _, labels = load_training_set(store, store.open_artifact(labelled))
    assert labels is not None
    assert labels.tolist() == [0, 1, 2, 3, 4, 5, 9, 9]
    partly = mix(store, part("a"), part("b"), a=one, b=none)
    images, labels = load_training_set(store, store.open_artifact(partly))
    assert len(images) == 13
    assert labels is None, "one part without labels: the set has none"


def test_damaged_source_is_noticed(store, put_images, random_images):
    images = put_images(store, random_images(6))
    folder = store.open_artifact(mix(store, part("a"), a=images))
    shard: Path = store.path(images) / "images-00001.tar"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DamagedArtifact, match="images-00001"):
        load_training_set(store, folder)
