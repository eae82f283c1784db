"""What stages will take by what others took."""

from __future__ import annotations

import pytest

from sims_core.nets.config import ModelConfig, UNetConfig
from sims_core.reports.forecast import (
    Forecast,
    Rates,
    Work,
    Works,
    duration,
    measured_rates,
    networks,
    size,
)
from sims_core.store.store import Store
from sims_core.training.config import TrainingConfig, TrainStageConfig
from sims_core.training.stages import TRAIN


def training(kimg, width=32):
    model = ModelConfig(net=UNetConfig(block_out_channels=(width, width)), sigma_data=0.5)
    recipe = TrainingConfig(kimg=kimg, batch_size=50)
    return TRAIN.request(TrainStageConfig(model=model, training=recipe, seed=1))


def test_a_training_twice_as_long_takes_twice_as_long(tmp_path):
    works, rates = Works(Store(tmp_path)), Rates()
    rates.add(works.of(training(1)), seconds=10.0, size=7000)
    assert rates.seconds(works.of(training(2))) == pytest.approx(20.0)
    assert rates.bytes(works.of(training(2))) == pytest.approx(7000)
    forecast = Forecast.of(rates, works, [training(2), training(0.5)])
    assert (forecast.seconds, forecast.bytes) == pytest.approx((25.0, 14000))
    assert forecast.unknown == ()


def test_another_network_is_not_known(tmp_path):
    works, rates = Works(Store(tmp_path)), Rates()
    rates.add(works.of(training(1)), seconds=10.0)
    assert rates.seconds(works.of(training(1, width=64))) is None
    assert Forecast.of(rates, works, [training(1, width=64)]).unknown == ("train",)
    both = Forecast.of(rates, works, [training(1), training(1, width=64)])
    assert str(both) == "about 10 s, 0 kB without train"


def test_sampling_stands_in_for_training_until_that_is_known():
    rates, other = Rates(), Rates()
    train = Work(("train", "a"), 300, 1, ("sample", "a"))
    rates.add(Work(("sample", "a"), 100, 10), seconds=1.0)
    assert rates.seconds(train) == pytest.approx(3.0)
    other.add(train, seconds=5.0)
    assert rates.seconds(train, other) == pytest.approx(5.0), "its own, though measured elsewhere"
    assert rates.also(train, 4.0).seconds(train) == pytest.approx(4.0)
    assert rates.seconds(train) == pytest.approx(3.0)


def test_the_rates_of_a_store_are_those_of_its_records(tiny_run):
    store, plan = tiny_run.store, tiny_run.plan  # others have run in this store, too
    works = Works(store)
    rates = measured_rates(store, works, "cpu")
    made = {ref: store.manifest(ref).request for ref in store.artifacts()}
    by_stage = {stage.ref: stage.request for stage in plan}
    for kind in ("train", "generate"):
        chosen = {ref: request for ref, request in made.items() if request.stage == kind}
        forecast = Forecast.of(rates, works, chosen.values())
        assert forecast.seconds == pytest.approx(sum(store.record(ref).seconds for ref in chosen))
        assert forecast.unknown == ()
    assert (
        measured_rates(store, works, "cuda").seconds(works.of(by_stage[plan.arms[0].stages[1].ref]))
        is None
    )


def test_networks_are_those_that_are_trained(tiny_plan):
    (network,) = networks(stage.request for stage in tiny_plan())
    assert network.kind == "unet"
    assert network.training_bytes == 20 * network.parameters


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (89, "89 s"), (95, "2 min"), (5401, "1.5 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(1200, "1 kB"), (3.25e6, "3.2 MB"), (2e12, "2.0 TB")])
def test_sizes(number, text):
    assert size(number) == text
