"""EDM2's encoded data sets: a zip of raw latents, each an .npy of means and deviations.

The latents of an image are `mean` and `std` of its posterior, one over the other, float [2 C, h, w]
(arXiv 2312.02696); `dataset.json` has the classes. They are stored as they are: stage `encode`
draws from them, and scales.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sims_core.common.digest import digest_of, file_sha256
from sims_core.common.errors import BadInput
from sims_core.common.hostile import only_our_errors, reason
from sims_core.common.shown import shown
from sims_core.data.config import RAW_LATENTS, ImportConfig
from sims_core.data.file_kinds import plain_name
from sims_core.data.image_set import IMAGES_PER_SHARD
from sims_core.data.labels import find_labels, inner_labels, label_digest
from sims_core.data.pictures import BrokenImage
from sims_core.data.raw import Tally
from sims_core.data.sharded import Content, Maker, make_shards, take_shards
from sims_core.data.trees import read_member
from sims_core.engine.stage import StageContext

SUFFIX = ".npy"


@dataclass(frozen=True)
class RawLatents:
    """Raw latents in a zip, not read yet but for the first."""

    path: Path
    names: tuple[str, ...]
    """In the order in which EDM2 reads them."""
    labels: tuple[int, ...] | None
    shape: tuple[int, int, int]
    """Twice the channels, height and width."""
    left_out: Tally = field(default_factory=Tally)
    moved: str | None = None
    """Digest of the labels where their file lies in a folder or is called ./...: earlier versions
    did not find it and stored such a set without labels, under the name without this."""

    @property
    def config(self) -> ImportConfig:
        """What the set is named by: its bytes, which the labels are among."""
        content = digest_of({"files": [file_sha256(self.path)]})
        return ImportConfig(content=content, layout=RAW_LATENTS, labels=self.moved)


def is_raw_latents(path: Path) -> bool:
    """Whether it is a zip with arrays by their names."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with only_our_errors(path), zipfile.ZipFile(path) as archive:
        return any(name.endswith(SUFFIX) for name in archive.namelist())


def open_raw_latents(path: Path) -> RawLatents:
    """What is in a zip of raw latents.

    Raises:
        BadInput: it is none, or its first array or its labels are not what they must be.
    """
    left_out = Tally()
    with only_our_errors(path), zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        members = {plain_name(info.filename): info for info in infos}
        if len(members) < len(infos):
            raise BadInput(f"{shown(path)}: holds two members of one name")
        own = sorted(
            (name for name in members if name.endswith(SUFFIX)),
            key=lambda name: members[name].filename,
        )
        if not own:
            raise BadInput(f"{shown(path)}: has no raw latents ({SUFFIX})")
        first = _moments(archive, members[own[0]], path)
        others = sorted(members.keys() - {*own})
        file = find_labels(
            *(path, own, others, lambda name: _bytes(archive, members.get(name), path)),
            *(None, True, []),
            mend="move it to where the arrays' folders are, or away",
        )
        for name in others:
            if file is None or name != file.name:
                left_out.add("no raw latents", name)
        labels = moved = None
        if file is not None and not file.empty:
            found = inner_labels(file, own).labels
            labels = tuple(found[name] for name in own)
            if file.folder or members[file.name].filename != file.name:
                moved = label_digest(file.content, file.column)
        names = tuple(members[name].filename for name in own)
    channels, height, width = first.shape
    return RawLatents(path, names, labels, (channels, height, width), left_out, moved)


def _bytes(archive: zipfile.ZipFile, member: zipfile.ZipInfo | None, path: Path) -> bytes | None:
    try:
        return None if member is None else read_member(archive, member)
    except BrokenImage as error:
        raise BadInput(f"{shown(path)}: {member and shown(member.filename)}: {error}") from None


def _moments(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> NDArray[np.float32]:
    """Means over deviations of one image, float32 [2 C, h, w].

    Raises:
        BadInput: it is no such array, a number is not finite, or a deviation below 0.
    """
    where = f"{shown(path)}: {shown(member.filename)}"
    content = _bytes(archive, member, path) or b""
    try:
        found = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError, SyntaxError) as error:
        raise BadInput(f"{where}: no readable array: {reason(error)}") from None
    if not isinstance(found, np.ndarray) or found.dtype not in (np.float16, np.float32):
        raise BadInput(f"{where}: want an array of float16 or float32")
    if found.ndim != 3 or found.shape[0] % 2 or not found.size:
        raise BadInput(
            f"{where}: want means and deviations of shape [2 C, h, w], got {list(found.shape)}"
        )
    wide = found.astype(np.float32)
    if not np.isfinite(wide).all() or float(wide[len(wide) // 2 :].min()) < 0:
        raise BadInput(f"{where}: a number is not finite, or a deviation is below 0")
    return wide


def import_raw_latents(context: StageContext[ImportConfig]) -> dict[str, Any]:
    """Stage `import_latents`: no inputs; reads what `execution.files.imported` names.

    Raises:
        BadInput: it is gone or another file, or an array is not as the first.
    """
    path = context.execution.files.imported
    if path is None:
        raise BadInput(
            "the raw latents are no longer in the store: store them again by `sims data encode`"
        )
    source = open_raw_latents(path)
    if source.config != context.config:
        raise BadInput(f"{shown(path)} changed while it was imported: run the command again")
    count = len(source.names)
    shards = make_shards(context, count, IMAGES_PER_SHARD, lambda: _maker(source))
    classes = Counter(source.labels or ())
    take_shards(context.state, context.directory, source.shape, shards, classes)
    return {"count": count}


def _maker(source: RawLatents) -> Maker:
    archive = zipfile.ZipFile(source.path)

    def make(start: int, size: int, report: Callable[[int], None]) -> Content:
        moments = []
        with only_our_errors(source.path):
            for name in source.names[start : start + size]:
                moments.append(_moments(archive, archive.getinfo(name), source.path))
                if moments[-1].shape != source.shape:
                    raise BadInput(
                        f"{shown(source.path)}: {shown(name)} is of shape "
                        f"{list(moments[-1].shape)}, the first of {list(source.shape)}"
                    )
        report(size)
        labels = None if source.labels is None else source.labels[start : start + size]
        return Content(np.stack(moments), labels, None)  # type: ignore[arg-type]

    return make
