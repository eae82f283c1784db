"""A preset for one's own images takes size, channels and features from them, and says so."""

import logging

import pytest

from flows.presets import find_preset
from sims_core.common.errors import BadInput
from sims_core.data.config import Contents, ImportConfig, ImportedSet
from sims_core.data.names import DATASETS
from sims_core.studies.experiment import Experiment
from sims_core.studies.resolve import fit_networks_to_data, resolve_data


@pytest.fixture
def named(store):
    """Gives the name `own` to a set of such images, without importing any."""

    def give(channels=1, height=64, width=64, num_classes=10, count=5000):
        contents = Contents(
            **{"count": count, "channels": channels, "num_classes": num_classes},
            **{"height": height, "width": width},
        )
        config = ImportConfig(content="ab" * 32, layout="folder")
        DATASETS.give(store, "own", ImportedSet(config=config, contents=contents))
        return store

    return give


@pytest.fixture
def preset():
    return find_preset("sims-loop/own-images").experiment


def test_size_and_channels_are_those_of_the_images(named, preset, caplog):
    store = named()
    with pytest.raises(BadInput, match=r"set model.net.image_size"):
        resolve_data(preset, store)
    with caplog.at_level(logging.WARNING, "sims_core.studies"):
        fitted = resolve_data(fit_networks_to_data(preset, store), store)
    assert (fitted.model.net.image_size, fitted.model.net.channels) == (64, 1)
    assert caplog.messages == [
        "model.net.image_size is 64, as the images of own want it",
        "model.net.channels is 1, as the images of own want it",
    ]
    assert fitted.evaluation == preset.evaluation
    assert fitted.training == preset.training


def test_what_fits_already_is_as_it_was_and_nothing_is_said(named, preset, caplog):
    store = named(channels=3, height=32, width=32)
    assert fit_networks_to_data(preset, store) == preset
    assert caplog.messages == []


def test_what_was_chosen_stays(named, preset):
    store = named()
    fitted = fit_networks_to_data(preset, store, {"model.net.channels"})
    assert (fitted.model.net.image_size, fitted.model.net.channels) == (64, 3)
    with pytest.raises(BadInput, match=r"set model.net.image_size and model.net.channels"):
        resolve_data(fitted, store)


def test_without_classes_features_need_none(named, preset):
    store = named(num_classes=0)
    fitted = resolve_data(fit_networks_to_data(preset, store), store)
    assert fitted.evaluation.features == "inception"
    assert fitted.evaluation.num_images == 2049, "the fewest of Inception's 2,048 features"
    chosen = fit_networks_to_data(preset, store, {"evaluation.features"})
    assert chosen.evaluation == preset.evaluation


def test_images_that_no_network_is_for_are_refused(named, preset):
    with pytest.raises(BadInput, match=r"its images are 48 x 64, and networks are for square ones"):
        fit_networks_to_data(preset, named(width=48))
    with pytest.raises(BadInput, match=r"data set own: .*image_size 30 cannot be halved 2 times"):
        fit_networks_to_data(preset, named(height=30, width=30))


def test_other_presets_are_not_fitted(named):
    assert fit_networks_to_data(Experiment(), named()) == Experiment()
    assert not find_preset("sims-loop/digits").fits_data
