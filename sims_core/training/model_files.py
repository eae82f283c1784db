"""Models that a training starts from, keeps on the way and ends in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sims_core.common.errors import BadInput
from sims_core.common.kept import is_kept, keep
from sims_core.diffusion.denoiser import NetDenoiser
from sims_core.engine.stage import StageContext
from sims_core.nets.saved import load_model, save_model
from sims_core.training.config import SnapshotConfig, TrainStageConfig
from sims_core.training.trainer import Training

SNAPSHOTS_FOLDER = "snapshots"


def snapshot_folder(folder: Path, nimg: int) -> Path:
    """Where the model lies as it was after `nimg` images."""
    return folder / SNAPSHOTS_FOLDER / f"{nimg:012d}"


@dataclass(frozen=True)
class OnTheWay:
    """What a training writes on its way beside checkpoints, and must have when it goes on."""

    after_step: Callable[[], None]
    written: Callable[[int], list[Path]]
    """Everything of it that there is after so many steps."""

    def is_whole(self, step: int) -> bool:
        """Whether all of that is as it was written."""
        return all(map(is_kept, self.written(step)))


def keep_snapshots(training: Training, config: TrainStageConfig, folder: Path) -> OnTheWay:
    """What writes a model under `folder` whenever `training` has come to a snapshot's step."""
    steps = {config.training.steps_of(kimg) for kimg in config.snapshots_kimg}

    def target_of(step: int) -> Path:
        return snapshot_folder(folder, step * training.config.batch_size)

    def after_step() -> None:
        if training.step not in steps or training.acceleration.rank > 0:
            return
        target = target_of(training.step)
        partial = target.with_suffix(".partial")
        for old in (target, partial):  # of an attempt that was killed before its next checkpoint
            shutil.rmtree(old, ignore_errors=True)
        partial.mkdir(parents=True)
        save_model(training.snapshot().cpu(), config.model, partial)
        keep(partial, target)

    return OnTheWay(after_step, lambda step: [target_of(s) for s in sorted(steps) if s <= step])


def take_snapshot(context: StageContext[SnapshotConfig]) -> dict[str, Any]:
    """Stage `snapshot`: input `model`; writes the model that it was after `nimg` images.

    Raises:
        BadInput: no snapshot was kept there.
    """
    folder, nimg = context.open("model"), context.config.nimg
    source = snapshot_folder(folder, nimg)
    if not source.is_dir():
        kept = [int(path.name) for path in sorted((folder / SNAPSHOTS_FOLDER).glob("*"))]
        raise BadInput(
            f"{context.inputs['model'].short} kept no snapshot at {nimg} images; it has {kept}"
        )
    shutil.copytree(source, context.directory, dirs_exist_ok=True)
    return {"nimg": nimg}


def load_initial(context: StageContext[TrainStageConfig]) -> NetDenoiser | None:
    """The model to fine-tune, None if there is none.

    Raises:
        BadInput: it is another network than the configuration's.
    """
    if "initial" not in context.inputs:
        return None
    initial, config = load_model(context.open("initial"))
    if config.without_loss != context.config.model.without_loss:
        raise BadInput("a fine-tune needs the network and sigma_data of the model it starts from")
    return initial


def write_model(
    context: StageContext[TrainStageConfig], denoiser: NetDenoiser, training: Training
) -> None:
    """Model and losses into the artifact."""
    save_model(denoiser.cpu(), context.config.model, context.directory)
    rows = "".join(f"{nimg},{loss:.9g}\n" for nimg, loss in training.log)
    (context.directory / "loss.csv").write_text("nimg,loss\n" + rows)
