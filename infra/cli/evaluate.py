"""`sims evaluate`: metrics between two sets of stored images."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from infra.cli.data import ChannelsOption, SizeOption
from infra.cli.references import SUFFIX, FileQuestion, ReferenceOut
from infra.cli.shell import JsonOption, StoreOption, errors, use_store
from infra.environment import apply_environment_defaults
from sims_core.common.errors import BadInput
from sims_core.common.seeding import MOST_SEED
from sims_core.common.shown import shown

if TYPE_CHECKING:  # what a command needs is imported when it runs
    from sims_core.engine.execution import Execution
    from sims_core.store.store import Store
    from sims_core.studies.comparison import Comparison, ImageSource

ImagesArgument = Annotated[
    str,
    typer.Argument(
        metavar="IMAGES",
        help="cifar10, cifar10:test, mnist, fashion, digits; a name of `sims data import`; "
        "images/<digits> as `sims store ls` prints it; the path of an images artifact; or of "
        "pictures: a folder, a zip, all that `sims data import` takes.",
    ),
]
AgainstOption = Annotated[
    str | None,
    typer.Option(
        "--against",
        metavar="REFERENCE",
        help="What they are compared with; FILE.npz of mu and sigma: FID only.",
    ),
]
FeaturesOption = Annotated[
    Literal["inception", "resnet20", "resnet56", "classifier"],
    typer.Option("--features", help="Feature space; classifier: trained on the reference."),
]
CountOption = Annotated[
    int | None, typer.Option("--count", metavar="N", help="Measure a random sample of N images.")
]
ReferenceCountOption = Annotated[
    int | None,
    typer.Option(
        "--reference-count", metavar="M", help="Compare with a random sample of M images."
    ),
]
AllowSmallNOption = Annotated[
    bool,
    typer.Option("--allow-small-n", help="Measure also where an FID is mostly its bias."),
]
KidSubsetSizeOption = Annotated[
    int | None,
    typer.Option("--kid-subset-size", help="Images in each of KID's 100 subsets (500)."),
]
InceptionScoreOption = Annotated[
    bool,
    typer.Option("--inception-score", help="Measure it too; the weights must have logits."),
]
MetricsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--metric", metavar="NAME", help="Measure a further metric; several times for several."
    ),
]
SeedOption = Annotated[
    int,
    typer.Option(
        "--seed", min=0, max=MOST_SEED, help="Seed of samples, KID's subsets and classifier."
    ),
]


def evaluate(
    images: ImagesArgument,
    against: AgainstOption = None,
    reference_out: ReferenceOut = None,
    features: FeaturesOption = "inception",
    count: CountOption = None,
    reference_count: ReferenceCountOption = None,
    allow_small_n: AllowSmallNOption = False,
    kid_subset_size: KidSubsetSizeOption = None,
    inception_score: InceptionScoreOption = False,
    metrics: MetricsOption = None,
    size: SizeOption = None,
    channels: ChannelsOption = None,
    seed: SeedOption = 0,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """FID, KID, precision and recall of one set of images against another."""
    with errors():
        use_store(store)
        apply_environment_defaults()
        from sims_core.settings import Settings
        from sims_core.store.store import Store
        from sims_core.studies.comparison import plan_comparison

        settings = Settings.read()
        found = partial(_found, execution=settings.execution(), size=size, channels=channels)
        unopened = Store(settings.store.expanduser().absolute())
        if reference_out is not None or against is None or against.endswith(SUFFIX):
            asked = FileQuestion(*(against, reference_out, features, count, allow_small_n), seed)
            asked.check(
                metric=metrics,
                inception_score=inception_score,
                kid_subset_size=kid_subset_size,
                reference_count=reference_count,
            )
            (source,) = found(unopened, [images])
            print(asked.answer(source, settings.files(), as_json))
            return
        source, reference = found(unopened, [images, against])
        comparison = plan_comparison(
            *(source, reference, settings.files()),
            features=features,
            count=count,
            reference_count=reference_count,
            allow_small_n=allow_small_n,
            inception_score=inception_score,
            kid_subset_size=kid_subset_size,
            metrics=metrics or (),
            seed=seed,
        )
        for warning in comparison.warnings:
            _warn(warning)
        row = _measure(comparison)
        print(json.dumps(row) if as_json else _text(row))


def _found(
    store: Store,
    names: Sequence[str],
    *,
    execution: Execution,
    size: int | None,
    channels: Literal["1", "3"] | None,
) -> list[ImageSource]:
    """The sets that are named. Pictures at a path are imported, once every name is understood."""
    from infra.cli.progress import run_shown
    from sims_core.settings import writable_store
    from sims_core.studies.comparison import find_images
    from sims_core.studies.folders import import_folder, lies_outside

    found = {}
    for name in names:
        try:
            found[name] = find_images(store, name)
        except BadInput:
            if not lies_outside(store, name):
                raise
    if len(found) == len(set(names)) and (size or channels):
        raise BadInput(
            "`size` and `channels` are for pictures at a path: what is in the store has its shape"
        )
    for name in names:
        if name not in found:
            shape = size, int(channels) if channels else None
            try:
                found[name] = import_folder(
                    *(writable_store(), execution, name, *shape, _warn, run_shown)
                )
            except BadInput as error:
                told = f"{error}; `sims data import` has more options, and its names are IMAGES too"
                raise BadInput(told) from None
    return [found[name] for name in names]


def _warn(text: str) -> None:
    print(f"warning: {shown(text)}", file=sys.stderr)


def _measure(comparison: Comparison) -> dict[str, Any]:
    """Runs the stages; returns what came out, as `--json` prints it."""
    from infra.cli.progress import run_progress, shown
    from sims_core.evaluation.figures import read_figures
    from sims_core.reports.summary import count_stages
    from sims_core.settings import Settings, writable_store
    from sims_core.studies.running import Runner

    store = writable_store()
    stages, evaluation = comparison.stages, comparison.evaluation
    progress = run_progress(len(stages))
    with shown(progress):
        outcomes = Runner(store, Settings.read().execution(), progress).run("", stages)
    metrics = [stage.ref for stage in stages if stage.ref.kind == "metrics"]
    return {
        "images": {
            "name": comparison.images.name,
            "artifact": comparison.images.ref.location,
            "sample_seed": comparison.sample_seed("images"),
        },
        "against": {
            "name": comparison.reference.name,
            "artifact": comparison.reference.ref.location,
            "sample_seed": comparison.sample_seed("reference"),
        },
        "seed": comparison.seed,
        "warnings": comparison.warnings,
        "features": evaluation.features,
        "weights_sha256": evaluation.weights_sha256,
        "metrics": read_figures(store, metrics),
        "kid_subsets": evaluation.kid_subsets,
        "kid_subset_size": evaluation.kid_subset_size,
        "neighborhoods": evaluation.neighborhoods,
        "store": str(store.root),
        "artifact": metrics[0].location,
        "stages": count_stages(outcomes).model_dump(),
    }


def _of(row: dict[str, Any], role: str, count: int) -> str:
    """How many images of which set, and whether they are a sample."""
    sample = f" (a random sample, seed {row['seed']})"
    return f"{count} of {row[role]['name']}" + ("" if row[role]["sample_seed"] is None else sample)


def _text(row: dict[str, Any]) -> str:
    """All figures in a line, with a digit more than a report has; and where they are stored."""
    from sims_core.evaluation.metric import figures_in

    metrics, weights = row["metrics"], row["weights_sha256"]
    notes = {"kid": f" ({row['kid_subsets']} subsets of {row['kid_subset_size']})"}
    figures = []
    for figure in figures_in(metrics, row["neighborhoods"]):
        value = f"{metrics[figure.name]:z.{figure.decimals + 1}f}"
        spread = f" +- {metrics[figure.spread]:.{figure.decimals + 1}f}" if figure.spread else ""
        figures.append(f"{figure.title} {value}{spread}{notes.get(figure.name, '')}")
    return (
        f"{', '.join(figures)}: n = {_of(row, 'images', metrics['n_generated'])} against "
        f"{_of(row, 'against', metrics['n_real'])}, {row['features']} features"
        + (f" (weights {weights[:8]})" if weights else "")
        + f"\nmetrics: {row['store']}/{row['artifact']}"
    )
