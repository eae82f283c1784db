"""Good files of every form that is read, made by code, and what reads each."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sims_core.data.labels import read_labels
from sims_core.data.names import DATASETS
from sims_core.data.pictures import BrokenImage
from sims_core.data.preparing import Options, prepare
from sims_core.data.raw_latents import open_raw_latents
from sims_core.data.sources import open_source
from sims_core.evaluation.reference_files import read_reference
from sims_core.nets.importing import find_model_source
from sims_core.reports.past_runs import PastRun
from sims_core.reports.run_folder import artifacts_of_run, problems_of_run
from sims_core.store.artifacts import StageRequest
from sims_core.store.store import Store, read_record

Read = Callable[[Path], object]


@dataclass(frozen=True)
class Good:
    """A file that is read without an error; `name` is its path in a folder of its own."""

    name: str
    content: bytes
    read: Read
    """Given the folder. Raises a SimsError or nothing, whatever the file holds."""


def read_source(folder: Path) -> int:
    """Every image of a source, decoded."""
    (path,) = folder.iterdir()
    return read_images(folder if path.suffix in PICTURES or path.is_dir() else path)


def read_images(source: Path) -> int:
    count = 0
    for image in open_source(source).read():
        try:
            prepare(Options(8, 1), image.load())
        except BrokenImage:
            continue
        count += 1
    return count


def read_labels_of(folder: Path) -> object:
    (path,) = folder.iterdir()
    return read_labels(path.read_bytes(), path.name, ["a.png", "b.png"], None)


def read_model(folder: Path) -> object:
    return find_model_source(folder / "model").read()


def read_run(folder: Path) -> object:
    """All that `sims runs ls` and `show` print, and what `verify` and `gc` ask."""
    from infra.cli.past_runs import _line, _row, _shown

    run = PastRun(folder / "runs" / "r")
    return _line(_row(run)), _shown(run), problems_of_run(run.folder), artifacts_of_run(run.folder)


def read_entry(folder: Path) -> object:
    """A manifest, a record, a name."""
    store = Store(folder)
    found: list[object] = [DATASETS.given(store), read_record(folder / "records" / "r.json")]
    found += [DATASETS.stands_for(store, name) for name in DATASETS.given(store)]
    found += [store.damage(ref) for ref in store.artifacts()]
    return found


PICTURES = {".png", ".jpg", ".gif", ".bmp", ".tif", ".webp", ".ppm"}


def pixels(seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)


def picture(form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels()).save(buffer, form, **options)
    return buffer.getvalue()


def tar(members: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def sources() -> list[Good]:
    """What `sims data import` takes."""
    png = picture("PNG")
    samples = {"0.png": png, "0.cls": b"0", "1.png": png, "1.json": b'{"label": 1}'}
    struct = pa.StructArray.from_arrays([pa.array([png, png])], names=["bytes"])
    table = pa.table({"image": struct, "label": [0, 1]})
    listed = json.dumps({"labels": [["a/0.png", 0], ["a/1.png", 1]]}).encode()
    forms = {
        "a.png": png,
        "a.jpg": picture("JPEG"),
        "a.gif": picture("GIF", save_all=True, append_images=[Image.fromarray(pixels(1))]),
        "a.bmp": picture("BMP"),
        "a.tif": picture("TIFF", compression="tiff_lzw"),
        "a.webp": picture("WEBP", lossless=True),
        "a.ppm": picture("PPM"),
        "a.tar": tar(samples),
        "a.tar.gz": gzip.compress(tar(samples)),
        "a.zip": zipped({"a/0.png": png, "a/1.png": png, "dataset.json": listed}),
        "a.parquet": parquet(table),
        "a.npz": npz(x_train=np.stack([pixels()] * 2), y_train=np.arange(2)),
        "cifar-10-python.tar.gz": cifar(),
    }
    return [Good(name, content, read_source) for name, content in forms.items()]


def cifar() -> bytes:
    """CIFAR-10 of one image a batch, as its publisher's Python 2 pickled it."""

    def text(content: bytes) -> bytes:
        return b"U" + bytes([len(content)]) + content

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|")
    dtype += b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b")
    array += b"\x87R(K\x01K\x01M\x00\x0c\x86" + dtype
    array += b"\x89T" + struct.pack("<i", 3072) + bytes(3072) + b"tb"
    content = b"\x80\x02}(" + text(b"data") + array + text(b"labels") + b"](K\x03eu."
    names = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    return tar({f"cifar-10-batches-py/{name}": content for name in names}, "w:gz")


