"""The store: whole entries or none, and damage is always noticed."""

import errno
import os
import shutil
import subprocess
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from sims_core.catalog import run_stage
from sims_core.common.errors import DamagedArtifact, StoreError
from sims_core.common.files import explain_disk_errors, write_atomically
from sims_core.data.digits import load_digits_uint8
from sims_core.data.stages import PREPARE
from sims_core.engine.execution import Execution
from sims_core.store.artifacts import ArtifactRef, Record, StageRequest
from sims_core.store.store import Store

FILES = {"model.json": b'{"a": 1}', "net/weights.bin": bytes(range(256)) * 8}


def request(tag="a"):
    return StageRequest(stage="train", version=1, kind="model", config={"tag": tag})


def put(store, tag="a", files=FILES):
    folder = store.progress_path(request(tag).ref)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return store.commit(
        request(tag), folder, execution={"threads": 1}, libraries={"x": "1"}, details={"nimg": 3}
    )


def test_commit_moves_the_folder_whole(store):
    ref = put(store)
    assert ref == request().ref
    assert store.is_whole(ref)
    assert store.damage(ref) == []
    folder = store.open_artifact(ref)
    assert folder == store.root / "artifacts" / "model" / request().digest
    for name, content in FILES.items():
        assert (folder / name).read_bytes() == content
    manifest = store.manifest(ref)
    assert manifest.request == request()
    assert {name: entry.size for name, entry in manifest.files.items()} == {
        name: len(content) for name, content in FILES.items()
    }
    assert manifest.details == {"nimg": 3}
    assert not list((store.root / "progress").iterdir())
    assert store.artifacts() == [ref]


def test_equal_computations_have_equal_manifests(tmp_path):
    manifests = []
    for name in ("one", "two"):
        store = Store.open(tmp_path / name)
        manifests.append((store.path(put(store)) / "manifest.json").read_bytes())
    assert manifests[0] == manifests[1]


def test_absent_artifact_is_not_whole(store):
    ref = request().ref
    assert not store.is_whole(ref)
    assert store.artifacts() == []
    with pytest.raises(DamagedArtifact, match="missing"):
        store.open_artifact(ref)


def flip(folder):
    path = folder / "net/weights.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


def truncate(folder):
    os.truncate(folder / "net/weights.bin", 5)


def lengthen(folder):
    with (folder / "net/weights.bin").open("ab") as file:
        file.write(b"x")


def foreign(folder):
    (folder / "net/extra.txt").write_text("hello")


def foreign_link_to_a_folder(folder):
    (folder / "link").symlink_to("/tmp")  # noqa: S108


def dangling_link(folder):
    (folder / "link").symlink_to("/nonexistent")


def linked(folder):
    """The right bytes, but elsewhere: they could change without the entry's own files changing."""
    elsewhere = folder.parents[3] / "elsewhere.bin"
    shutil.move(folder / "net/weights.bin", elsewhere)
    (folder / "net/weights.bin").symlink_to(elsewhere)


def linked_folder(folder):
    elsewhere = folder.parents[3] / "elsewhere"
    shutil.move(folder / "net", elsewhere)
    (folder / "net").symlink_to(elsewhere)


def linked_manifest(folder):
    elsewhere = folder.parents[3] / "elsewhere.json"
    shutil.move(folder / "manifest.json", elsewhere)
    (folder / "manifest.json").symlink_to(elsewhere)


def replaced_by_a_folder(folder):
    (folder / "model.json").unlink()
    (folder / "model.json").mkdir()


def manifest_of_a_later_version(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"version":1', '"version":2'))


def manifest_with_an_unknown_key(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:-1] + ',"unknown":1}')


