"""The stages that make sets of a wanted mix: re-weighted ones, and those that rejection leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sims_core.common.errors import BadInput, SimsError
from sims_core.data.groups import (
    GroupMix,
    RejectConfig,
    ReweighConfig,
    acceptance,
    exact_counts,
    guided_shares,
)
from sims_core.data.image_set import Sample, read_index, stream_samples
from sims_core.data.image_writer import ImageWriter
from sims_core.data.points import read_points, write_points
from sims_core.data.types import Labels
from sims_core.engine.stage import StageContext

LABELS_FILE = "labels.npy"


def write_labels(folder: Path, labels: Labels) -> dict[str, Any]:
    """Writes the class of each image, [N], or point, [R, N]; returns the manifest's details."""
    np.save(folder / LABELS_FILE, labels.astype(np.int64), allow_pickle=False)
    classes, counts = np.unique(labels, return_counts=True)
    histogram = {str(c): int(n) for c, n in zip(classes, counts, strict=True)}
    return {"count": labels.shape[-1], "class_histogram": histogram}


def read_labels(folder: Path) -> Labels:
    """The classes of a verified artifact of labels, int64 [N] or [R, N]."""
    labels: Labels = np.load(folder / LABELS_FILE, allow_pickle=False)
    return labels


def groups_of(labels: Labels, mix: GroupMix) -> NDArray[np.int64]:
    """The number of each label's group, of labels' shape.

    Raises:
        BadInput: a class is in no group.
    """
    found = np.full(labels.shape, -1, dtype=np.int64)
    for number, classes in enumerate(mix.groups):
        found[np.isin(labels, classes)] = number
    if (found < 0).any():
        raise BadInput(f"class {labels[found < 0].flat[0]} is in none of the groups")
    return found


def shares_of(groups: NDArray[np.int64], count: int) -> list[float]:
    """The share of each of `count` groups in a flat list of group numbers."""
    return [float(each) / groups.size for each in np.bincount(groups.ravel(), minlength=count)]


def wanted_counts(groups: NDArray[np.int64], config: ReweighConfig) -> list[int]:
    """How many of each group the new set has.

    Raises:
        BadInput: a group is wanted that has no member, or the largest set is too small.
    """
    available = np.bincount(groups, minlength=len(config.target.groups)).tolist()
    if not all(available):
        missing = config.target.groups[available.index(0)]
        raise BadInput(
            f"none of the {groups.size} given is of the group of classes {list(missing)}, so that "
            "no mix with a share of it can be made"
        )
    shares: Sequence[float] = config.target.shares
    if config.guided is not None:
        have = [each / groups.size for each in available]
        shares = guided_shares(have, shares, config.guided.omega, config.guided.exponent)
    count = config.count
    if count is None:
        count = int(min(have / share for have, share in zip(available, shares, strict=True))) + 1
        while any(n > have for n, have in zip(exact_counts(shares, count), available, strict=True)):
            count -= 1
    if count < config.at_least:
        raise BadInput(
            f"the largest set of shares {[round(share, 4) for share in shares]} without "
            f"repetition has {count}, want at least {config.at_least}"
        )
    return exact_counts(shares, count)


def draw_exactly(groups: NDArray[np.int64], counts: Sequence[int], seed: int) -> NDArray[np.int64]:
    """Ascending indices with exactly so many of each group.

    Every member of a group comes equally often, up to one: all as many whole times as fit, and a
    random choice of them once more.
    """
    generator, picked = np.random.default_rng(seed), []
    for number, count in enumerate(counts):
        members = np.flatnonzero(groups == number)
        times, rest = divmod(count, len(members))
        picked += [np.repeat(members, times), generator.choice(members, rest, replace=False)]
    return np.sort(np.concatenate(picked))


def _copies(folder: Path, picked: NDArray[np.int64]) -> Iterator[Sample]:
    """The images of these ascending numbers, with repetitions, in one pass."""
    starts = np.searchsorted(picked, np.arange(read_index(folder).count + 1))
    samples = stream_samples(folder, 0, len(starts) - 1)
    for sample, (first, end) in zip(samples, pairwise(starts.tolist()), strict=True):
        for _ in range(end - first):
            yield sample


def _own_labels(folder: Path) -> Labels:
    """The labels that an image set has.

    Raises:
        BadInput: it has none.
    """
    labels = [sample.label for sample in stream_samples(folder, 0, read_index(folder).count)]
    if None in labels:
        raise BadInput("the images have no labels to form groups of: import them with `labels`")
    return np.array(labels, dtype=np.int64)


