from __future__ import annotations

import pytest

from flows.parameters import parameter_model
from flows.sims_loop import sims_loop
from infra.cli.arguments import parse_parameters
from sims_core.common.errors import BadInput

MODEL = parameter_model(sims_loop.fn)


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["omegas=1,2.5"], {"omegas": [1, 2.5]}),
        (["omegas=1, 2"], {"omegas": [1, 2]}),
        (["omegas=[0,1]"], {"omegas": [0, 1]}),
        (["omegas=1.5"], {"omegas": [1.5]}),
        (["methods=sims"], {"methods": ["sims"]}),
        (["methods=standard,sims"], {"methods": ["standard", "sims"]}),
        (['methods=["sims"]'], {"methods": ["sims"]}),
        (["omegas="], {"omegas": []}),
        (["generations=5", "loop=fully_synthetic"], {"generations": 5, "loop": "fully_synthetic"}),
        (["run_name=a=b"], {"run_name": "a=b"}),
        (["training.kimg=10"], {"overrides": {"training.kimg": 10}}),
        (
            ['overrides={"sims.n_s": 8}', "training.decay=cosine"],
            {"overrides": {"sims.n_s": 8, "training.decay": "cosine"}},
        ),
        (
            ["model.net.block_out_channels=[8,16]"],
            {"overrides": {"model.net.block_out_channels": [8, 16]}},
        ),
        (["unknown=1,2"], {"unknown": "1,2"}),
    ],
)
def test_texts_become_json_values(texts, values):
    assert parse_parameters(texts, MODEL) == values


@pytest.mark.parametrize(
    "texts",
    [
        ["generations"],
        ["=3"],
        ["seed=1", "seed=1"],
        ["training.kimg=1", "training.kimg=2"],
        ["overrides=3", "training.kimg=1"],
    ],
)
def test_what_cannot_be_read_is_bad_input(texts):
    with pytest.raises(BadInput):
        parse_parameters(texts, MODEL)


def test_the_version_is_printed(sims):
    from importlib.metadata import version

    done = sims("--version")
    assert done.returncode == 0
    assert done.stdout.startswith(f"sims-loop {version('sims-loop')}")