DAMAGE = [
    (flip, "net/weights.bin: content differs from its SHA-256"),
    (truncate, "net/weights.bin: 5 bytes instead of 2048"),
    (lengthen, "net/weights.bin: 2049 bytes instead of 2048"),
    (lambda folder: (folder / "model.json").unlink(), "model.json: missing"),
    (lambda folder: shutil.rmtree(folder / "net"), "net/weights.bin: missing"),
    (foreign, "net/extra.txt: not in the manifest"),
    (dangling_link, "link: not in the manifest"),
    (foreign_link_to_a_folder, "link: not in the manifest"),
    (linked, "net/weights.bin: missing"),
    (linked_folder, "net/weights.bin: missing"),
    (linked_manifest, "manifest.json: missing"),
    (replaced_by_a_folder, "model.json: missing"),
    (lambda folder: (folder / "manifest.json").unlink(), "manifest.json: missing"),
    (lambda folder: (folder / "manifest.json").write_bytes(b""), "manifest.json: unreadable"),
    (lambda folder: (folder / "manifest.json").write_bytes(b"\xff{]"), "manifest.json: unreadable"),
    (lambda folder: os.truncate(folder / "manifest.json", 90), "manifest.json: unreadable"),
    (manifest_with_an_unknown_key, "manifest.json: unreadable"),
    (manifest_of_a_later_version, "manifest.json: differs from its checksum"),
]
IDS = [
    *("flipped", "truncated", "longer", "file gone", "folder gone", "foreign", "dangling link"),
    *("link to a folder", "linked", "linked folder", "linked manifest", "file is a folder"),
    *("no manifest", "empty manifest", "garbage manifest", "cut manifest", "unknown key"),
    "changed manifest",
]


@pytest.mark.parametrize("judged_before", [False, True])
@pytest.mark.parametrize(("damage", "line"), DAMAGE, ids=IDS)
def test_every_damage_is_named(store, damage, line, judged_before):
    ref = put(store)
    if judged_before:  # the verdict is kept, but not beyond a change
        assert store.is_whole(ref)
    damage(store.path(ref))
    lines = store.damage(ref)
    assert any(found.startswith(f"{ref.location}/{line}") for found in lines), lines
    assert not store.is_whole(ref)
    with pytest.raises(DamagedArtifact) as error:
        store.open_artifact(ref)
    assert ref.location in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_manifest_of_another_artifact_is_noticed(store):
    first, second = put(store, "a"), put(store, "b")
    shutil.copy(store.path(second) / "manifest.json", store.path(first) / "manifest.json")
    assert store.damage(first) == [f"{first.location}/manifest.json: belongs to another artifact"]
    assert store.is_whole(second)


def test_same_size_and_time_do_not_hide_a_change(store):
    """cp --preserve of other content: the inode's change time still tells."""
    ref = put(store)
    assert store.is_whole(ref)
    path = store.path(ref) / "net/weights.bin"
    before = path.stat()
    flip(store.path(ref))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert not store.is_whole(ref)


def test_commit_replaces_what_was_there(store):
    ref = put(store)
    flip(store.path(ref))
    assert put(store) == ref
    assert store.is_whole(ref)
    assert not list((store.root / "progress").iterdir())


@pytest.mark.parametrize("obstacle", ["file", "link", "dangling link"])
def test_anything_in_place_of_an_entry_is_replaced(store, tmp_path, obstacle):
    ref = put(store)
    whole = store.path(ref)
    if obstacle == "file":
        shutil.rmtree(whole)
        whole.write_text("not a folder")
    else:
        if obstacle == "link":
            shutil.move(whole, tmp_path / "elsewhere")
        else:
            shutil.rmtree(whole)
        whole.symlink_to(tmp_path / "elsewhere")
    assert put(store) == ref
    assert store.is_whole(ref)
    assert not whole.is_symlink()


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "../x"},
        {"kind": "a/b"},
        {"kind": ""},
        {"kind": "."},
        {"kind": "Model"},
        {"kind": "model\n"},
        {"digest": "../" + "0" * 61},
        {"digest": "0" * 63},
        {"digest": "0" * 64 + "\n"},
        {"digest": "A" * 64},
        {"digest": "/etc/passwd"},
    ],
)
def test_references_refuse_path_tricks(fields):
    with pytest.raises(ValidationError):
        ArtifactRef(**{"kind": "model", "digest": "0" * 64, **fields})


def test_location_of_a_reference():
    ref = ArtifactRef(kind="model", digest="ab" * 32)
    assert ref.location == "artifacts/model/" + "ab" * 32
    assert ref.short == "model/abababababab"


def test_strangers_in_the_artifacts_folder_are_no_artifacts(store):
    ref = put(store)
    (store.root / "artifacts/model/notes").mkdir()
    (store.root / "artifacts/README").write_text("hello")
    assert store.artifacts() == [ref]


