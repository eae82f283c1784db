"""Stage `pick`: images of a set, drawn without replacement."""

from itertools import chain

import numpy as np
import pytest

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput
from sims_core.data.config import PickConfig
from sims_core.data.image_set import read_images, read_index
from sims_core.data.picking import picked_indices
from sims_core.data.stages import PICK
from sims_core.engine.execution import Execution


def picked(store, source, seed, start, count):
    config = PickConfig(seed=seed, start=start, count=count)
    ref = run_stage(store, PICK.request(config, images=source), Execution(threads=1))
    folder = store.open_artifact(ref)
    index = read_index(folder)
    return index, read_images([folder / shard.file for shard in index.shards])


def test_the_images_and_labels_are_those_of_the_set(store, random_images, put_images):
    images, labels = random_images(23), [i % 4 for i in range(23)]
    source = put_images(store, images, labels)
    index, (found, classes) = picked(store, source, 5, 3, 9)
    chosen = picked_indices(PickConfig(seed=5, start=3, count=9), 23)
    assert len(set(chosen)) == 9
    assert np.array_equal(found, images[chosen])
    assert classes.tolist() == [labels[i] for i in chosen]
    assert index.class_histogram == {
        str(c): n for c in range(4) if (n := classes.tolist().count(c))
    }


def test_a_set_without_labels_stays_without(store, random_images, put_images):
    _, (_, classes) = picked(store, put_images(store, random_images(6)), 0, 0, 4)
    assert classes is None


def test_draws_that_follow_each_other_are_disjoint_and_in_the_end_all():
    draws = [
        picked_indices(PickConfig(seed=1, start=s, count=100), 1000) for s in range(0, 1000, 100)
    ]
    assert sorted(chain(*draws)) == list(range(1000))
    # A random order, not the set's own: a tenth holds as many of the first half as of the second.
    assert all(30 < sum(i < 500 for i in draw) < 70 for draw in draws)
    other = picked_indices(PickConfig(seed=2, start=0, count=100), 1000)
    assert len(set(other) & set(draws[0])) < 40


def test_more_than_there_are_is_refused():
    assert picked_indices(PickConfig(seed=0, start=7, count=3), 10)
    with pytest.raises(BadInput, match="images 8 to 11 wanted of a set of 10"):
        picked_indices(PickConfig(seed=0, start=8, count=3), 10)
