"""How long stages will take and how much they will write, by what earlier ones took and wrote.

A training or sampling is measured in passes of its network; what was measured of one network says
nothing of another. Everything else is measured by what its configuration counts, or as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from sims_core.common.digest import canonical_json, digest_of
from sims_core.common.errors import DamagedArtifact
from sims_core.diffusion.config import SamplerConfig
from sims_core.evaluation.stages import CLASSIFIER
from sims_core.nets.counting import count_parameters
from sims_core.store.artifacts import ArtifactRef, StageRequest
from sims_core.store.store import Store
from sims_core.training.config import TrainingConfig, TrainStageConfig
from sims_core.training.stages import TRAIN

MOST_READ = 300
"""Artifacts of a store that are read for what they took, the latest."""

PASSES_OF_A_STEP = 3
"""A training step is a pass forwards and one backwards, which takes about two."""

COPIES_IN_TRAINING = 5
"""Weights, their gradients, Adam's two moments and the average."""

BYTES_OF_A_NUMBER = 4


@dataclass(frozen=True)
class Work:
    """How much a stage has to do, of what."""

    what: tuple[str, ...]
    """What has one rate: equal for equal kinds of work."""
    amount: float
    """Passes of a network for one image, images, or 1."""
    written: float
    """What the size of the artifact grows with: images, or 1."""
    instead: tuple[str, ...] = ()
    """Whose rate stands in as long as its own is not known."""

    @property
    def unit(self) -> Work:
        """Such work of the amount 1."""
        return Work(self.what, 1, 1, self.instead)

    @property
    def by_network(self) -> bool:
        """Whether it is passes of a network, or the training of a classifier: most of a run."""
        return self.what[0] in ("train", "sample", CLASSIFIER.name)


@dataclass
class Works:
    """The work of requests; of models it knows the networks."""

    store: Store
    _nets: dict[ArtifactRef, str] = field(default_factory=dict)

    def learn(self, request: StageRequest) -> None:
        """Remembers the network of the model that a request makes; its inputs come first."""
        if request.kind != "model" or request.ref in self._nets:
            return
        model = request.config.get("model")
        if isinstance(model, Mapping) and "net" in model:
            self._nets[request.ref] = digest_of(model["net"])
            return
        inputs = (self.net(ref) for ref in request.inputs.values() if ref.kind == "model")
        self._nets[request.ref] = next(inputs, "")

    def net(self, ref: ArtifactRef) -> str:
        """Names the network of a model; empty: it is not known."""
        if ref not in self._nets:
            self._nets[ref] = ""  # ends a circle, which only a damaged store could have
            try:
                request = self.store.manifest(ref).request
            except DamagedArtifact:
                return ""
            del self._nets[ref]
            self.learn(request)
        return self._nets[ref]

    def of(self, request: StageRequest) -> Work:
        """The work of a stage."""
        self.learn(request)
        config = request.config
        if request.stage == TRAIN.name:
            training, net = TrainingConfig.model_validate(config["training"]), self.net(request.ref)
            trained = PASSES_OF_A_STEP * training.num_steps * training.batch_size
            return Work(("train", net), trained, 1, ("sample", net))
        count = float(config.get("count") or 1)
        if "sampler" in config:
            models = [ref for ref in request.inputs.values() if ref.kind == "model"]
            nets = "+".join(sorted({self.net(ref) for ref in models}))
            passes = count * SamplerConfig.model_validate(config["sampler"]).nfe * len(models)
            return Work(("sample", nets), passes, count, ("train", nets))
        if "classifier" in config:
            kind = canonical_json(config["classifier"])
            return Work((request.stage, kind), float(config["classifier"]["kimg"]), 1)
        return Work((request.stage,), count, count)


