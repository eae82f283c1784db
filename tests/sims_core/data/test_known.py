"""Public data sets: the publishers' own sums, every form that they come in, and what is refused."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import pickle
import struct
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sims_core.catalog import run_stage
from sims_core.common.errors import BadInput
from sims_core.data.config import KnownImages
from sims_core.data.formats import (
    read_cifar_binary,
    read_cifar_python,
    read_idx,
    read_idx_pair,
    read_npz,
)
from sims_core.data.grid import encode_png
from sims_core.data.known import content_sha256, read_known
from sims_core.data.known_sets import KNOWN_SETS
from sims_core.data.mixing import read_first_labelled
from sims_core.data.stages import PREPARE_KNOWN
from sims_core.engine.execution import DataFiles, Execution

MD5_CIFAR10 = {  # of the files in cifar-10-python.tar.gz, as its publisher gives them
    "train": (
        "c99cafc152244af753f735de768cd75f",
        "d4bba439e000b95fd0a9bffe97cbabec",
        "54ebc095f3ab1f0389bbae665268c751",
        "634d18415352ddfa80567beed471001a",
        "482c414d41f54cd18b22e5b47cb7c3cb",
    ),
    "test": ("40351d587109b95175f43aff81a1287e",),
}
MD5_MNIST = {  # of the unpacked idx files: images, labels
    "train": ("6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624"),
    "test": ("2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637"),
}


def python2_batch(images, labels, names, title):
    """The bytes that Python 2's cPickle wrote for a batch of cifar-10-python.tar.gz."""
    memo = iter(range(1, 1 << 30))

    def put():
        number = next(memo)
        return b"q" + bytes([number]) if number < 256 else b"r" + struct.pack("<I", number)

    def text(value):
        return b"U" + bytes([len(value)]) + value.encode() + put()

    def items(values, write):
        yield b"]" + put()
        for start in range(0, len(values), 1000):
            yield b"(" + b"".join(map(write, values[start : start + 1000])) + b"e"

    pixels = images.reshape(len(images), -1)
    rows = b"M" + struct.pack("<H", len(images)) if len(images) > 255 else bytes([75, len(images)])
    parts = [b"\x80\x02}", put(), b"(", text("batch_label"), text(title), text("labels")]
    parts += items(labels, lambda label: bytes([75, label]))
    parts += [text("data"), b"cnumpy.core.multiarray\n_reconstruct\n", put()]
    parts += [b"cnumpy\nndarray\n", put(), b"K\x00\x85U\x01b\x87R", put()]
    parts += [b"(K\x01", rows, b"M\x00\x0c\x86cnumpy\ndtype\n", put()]
    parts += [b"U\x02u1K\x00K\x01\x87R", put(), b"(K\x03U\x01|NNN"]
    parts += [b"J\xff\xff\xff\xff" * 2, b"K\x00tb\x89T", struct.pack("<I", pixels.size)]
    parts += [pixels.tobytes(), b"tb", text("filenames"), *items(names, text), b"u."]
    return b"".join(parts)