def test_digest_depends_on_everything_that_identifies():
    ref = ArtifactRef(kind="images", digest="1" * 64)
    other = ArtifactRef(kind="images", digest="2" * 64)
    base = {"stage": "s", "version": 1, "kind": "k", "config": {"a": 1}, "inputs": {"x": ref}}
    variants = [
        base,
        {**base, "stage": "t"},
        {**base, "version": 2},
        {**base, "config": {"a": 2}},
        {**base, "config": {"a": 1, "b": None}},
        {**base, "inputs": {"x": other}},
        {**base, "inputs": {"y": ref}},
        {**base, "inputs": {}},
        {**base, "inputs": {"x": ref, "y": other}},
        {**base, "inputs": {"x": other, "y": ref}},
    ]
    digests = {StageRequest(**variant).digest for variant in variants}
    assert len(digests) == len(variants)
    assert StageRequest(**base).digest == StageRequest(**base).digest


def test_record_is_kept_beside_the_entry(store):
    ref = put(store)
    assert store.record(ref) is None
    record = Record(computed_by="me", finished="2024-01-01T00:00:00+00:00", seconds=1.5)
    store.write_record(ref, record)
    assert store.record(ref) == record
    assert store.is_whole(ref)
    (store.root / "records" / f"{ref.digest}.json").write_text("{")
    assert store.record(ref) is None


def test_atomic_write_leaves_the_old_file_if_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# -- a root that cannot be used -------------------------------------------------------------------


def test_root_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written: Not a directory") as error:
        Store.open(tmp_path / "file" / "store")
    assert len(str(error.value).splitlines()) == 1


def test_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Store.open(tmp_path / "file")


def test_root_that_cannot_be_made_is_refused():
    with pytest.raises(StoreError, match="cannot be written"):
        Store.open("/proc/store")


def test_reading_needs_a_store_that_is_there(tmp_path):
    with pytest.raises(StoreError, match="no store"):
        Store.open(tmp_path / "absent", create=False)
    assert not (tmp_path / "absent").exists()
    Store.open(tmp_path / "present")
    assert Store.open(tmp_path / "present", create=False).artifacts() == []


def test_opening_leaves_no_probe(store):
    assert not list((store.root / "locks").iterdir())


# -- disk errors in the middle of the work --------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_one_clear_line(store, code):
    with pytest.raises(StoreError) as error, explain_disk_errors(store.root):
        raise OSError(code, os.strerror(code))
    message = str(error.value)
    assert f"the disk of the store {store.root} is full" in message
    assert "`store`" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_refused_write_names_the_file(store, code):
    with (
        pytest.raises(StoreError, match=r"cannot write /some/file") as error,
        explain_disk_errors(store.root),
    ):
        raise OSError(code, os.strerror(code), "/some/file")
    assert len(str(error.value).splitlines()) == 1


def test_other_errors_pass_unchanged(store):
    for raised in (OSError(errno.EIO, "I/O error"), RuntimeError("x"), StoreError("y")):
        with pytest.raises(type(raised)) as error, explain_disk_errors(store.root):
            raise raised
        assert error.value is raised


def test_foreign_exception_on_a_full_disk_is_explained(store, monkeypatch):
    """torch.save and safetensors report a failed write as their own exceptions."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(StoreError, match="is full"), explain_disk_errors(store.root):
        raise RuntimeError("PytorchStreamWriter failed writing file")


def test_stage_on_a_full_disk_stops_clearly_and_goes_on_later(small_disk):
    disk = small_disk(1)  # the digits need more
    store = Store.open(disk / "store")
    wanted = PREPARE.request(PREPARE.config())
    with pytest.raises(StoreError, match="is full") as error:
        run_stage(store, wanted, Execution(threads=1))
    assert len(str(error.value).splitlines()) == 1
    assert store.artifacts() == []
    subprocess.run(["mount", "-o", "remount,size=32m", str(disk)], check=True)
    ref = run_stage(store, wanted, Execution(threads=1))
    assert store.manifest(ref).details["count"] == len(load_digits_uint8(PREPARE.config())[0])
    assert store.damage(ref) == []


def test_opening_a_store_on_a_full_disk(small_disk):
    disk = small_disk(1)
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(bytes(2 << 20))
    with pytest.raises(StoreError, match="is full"):
        Store.open(disk / "store")


def test_leftovers_of_a_kill_are_swept_after_a_day(store):
    old, young = store.root / "progress/trash-old", store.root / "progress/run-young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "file").write_bytes(b"x")
    os.utime(old, (0, 0))
    Store.open(store.root)
    assert not old.exists()
    assert young.exists()


def test_a_changed_copy_of_a_request_has_another_digest(store):
    request = store.manifest(put(store)).request
    assert request.model_copy(update={"version": 99}).digest != request.digest
