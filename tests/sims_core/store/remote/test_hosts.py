"""Several hosts and one bucket: each stage is computed once, whatever breaks on the way."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import asdict

import pytest

from sims_core.common.errors import DamagedArtifact, StoreError
from sims_core.engine.execution import Execution
from sims_core.engine.run import run_stage
from sims_core.store.artifacts import Manifest
from sims_core.store.behind import is_evicted
from sims_core.store.marks import leave_mark, place_of, shares_bucket, shares_folder
from sims_core.store.remote import runs
from sims_core.store.remote.lease import Waiting
from sims_core.store.remote.names import blob_key, manifest_key, sealed_json
from sims_core.store.remote.upkeep import problems_in, usage
from sims_core.store.store import Store


def keys(host, prefix):
    return sorted(key for key, _ in host.client.list(prefix))


def contents(store, ref):
    folder = store.path(ref)
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def blob_of(host, ref, name):
    return blob_key(host.store.manifest(ref).files[name].sha256)


def test_a_second_host_computes_nothing_and_has_the_same_bytes(hosts, write_request):
    first, second = hosts(2)
    request = write_request()
    ref = first.run(request)
    assert second.run(request) == ref
    assert first.computed == ["one 1", "one 2", "one 3"]
    assert second.computed == []
    assert contents(first.store, ref) == contents(second.store, ref)
    assert first.store.record(ref) == second.store.record(ref)
    assert keys(first, "leases") == keys(first, "progress") == []
    assert list(problems_in(first.client)) == []


def test_two_hosts_at_once_compute_once(hosts, write_request):
    first, second = hosts(2)
    begun, may_end = threading.Event(), threading.Event()

    def wait(done, *_, **__):
        begun.set()
        assert may_end.wait(20)

    request = write_request(parts=1)
    threads = [threading.Thread(target=first.run, args=(request, wait))]
    threads[0].start()
    assert begun.wait(20)
    threads.append(threading.Thread(target=second.run, args=(request,)))
    threads[1].start()
    time.sleep(1.5)  # longer than a lease: it is renewed
    assert threads[1].is_alive()
    may_end.set()
    for thread in threads:
        thread.join(20)
    assert (first.computed, second.computed) == (["one 1"], [])
    assert first.by(request.ref) == second.by(request.ref) == "1"


DYING = """
    import sys, time
    sys.path[:0] = [{modules!r}, {tests!r}]
    from pathlib import Path
    from sims_core.engine.execution import Execution
    from sims_core.engine.run import run_stage
    from sims_core.store.artifacts import StageRequest
    from sims_core.store.remote.bucket import attach
    from sims_core.store.store import Store
    from conftest import WRITE

    store = Store.open({root!r})
    attach(store, {url!r}, lease_s=1.0, upload_s=0.05, cache_bytes=None)

    def progress(done, total, unit, **figures):
        if done == 2:
            time.sleep(0.5)
            print("two parts", flush=True)
            time.sleep(600)

    request = StageRequest.model_validate_json({request!r})
    run_stage(store, WRITE, request, Execution(threads=1, sampling_batch_size=1), progress=progress)