def idx(array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


@pytest.fixture
def cifar(random_images):
    return random_images(7, channels=3, size=32), np.arange(7, dtype=np.int64)


@pytest.fixture
def tiny_checksums(cifar, monkeypatch):
    """The seven random images stand for every batch of CIFAR-10 and for MNIST and its like."""
    images, labels = cifar
    grey = images[:, :1, :28, :28]
    for source, known in KNOWN_SETS.items():
        sums = content_sha256(images if source == "cifar10" else grey, labels)
        tiny = {split: (sums,) * len(whole) for split, whole in known.checksums.items()}
        changed = dataclasses.replace(known, checksums=tiny, elsewhere=())
        monkeypatch.setitem(KNOWN_SETS, source, changed)
    return grey, labels


def whole(config, root):
    batches = list(read_known(config, DataFiles(source=root)))
    return np.concatenate([b[0] for b in batches]), np.concatenate([b[1] for b in batches])


def cifar_archive(path, images, labels, binary):
    folder, suffix = ("cifar-10-batches-bin", ".bin") if binary else ("cifar-10-batches-py", "")
    rows = np.concatenate([labels.astype(np.uint8)[:, None], images.reshape(len(images), -1)], 1)
    python = python2_batch(images, labels.tolist(), ["a.png"] * len(images), "a batch")
    with tarfile.open(path, "w:gz") as tar:
        for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
            content = rows.tobytes() if binary else python
            info = tarfile.TarInfo(f"{folder}/{name}{suffix}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])
def test_cifar10_repacked_has_its_publishers_md5_sums(split, data_folder):
    """What the checksums accept is CIFAR-10 to the byte, file names and all."""
    config = KnownImages(source="cifar10", split=split)
    table = pq.read_table(data_folder / "cifar10" / f"{split}.webp.parquet", columns=["filename"])
    names = table["filename"].to_pylist()
    sums = []
    for number, (images, labels) in enumerate(read_known(config, DataFiles(source=data_folder))):
        title = f"training batch {number + 1} of 5" if split == "train" else "testing batch 1 of 1"
        part = names[number * 10_000 : (number + 1) * 10_000]
        content = python2_batch(images, labels.tolist(), part, title)
        sums.append(hashlib.md5(content, usedforsecurity=False).hexdigest())
    assert tuple(sums) == MD5_CIFAR10[split]


@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_has_its_publishers_md5_sums(split, data_folder):
    images, labels = whole(KnownImages(source="mnist", split=split), data_folder)
    files = idx(images[:, 0]), idx(labels.astype(np.uint8))
    sums = [hashlib.md5(file, usedforsecurity=False).hexdigest() for file in files]
    assert tuple(sums) == MD5_MNIST[split]


def test_the_first_images_of_cifar10_come_as_shards_with_labels(data_folder, store):
    config = KnownImages(source="cifar10", num_images=40)
    execution = Execution(threads=1, files=DataFiles(source=data_folder))
    ref = run_stage(store, PREPARE_KNOWN.request(config), execution)
    images, labels = read_first_labelled(store.open_artifact(ref), None)
    assert images.shape == (40, 3, 32, 32)
    assert labels is not None
    assert labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    details = store.manifest(ref).details
    assert (details["count"], sum(details["class_histogram"].values())) == (40, 40)
    np.testing.assert_allclose(details["mean"], (images / 127.5 - 1).mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(details["std"], (images / 127.5 - 1).std((0, 2, 3)), atol=1e-6)
    moved = execution.model_copy(update={"files": DataFiles(source=None)})
    assert run_stage(store, PREPARE_KNOWN.request(config), moved) == ref, "no path in the digest"


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("split", ["train", "test"])
def test_both_archives_of_cifar10(binary, split, cifar, tiny_checksums, tmp_path):
    name = "cifar-10-binary.tar.gz" if binary else "cifar-10-python.tar.gz"
    cifar_archive(tmp_path / name, *cifar, binary=binary)
    images, labels = whole(KnownImages(source="cifar10", split=split), tmp_path)
    batches = 5 if split == "train" else 1
    assert np.array_equal(images, np.tile(cifar[0], (batches, 1, 1, 1)))
    assert labels.tolist() == cifar[1].tolist() * batches


def test_parquet_of_cifar10(cifar, tiny_checksums, tmp_path):
    (tmp_path / "cifar10").mkdir()
    rows = {"img": [encode_png(i) for i in cifar[0]], "label": cifar[1].tolist()}
    pq.write_table(pa.table(rows), tmp_path / "cifar10" / "test-00000.parquet")
    images, _ = whole(KnownImages(source="cifar10", split="test"), tmp_path)
    assert np.array_equal(images, cifar[0])


@pytest.mark.parametrize("folder", [".", "mnist", "MNIST/raw", "fashion", "npz"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_and_its_like(folder, split, tiny_checksums, tmp_path):
    grey, labels = tiny_checksums
    place = tmp_path / folder
    place.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        compressed = gzip.compress(idx(grey[:, 0]))
        (place / f"{part}-images-idx3-ubyte.gz").write_bytes(compressed)
        (place / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels.astype(np.uint8)))
    if folder == "npz":
        arrays = {f"x_{split}": grey[:, 0], f"y_{split}": labels.astype(np.uint8)}
        np.savez(tmp_path / "mnist.npz", **arrays)
    source = "fashion" if folder == "fashion" else "mnist"
    images, got = whole(KnownImages(source=source, split=split, num_images=5), tmp_path)
    assert np.array_equal(images, grey[:5])
    assert got.tolist() == labels[:5].tolist()


def test_one_changed_pixel_or_label_is_not_the_set(cifar, tiny_checksums, tmp_path):
    for changed in ("pixel", "label"):
        images, labels = cifar[0].copy(), cifar[1].copy()
        if changed == "pixel":
            images[6, 2, 31, 31] ^= 1
        else:
            labels[0] = 3
        cifar_archive(tmp_path / "cifar-10-binary.tar.gz", images, labels, binary=True)
        # Also where only the first image is wanted: a wrong batch is no batch.
        with pytest.raises(BadInput, match=r"binary.tar.gz: batch 1 of the test split is not that"):
            whole(KnownImages(source="cifar10", split="test", num_images=1), tmp_path)


@pytest.mark.parametrize(
    ("source", "advice"),
    [("cifar10", "cifar-10-python.tar.gz"), ("mnist", "idx"), ("fashion", "dataset-fashion-mnist")],
)
def test_nowhere_says_what_to_do(source, advice, tmp_path, monkeypatch):
    nowhere = dataclasses.replace(KNOWN_SETS[source], elsewhere=(tmp_path / "absent",))
    monkeypatch.setitem(KNOWN_SETS, source, nowhere)
    with pytest.raises(BadInput, match=rf"^no {source} data: SIMS_DATA is not set.*{advice}.*"):
        whole(KnownImages(source=source), None)
    with pytest.raises(BadInput, match=f"not in the data folder {tmp_path}.* set SIMS_DATA"):
        whole(KnownImages(source=source), tmp_path)


def test_what_is_fetched_is_kept_and_a_failure_says_what_to_do(
    cifar, tiny_checksums, tmp_path, monkeypatch
):
    asked = []

    def fetch(address, folder, filename, md5):
        asked.append((filename, md5))
        if len(asked) == 1:
            raise OSError("no route")
        folder.mkdir(parents=True)
        cifar_archive(folder / filename, *cifar, binary=False)

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetch)
    config = KnownImages(source="cifar10", split="test")
    files = DataFiles(downloads=tmp_path / "downloads")
    with pytest.raises(BadInput, match=r"fetching it failed \(no route\): put cifar-10-binary"):
        list(read_known(config, files))
    for _ in range(2):
        assert len(next(read_known(config, files))[0]) == 7
    assert asked == [("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a")] * 2


class _Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps({b"data": _Evil(), b"labels": []}, protocol=3), "names .*print"),
        (pickle.dumps(_Evil(), protocol=4), "names builtins.print"),
        (b"cos\nsystem\n(S'echo executed'\ntR.", "names os.system"),
        (b"\x80\x02cnumpy\nload\nq\x01.", "names numpy.load"),
        (b"\x80\x02cnumpy\ndtype.type\n.", "names numpy.dtype.type"),
        (b"Pmine\n.", "persistent id"),
        (b"\x80\x02\x82\x01.", "extension"),
        (pickle.dumps({b"labels": [1]}, protocol=3), "data"),
        (pickle.dumps([1, 2], protocol=3), "indices"),
        (b"", "exhausted before seeing STOP"),
        (b"not a pickle", "opcode .* unknown"),
    ],
)
def test_a_hostile_pickle_is_refused_and_executes_nothing(content, reason, capfd):
    with pytest.raises(BadInput, match=f"^batch: not a batch of CIFAR-10: .*{reason}") as error:
        read_cifar_python(content, "batch")
    assert len(str(error.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")


def test_a_python_batch_with_wrong_sizes_is_refused(cifar):
    images, labels = cifar
    good = python2_batch(images, labels.tolist(), ["a"] * 7, "title")
    assert np.array_equal(read_cifar_python(good, "batch")[0], images)
    for bad in (
        good[:-9],
        python2_batch(images, [1] * 6, ["a"] * 7, "title"),
        python2_batch(images, [11] * 7, ["a"] * 7, "title"),
        python2_batch(images[:, :2], labels.tolist(), ["a"] * 7, "title"),
        good.replace(b"U\x02u1", b"U\x02i1"),
    ):
        with pytest.raises(BadInput, match="not a batch of CIFAR-10"):
            read_cifar_python(bad, "batch")


def test_cut_files_are_refused(tmp_path, cifar):
    images, labels = cifar
    with pytest.raises(BadInput, match="no whole rows of 3073"):
        read_cifar_binary(b"\0" * 3072, "batch")
    archive = cifar_archive(tmp_path / "cifar-10-binary.tar.gz", images, labels, binary=True)
    archive.write_bytes(archive.read_bytes()[:-5000])
    with pytest.raises(BadInput, match="not a readable archive"):
        whole(KnownImages(source="cifar10"), tmp_path)
    path = tmp_path / "x-idx1-ubyte"
    content = idx(np.zeros((3, 4), dtype=np.uint8))
    for bad in (content[:-1], content + b"\0", content[:9], b"", b"\0\0\x0d\x01\0\0\0\0", b"PNG!"):
        path.write_bytes(bad)
        with pytest.raises(BadInput, match="x-idx1-ubyte: "):
            read_idx(path)
    path.write_bytes(content)
    assert read_idx(path).shape == (3, 4)
    with pytest.raises(BadInput, match="do not belong together"):
        read_idx_pair(path, path)
    gz = tmp_path / "y.gz"
    gz.write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(BadInput, match="unreadable"):
        read_idx(gz)


def test_npz_without_pickles(tmp_path):
    path = tmp_path / "a.npz"
    objects = np.array([_Evil()] * 2, dtype=object)
    for arrays in (
        {"x_train": objects, "y_train": np.zeros(2, int)},
        {"x_train": np.zeros((2, 8, 8)), "y_train": np.zeros(2, int)},
        {"x_train": np.zeros((2, 8, 8), np.uint8), "y_train": np.zeros(2)},
        {"x_train": np.zeros((2, 8, 8), np.uint8), "y_train": np.zeros(3, int)},
        {"images": np.zeros((2, 8, 8), np.uint8)},
    ):
        np.savez(path, **arrays)
        with pytest.raises(BadInput, match=r"a\.npz: "):
            read_npz(path, "train")
    path.write_bytes(b"nothing")
    with pytest.raises(BadInput, match="unreadable"):
        read_npz(path, "train")
