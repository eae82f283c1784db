"""The results page of CIFAR-10: one command that computes, measures and writes it.

    SIMS_DATA=... python tests/benchmarks/results_cifar10.py --store STORE --out docs/results \\
        --device cuda --compile inductor --peak-tflops 989
    SIMS_DATA=... python tests/benchmarks/results_cifar10.py --smoke --store STORE --out FOLDER

In this order: FID of CIFAR-10's 50,000 training against its 10,000 test images, which must be 3.15
within 0.05 in Inception features before any other figure means anything; the study of a preset
(base, S, auxiliary, omega x budget, finals); training and guided sampling against plain loops. Then
cifar10.md with command, card, versions and tables, its figure and grids. Needs no Prefect (and no
installation with PYTHONPATH=. in the clone). What was computed is in the store: killed at any
moment the same command goes on. --smoke takes a minute or two on a CPU and shows that the command
works, nothing else: few images, a tiny network, ResNet features.

    --override training.kimg=5000     a setting of the preset's experiment, by its dotted name
    --sweep n_s=10000                 a parameter of the study
    --parts check,study,speed         only some of the parts
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from flows.parameters import apply_overrides, parameter_model
from flows.presets import find_preset
from flows.signatures.self_improvement import plan as study_of
from flows.signatures.self_improvement import self_improvement
from sims_core.common.errors import BadInput, SimsError
from sims_core.common.frozen import one_line
from sims_core.data.grid import GRID_FILE
from sims_core.engine.execution import DataFiles, Execution
from sims_core.evaluation.config import EvaluationConfig
from sims_core.evaluation.figures import read_metrics
from sims_core.evaluation.weights import pin_weights
from sims_core.nets.build import build_net, image_net
from sims_core.reports.study import STUDY, selection_figure, study_rows
from sims_core.store.store import Store
from sims_core.studies.comparison import find_images, plan_comparison
from sims_core.studies.experiment import Experiment
from sims_core.studies.plan import PlannedStage
from sims_core.studies.running import Runner as StageRunner
from sims_core.studies.self_improvement import StudyPlan

HERE = Path(__file__).parent
PARTS = ("check", "study", "speed")
PUBLISHED_FID, TOLERANCE = 3.15, 0.05
TOLD_EVERY_S = 20
LIBRARIES = ("torch", "diffusers", "accelerate", "torch-fidelity", "webdataset", "numpy")
SMOKE_PRESET = "sims-loop/cifar10-smoke"
SMOKE = {
    "data.num_images": 256,
    "training.kimg": 1,
    "sims.batch_size": 64,
    "evaluation.features": "resnet20",
    "evaluation.num_images": 96,
    "evaluation.kid_subset_size": 48,
    "sampler.num_steps": 6,
}
SMOKE_SWEEP = {
    "omegas": [1.0],
    "budgets": [0.000256, 0.000512],
    "n_s": 128,
    "select_images": 96,
    "final_images": 128,
    "finalists": 1,
}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", help="self-improvement/cifar10-small unless given")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", choices=["inductor"])
    parser.add_argument("--peak-tflops", type=float, help="of the card in bf16, for its use")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--override", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--sweep", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    options.parts = options.parts.split(",")
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"--parts {unknown[0]}: want some of {', '.join(PARTS)}")
    if options.smoke and options.preset:
        parser.error("--preset: --smoke has its own")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: torch finds no GPU here")
    options.preset = options.preset or "self-improvement/cifar10-small"
    return options


def pairs(texts: Iterable[str]) -> dict[str, Any]:
    """NAME=VALUE, the values JSON where they are."""
    found: dict[str, Any] = {}
    for name, _, text in (text.partition("=") for text in texts):
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


class Runner:
    """Runs stages, tells how far they are, and keeps the rate of the trainings for the page."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.store = Store.open(options.store)
        data = os.environ.get("SIMS_DATA")
        self.files = DataFiles(
            source=Path(data) if data else None, downloads=options.store / "downloads"
        )
        self.execution = Execution(
            device=options.device,
            compile=options.compile,
            threads=1 if options.smoke else (os.cpu_count() or 1),
            files=self.files,
            checkpoint_kimg=100,
        )
        self.rates_file = self.store.root / "rates.json"

    def rates(self) -> dict[str, float]:
        """Images a second of each training stage, by the artifact's digest."""
        found: dict[str, float] = {}
        if self.rates_file.exists():
            found = json.loads(self.rates_file.read_text())
        return found

    def run(self, stages: Sequence[PlannedStage]) -> None:
        StageRunner(self.store, self.execution, Lines(self, stages)).run("", stages)

    def keep_rate(self, stage: PlannedStage, img_per_s: float) -> None:
        """Writes down how fast a training stage goes."""
        rates = {**self.rates(), stage.ref.digest: img_per_s}
        self.rates_file.write_text(json.dumps(rates))


