"""Settings of the machine, from the environment (SIMS_*), and the store that they name.

None of them changes a result's digest.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from sims_core.common.errors import BadInput, StoreError
from sims_core.common.frozen import one_line
from sims_core.engine.execution import DataFiles, Execution
from sims_core.store.store import Store

NVIDIA_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""One of them is there if an NVIDIA driver is: Linux's own, or that of its Windows host."""


LEAST_ADDRESSES = 6 << 30
"""Bytes that the libraries of a run map, most of which they never use."""


class Settings(BaseSettings):
    """Where the store lies and what computes. Each field is read from SIMS_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="SIMS_", frozen=True, env_ignore_empty=True)

    store: Path = Path("store")
    """Folder of the artifact store."""
    store_must_exist: bool = False
    """Whether an absent store is an error: a worker that does not see it must make no new one."""
    data: Path | None = None
    """Folder in which known data sets and the weights of feature extractors are looked for."""
    inception_weights: Path | None = None
    """File with the weights of 2015 of Inception, as torch-fidelity's inception-v3-compat."""
    downloads: Path = Path("~/.cache/sims-loop")
    """Folder for data sets that are fetched since they are not in the data folder."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")] = "auto"
    """cpu, cuda, cuda:1, mps, or auto: cuda where there is one, else cpu."""
    gpu_slots: Literal["auto", "always", "never"] = "auto"
    """Whether stages that want the accelerator hold a slot of the Prefect server's limit `gpu`;
    auto: unless the device is the CPU."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """torch's threads on the CPU; unset: one per processor that this process may use."""
    sampling_batch_size: Annotated[int, Field(ge=1)] = 256
    checkpoint_kimg: Annotated[float, Field(gt=0)] = 2.0
    processes: Annotated[int, Field(ge=1)] = 1
    """Training processes that share each batch; on GPUs one a GPU."""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """At most so many images at once in training, in each process; unset: the whole batch."""
    compile: Literal["inductor", "eager"] | None = None
    """torch.compile's backend for networks of images; unset: no compilation."""
    channels_last: bool = True
    cpu_isa: Literal["avx2"] | None = None
    """The most that the CPU's kernels may use, so that x86 machines give the same bytes; unset: all
    that the CPU has (sims_core/common/instructions.py reads it)."""
    recompute: str = ""
    """Names of stages, with commas between them, that a run computes anew though the store has
    their artifacts; it is of one run, and `sims run --recompute` sets it."""
    fsync: bool = True
    """Whether what is given a name is on the disk before (sims_core/common/files.py reads it)."""

    remote: str | None = None
    """The bucket behind the store: s3://bucket/prefix, gs://, az:// or file:///folder."""
    cache_bytes: Annotated[int, Field(ge=0)] | None = None
    """With a bucket, what artifacts may hold of the store's disk; unset: no limit."""
    remote_lease_s: Annotated[float, Field(ge=1)] = 60.0
    """Another host takes a stage over whose host was not heard of for so long."""
    remote_upload_s: Annotated[float, Field(gt=0)] = 60.0
    """Checkpoints and finished shards are brought to the bucket so often."""

    @classmethod
    def read(cls) -> Settings:
        """The settings of this process.

        Raises:
            BadInput: a SIMS_ variable has an invalid value.
        """
        try:
            return cls()
        except ValidationError as error:
            name, _, problem = one_line(error).partition(":")
            raise BadInput(f"environment variable SIMS_{name.upper()}:{problem}") from None

    def execution(self) -> Execution:
        """How this machine runs a stage.

        Raises:
            BadInput: SIMS_DEVICE names a device that it does not have, or one GPU for several
                processes; or the process may not map what torch needs.
        """
        _check_addresses()
        return Execution(
            device=self._device(),
            threads=self.threads or len(os.sched_getaffinity(0)),
            sampling_batch_size=self.sampling_batch_size,
            checkpoint_kimg=self.checkpoint_kimg,
            files=self.files(),
            num_processes=self._processes(),
            micro_batch_size=self.micro_batch_size,
            compile=self.compile,
            channels_last=self.channels_last,
        )

    def files(self) -> DataFiles:
        """Where data and weights are read."""
        return DataFiles(
            source=self.data and self.data.expanduser().absolute(),
            downloads=self.downloads.expanduser().absolute(),
            inception=self.inception_weights and self.inception_weights.expanduser().absolute(),
        )

    def _processes(self) -> int:
        if self.processes > 1 and self._device().partition(":")[2]:
            raise BadInput(
                f"SIMS_DEVICE is {self.device}, one GPU, but SIMS_PROCESSES is {self.processes}: "
                "set SIMS_DEVICE=cuda (and CUDA_VISIBLE_DEVICES to choose among GPUs)"
            )
        return self.processes

    @property
    def named_device(self) -> str:
        """The device, auto resolved; not whether it is there."""
        # Asking the driver's device files spares a cached run the seconds of importing torch.
        if self.device == "auto":
            return "cuda" if NVIDIA_FILES[0].exists() else "cpu"
        return self.device

    def _device(self) -> str:
        if self.device.startswith("cuda") and not any(map(Path.exists, NVIDIA_FILES)):
            raise BadInput(
                f"SIMS_DEVICE is {self.device}, but this machine has no NVIDIA driver: unset it"
            )
        return self.named_device


def _check_addresses() -> None:
    """Raises BadInput if `ulimit -v` is so low that torch would abort without a word."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESSES:
        raise BadInput(
            f"this process may map {limit / 2**30:.1f} GiB of addresses (ulimit -v), torch needs "
            f"{LEAST_ADDRESSES >> 30}: raise it, and bound memory itself by a control group, such "
            "as systemd-run -p MemoryMax=4G"
        )


def open_store() -> Store:
    """The store of this process's settings, made if it is not there and may be.

    Raises:
        StoreError: it cannot be written, or it is absent and SIMS_STORE_MUST_EXIST.
    """
    settings = Settings.read()
    root = settings.store.expanduser().absolute()
    if settings.store_must_exist and not (root / "artifacts").is_dir():
        raise StoreError(
            f"there is no store at {root}: mount it on this machine, or start the worker with "
            "SIMS_STORE naming it; `sims setup` makes a new one"
        )
    return with_bucket(Store.open(root))


def with_bucket(store: Store) -> Store:
    """The store, with the bucket behind it that SIMS_REMOTE names, if it names one.

    Raises:
        BadInput: it is no bucket, or one that cannot be used by several hosts.
        StoreError: it does not answer.
    """
    settings = Settings.read()
    if settings.remote is not None:
        from sims_core.store.remote.bucket import attach  # nobody else needs obstore

        attach(
            store,
            settings.remote,
            lease_s=settings.remote_lease_s,
            upload_s=settings.remote_upload_s,
            cache_bytes=settings.cache_bytes,
        )
    return store


def writable_store() -> Store:
    """The store that the settings name, made if it is not there.

    Raises:
        BadInput: it cannot be written.
    """
    try:
        return with_bucket(Store.open(Settings.read().store))
    except StoreError as error:
        raise BadInput(str(error)) from None
