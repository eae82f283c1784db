"""Sub-folders as classes: which they are, in what order, and when they are none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from sims_core.common.errors import BadInput
from sims_core.common.shown import shown

SPLITS = ("train", "test", "val", "valid", "validation")

_TRAIN = r"train(ing)?|trn"
_OTHERS = r"test(ing)?|tst|val(id|idation)?|dev|eval(uation)?|holdout"
_REST = r"([-_ .]?(set|split|data|images|imgs|\d+))*"
_TRAIN_NAME = re.compile(f"({_TRAIN}){_REST}", re.IGNORECASE)
_SPLIT_NAME = re.compile(f"({_TRAIN}|{_OTHERS}){_REST}", re.IGNORECASE)


@dataclass(frozen=True)
class ClassFolders:
    """The class of a picture is its folder at `level` (0: the outermost)."""

    classes: tuple[str, ...] = ()
    level: int = 0

    def label(self, name: str) -> int | None:
        """The class of the picture of this name; None: there are none."""
        if not self.classes:
            return None
        return self._numbers[PurePosixPath(name).parts[self.level]]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.classes)}


def is_split(name: str) -> bool:
    """Whether a folder of this name is a part of a set, under any usual spelling: Train, testing,
    val_images, train2017."""
    return _SPLIT_NAME.fullmatch(name) is not None


def are_splits(names: Sequence[str]) -> bool:
    """Whether folders are splits: all are, or one is a training set beside one that is not.

    One class may well be called `train`; two that are called so are no classes.
    """
    like = [name for name in names if is_split(name)]
    trains = [name for name in like if _TRAIN_NAME.fullmatch(name)]
    return bool(like) and (len(like) == len(names) or 0 < len(trains) < len(like))


def in_class_order(names: Sequence[str]) -> list[str]:
    """Sorted: as numbers where all are numbers (2 before 10), else as text."""
    unique = set(names)
    if all(name.isascii() and name.isdecimal() and len(name) < 20 for name in unique):
        return sorted(unique, key=lambda name: (int(name), name))
    return sorted(unique)


def _are_indices(parts: Sequence[tuple[str, ...]], level: int) -> bool:
    """Whether the folders only cut a numbered list into thousands, as EDM's, StyleGAN's (00001 has
    img00001000 ...) and FFHQ's (01000 has 01000 ...) do."""
    for part in parts:
        folder, number = part[level], re.search(r"(\d{5,18})\D*$", PurePosixPath(part[-1]).stem)
        if not re.fullmatch(r"\d{5,18}", folder) or number is None:
            return False
        thousand = int(number[1]) // 1000
        if int(folder) not in (thousand, thousand * 1000):
            return False
    return True


def class_folders(names: Sequence[str], where: object, notes: list[str]) -> ClassFolders:
    """The sub-folders of pictures as classes; none if no picture lies in one.

    One folder that is wrapped round all class folders is no class.

    Args:
        names: of the pictures, with / between folders.
        notes: what was decided is added to it.

    Raises:
        BadInput: some pictures lie in sub-folders and some do not, or the sub-folders are splits or
            only cut a numbered list into parts.
    """
    parts = [PurePosixPath(name).parts for name in names]
    if all(len(part) == 1 for part in parts):
        return ClassFolders()
    for name, part in zip(names, parts, strict=True):
        if len(part) == 1:
            raise BadInput(
                f"{shown(where)}: {shown(name)} lies in no sub-folder while others do (the "
                "sub-folders are the classes): move it, or pass `labels` FILE or `labels` none"
            )
    level = 0
    while len(found := {part[level] for part in parts}) == 1 and not are_splits([*found]):
        if any(len(part) < level + 3 for part in parts):
            break
        level += 1
    if len(found) == 1 and not are_splits([*found]):
        level = 0  # unwrapped to nothing that tells pictures apart: the outermost it is
    classes = in_class_order([part[level] for part in parts])
    _refuse_no_classes(classes, parts, level, where)
    if level:
        wrapped = "/".join(parts[0][:level])
        notes.append(f"all pictures lie in {shown(wrapped)}: its sub-folders are the classes")
    return ClassFolders(tuple(classes), level)


def _refuse_no_classes(
    classes: Sequence[str], parts: Sequence[tuple[str, ...]], level: int, where: object
) -> None:
    if are_splits(classes):
        inside = f"; they lie in {shown('/'.join(parts[0][:level]))}: give that" if level else ""
        named = shown(", ".join(classes))
        raise BadInput(f"{shown(where)}: has the splits {named}: pick one with `split`{inside}")
    if _are_indices(parts, level):
        raise BadInput(
            f"{shown(where)}: the sub-folders {shown(', '.join(classes[:3]))} ... only number the "
            "pictures, and there is no dataset.json with their classes: pass `labels` none or "
            "`labels` FILE"
        )
