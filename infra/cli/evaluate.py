"""`sims evaluate`: metrics between two sets of stored images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from infra.cli.references import ONLY_FID, SUFFIX, measure_against, text_against, write_reference_of
from infra.cli.shell import JsonOption, StoreOption, errors, use_store
from infra.environment import apply_environment_defaults
from sims_core.common.errors import BadInput
from sims_core.settings import Settings, writable_store
from sims_core.store.store import Store
from sims_core.studies.against_statistics import Measured, plan_features
from sims_core.studies.comparison import Comparison, find_images, plan_comparison


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
        str | None,
        typer.Option(
            "--against",
            metavar="REFERENCE",
            help="What they are compared with; FILE.npz of mu and sigma: FID only.",
        ),
    ] = None,
    reference_out: Annotated[
        Path | None,
        typer.Option(
            "--reference-out", metavar="FILE.npz", help="Write mean and covariance of the images."
        ),
    ] = None,
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
        settings = Settings.read()
        settings.execution()
        unopened = Store(settings.store.expanduser().absolute())
        if reference_out is not None or against is None or against.endswith(SUFFIX):
            _check_one_reference(against, reference_out)
            for option, given in (
                ("--inception-score", inception_score),
                ("--kid-subset-size", kid_subset_size),
                ("--reference-count", reference_count),
            ):
                if given:
                    raise BadInput(f"{option} needs a reference of images: {ONLY_FID}")
            source = find_images(unopened, images)
            measured = plan_features(source, settings.files(), features, count, allow_small_n)
            _with_files(measured, against, reference_out, as_json)
            return
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
            seed=seed,
        )
        row = _measure(comparison)
        print(json.dumps(row) if as_json else _text(row))


def _check_one_reference(against: str | None, reference_out: Path | None) -> None:
    """Raises BadInput unless a reference is either read or written."""
    if against is None and reference_out is None:
        raise BadInput("Missing option '--against' (or '--reference-out', which writes one)")
    if against is not None and reference_out is not None:
        raise BadInput("pass --against REFERENCE or --reference-out FILE.npz, not both")


def _with_files(
    measured: Measured, against: str | None, reference_out: Path | None, as_json: bool
) -> None:
    """Writes a reference, or compares with one that is a file."""
    if reference_out is not None:
        row = write_reference_of(measured, reference_out)
        text = f"wrote {reference_out}: {row['features']} features of {row['count']} images"
    else:
        row = measure_against(measured, Path(against or "").expanduser().absolute())
        text = text_against(row)
    print(json.dumps(row) if as_json else text)


def _measure(comparison: Comparison) -> dict[str, Any]:
    """Runs the stages; returns what came out, as `--json` prints it."""
    from infra.cli.progress import run_progress
    from infra.cli.runs import run_groups, shown
    from sims_core.evaluation.figures import read_metrics
    from sims_core.reports.summary import count_stages

    store = writable_store()
    stages, evaluation = comparison.stages, comparison.evaluation
    progress = run_progress(len(stages))
    with shown(progress):
        outcomes = run_groups(store, [("", stages)], progress)
    metrics = stages[-1].ref
    return {
        "images": {"name": comparison.images.name, "artifact": comparison.images.ref.location},
        "against": {
            "name": comparison.reference.name,
            "artifact": comparison.reference.ref.location,
        },
        "features": evaluation.features,
        "weights_sha256": evaluation.weights_sha256,
        "metrics": read_metrics(store, metrics),
        "kid_subsets": evaluation.kid_subsets,
        "kid_subset_size": evaluation.kid_subset_size,
        "store": str(store.root),
        "artifact": metrics.location,
        "stages": count_stages(outcomes).model_dump(),
    }


def _text(row: dict[str, Any]) -> str:
    metrics, weights = row["metrics"], row["weights_sha256"]
    figures = [
        f"FID {metrics['fid']:z.4f}",
        f"KID {metrics['kid']:z.6f} ({row['kid_subsets']} subsets of {row['kid_subset_size']})",
        f"precision {metrics['precision']:.4f}",
        f"recall {metrics['recall']:.4f}",
    ]
    if "isc" in metrics:
        figures.append(f"Inception Score {metrics['isc']:.3f} +- {metrics['isc_std']:.3f}")
    return (
        f"{', '.join(figures)}: n = {metrics['n_generated']} of {row['images']['name']} against "
        f"{metrics['n_real']} of {row['against']['name']}, {row['features']} features"
        + (f" (weights {weights[:8]})" if weights else "")
        + f"\nmetrics: {row['store']}/{row['artifact']}"
    )
