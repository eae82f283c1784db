"""What may go from a store goes, and nothing that somebody needs."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from sims_core.common.errors import BadInput
from sims_core.common.files import is_partial, write_atomically
from sims_core.data.config import Contents, GaussianData, ImportConfig, ImportedSet
from sims_core.data.names import DATASETS, images_of
from sims_core.data.stages import IMPORT
from sims_core.engine.execution import Execution
from sims_core.evaluation.config import PointEvaluationConfig
from sims_core.methods.standard import Standard
from sims_core.nets.config import ExactGaussianConfig, ModelConfig
from sims_core.reports.upkeep import NAMES, by, collect, look, remove_run
from sims_core.store.artifacts import Record, StageRequest
from sims_core.store.leases import KILLED_KEPT_S, leased, needing
from sims_core.store.marks import leave_mark, shares_folder
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Arm, LoopKind, plan_loop
from sims_core.studies.running import Runner

EXPERIMENT = Experiment(
    data=GaussianData(num_points=50, replicates=2),
    model=ModelConfig(net=ExactGaussianConfig()),
    point_evaluation=PointEvaluationConfig(num_points=50, empirical_points=10, bootstrap=100),
)
ARMS = (Arm(method=Standard(), loop=LoopKind.fresh_data, pollution_size=20),)


def put(store, tag, size=100, inputs=None, request=None):
    """An artifact of so many bytes, made of others."""
    request = request or StageRequest(
        stage="train", version=1, kind="model", config={"tag": tag}, inputs=inputs or {}
    )
    made = store.progress_path(request.ref) / "artifact"
    made.mkdir(parents=True)
    (made / "weights").write_bytes(tag.encode() * size)
    record = Record(computed_by="me", finished="2026-01-01T00:00:00+00:00", seconds=1.0)
    store.commit(request, made, execution={}, libraries={}, details={}, record=record)
    store.settle(request.ref)
    return request.ref


def show(store, run, *refs):
    """A run's folder that leads to artifacts."""
    for number, ref in enumerate(refs):
        link = store.root / "runs" / run / "arms" / str(number)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(store.path(ref), link.parent))


@pytest.fixture
def chain(store):
    """`one` needs c, `two` d, both made of b, that of a; nobody needs f, made of e."""
    a = put(store, "a")
    b = put(store, "b", inputs={"data": a})
    c, d = put(store, "c", inputs={"data": b}), put(store, "d", inputs={"data": b})
    e = put(store, "e", size=7)
    f = put(store, "f", inputs={"data": e})
    show(store, "one", c)
    show(store, "two", d)
    return dict(zip("abcdef", (a, b, c, d, e, f), strict=True))


def there(store, refs):
    return "".join(name for name, ref in refs.items() if store.is_whole(ref))


def test_what_no_run_needs_goes_and_what_runs_are_made_of_stays(store, chain):
    gone = collect(store, 0, dry_run=True)
    assert sorted(gone.artifacts) == sorted(chain[name].location for name in "ef")
    assert gone.bytes == 7 + 100
    assert there(store, chain) == "abcdef"
    assert collect(store, 0, dry_run=False).artifacts == gone.artifacts
    assert there(store, chain) == "abcd"
    assert {path.stem for path in (store.root / "records").iterdir()} == {
        chain[name].digest for name in "abcd"
    }
    assert list((store.root / "progress").iterdir()) == []


def test_what_is_young_stays(store, chain):
    assert collect(store, 1, dry_run=False).artifacts == []
    old = time.time() - 2 * 86_400
    os.utime(store.path(chain["f"]), (old, old))
    assert collect(store, 1, dry_run=False).artifacts == [chain["f"].location]


def test_a_removed_run_leaves_what_others_need(store, chain):
    held = look(store)
    assert held.bytes_of(held.alone("one")) == 100
    assert by(held, "kind") == {"model": (6, 507)}
    assert remove_run(store, store.root / "runs/one") == 100
    collect(store, 0, dry_run=False)
    assert there(store, chain) == "abd"


def test_what_a_name_stands_for_stays(store, chain):
    config = ImportConfig(content="ab" * 32, layout="folder")
    imported = put(store, "i", request=IMPORT.request(config))
    contents = Contents(count=3, channels=1, height=8, width=8, num_classes=2)
    dataset = ImportedSet(config=config, contents=contents)
    DATASETS.give(store, "mine", dataset)
    assert images_of(dataset) == imported
    collect(store, 0, dry_run=False)
    assert store.is_whole(imported)
    assert look(store).needed[NAMES] == {imported.location}
    (store.root / "datasets" / "mine.json").write_text("{")
    with pytest.raises(BadInput, match=r"mine\.json is unreadable"):
        collect(store, 0, dry_run=False)  # what it stood for must not go
    assert store.is_whole(imported)


HOLD = textwrap.dedent(
    """
    import json, sys
    from pathlib import Path
    from sims_core.store.artifacts import ArtifactRef
    from sims_core.store.leases import needing
    from sims_core.store.store import Store
    ref = ArtifactRef.model_validate(json.loads(sys.argv[2]))
    with needing(Store(Path(sys.argv[1])), [ref]):
        print("needed", flush=True)
        sys.stdin.readline()
    """
)


