"""A power cut at any moment of a run: what the disk then has is rebuilt, read, and gone on with.

A recording knows of each file and folder what of it had been brought to the disk. Around each call
that brings something there or gives it a name, two disks are rebuilt, the extremes of what file
systems may do: one has all names but, of files, only what was synced (of the rest nothing, half, or
zeros), the other only those names that were synced as well.
"""

from __future__ import annotations

import hashlib
import os
import random
import stat
from pathlib import Path

import pytest

from sims_core.common.kept import SUFFIX, is_kept
from sims_core.data.config import Contents, DigitsData, GaussianData, ImportConfig, ImportedSet
from sims_core.data.names import DATASETS
from sims_core.diffusion.config import SamplerConfig
from sims_core.engine.execution import Execution
from sims_core.evaluation.config import ClassifierConfig, EvaluationConfig, PointEvaluationConfig
from sims_core.methods.sims import Sims
from sims_core.methods.standard import Standard
from sims_core.nets.config import ExactGaussianConfig, ModelConfig, UNetConfig
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Arm, LoopKind, plan_loop
from sims_core.studies.running import Runner
from sims_core.training.config import TrainingConfig

EXECUTION = Execution(threads=1, checkpoint_kimg=0.1)


@pytest.fixture
def points():
    experiment = Experiment(
        data=GaussianData(num_points=50, replicates=2),
        model=ModelConfig(net=ExactGaussianConfig()),
        point_evaluation=PointEvaluationConfig(num_points=50, empirical_points=10, bootstrap=100),
    )
    arms = (Arm(method=Standard(), loop=LoopKind.fresh_data, pollution_size=20),)
    return plan_loop(experiment, arms, generations=1, seed=0)


@pytest.fixture
def images():
    sims = Sims(n_s=32, budget_mimg=0.000256, batch_size=32)
    experiment = Experiment(
        data=DigitsData(num_images=256),
        model=ModelConfig(net=UNetConfig(block_out_channels=(8, 16), norm_num_groups=4)),
        training=TrainingConfig(kimg=0.3, batch_size=32),
        sims=sims,
        sampler=SamplerConfig(num_steps=3),
        evaluation=EvaluationConfig(
            num_images=64,
            classifier=ClassifierConfig(channels=(8, 16), num_features=16, kimg=0.5, batch_size=32),
            **{"kid_subsets": 20, "kid_subset_size": 16, "num_preview": 4},
        ),
    )
    arms = (Arm(method=sims, loop=LoopKind.fully_synthetic, pollution_size=32),)
    return plan_loop(experiment, arms, generations=1, seed=0)


