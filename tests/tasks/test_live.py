"""The progress that Prefect's UI shows while a stage runs."""

from __future__ import annotations

import time
from contextlib import contextmanager
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest

from sims_core.reports.moment import Moment
from tasks import live
from tasks.live import artifact_key, live_progress


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (
            Moment(20.0, 8192, 12_032, "img", True, 0.123),
            "8.2 of 12.0 kimg, loss 0.123, 717 img/s, ",
        ),
        (Moment(20.0, 8192, 12_032, "img", True), "8.2 of 12.0 kimg, 717 img/s, 5 s left"),
        (Moment(20.0, 1024, 4000, "img"), "1024 of 4000 images"),
        (Moment(20.0, 3048, 4000, "img"), "3048 of 4000 images, 202 img/s, 5 s left"),
        (Moment(20.0, 2024, 80_000, "points"), "2024 of 80000 points, 100 points/s, 13 min left"),
    ],
)
def test_progress_in_words(moment, text):
    first = Moment(10.0, 1024, moment.total, moment.unit)
    assert moment.describe("t=01 x", first).startswith(f"t=01 x: {text}")


def test_a_key_is_what_prefect_takes_and_stays_the_same_over_generations():
    assert (
        artifact_key("digits-1a", "sims omega=0.5 |D_s|=250") == "digits-1a-sims-omega-0-5-ds-250"
    )
    assert live.LiveProgress("t=03 train base").key == "progress-train-base"
    assert live.LiveProgress("t=12 train base").key == "progress-train-base"


class Server:
    """Records what it is asked, or fails."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.calls: list[tuple[str, float]] = []

    def create_artifact(self, artifact):
        if self.fails:
            raise ConnectionError("no server")
        self.calls.append(("created", artifact.data))
        return SimpleNamespace(id=uuid4())

    def update_artifact(self, artifact_id, artifact):
        assert isinstance(artifact_id, UUID)
        self.calls.append(("updated", artifact.data))


@pytest.fixture
def serve(monkeypatch):
    def start(server, interval):
        @contextmanager
        def client(sync_client):
            yield server

        monkeypatch.setattr(live, "get_client", client)
        monkeypatch.setattr(live, "INTERVAL_S", interval)
        return server

    return start


def test_a_short_stage_asks_the_server_nothing(serve):
    server = serve(Server(), 60)
    with live_progress("t=01 train base") as advanced:
        for done in range(100):
            advanced(done, 100, "img", loss=1.0)
    assert server.calls == []


def test_a_long_stage_is_shown_at_intervals_and_to_its_end(serve, wait_for):
    server = serve(Server(), 0.2)
    with live_progress("t=01 train base") as advanced:
        advanced(1, 1000, "img")
        wait_for(lambda: server.calls, 10)
        for done in range(2, 1001):
            advanced(done, 1000, "img")
    assert server.calls[0] == ("created", 0.1)
    assert {call for call, _ in server.calls[1:]} == {"updated"}
    assert server.calls[-1] == ("updated", 100.0)
    assert len(server.calls) < 100


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_stage_that_fails_leaves_what_it_reached(error, serve, wait_for):
    server = serve(Server(), 0.05)
    with pytest.raises(error), live_progress("x") as advanced:  # noqa: PT012
        advanced(1, 4, "img")
        wait_for(lambda: server.calls, 10)
        advanced(2, 4, "img")
        raise error
    assert server.calls[-1] == ("updated", 50.0)


def test_a_server_that_fails_is_not_the_stages_trouble(serve):
    serve(Server(fails=True), 0.01)
    with live_progress("x") as advanced:
        for done in range(5):
            advanced(done, 5, "img")
            time.sleep(0.02)
