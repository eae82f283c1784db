"""Models by their id on the Hugging Face Hub, at one commit, without anything that is pickled."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sims_core.common.errors import BadInput
from sims_core.nets.diffusers_files import find_weights, pick_weights

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
COMMIT = re.compile(r"[0-9a-f]{40}")
NETWORKS = ("unet", "")
"""The folders of a repository that a network can be in."""


@dataclass(frozen=True)
class HubModel:
    """A repository's files at one commit, in the Hub's own cache."""

    id: str
    commit: str
    folder: Path


def is_hub_id(source: str) -> bool:
    """Whether what a user gave can only be meant as `owner/name` on the Hub."""
    return HUB_ID.fullmatch(source) is not None and not Path(source).exists()


def fetch_model(hub_id: str, revision: str = "main") -> HubModel:
    """Downloads a repository's network and scheduler, or finds them in the Hub's cache.

    Args:
        hub_id: owner/name.
        revision: branch, tag or commit. What it stands for now is in the result: that commit
            gives the same files at any time, from the cache also without internet.

    Raises:
        BadInput: the Hub cannot be reached, has no such repository or revision, or it has pickled
            weights only.
    """
    from huggingface_hub import HfApi, hf_hub_download

    where = f"{hub_id} (revision {revision})"
    try:
        if COMMIT.fullmatch(revision) and (cached := _cached(hub_id, revision)):
            return HubModel(hub_id, revision, cached)
        info = HfApi().model_info(hub_id, revision=revision)
        names = [sibling.rfilename for sibling in info.siblings or ()]
        commit = str(info.sha)
        for name in _wanted(where, names):
            file = Path(hf_hub_download(hub_id, name, revision=commit))
    except BadInput:
        raise
    except Exception as error:  # the client's HTTP library, and so its errors, are its own affair
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(
            f"{where} is no file or folder here, and cannot be had from the Hub: "
            f"{reason.rstrip('.:')}; fetch it where there is internet and give its folder"
        ) from None
    return HubModel(hub_id, commit, file.parents[name.count("/")])


def _cached(hub_id: str, commit: str) -> Path | None:
    """What an earlier call brought; None: nothing, or not all of it."""
    from huggingface_hub import try_to_load_from_cache

    for sub in NETWORKS:
        name = f"{sub}/config.json".lstrip("/")
        found = try_to_load_from_cache(hub_id, name, revision=commit)
        if isinstance(found, str):
            try:
                find_weights(Path(found).parent)
            except BadInput:  # it was interrupted
                return None
            folder = Path(found).parents[name.count("/")]
            schedulers = ("scheduler/scheduler_config.json", "scheduler_config.json")
            is_whole = any((folder / each).is_file() for each in schedulers)
            return folder if is_whole else None
    return None


def _names_in(folder: str, names: Collection[str]) -> list[str]:
    """The names of files directly in a folder of a repository."""
    inside = PurePosixPath(folder)
    return [path.name for path in map(PurePosixPath, names) if path.parent == inside]


def _wanted(where: str, names: Collection[str]) -> list[str]:
    """The files that are needed: JSON, and of the weights those that `find_weights` takes.

    Raises:
        BadInput: there are none.
    """
    wanted, weights = [], 0
    for folder in (*NETWORKS, "scheduler"):
        inside = _names_in(folder, names)
        picked = pick_weights(inside) if folder in NETWORKS else ()
        weights += len(picked)
        if any(name.endswith(".json") for name in picked):  # parts, which only the index names
            picked = (*picked, *(n for n in inside if "-of-" in n and n.endswith(".safetensors")))
        kept = {*picked, *(name for name in inside if name.endswith(".json"))}
        wanted += [f"{folder}/{name}".lstrip("/") for name in sorted(kept)]
    if not weights:
        pickled = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
        raise BadInput(
            f"{where} has no safetensors of a U-Net"
            + (f", only pickles ({pickled[0]}), which could run any code: convert it where you "
               "trust it, by from_pretrained(...).save_pretrained(FOLDER)" if pickled else "")
        )  # fmt: skip
    return wanted