class Recording:
    """What of a folder is on the disk, and a look at it around every call that changes that."""

    def __init__(self, monkeypatch, root, look):
        self.root, self.look = root, look
        self.files: dict[int, tuple[tuple[int, int], bytes]] = {}
        self.folders: dict[int, dict[str, int]] = {}
        self.moments = 0
        rename = os.replace

        def fsync(file):
            self._moment()
            self._note(Path(f"/proc/self/fd/{file}").readlink())

        def replace(source, target):
            rename(source, target)
            self._moment()

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "replace", replace)

    def _note(self, path):
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            self.folders[found.st_ino] = {each.name: each.lstat().st_ino for each in path.iterdir()}
        else:
            self.files[found.st_ino] = (found.st_size, found.st_mtime_ns), path.read_bytes()

    def _moment(self):
        self.moments += 1
        self.look(self)

    def rebuild(self, target, all_names, draws):
        """What a power cut would leave now."""
        self._folder(self.root, target, all_names, draws)
        return target

    def _folder(self, source, target, all_names, draws):
        target.mkdir()
        named = self.folders.get(source.stat().st_ino)
        present = {each.lstat().st_ino: each for each in source.iterdir()}
        if all_names:
            named = {each.name: inode for inode, each in present.items()}
        for name, inode in (named or {}).items():  # a folder that was never synced is empty
            path = present.get(inode)
            if path is not None and path.is_symlink():
                (target / name).symlink_to(path.readlink())
            elif path is not None and path.is_dir():
                self._folder(path, target / name, all_names, draws)
            else:
                (target / name).write_bytes(self._content(path, inode, draws))

    def _content(self, path, inode, draws):
        state, content = self.files.get(inode, (None, b""))
        if path is not None:
            found = path.stat()
            if state == (found.st_size, found.st_mtime_ns):
                return content
            if state is None:
                whole = path.read_bytes()
                return draws.choice([b"", whole[: len(whole) // 2], bytes(len(whole))])
        return content


def sums(store):
    return {
        p.relative_to(store.root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in (store.root / "artifacts").rglob("*")
        if p.is_file()
    }


class Reader:
    """Looks at what power cuts leave, and counts what it could trust."""

    def __init__(self, real, right):
        self.real, self.right = real, right
        self.disks = self.whole = self.distrusted = self.kept = 0

    def read(self, root):
        """Whatever a reader trusts is what was written."""
        self.disks += 1
        store = Store(root)
        found = sums(store)
        for ref in store.artifacts():
            if not store.is_whole(ref):
                self.distrusted += 1
                continue
            self.whole += 1
            inside = {name: sha for name, sha in found.items() if name.startswith(ref.location)}
            assert inside
            assert inside.items() <= self.right.items()
            record = store.record(ref)
            assert record is None or record.content in ("", store.manifest(ref).content)
        for note in root.glob(f"progress/*/state/**/*{SUFFIX}"):
            path = note.with_name(note.name.removesuffix(SUFFIX))
            if path.is_file() and is_kept(path):
                self.kept += 1
                real = self.real / path.relative_to(root)
                # Between two renamings it has another name there.
                twins = [each for each in real.parent.glob("*") if each.is_file()]
                assert path.read_bytes() in [each.read_bytes() for each in twins]


def run(store, plan):
    Runner(store, EXECUTION).run_plan(plan)


def cut(monkeypatch, tmp_path, plan, moments):
    """Runs the plan with a look at a share of the moments, and goes on from a few disks.

    Returns:
        The reader, the artifacts on the disk after the end, and how many disks were gone on from.
    """
    quiet = Store.open(tmp_path / "quiet")
    run(quiet, plan)
    root = tmp_path / "store"
    root.mkdir()
    reader = Reader(root, sums(quiet))
    draws = random.Random(0)  # noqa: S311 - no secret
    again: list[Path] = []

    def look(recording):
        if draws.random() > moments:
            return
        for all_names in (True, False):
            target = tmp_path / f"disk-{recording.moments}-{all_names}"
            reader.read(recording.rebuild(target, all_names, draws))
            if draws.random() < 0.05:
                again.append(target)

    with monkeypatch.context() as patch:
        recording = Recording(patch, root, look)
        store = Store.open(root)
        run(store, plan)
    assert sums(store) == reader.right
    monkeypatch.setenv("SIMS_FSYNC", "0")  # what follows need not wait
    for target in again[:2]:
        run(Store.open(target), plan)
        assert sums(Store(target)) == reader.right
    final = [
        recording.rebuild(tmp_path / f"end-{all_names}", all_names, draws)
        for all_names in (True, False)
    ]
    return reader, [sums(Store(root)) for root in final], len(again)


def test_nothing_short_is_trusted_and_nothing_finished_is_lost(monkeypatch, tmp_path, points):
    reader, ends, again = cut(monkeypatch, tmp_path, points, 0.3)
    assert again >= 2
    assert reader.disks > 30
    assert reader.whole > 30
    assert ends == [reader.right, reader.right], "on the disk when the run ends"


def test_without_fsync_it_may_be_lost_but_is_not_trusted(monkeypatch, tmp_path, points):
    """And the recording sees it."""
    monkeypatch.setenv("SIMS_FSYNC", "0")
    reader, ends, _ = cut(monkeypatch, tmp_path, points, 1.0)
    assert reader.distrusted > 0
    assert all(end != reader.right for end in ends)


@pytest.mark.slow
def test_unfinished_work_on_images_too(monkeypatch, tmp_path, images):
    reader, ends, again = cut(monkeypatch, tmp_path, images, 0.5)
    assert again >= 4
    assert reader.kept == 0, "notes of unfinished work are not synced: it may be lost, never wrong"
    assert ends == [reader.right, reader.right]


def test_a_name_is_all_there_or_not_at_all(monkeypatch, tmp_path):
    """What was imported under a name before stays, or the new one stands."""
    contents = Contents(count=3, channels=1, height=8, width=8, num_classes=2)
    first, second = (
        ImportedSet(config=ImportConfig(content=digit * 64, layout="folder"), contents=contents)
        for digit in "ab"
    )
    (tmp_path / "store").mkdir()
    draws, disks = random.Random(0), []  # noqa: S311 - no secret

    def look(recording):
        for all_names in (True, False):
            target = tmp_path / f"disk-{recording.moments}-{all_names}"
            disks.append(recording.rebuild(target, all_names, draws))

    recording = Recording(monkeypatch, tmp_path / "store", look)
    store = Store.open(tmp_path / "store")
    DATASETS.give(store, "mine", first)
    settled = len(disks)
    DATASETS.give(store, "mine", second)
    found = [DATASETS.stands_for(Store(root), "mine") for root in disks]
    assert set(map(type, found)) <= {type(None), ImportedSet}
    assert None not in found[settled:], "once given, it is never lost"
    assert {each for each in found if each is not None} == {first, second}
    end = recording.rebuild(tmp_path / "end", False, draws)
    assert DATASETS.find(Store(end), "mine") == second
