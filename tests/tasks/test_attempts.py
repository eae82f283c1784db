"""What tells runs apart on Prefect's pages, against a real server."""

from __future__ import annotations

import contextlib

import pytest
from prefect import flow
from prefect.client.orchestration import get_client

from infra.server.prefect_api import run_watched
from tasks.attempts import tell_apart


@pytest.fixture
def attempts(prefect_url):
    """A flow whose body is set by a test; runs it and returns its latest run, as the server has
    it."""
    body = {"do": lambda: None}

    @flow(name="attempts", flow_run_name="a", on_running=[tell_apart])
    def attempted(preset: str, seeds: list[int], methods: list[str]) -> None:
        body["do"]()

    def run(do=lambda: None, **parameters):
        body["do"] = do
        given = {"preset": "digits", "seeds": [0, 1], "methods": ["sims"], **parameters}
        with contextlib.suppress(KeyboardInterrupt):
            run_watched(attempted, given)
        with get_client(sync_client=True) as client:
            runs = [each for each in client.read_flow_runs() if each.name == "a"]
        return max(runs, key=lambda each: each.created)

    return run


def interrupt():
    raise KeyboardInterrupt


def test_an_interrupted_run_is_cancelled_and_the_next_goes_on_with_it(attempts):
    first = attempts(interrupt)
    assert first.state.is_cancelled()
    assert "goes on where it was" in first.state.message
    assert first.tags == ["seed:0", "seed:1", "method:sims"]
    other = attempts(seeds=[5])
    assert other.state.is_completed()
    assert other.tags == ["seed:5", "method:sims"], "of other parameters"
    second = attempts()
    assert second.tags[-1] == f"goes-on-from:{str(first.id)[:8]}"
    third = attempts()
    assert third.tags == ["seed:0", "seed:1", "method:sims"], "the one before has ended"
