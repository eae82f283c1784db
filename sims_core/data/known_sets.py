"""The public data sets that have checksums here: size, shape, where they lie, who publishes them.

A new one is one entry of `KNOWN_SETS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TRAIN, TEST = "train", "test"

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts it."""


@dataclass(frozen=True)
class KnownSet:
    """A public set of square images with class labels."""

    channels: int
    size: int
    """Height and width in pixels."""
    counts: Mapping[str, int]
    """Images of each split."""
    checksums: Mapping[str, tuple[str, ...]]
    """For each split the SHA-256 of each batch, as rows of one label byte and the pixels."""
    folders: tuple[str, ...]
    """Where in the data folder it may lie."""
    finder: str
    """`module:function` that looks for it in a folder; see `sims_core.data.known`."""
    publisher: str
    """`module:class` of torchvision's data set, which knows the publisher's files."""
    advice: str
    """What to do where it is nowhere."""
    elsewhere: tuple[Path, ...] = ()
    """Folders outside of the data folder."""
    num_classes: int = 10


KNOWN_SETS = {
    "cifar10": KnownSet(
        channels=3,
        size=32,
        counts={TRAIN: 50_000, TEST: 10_000},
        # Those of the binary version's files; content with these sums also gives the publisher's
        # MD5 sums (tests/sims_core/data/test_known.py).
        checksums={
            TRAIN: (
                "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
                "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
                "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
                "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
                "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
            ),
            TEST: ("8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",),
        },
        folders=("cifar10", "."),
        finder="sims_core.data.known:find_cifar10",
        publisher="torchvision.datasets:CIFAR10",
        advice=(
            "put cifar-10-binary.tar.gz or cifar-10-python.tar.gz as the publisher gives it (or "
            "Parquet files cifar10/train*.parquet and cifar10/test*.parquet) into a folder"
        ),
    ),
    "mnist": KnownSet(
        channels=1,
        size=28,
        counts={TRAIN: 60_000, TEST: 10_000},
        checksums={
            TRAIN: ("baedb0edd00a28e97b281c967f6c7514bedfea1d17b30334caccd6ec0d75cf98",),
            TEST: ("ad39c4e3d6eb0920f4ea84533a577cc5afbb47c5e8034d374d0605316c8923f3",),
        },
        folders=("mnist", "MNIST/raw", "."),
        finder="sims_core.data.known:find_idx_or_npz",
        publisher="torchvision.datasets:MNIST",
        advice="put the idx files (train-images-idx3-ubyte.gz, ...) or mnist.npz into a folder",
    ),
    "fashion": KnownSet(
        channels=1,
        size=28,
        counts={TRAIN: 60_000, TEST: 10_000},
        checksums={
            TRAIN: ("6d226526ff970f03ea8725a39e125b1ab590f498a25f501e69a46359e7478773",),
            TEST: ("c1f40a40017890ce0b14203aa6b8340d8bead8df69f0a9baba26c47b226338ba",),
        },
        folders=("fashion", "fashion-mnist", "FashionMNIST/raw"),
        finder="sims_core.data.known:find_idx_or_npz",
        publisher="torchvision.datasets:FashionMNIST",
        advice=(
            "install Debian's package dataset-fashion-mnist, or put the idx files "
            "(train-images-idx3-ubyte.gz, ...) into a sub-folder fashion of a folder"
        ),
        elsewhere=(DEBIAN_FASHION,),
    ),
}
"""Each public data set by its name."""
