"""Sources of images as people have them, and what an import makes of them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sims_core.catalog import run_stage
from sims_core.data.grid import encode_png
from sims_core.data.image_set import read_index
from sims_core.data.importing import ImportPlan, plan_import
from sims_core.data.mixing import read_first_labelled
from sims_core.data.stages import IMPORT
from sims_core.engine.execution import DataFiles, Execution
from sims_core.store.store import Store


@dataclass(frozen=True)
class Brought:
    """An import and all that is told of it."""

    plan: ImportPlan
    images: np.ndarray
    labels: list[int] | None
    details: dict[str, Any]

    @property
    def left_out(self) -> dict[str, int]:
        return {reason: row["count"] for reason, row in self.plan.left_out.row().items()}

    @property
    def notes(self) -> str:
        return "\n".join(self.plan.notes)


@pytest.fixture
def import_all(store: Store) -> Callable[..., Brought]:
    """Plans an import and runs its stage."""

    def run(source: Path, labels: str | Path | None = None, srgb: bool = False, **options: Any):
        file = labels if isinstance(labels, Path) else None
        files = DataFiles(imported=source, labels=file)
        options = {"split": None, "size": None, "channels": None, "skip_broken": False} | options
        plan = plan_import(files, labels=None if file else labels, **options)
        config = plan.config.model_copy(update={"srgb": srgb})
        ref = run_stage(store, IMPORT.request(config), Execution(threads=1, files=files))
        folder = store.open_artifact(ref)
        images, got = read_first_labelled(folder, read_index(folder).count)
        return Brought(
            plan, images, None if got is None else got.tolist(), store.manifest(ref).details
        )

    return run


@pytest.fixture
def png() -> Callable[[int], bytes]:
    """A small grey picture of one level, so that its place in a set can be read from it."""

    def make(level: int) -> bytes:
        return encode_png(np.full((1, 4, 4), level, dtype=np.uint8))

    return make


def _put_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def _put_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def _put_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def put() -> Callable[..., Path]:
    """put("folder" | "zip" | "tar", path, {name: bytes})."""
    kinds = {"folder": _put_folder, "zip": _put_zip, "tar": _put_tar}
    return lambda kind, path, files, **options: kinds[kind](path, files, **options)