@dataclass
class Rates:
    """What was measured: seconds for each amount of work, bytes for each unit that is written."""

    _seconds: dict[tuple[str, ...], tuple[float, float]] = field(default_factory=dict)
    _bytes: dict[tuple[str, ...], tuple[float, float]] = field(default_factory=dict)

    def add(self, work: Work, seconds: float, size: int | None = None) -> None:
        """A stage of so much work took `seconds` and wrote `size` bytes."""
        spent, amount = self._seconds.get(work.what, (0.0, 0.0))
        self._seconds[work.what] = (spent + seconds, amount + work.amount)
        if size is not None:
            total, written = self._bytes.get(work.what, (0.0, 0.0))
            self._bytes[work.what] = (total + size, written + work.written)

    def seconds(self, work: Work, *further: Rates) -> float | None:
        """How long it will take; None: nothing like it was measured.

        Args:
            further: rates that are asked where these know nothing.
        """
        for what in (work.what, work.instead):
            for rates in (self, *further):
                if measured := rates._seconds.get(what):
                    return work.amount * measured[0] / measured[1]
        return None

    def also(self, work: Work, seconds: float) -> Rates:
        """These, and one that was measured by now of work that is still being done."""
        rates = Rates(dict(self._seconds), self._bytes)
        rates.add(work, seconds)
        return rates

    def bytes(self, work: Work) -> float | None:
        """How much it will write; None: nothing like it was measured."""
        measured = self._bytes.get(work.what)
        return measured and work.written * measured[0] / measured[1]


def measured_rates(store: Store, works: Works, device: str) -> Rates:
    """The rates of the latest stages of a store that were computed on such a device."""
    latest = sorted(store.artifacts(), key=lambda ref: _modified(store, ref), reverse=True)
    rates = Rates()
    for ref in latest[:MOST_READ]:
        record = store.record(ref)
        try:
            manifest = store.manifest(ref)
        except DamagedArtifact:
            continue
        made_on = str(manifest.execution.get("device", "")).partition(":")[0]
        if record is None or not record.seconds or made_on != device.partition(":")[0]:
            continue
        try:
            work = works.of(manifest.request)
        except (ValidationError, KeyError, TypeError):  # of another version
            continue
        rates.add(work, record.seconds, sum(entry.size for entry in manifest.files.values()))
    return rates


def _modified(store: Store, ref: ArtifactRef) -> float:
    try:
        return store.path(ref).stat().st_mtime
    except OSError:
        return 0.0


@dataclass(frozen=True)
class Network:
    """A network that a plan trains."""

    kind: str
    parameters: int

    @property
    def training_bytes(self) -> int:
        """What training holds of it, without what passes through it: in single precision."""
        return BYTES_OF_A_NUMBER * COPIES_IN_TRAINING * self.parameters


def networks(requests: Iterable[StageRequest]) -> list[Network]:
    """Every network that stages train, the largest first."""
    trained = [request.config for request in requests if request.stage == TRAIN.name]
    different = {canonical_json(config["model"]["net"]): config for config in trained}
    found = []
    for config in different.values():
        net = TrainStageConfig.model_validate(config).model.net
        if counted := count_parameters(net):
            found.append(Network(net.kind, counted))
    return sorted(set(found), key=lambda network: -network.parameters)


def duration(seconds: float) -> str:
    """As people say it: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(number: float) -> str:
    """Bytes as people say them: `3.2 MB`, `1.5 GB`."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number / 1e3:.0f} kB"


@dataclass(frozen=True)
class Forecast:
    """What stages will take, as far as it was measured."""

    seconds: float
    bytes: float
    unknown: tuple[str, ...]
    """Names of the stages that nothing like was measured."""

    @classmethod
    def of(cls, rates: Rates, works: Works, requests: Iterable[StageRequest]) -> Forecast:
        """The forecast of these stages, each of which is to be computed."""
        seconds, written, unknown = 0.0, 0.0, dict[str, None]()
        for request in requests:
            work = works.of(request)
            took, wrote = rates.seconds(work), rates.bytes(work)
            seconds, written = seconds + (took or 0), written + (wrote or 0)
            if took is None:
                unknown[request.stage] = None
        return cls(seconds, written, tuple(unknown))

    def __str__(self) -> str:
        """`about 12 min, 3.2 MB`; with what it leaves out, since it is not known."""
        if not self.seconds:
            return ""
        text = f"about {duration(self.seconds)}, {size(self.bytes)}"
        return f"{text} without {', '.join(self.unknown)}" if self.unknown else text
