"""A run in one file: another machine goes on from it, and no file does harm."""

from __future__ import annotations

import io
import json
import runpy
import shutil
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.cli.main import app
from sims_core.common.errors import BadInput, SimsError
from sims_core.common.files import is_partial
from sims_core.reports.run_archive import Listed, export_run
from sims_core.reports.run_import import import_run
from sims_core.reports.verify import problems
from sims_core.store.store import Store


def command(store, *words):
    done = CliRunner().invoke(app, [*words, "--store", str(store.root), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture
def archive(store, tmp_path):
    export_run(store, store.root / "runs" / "points", tmp_path / "points.tar")
    return tmp_path / "points.tar"


@pytest.fixture
def other(tmp_path):
    return Store.open(tmp_path / "other")


def members(archive):
    """Every header and content."""
    with tarfile.open(archive) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar]


def write(archive, found):
    with tarfile.open(archive, "w") as tar:
        for member, content in found:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def everything(store):
    """All that lies in a store but who may have looked at it."""
    found = {p.relative_to(store.root).as_posix() for p in store.root.rglob("*")}
    return sorted(name for name in found if name.partition("/")[0] not in ("locks", "verified"))


def test_another_machine_goes_on_from_it(store, other, arguments, bytes_of, tmp_path):
    file = tmp_path / "points.tar"
    told = command(store, "runs", "export", "points", str(file))
    assert told["artifacts"] == len(store.artifacts())
    brought = command(other, "runs", "import", str(file))
    assert (brought["run"], brought["new"]) == ("points", told["artifacts"])
    assert bytes_of(other.root) == bytes_of(store.root)
    assert problems(other) == []
    for ref in store.artifacts():
        assert other.record(ref) == store.record(ref)
    before = everything(other)
    assert before == everything(store)
    assert command(other, "runs", "import", str(file))["new"] == 0, "it is there already"
    assert everything(other) == before
    done = CliRunner().invoke(app, arguments(other.root, "--json"))
    assert json.loads(done.stdout)["stages"]["computed"] == 0


def test_the_same_run_is_the_same_file(store, archive, tmp_path):
    export_run(store, store.root / "runs" / "points", tmp_path / "again.tar")
    assert archive.read_bytes() == (tmp_path / "again.tar").read_bytes()
    assert not [path for path in tmp_path.iterdir() if is_partial(path)]


def listing_changed(**fields):
    """The list with other fields, and a checksum that is right for them."""

    def change(found):
        listed = Listed.model_validate_json(found[0][1])
        changed = {n: f(getattr(listed, n)) for n, f in fields.items()}
        content = listed.model_copy(update=changed).sealed().model_dump_json().encode()
        return [(found[0][0], content), *found[1:]]

    return change


def renamed(number, name):
    def change(found):
        found[number][0].name = name
        return found

    return change


def turned(number, **fields):
    """A member of another type."""

    def change(found):
        for name, value in fields.items():
            setattr(found[number][0], name, value)
        return [(m, b"" if i == number else c) for i, (m, c) in enumerate(found)]

    return change


def flipped(number):
    def change(found):
        member, content = found[number]
        found[number] = member, bytes([content[0] ^ 1]) + content[1:]
        return found

    return change


def first_link(links):
    return dict.fromkeys(list(links)[:1], "artifacts/model/../../../secret")


def without_last_artifact(found):
    """As if it had never been there."""
    listed = Listed.model_validate_json(found[0][1])
    last = list(listed.refs.values())[-1]

    def stays(name):
        return not name.startswith(last.location) and name != f"records/{last.digest}.json"

    less = listing_changed(
        members=lambda members: {n: e for n, e in members.items() if stays(n)},
        links=lambda links: {n: to for n, to in links.items() if to != last.location},
    )
    return [(m, content) for m, content in less(found) if stays(m.name)]


HOSTILE = {
    "one that climbs": (renamed(1, "../../escaped"), "is where"),
    "an absolute path": (renamed(1, "/absolute"), "is where"),
    "a link": (turned(2, type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is no plain file"),
    "a hard link": (turned(2, type=tarfile.LNKTYPE, linkname="export.json"), "is no plain file"),
    "a FIFO": (turned(2, type=tarfile.FIFOTYPE), "is no plain file"),
    "a device": (turned(2, type=tarfile.CHRTYPE), "is no plain file"),
    "its list changed": (flipped(0), "its list: "),
    "a manifest changed": (flipped(1), "SHA-256"),
    "an artifact's file changed": (flipped(2), "SHA-256"),
    "a run's file changed": (flipped(-1), "SHA-256"),
    "one cut off": (lambda found: found[:-1], "it ends before"),
    "one more": (lambda found: [*found, found[1]], "is more than it lists"),
    "one twice": (lambda found: [*found[:2], *found[1:]], "is where"),
    "no list": (lambda found: found[1:], "is where export.json should be"),
    "nothing": (lambda found: [], "it ends before"),
    "a later version": (listing_changed(sims_export=lambda _: 2), "is of version 2"),
    "a run that climbs": (listing_changed(run=lambda _: "../x"), "its list: run: "),
    "a run in a folder": (listing_changed(run=lambda _: "a/b"), "its run's name"),
    "a link that climbs": (listing_changed(links=first_link), "leads to"),
    "a list of elsewhere": (
        listing_changed(members=lambda m: {"verified": next(iter(m.values())), **m}),
        "its list names verified",
    ),
    "a list that climbs": (
        listing_changed(members=lambda m: {"run/../../x": next(iter(m.values())), **m}),
        "no path inside",
    ),
    "a record of nothing in it": (
        listing_changed(
            members=lambda m: {f"records/{'0' * 64}.json": next(iter(m.values())), **m}
        ),
        "its list names records/0000",
    ),
    "less than the run needs": (without_last_artifact, "its run needs artifacts/"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_not_as_it_was_written_is_refused_and_names_nothing(name, archive, other):
    change, message = HOSTILE[name]
    write(archive, change(members(archive)))
    before = everything(other)
    with pytest.raises(SimsError, match=message) as error:
        import_run(other, archive)
    assert "\n" not in str(error.value)
    assert everything(other) == before


def test_another_file_is_named_and_what_is_wanted(other, tmp_path):
    file = tmp_path / "picture.png"
    file.write_bytes(b"no archive".ljust(2048, b"."))
    with pytest.raises(BadInput, match=f"^{file} is not as `sims runs export` writes a run: a mem"):
        import_run(other, file)
    with pytest.raises(BadInput, match=r"^[^ ]*/gone\.tar: is missing$"):
        import_run(other, tmp_path / "gone.tar")


def test_every_cut_and_many_turned_bits_are_refused(archive, other):
    content = archive.read_bytes()
    before = everything(other)
    used = len(content.rstrip(b"\0"))
    for number in range(60):
        at = (used * number) // 60
        damaged = bytearray(content)
        damaged[at] ^= 1 << (number % 8)
        for changed in (content[:at], bytes(damaged)):
            archive.write_bytes(changed)
            try:
                import_run(other, archive)
            except SimsError:
                assert everything(other) == before
            else:  # a header's owner, say, which nobody reads
                assert problems(other) == []
                shutil.rmtree(other.root)
                other = Store.open(other.root)


def test_another_run_of_that_name_stays(archive, other):
    folder = other.root / "runs" / "points"
    folder.mkdir()
    (folder / "mine").write_text("mine")
    with pytest.raises(SimsError, match="has a run points that is not the archive's"):
        import_run(other, archive)
    assert [path.name for path in folder.iterdir()] == ["mine"]
    assert other.artifacts() == []


def test_a_damaged_run_or_artifact_is_not_exported(store, tmp_path):
    folder = store.root / "runs" / "points"
    (folder / "report" / "index.html").write_text("changed")
    with pytest.raises(SimsError, match=r"run points: report/index\.html: content differs"):
        export_run(store, folder, tmp_path / "a.tar")
    assert not (tmp_path / "a.tar").exists()


def test_no_file_is_overwritten(store, archive):
    before = archive.read_bytes()
    with pytest.raises(SimsError, match="exists: name another file"):
        export_run(store, store.root / "runs" / "points", archive)
    assert archive.read_bytes() == before


@pytest.mark.slow
def test_own_images_come_with_their_name(sims, tmp_path, tiny_texts):
    """A run on imported images: the other machine has neither the pictures nor the name."""
    chaos = Path(__file__).parents[2] / "chaos" / "scenarios.py"
    runpy.run_path(str(chaos))["write_pictures"](tmp_path / "pictures", 200)
    texts = {"pollution_sizes": "100", "omegas": "1", "generations": "1", "run_name": "own"}
    sizes = {"evaluation.num_images": "200", "sims.n_s": "64", "sims.budget_mimg": "0.0005"}
    parameters = [word for text in tiny_texts(texts, **sizes) for word in ("-p", text)]
    here, there, file = tmp_path / "here", tmp_path / "there", tmp_path / "own.tar"
    run = ["run", "sims-loop/own-images", *parameters, "--direct", "--json", "--store"]
    for words in (
        ["data", "import", str(tmp_path / "pictures"), "--name", "own", "--store", str(here)],
        [*run, str(here)],
        ["runs", "export", "own", str(file), "--store", str(here)],
        ["runs", "import", str(file), "--store", str(there)],
    ):
        done = sims(*words)
        assert done.returncode == 0, done.stderr
    assert "datasets/own.json" in done.stdout
    again = sims(*run, str(there))
    assert json.loads(again.stdout)["stages"]["computed"] == 0