def reweigh(context: StageContext[ReweighConfig]) -> dict[str, Any]:
    """Stage `reweigh`: input `images` and, where their own labels are not meant, `labels`.

    Raises:
        BadInput: as `wanted_counts`, or there are no labels.
    """
    config, folder = context.config, context.open("images")
    given = "labels" in context.inputs
    labels = read_labels(context.open("labels")) if given else _own_labels(folder)
    groups = groups_of(labels, config.target)
    counts = wanted_counts(groups, config)
    picked = draw_exactly(groups, counts, config.seed)
    writer = ImageWriter(context.directory)
    for sample, number in zip(_copies(folder, picked), picked.tolist(), strict=True):
        writer.add(sample.content, int(labels[number]))
    return {**writer.finish(), "groups": counts, "distinct": len(np.unique(picked))}


def reweigh_points(context: StageContext[ReweighConfig]) -> dict[str, Any]:
    """Stage `reweigh_points`: inputs `points` and `labels`; each replicate by its own mix.

    Raises:
        BadInput: as `wanted_counts`, or the replicates' sets would differ in size.
    """
    config = context.config
    points = read_points(context.open("points"))
    groups = groups_of(read_labels(context.open("labels")), config.target)
    counts, picked = [], []
    for number, each in enumerate(groups):
        counts.append(wanted_counts(each, config))
        picked.append(draw_exactly(each, counts[-1], config.seed + number))
    shortest = min(map(len, picked))
    if any(len(each) != shortest for each in picked):
        raise BadInput("replicates of different sizes: give a count")
    chosen = torch.stack(
        [own[torch.from_numpy(each)] for own, each in zip(points, picked, strict=True)]
    )
    write_points(context.directory, chosen)
    return {"replicates": len(chosen), "count": shortest, "groups": counts}


def _accepted(
    groups: NDArray[np.int64], keep: Sequence[float], seed: int, count: int
) -> NDArray[np.int64]:
    """Indices of the first `count` that are kept.

    Raises:
        SimsError: fewer are.
    """
    drawn = np.random.default_rng(seed).random(len(groups))
    kept = np.flatnonzero(drawn < np.asarray(keep)[groups])
    if len(kept) < count:
        raise SimsError(f"rejection kept {len(kept)} of {len(groups)}, {count} are wanted")
    return kept[:count]


def _keep(known: NDArray[np.int64], target: GroupMix) -> list[float]:
    """The probability to keep a sample of each group, of a model whose samples have these groups.

    Raises:
        BadInput: it makes none of a group.
    """
    shares = shares_of(known, len(target.groups))
    if 0 in shares:
        missing = list(target.groups[shares.index(0)])
        raise BadInput(f"the model makes none of the group of classes {missing}: nothing to keep")
    return acceptance(shares, target.shares)


def reject(context: StageContext[RejectConfig]) -> dict[str, Any]:
    """Stage `reject`: of inputs `images_<k>`, labelled by `labels_<k>`, those that are kept.

    Input `shares` is labels of other samples of the same model: what its mix is taken from.

    Raises:
        SimsError: the images are too few.
    """
    config = context.config
    parts = sum(name.startswith("images_") for name in context.inputs)
    labels = [read_labels(context.open(f"labels_{part}")) for part in range(parts)]
    groups = groups_of(np.concatenate(labels), config.target)
    keep = _keep(groups_of(read_labels(context.open("shares")), config.target), config.target)
    kept = _accepted(groups, keep, config.seed, config.count)
    writer, first = ImageWriter(context.directory), 0
    for part, own in enumerate(labels):
        inside = kept[(kept >= first) & (kept < first + len(own))] - first
        if inside.size:
            samples = _copies(context.open(f"images_{part}"), inside)
            for sample, number in zip(samples, inside.tolist(), strict=True):
                writer.add(sample.content, int(own[number]))
        first += len(own)
    examined = int(kept[-1]) + 1
    return {**writer.finish(), "examined": examined, "acceptance": config.count / examined}


def reject_points(context: StageContext[RejectConfig]) -> dict[str, Any]:
    """Stage `reject_points`: as `reject`, in each replicate of `points_<k>`.

    Raises:
        SimsError: a replicate has too few points.
    """
    config = context.config
    known = groups_of(read_labels(context.open("shares")), config.target)
    parts = sum(name.startswith("points_") for name in context.inputs)
    points = torch.cat([read_points(context.open(f"points_{k}")) for k in range(parts)], dim=1)
    labels = np.concatenate(
        [read_labels(context.open(f"labels_{k}")) for k in range(parts)], axis=1
    )
    chosen, examined = list[Tensor](), 0
    for number, groups in enumerate(groups_of(labels, config.target)):
        keep = _keep(known[number], config.target)
        kept = _accepted(groups, keep, config.seed + number, config.count)
        chosen.append(points[number][torch.from_numpy(kept)])
        examined += int(kept[-1]) + 1
    write_points(context.directory, torch.stack(chosen))
    rate = config.count * len(chosen) / examined
    return {"count": config.count, "examined": examined, "acceptance": rate}
