"""What may be a bucket, what one must be able to do, and names that lead nowhere else."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore

from sims_core.common.errors import BadInput
from sims_core.store.remote import client as clients
from sims_core.store.remote.bucket import open_bucket
from sims_core.store.remote.client import BucketError, Client, connect
from sims_core.store.remote.names import (
    is_inside,
    opened_json,
    ref_of,
    sealed_json,
)


@pytest.fixture(params=["memory", "folder"])
def bucket(request, tmp_path):
    if request.param == "memory":
        return Client(MemoryStore(), "memory")
    return connect(f"file://{tmp_path}/with%20space/bucket")


def test_a_bucket_with_conditional_puts_is_fit_and_left_as_it_was(bucket):
    bucket.check()
    assert list(bucket.list("")) == []


def test_objects_are_created_once_replaced_if_they_are_the_one_and_read_to_the_end(
    bucket, tmp_path, monkeypatch
):
    monkeypatch.setattr(clients, "PART_BYTES", 7)
    assert bucket.create("a/b", b"first")
    assert not bucket.create("a/b", b"second")
    content, e_tag = bucket.get("a/b")
    assert content == b"first"
    assert bucket.replace("a/b", b"some twenty bytes long", e_tag)
    assert bucket.size("a/b") == 22
    sha256 = "ebf73a94ada48a674add79717ca54bd619c58b819d1bf34c355810dd09fb4cde"
    assert bucket.sha256("a/b", tmp_path / "copy", 22) == sha256
    assert (tmp_path / "copy").read_bytes() == b"some twenty bytes long"
    assert bucket.sha256("a/b", size=21) is None
    bucket.put("empty", b"")
    assert bucket.sha256("empty", size=0) == (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
    assert bucket.get("none") is bucket.size("none") is bucket.sha256("none") is None
    assert sorted(bucket.list("a")) == [("a/b", 22)]
    bucket.delete(["a/b", "none"])
    assert list(bucket.list("a")) == []


class Careless(BaseHTTPRequestHandler):
    """S3 as `rclone serve s3` is: whatever the conditions say, it writes."""

    protocol_version = "HTTP/1.1"

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.accept
        raise AttributeError(name)

    def accept(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def careless(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Careless)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-shown")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    yield server
    server.shutdown()
    server.server_close()


def test_a_bucket_without_conditional_puts_is_refused_in_one_line(careless):
    with pytest.raises(BadInput, match="does not refuse to create what is there") as refused:
        open_bucket("s3://bucket/prefix")
    assert "\n" not in str(refused.value)


def test_a_bucket_that_does_not_answer_is_said_in_one_line_without_secrets(careless, monkeypatch):
    monkeypatch.setattr(clients, "QUICK_S", 0.2)
    careless.shutdown()
    careless.server_close()
    with pytest.raises(BucketError, match="the bucket s3://bucket cannot write probe/") as lost:
        connect("s3://bucket", 0.2).check()
    assert "\n" not in str(lost.value)
    assert "not-to-be-shown" not in str(lost.value)


@pytest.mark.parametrize(
    "url",
    [
        *("bucket", "http://host/bucket", "s3://", "file://relative/path", "file:", "ftp://a/b"),
        "memory:///",
    ],
)
def test_what_is_no_bucket_is_refused(url):
    with pytest.raises(BadInput, match=r"want s3://bucket/prefix"):
        connect(url)


@pytest.mark.parametrize(
    "url", ["s3://key:hunter2@bucket/prefix", "az://container/p?sig=hunter2", "gs://b/p#hunter2"]
)
def test_credentials_in_the_url_are_refused_and_not_repeated(url):
    with pytest.raises(BadInput, match="credentials belong into the environment") as refused:
        connect(url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "name",
    [
        *("", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/..", "a/./b", "a\\b"),
        *("a\0b", "a\nb", "a\x1bb", "a" * 256, "/".join(["ab"] * 400)),
    ],
)
def test_names_that_lead_elsewhere_are_refused(name):
    assert not is_inside(name)


@given(st.text())
def test_names_that_are_taken_stay_inside(tmp_path_factory, name):
    if is_inside(name):
        root = tmp_path_factory.getbasetemp()
        assert (root / name).resolve().is_relative_to(root.resolve())
        assert (root / name).resolve() != root.resolve()


@pytest.mark.parametrize("tail", ["0" * 63, "0" * 64 + ".json/x", "../" + "0" * 64, "G" * 64])
def test_keys_that_are_no_manifests_are_not_used(tail):
    assert ref_of(f"manifests/images/{tail}.json") is None
    assert ref_of(f"manifests/../{'0' * 64}.json") is None
    assert ref_of(f"manifests/images/{'0' * 64}.json").kind == "images"


def test_what_was_sealed_opens_and_what_was_altered_does_not():
    sealed = sealed_json({"a": 1})
    assert opened_json(sealed) == {"a": 1}
    for bad in (b"", b"[]", b"\xff", b'{"a": 1}', sealed.replace(b"1", b"2", 1), b"[" * 100_000):
        assert opened_json(bad) == {}