def labels() -> list[Good]:
    forms = {
        "l.csv": b"file_name,label\na.png,0\nb.png,1\n",
        "l.json": b'{"labels": [["a.png", 0], ["b.png", 1]]}',
        "m.json": b'{"a.png": 0, "b.png": 1}',
    }
    return [Good(name, content, read_labels_of) for name, content in forms.items()]


def models(folder: Path) -> list[Good]:
    """A diffusers folder; each of its files in turn is what is damaged."""
    import torch
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    with torch.random.fork_rng():
        net = UNet2DModel(  # type: ignore[no-untyped-call]
            sample_size=8,
            in_channels=1,
            out_channels=1,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
        )
    DDPMPipeline(net, DDPMScheduler()).save_pretrained(folder / "model")  # type: ignore[no-untyped-call]
    return [
        Good(f"model/{name}", (folder / "model" / name).read_bytes(), read_model)
        for name in (
            "unet/config.json",
            "scheduler/scheduler_config.json",
            "unet/diffusion_pytorch_model.safetensors",
        )
    ]


def figures() -> list[Good]:
    """Means and covariances; raw latents."""
    moments = npz(mu=np.zeros(3), sigma=np.eye(3))
    latents = io.BytesIO()
    np.save(latents, np.zeros((8, 4, 4), np.float32))
    raw = zipped({"0/img00000000.npy": latents.getvalue(), "dataset.json": b'{"labels": null}'})
    return [
        Good("r.npz", moments, lambda folder: read_reference(folder / "r.npz")),
        Good("raw.zip", raw, lambda folder: open_raw_latents(folder / "raw.zip")),
    ]


def store_files(folder: Path) -> list[Good]:
    """What lies in a store beside the artifacts' own files."""
    from sims_core.data.config import ImportConfig, ImportedSet
    from sims_core.store.artifacts import Record

    store = Store.open(folder)
    request = StageRequest(stage="train", version=1, kind="model", config={"a": [1, 2.5]})
    made = folder / "progress" / "made"
    made.mkdir()
    (made / "x").write_text("x")
    store.commit(request, made, execution={"device": "cpu"}, libraries={}, details={})
    record = Record(computed_by="x", finished="2026-01-01T00:00:00+00:00", seconds=1.0)
    contents = {"count": 1, "channels": 1, "height": 8, "width": 8, "num_classes": 0}
    config = ImportConfig(content="0" * 64, layout="folder")
    DATASETS.give(store, "x", ImportedSet.model_validate({"config": config, "contents": contents}))
    summary = {
        "run": "r",
        "flow": "sims-loop",
        "preset": "digits",
        "store": "s",
        "report": "r",
        "stages": {"computed": 1, "cached": 0, "seconds": 1.0},
        "arms": [],
        "seeds": [0, 1],
        "provenance": {"parameters": {"omegas": [1.0]}, "machine": {"cpu": "x"}, "seeds": [0]},
    }
    table = pa.table({"arm": ["a"], "t": [1], "metric": ["fid"], "value": [1.0], "seed": [0]})
    named = (folder / "datasets" / "x.json").read_bytes()
    return [
        Good(
            f"{request.ref.location}/manifest.json",
            (store.path(request.ref) / "manifest.json").read_bytes(),
            read_entry,
        ),
        Good("records/r.json", record.sealed().model_dump_json().encode(), read_entry),
        Good("datasets/x.json", named, read_entry),
        Good("runs/r/run.json", json.dumps(summary).encode(), read_run),
        Good("runs/r/metrics.parquet", parquet(table), read_run),
        Good("runs/r/report/drawn.json", b'{"inputs": "", "files": {}}', read_run),
    ]
