"""Models by their id on the Hub, from an endpoint of our own; and without internet."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

from sims_core.common.errors import BadInput
from sims_core.nets.hub import fetch_model, is_hub_id
from sims_core.nets.importing import find_model_source, find_on_hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ID = "somebody/tiny-ddpm"


class Hub:
    """The Hub's two questions: what a revision has, and a file of a commit."""

    def __init__(self, files):
        self.files, self.asked = files, []
        hub = self

        class Answers(BaseHTTPRequestHandler):
            def answer(self, body, **headers):
                self.send_response(200)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def do_GET(self):
                path = self.path.partition("?")[0]
                hub.asked.append((self.command, path))
                for revision in ("main", COMMIT):
                    if path == f"/api/models/{ID}/revision/{revision}":
                        names = [{"rfilename": name} for name in hub.files]
                        info = {"id": ID, "sha": COMMIT, "siblings": names}
                        self.answer(json.dumps(info).encode(), Content_Type="application/json")
                        return
                name = path.removeprefix(f"/{ID}/resolve/{COMMIT}/")
                if (body := hub.files.get(name)) is not None:
                    etag = hashlib.sha256(body).hexdigest()
                    self.answer(body, ETag=f'"{etag}"', X_Repo_Commit=COMMIT)
                    return
                self.send_error(404)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *words):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    net = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8,),
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
        add_attention=False,
    )
    DDPMPipeline(net, DDPMScheduler()).save_pretrained(folder)
    return folder


@pytest.fixture
def hub(pipeline, tmp_path, monkeypatch):
    """An endpoint with the pipeline, and much that must not be fetched."""
    files = {p.relative_to(pipeline).as_posix(): p.read_bytes() for p in pipeline.rglob("*.*")}
    files |= {"unet/diffusion_pytorch_model.bin": b"pickle", "README.md": b"words"}
    files["unet/diffusion_pytorch_model.fp16.safetensors"] = b"half"
    served = Hub(files)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", served.url)
    files_of = f"{served.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", files_of)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield served
    served.close()


def test_a_model_is_fetched_at_the_commit_that_its_branch_stands_for(hub, pipeline):
    folder, row = find_on_hub(ID, None)
    assert row == {"hub": {"id": ID, "commit": COMMIT}}
    assert find_model_source(folder).imported == find_model_source(pipeline).imported
    fetched = {path for method, path in hub.asked if "/resolve/" in path}
    assert fetched, hub.asked
    assert all(f"/resolve/{COMMIT}/" in path for path in fetched)
    assert not [path for path in fetched if path.endswith((".bin", ".md", ".fp16.safetensors"))]


def test_a_commit_that_was_fetched_needs_no_internet(hub):
    first = fetch_model(ID)
    hub.close()
    assert fetch_model(ID, COMMIT) == first
    with pytest.raises(BadInput, match=rf"{ID} \(revision main\) is no file or folder here, and"):
        fetch_model(ID)


def test_pickles_alone_are_not_fetched(hub):
    for name in [name for name in hub.files if name.endswith(".safetensors")]:
        del hub.files[name]
    with pytest.raises(BadInput, match=r"only pickles \(unet/diffusion_pytorch_model\.bin\)"):
        fetch_model(ID)
    assert not [path for _, path in hub.asked if "/resolve/" in path]


@pytest.mark.parametrize("revision", ["no-such-branch", "f" * 40])
def test_a_revision_that_is_not_there_is_one_line(hub, revision):
    with pytest.raises(
        BadInput, match=rf"revision {revision}\) .*cannot be had.*give its folder"
    ) as e:
        fetch_model(ID, revision)
    assert len(str(e.value).splitlines()) == 1


def test_no_such_repository(hub):
    with pytest.raises(BadInput, match="cannot be had from the Hub"):
        fetch_model("somebody/else")


def test_what_is_an_id_and_what_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "google/here").mkdir(parents=True)
    assert is_hub_id("google/ddpm-cifar10-32")
    for path in ("google/here", "model.pkl", "/a/b", "./a/b", "../b", "a/b/c", "~/b", "a/.b"):
        assert not is_hub_id(path)
    with pytest.raises(BadInput, match="`revision` is of an id on the Hub"):
        find_on_hub("google/here", "main")