def test_what_a_process_needs_stays_while_it_runs_and_for_a_month_where_it_was_killed(store, chain):
    words = [sys.executable, "-c", HOLD, str(store.root), chain["f"].model_dump_json()]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "needed\n"
        assert collect(store, 0, dry_run=False).artifacts == []
        assert there(store, chain) == "abcdef", "f is made of e"
    finally:
        process.kill()
        process.communicate()
    assert collect(store, 0, dry_run=False).artifacts == [], "its run may go on"
    (lease,) = (store.root / "locks").glob("lease-*")
    long_ago = time.time() - KILLED_KEPT_S - 1
    os.utime(lease, (long_ago, long_ago))
    assert len(collect(store, 0, dry_run=False).artifacts) == 2
    assert list((store.root / "locks").iterdir()) == []


def test_the_lease_of_a_killed_process_ends_when_its_work_has_been_gone_on_with(store, chain):
    words = [sys.executable, "-c", HOLD, str(store.root), chain["f"].model_dump_json()]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"needed\n"
        process.kill()
    with needing(store, [chain["e"]]):
        pass
    assert leased(store) == {chain["f"].location}, "other work has ended"
    with pytest.raises(KeyError), needing(store, [chain["e"], chain["f"]]):
        raise KeyError
    assert leased(store) == {chain["f"].location}, "it has failed"
    with needing(store, [chain["e"], chain["f"]]):
        pass
    assert list((store.root / "locks").iterdir()) == []


def test_what_kills_left_of_files_that_were_being_written_goes_after_a_day(store, chain):
    names = [
        write_partial(store.root / folder)
        for folder in ("records", "datasets", "models", "results", "runs/one", "locks", ".")
    ]
    left = [path.relative_to(store.root).as_posix() for path in names]
    assert not set(left) & set(collect(store, 0, dry_run=True).leftovers), "it may be in use"
    for path in names:
        os.utime(path, (0, 0))
    assert set(left) <= set(collect(store, 0, dry_run=True).leftovers)
    collect(store, 0, dry_run=False)
    assert not any(path.exists() for path in names)


def write_partial(folder):
    """The file that `write_atomically` leaves when it is killed before its renaming."""
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", lambda *names: None)
        patch.setattr(type(folder), "unlink", lambda path, missing_ok: None)
        write_atomically(folder / "a.json", "{}")
    (path,) = (path for path in folder.iterdir() if is_partial(path))
    return path


def test_leftovers_of_kills_go(store, chain):
    (store.root / "locks" / ("ab" * 32 + ".lock")).write_text("")
    trash = store.root / "progress" / "trash-1"
    trash.mkdir()
    collect(store, 0, dry_run=False)
    assert trash.exists(), "it is in use for moments while somebody works"
    os.utime(trash, (0, 0))
    (store.root / "results" / ("cd" * 32)).write_text("{}")
    unfinished = store.root / "progress" / ("ef" * 32)
    unfinished.mkdir()
    collect(store, 0, dry_run=False)
    left = [*(store.root / "locks").iterdir(), *(store.root / "results").iterdir()]
    assert left == []
    assert list((store.root / "progress").iterdir()) == [unfinished], "somebody may go on with it"


def test_the_mark_of_a_run_stays_while_its_arms_may_go_on(store, chain):
    leave_mark(store, "of-a-run")
    collect(store, 0, dry_run=False)
    assert shares_folder(store, "of-a-run")
    (mark,) = (store.root / "locks").glob("mark-*")
    long_ago = time.time() - KILLED_KEPT_S - 1
    os.utime(mark, (long_ago, long_ago))
    collect(store, 0, dry_run=False)
    assert not shares_folder(store, "of-a-run")


@pytest.mark.slow
def test_a_run_and_one_who_tidies_up_do_not_meet(store):
    """Runs beside an endless gc: no stage fails, and nothing that the run made is missing."""
    plan = plan_loop(EXPERIMENT, ARMS, generations=2, seed=0)
    refs = [stage.ref for stage in plan]
    ended, errors = threading.Event(), []

    def tidy():
        rounds = 0
        other = Store.open(store.root)
        while not ended.is_set() or not rounds:
            try:
                collect(other, 0, dry_run=False)
            except Exception as error:
                errors.append(error)
                return
            rounds += 1

    thread = threading.Thread(target=tidy)
    thread.start()
    try:
        with needing(store, refs):
            _, first = Runner(store, Execution()).run_plan(plan)
            _, again = Runner(store, Execution()).run_plan(plan)
            assert all(map(store.is_whole, refs))
        assert not all(each.cached for each in first)
        assert all(each.cached for each in again)
        for _ in range(2):  # what was tidied away in between is made again
            Runner(store, Execution()).run_plan(plan)
    finally:
        ended.set()
        thread.join(60)
    assert errors == []
    collect(store, 0, dry_run=False)
    assert store.artifacts() == []
    assert leased(store) == set()