class Lines:
    """Tells of stages in lines, the long ones now and then, and keeps the rates of trainings."""

    def __init__(self, runner: Runner, stages: Sequence[PlannedStage]) -> None:
        self.runner, self.stages, self.number = runner, stages, 0
        self.told = self.begun = 0.0

    @property
    def name(self) -> str:
        return f"[{self.number}/{len(self.stages)}] {self.stages[self.number - 1].label}"

    def started(self, arm: str, label: str) -> None:
        self.number += 1
        self.told = self.begun = time.monotonic()

    def advanced(self, label: str, done: int, total: int, unit: str, **figures: float) -> None:
        if "img_per_s" in figures:
            self.runner.keep_rate(self.stages[self.number - 1], figures["img_per_s"])
        if time.monotonic() - self.told > TOLD_EVERY_S:
            self.told = time.monotonic()
            text = "".join(f", {key} {value:.4g}" for key, value in figures.items())
            print(f"{self.name}: {done} of {total} {unit}{text}", flush=True)

    def finished(self, arm: str, label: str, cached: bool, seconds: float) -> None:
        print(f"{self.name}: {time.monotonic() - self.begun:.1f} s", flush=True)


def check_fid(runner: Runner, smoke: bool) -> dict[str, Any]:
    """FID of the training against the test images."""
    comparison = plan_comparison(
        find_images(runner.store, "cifar10:train"),
        find_images(runner.store, "cifar10:test"),
        runner.files,
        features="resnet20" if smoke else "inception",
        count=256 if smoke else None,
        reference_count=256 if smoke else None,
    )
    runner.run(comparison.stages)
    metrics = read_metrics(runner.store, comparison.stages[-1].ref)
    return {**metrics, "features": comparison.evaluation.features}


def make_study(runner: Runner, options: argparse.Namespace) -> StudyPlan:
    """The whole study, computed."""
    preset = find_preset(SMOKE_PRESET if options.smoke else options.preset)
    overrides = {**(SMOKE if options.smoke else {}), **pairs(options.override)}
    experiment = apply_overrides(preset.experiment, overrides)
    evaluation: EvaluationConfig = pin_weights(experiment.evaluation, runner.files)
    experiment = experiment.model_copy(update={"evaluation": evaluation})
    given = {**(SMOKE_SWEEP if options.smoke else preset.parameters), **pairs(options.sweep)}
    model = parameter_model(self_improvement)
    try:
        parameters = model.model_validate({**given, "seeds": [options.seed]})
    except ValidationError as error:
        names = "methods, omegas, ws, budgets, n_s, select_images, final_images, finalists"
        raise BadInput(f"--sweep {one_line(error)}; parameters: {names}") from None
    plan = study_of(experiment, parameters.model_dump(mode="json"))
    runner.run(list(plan))
    whole = plan.completed(runner.store)
    runner.run(list(whole)[len(list(plan)) :])
    return whole


def forward_flops(experiment: Experiment) -> int:
    """Of the base's network for one image; an addition and a multiplication count as two."""
    net = image_net(experiment.model)
    x = torch.zeros(1, net.channels, net.image_size, net.image_size, device="meta")
    with torch.device("meta"):
        network = build_net(net).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x, torch.zeros(1, device="meta"))
    return int(counter.get_total_flops())


def training_line(runner: Runner, plan: StudyPlan, peak_tflops: float | None) -> str:
    """How fast the base was trained, and how much of the card that is."""
    base = next(stage for stage in plan.training if stage.role == "train base")
    details = runner.store.manifest(base.ref).details
    net = build_net(plan.experiment.model.net)
    size = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    rate = runner.rates().get(base.ref.digest)
    text = f"Base: {size:.1f} M parameters, {details['nimg'] / 1000:.0f} kimg"
    if rate is None:
        return text + "."
    # A training step is a forward pass and a backward pass of twice its cost.
    tflops = 3 * forward_flops(plan.experiment) * rate / 1e12
    use = f", {100 * tflops / peak_tflops:.0f} % of {peak_tflops:g}" if peak_tflops else ""
    return f"{text}; {rate:.0f} images/s, {tflops:.2g} model TFLOP/s{use}."


