"""`sims evaluate`: metrics between two sets of stored images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from infra.cli.shell import JsonOption, StoreOption, errors, use_store
from infra.environment import apply_environment_defaults

if TYPE_CHECKING:  # what a command needs is imported when it runs
    from sims_core.studies.comparison import Comparison


def evaluate(
    images: Annotated[
        str,
        typer.Argument(
            metavar="IMAGES",
            help="cifar10, cifar10:test, mnist, fashion, digits; a name of `sims data import`; "
            "images/<digits> as `sims store ls` prints it; or the path of an images artifact.",
        ),
    ],
    against: Annotated[
        str, typer.Option("--against", metavar="REFERENCE", help="What they are compared with.")
    ],
    features: Annotated[
        Literal["inception", "resnet20", "resnet56", "classifier"],
        typer.Option("--features", help="Feature space; classifier: trained on the reference."),
    ] = "inception",
    count: Annotated[
        int | None, typer.Option("--count", metavar="N", help="The first N of the images.")
    ] = None,
    reference_count: Annotated[
        int | None,
        typer.Option("--reference-count", metavar="M", help="The first M of the reference."),
    ] = None,
    allow_small_n: Annotated[
        bool,
        typer.Option("--allow-small-n", help="Measure also where an FID is mostly its bias."),
    ] = False,
    kid_subset_size: Annotated[
        int | None,
        typer.Option("--kid-subset-size", help="Of KID's 100 subsets (500, or all if fewer)."),
    ] = None,
    inception_score: Annotated[
        bool,
        typer.Option("--inception-score", help="Too, of weights that have the logits layer."),
    ] = False,
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME", help="A further one; again for several."),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of KID's subsets and of the classifier.")
    ] = 0,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """FID, KID, precision and recall of one set of images against another."""
    with errors():
        use_store(store)
        apply_environment_defaults()
        from sims_core.settings import Settings
        from sims_core.store.store import Store
        from sims_core.studies.comparison import find_images, plan_comparison

        settings = Settings.read()
        settings.execution()
        unopened = Store(settings.store.expanduser().absolute())
        comparison = plan_comparison(
            find_images(unopened, images),
            find_images(unopened, against),
            settings.files(),
            features=features,
            count=count,
            reference_count=reference_count,
            allow_small_n=allow_small_n,
            inception_score=inception_score,
            kid_subset_size=kid_subset_size,
            metrics=metrics or (),
            seed=seed,
        )
        row = _measure(comparison)
        print(json.dumps(row) if as_json else _text(row))


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
        "images": {"name": comparison.images.name, "artifact": comparison.images.ref.location},
        "against": {
            "name": comparison.reference.name,
            "artifact": comparison.reference.ref.location,
        },
        "features": evaluation.features,
        "weights_sha256": evaluation.weights_sha256,
        "metrics": read_figures(store, metrics),
        "kid_subsets": evaluation.kid_subsets,
        "kid_subset_size": evaluation.kid_subset_size,
        "store": str(store.root),
        "artifact": metrics[0].location,
        "stages": count_stages(outcomes).model_dump(),
    }


def _text(row: dict[str, Any]) -> str:
    """All figures in a line, with a digit more than a report has; and where they are stored."""
    from sims_core.evaluation.metric import figures_in

    metrics, weights = row["metrics"], row["weights_sha256"]
    notes = {"kid": f" ({row['kid_subsets']} subsets of {row['kid_subset_size']})"}
    figures = []
    for figure in figures_in(metrics):
        shown = f"{metrics[figure.name]:z.{figure.decimals + 1}f}"
        spread = f" +- {metrics[figure.spread]:.{figure.decimals + 1}f}" if figure.spread else ""
        figures.append(f"{figure.title} {shown}{spread}{notes.get(figure.name, '')}")
    return (
        f"{', '.join(figures)}: n = {metrics['n_generated']} of {row['images']['name']} against "
        f"{metrics['n_real']} of {row['against']['name']}, {row['features']} features"
        + (f" (weights {weights[:8]})" if weights else "")
        + f"\nmetrics: {row['store']}/{row['artifact']}"
    )