"""


def test_a_host_that_is_killed_is_taken_over_from_its_finished_parts(
    hosts, write_request, stage_module, tmp_path, request, caplog
):
    (host,) = hosts(1)
    if host.client.url == "memory":
        pytest.skip("two processes share a folder, and no memory")
    wanted = write_request()
    code = textwrap.dedent(DYING).format(
        modules=str(stage_module),
        tests=str(request.path.parent),
        root=str(tmp_path / "dying"),
        url=host.client.url,
        request=wanted.model_dump_json(),
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as dying:
        assert dying.stdout.readline() == "two parts\n"
        dying.send_signal(signal.SIGKILL)
    assert keys(host, "manifests") == []
    caplog.set_level("INFO", "sims_core")
    began = time.monotonic()
    ref = host.run(wanted)
    assert 0.9 < time.monotonic() - began < 20
    assert host.computed == ["one 3"]
    assert "goes on with" in caplog.text
    assert "taken over, as epoch 2" in caplog.text
    # As one undisturbed host would have made it, and gone on with as it was begun.
    assert host.by(ref) == "1"
    assert [(host.store.path(ref) / f"parts/{n}").read_bytes() for n in range(3)] == [
        bytes([n]) * 1000 for n in range(3)
    ]
    assert keys(host, "progress") == keys(host, "leases") == []


def test_a_host_cut_off_for_longer_than_its_lease_takes_the_bytes_of_who_was_first(
    hosts, write_request, caplog
):
    slow, quick = hosts(2)
    request = write_request(parts=1)
    caplog.set_level("INFO", "sims_core")

    def cut_off(*_, **__):
        slow.client.is_cut = True
        quick.run(request)
        slow.client.is_cut = False

    ref = slow.run(request, cut_off)
    assert slow.computed == quick.computed == ["one 1"]
    assert "another host was first, and its bytes are taken" in caplog.text
    assert slow.by(ref) == quick.by(ref) == "2"
    assert contents(slow.store, ref) == contents(quick.store, ref)
    assert len(keys(slow, "manifests")) == 1
    assert keys(slow, "leases") == keys(slow, "progress") == []


def test_an_upload_that_breaks_leaves_no_manifest_and_the_next_run_goes_on(hosts, write_request):
    first, second = hosts(2)
    request = write_request()
    first.client.puts_left = 2
    with pytest.raises(StoreError):
        first.run(request)
    first.client.puts_left = 10**9
    assert keys(first, "manifests") == []
    assert 0 < len(keys(first, "blobs")) < 4
    again = first.reopened()
    again.run(request)
    assert again.computed == []  # it was made, and only not sent
    assert second.run(request) == request.ref
    assert second.computed == []


@pytest.mark.parametrize("how", ["cut", "altered", "missing", "manifest", "outside", "no JSON"])
def test_what_is_damaged_in_the_bucket_is_noticed_and_computed_again(
    hosts, write_request, how, tmp_path, caplog
):
    first, second, third = hosts(3)
    request = write_request()
    ref = first.run(request)
    blob, manifest = blob_of(first, ref, "parts/1"), manifest_key(ref)
    if how == "cut":
        first.client.put(blob, b"\1" * 999)
    elif how == "altered":
        first.client.put(blob, b"\1" * 999 + b"\2")
    elif how == "missing":
        first.client.delete([blob])
    elif how == "manifest":
        content, _ = first.client.get(manifest)
        first.client.put(manifest, content.replace(b'"size":1000', b'"size":1001'))
    elif how == "outside":
        fields = first.store.manifest(ref).json_fields()
        fields.pop("checksum")
        fields["files"]["../../../escaped"] = fields["files"]["parts/1"]
        first.client.put(manifest, Manifest.of(fields).model_dump_json().encode())
    else:
        first.client.put(manifest, b"\xff\0[")
    assert len(list(problems_in(first.client))) == 1
    assert second.run(request) == ref
    assert "damaged in the bucket" in caplog.text
    assert second.computed == ["one 1", "one 2", "one 3"]
    assert list(problems_in(first.client)) == []
    third.run(request)
    assert third.computed == []
    assert contents(second.store, ref) == contents(third.store, ref)
    assert not list(tmp_path.rglob("escaped"))


def test_a_lease_of_garbage_is_taken_over(hosts, write_request):
    (host,) = hosts(1)
    request = write_request()
    for name in ("000000000001", "not a number", "000000000002"):
        host.client.put(f"leases/{request.ref.digest}/{name}", b"\xff{")
    host.run(request)
    assert host.computed == ["one 1", "one 2", "one 3"]


def test_unfinished_work_that_leads_outside_is_not_used(hosts, write_request, tmp_path):
    (host,) = hosts(1)
    request = write_request()
    waiting = Waiting(host.client, request.ref, 1.0)
    waiting.take().release()
    entry = {"size": 1, "sha256": "0" * 64}
    for names in (["state/../../../escaped"], ["/etc/escaped"], ["artifact/escaped"]):
        index = sealed_json({"host": "evil\x1b[2J", "files": dict.fromkeys(names, entry)})
        host.client.put(f"progress/{request.ref.digest}/000000000001.json", index)
        host.run(request)
        host.client.delete(keys(host, "manifests"))
        host = host.reopened()
        host.store.swap_in(host.store.path(request.ref), tmp_path / f"moved-{len(names[0])}")
    assert not list(tmp_path.rglob("escaped"))


def test_a_run_in_a_bucket_is_refused_where_it_leads_outside(hosts, tmp_path):
    (host,) = hosts(1)
    host.client.put("runs/mine/run.json", b"{}")
    sha = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    entry, good = {"size": 2, "sha256": sha}, f"artifacts/images/{'0' * 64}"
    for files, links in (
        ({"../../escaped": entry}, {}),
        ({"run.json": entry}, {"a": "../../etc"}),
        ({"run.json": entry}, {"../a": good}),
        ({"run.json": entry}, {"run.json": good}),
        ({"run.json": entry, "run.json/x": entry}, {}),
        ({"run.json": {"size": 2, "sha256": "0" * 64}}, {}),
    ):
        index = sealed_json({"files": files, "links": links, "written": 0})
        host.client.put("runs/mine.json", index)
        with pytest.raises(DamagedArtifact):
            runs.pull_run(host.client, host.store, "mine")
        assert not (host.store.root / "runs/mine").exists()
    fine = sealed_json({"files": {"run.json": entry}, "links": {"a/b": good}, "written": 5})
    host.client.put("runs/mine.json", fine)
    folder = runs.pull_run(host.client, host.store, "mine")
    assert (folder / "run.json").read_bytes() == b"{}"
    assert (folder / "a/b").resolve() == host.store.root / good
    assert folder.stat().st_mtime == 5
    assert not list(tmp_path.rglob("escaped"))


def test_the_cache_lets_go_of_what_was_not_used_for_longest(hosts, write_request):
    (host,) = hosts(1)
    requests = [write_request(name) for name in ("a", "b", "c", "d")]
    refs = [host.run(request) for request in requests[:3]]
    for age, ref in zip((30, 40, 20), refs, strict=True):
        path = host.store.root / "bucket" / ref.digest
        os.utime(path, (time.time() - age,) * 2)
    host = host.reopened(cache_bytes=3 * 3002)
    refs.append(host.run(requests[3]))
    assert [is_evicted(host.store.root, ref) for ref in refs] == [False, True, False, False]
    # It is known without a byte of it, and comes when it is opened.
    host.run(requests[1])
    assert is_evicted(host.store.root, refs[1])
    assert host.by(refs[1]) == "1"
    assert not is_evicted(host.store.root, refs[1])
    assert host.computed == ["d 1", "d 2", "d 3"]


def test_the_cache_keeps_what_is_in_use_and_what_the_bucket_lacks(
    hosts, write_request, write_stage
):
    first, other = hosts(2)
    used, lacked = write_request("used"), write_request("lacked")
    first.run(used)
    alone = Store.open(first.store.root)  # a run without the bucket
    run_stage(alone, write_stage, lacked, Execution(threads=1))
    small = first.reopened(cache_bytes=0)
    seen = []

    def look(*_, **__):
        again = first.reopened(cache_bytes=0)  # another process of this host
        again.run(write_request("another", parts=1))
        seen.append(is_evicted(first.store.root, used.ref))

    ref = small.run(write_request("user", of=used.ref, parts=1), look)
    assert seen == [False]
    assert is_evicted(first.store.root, used.ref)
    assert not is_evicted(first.store.root, lacked.ref)
    assert not is_evicted(first.store.root, ref)
    assert other.run(lacked) == lacked.ref
    assert other.computed == ["lacked 1", "lacked 2", "lacked 3"]


def test_what_left_the_store_and_is_altered_in_the_bucket_is_computed_again(hosts, write_request):
    (host,) = hosts(1, cache_bytes=0)
    first, second = write_request("first"), write_request("second")
    for request in (first, second):
        host.run(request)
    assert is_evicted(host.store.root, first.ref)
    host.client.put(blob_of(host, first.ref, "parts/1"), b"\1" * 999 + b"\2")
    with pytest.raises(DamagedArtifact, match="run the same command again"):
        host.store.open_artifact(first.ref)
    again = host.reopened()
    again.run(first)
    assert again.computed == ["first 1", "first 2", "first 3"]
    assert list(problems_in(host.client)) == []


def test_what_is_computed_again_on_purpose_takes_the_place_of_what_is_there(hosts, write_request):
    first, second = hosts(2)
    request = write_request()
    first.run(request)
    second.run(request)
    second.run(request, anew=lambda: True)
    assert second.by(request.ref) == "2"
    assert list(problems_in(first.client)) == []
    assert hosts(3)[2].bucket.client.url == first.client.url


def test_usage_counts_every_byte_once(hosts, write_request):
    (host,) = hosts(1)
    host.run(write_request("a"))
    host.run(write_request("b"))  # the same bytes
    host.client.put(blob_key("0" * 64), b"left over")
    used = usage(host.client)
    assert used.by_kind == {"images": (2, 2 * 3001)}
    assert used.by_stage == {"write": (2, 2 * 3001)}
    assert used.blobs == 3001 + 9
    assert used.unneeded == 9
    total = sum(size for key, size in host.client.list(""))
    told = asdict(used)
    assert total == sum(told[name] for name in ("blobs", "unfinished", "runs", "rest"))


def test_a_mark_tells_hosts_with_one_bucket_and_processes_with_one_store(hosts):
    first, second = (host.store for host in hosts(2))
    leave_mark(first, "of-a-run")
    leave_mark(first, "of-a-run")
    assert shares_folder(Store.open(first.root), "of-a-run")
    assert not shares_folder(second, "of-a-run")
    assert shares_bucket(second, "of-a-run")
    assert not shares_bucket(second, "of-another")
    assert place_of(first) == place_of(second) != place_of(Store.open(first.root))