def measure_speed(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What the two benchmarks say, each in a process of its own."""
    device = ["--device", options.device]
    if options.device != "cpu":
        device += ["--net", "small"]
    if options.compile:
        device += ["--compile", options.compile]
    found = []
    for name, precision in (("bench_image_training", True), ("bench_guided_sampling", False)):
        command = [sys.executable, str(HERE / f"{name}.py"), *device]
        command += ["--precision", "bf16"] * (precision and options.device != "cpu")
        command += ["--rounds", "2"] * options.smoke
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not done.stdout.strip():
            raise SystemExit(f"{name} failed:\n{done.stderr}")
        found.append({"benchmark": name, **json.loads(done.stdout.splitlines()[-1])})
        print(found[-1], flush=True)
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """As markdown; floats to four digits."""

    def cell(value: Any) -> str:
        if value is None:
            return ""
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([cell(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def study_section(runner: Runner, plan: StudyPlan, options: argparse.Namespace) -> str:
    """Tables, figure and grids of the study; the pictures go beside the page."""
    rows = study_rows(runner.store, plan)
    shown = ("model", "fid", "kid", "precision", "recall", "nfe", "extra_training_percent")
    finals, selection = (
        [{name: row[name] for name in shown} for row in rows if row["phase"] == phase]
        for phase in ("final", "selection")
    )
    figure = selection_figure(runner.store, plan)
    figure.savefig(options.out / "cifar10.png", dpi=150, metadata={"Software": None})
    grids = []
    for each in plan.finals[:3]:
        name = f"cifar10-{each.candidate.kind}.png"
        picture = runner.store.open_artifact(each["preview"]) / GRID_FILE
        (options.out / name).write_bytes(picture.read_bytes())
        grids.append(f"{each.candidate.name}:\n\n![{each.candidate.name}]({name})")
    sweep, features = plan.sweep, plan.experiment.evaluation.features
    return "\n\n".join(
        [
            "## Does SIMS improve this model?",
            STUDY.findings(runner.store, plan)["answer"],
            training_line(runner, plan, options.peak_tflops),
            f"Finals: n = {sweep.final_images} generated against {rows[-1]['n_real']} real, "
            f"{features} features, seed {plan.seed}, n_s = {sweep.n_s}:",
            table(finals),
            f"Selection, n = {sweep.select_images}:",
            table(selection),
            "![FID over omega and over the budget](cifar10.png)",
            "The same seeds through the base, the base fine-tuned on S, and SIMS:",
            *grids,
        ]
    )


def heading(options: argparse.Namespace) -> str:
    card = torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.machine()
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    command = shlex.join(["python", "tests/benchmarks/results_cifar10.py", *sys.argv[1:]])
    title = "# CIFAR-10" + " (smoke: shows that the command works, nothing else)" * options.smoke
    return (
        f"{title}\n\n    {command}\n\nCard: {card}. Python {platform.python_version()}, {versions}."
    )


def sections(runner: Runner, options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Each part's name and text, as it is finished; ends where a part proves the rest wrong."""
    yield "heading", heading(options)
    if "check" in options.parts:
        found = check_fid(runner, options.smoke)
        yield (
            "check",
            f"## Check\n\nFID of the training against the test images: {found['fid']:.4f} "
            f"(n = {found['n_generated']} against {found['n_real']}, {found['features']} features; "
            f"published for all of them in Inception's: {PUBLISHED_FID}).",
        )
        if not options.smoke and abs(found["fid"] - PUBLISHED_FID) > TOLERANCE:
            raise SimsError(f"FID {found['fid']} is not {PUBLISHED_FID}: no figure means anything")
    if "study" in options.parts:
        yield "study", study_section(runner, make_study(runner, options), options)
    if "speed" in options.parts:
        title = "## Speed, against plain loops of the same networks"
        yield "speed", "\n\n".join([title, *(table([row]) for row in measure_speed(options))])


def write_page(runner: Runner, options: argparse.Namespace) -> None:
    """Writes the page after each part; those of earlier calls on the same store stay."""
    kept = runner.store.root / ("page-smoke.json" if options.smoke else "page.json")
    texts: dict[str, str] = json.loads(kept.read_text()) if kept.exists() else {}
    for name, text in sections(runner, options):
        texts[name] = text
        kept.write_text(json.dumps(texts))
        page = "\n\n".join(texts[part] for part in ("heading", *PARTS) if part in texts)
        (options.out / "cifar10.md").write_text(page + "\n")
    print(f"wrote {options.out / 'cifar10.md'}")


def main() -> int:
    options = parsed()
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        write_page(Runner(options), options)
    except SimsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadInput) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
