from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from sims_core.reports.run_folder import _publish
from sims_core.store.store import Store


def test_runs_of_one_name_may_end_at_the_same_moment(tmp_path):
    """A rename onto a folder that the other run has just put there would fail."""
    store = Store.open(tmp_path)
    run_folder = tmp_path / "runs" / "same"
    workers, rounds = 4, 50
    barrier = Barrier(workers, timeout=20)

    def publish(worker: int) -> None:
        for number in range(rounds):
            folder = tmp_path / "progress" / f"run-{worker}-{number}"
            folder.mkdir()
            (folder / "run.json").write_text(str(worker))
            barrier.wait()
            _publish(store, folder, run_folder)

    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(publish, worker) for worker in range(workers)]:
            done.result()
    assert (run_folder / "run.json").read_text() in "0123"
    assert list((tmp_path / "progress").iterdir()) == []
