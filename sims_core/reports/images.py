"""What a report shows of images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from sims_core.common import roles
from sims_core.data.config import ImageData
from sims_core.data.grid import GRID_FILE, image_grid
from sims_core.data.image_set import stream_images
from sims_core.evaluation.config import ONLY_FID
from sims_core.latents.stages import decode_request, has_images
from sims_core.reports.base import KindReport, PagePart, Picture
from sims_core.reports.summary import RunSummary, shown_generations
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import LoopPlan

STRIP_NOISES = 6
STRIP_GENERATIONS = 10
"""A strip has at most so many, the first and the last among them."""


FEATURE_SPACES = {
    "classifier": "features of a small classifier trained on the real data",
    "resnet20": "features of a ResNet-20 trained on CIFAR-10",
    "resnet56": "features of a ResNet-56 trained on CIFAR-10",
    "inception": "features of torch-fidelity's inception-v3-compat (weights of 2015)",
}


class ImagesReport(KindReport):
    """FID and its like, grids of the same seeds."""

    figure = "fid"
    unit = "image"

    def describe_data(self, experiment: Experiment) -> str:
        data = cast(ImageData, experiment.data)
        name = f"{data.title} ({split})" if (split := getattr(data, "split", "")) else data.title
        if (found := data.contents) is None:
            return name
        text = f"{name}, {found.count} real images of {found.height} x {found.width}"
        if data.encoding is None or (latents := data.modelled) is None:
            return text
        return f"{text}, as latents of {latents.channels} x {latents.height} x {latents.width}"

    def describe_evaluation(self, experiment: Experiment, counts: str) -> str:
        evaluation = experiment.evaluation
        counts = counts or f"{evaluation.num_images}"
        text = f"{counts} generated images; {FEATURE_SPACES[evaluation.features]}"
        if evaluation.reference is None:
            text += f"; precision and recall at k = {evaluation.prc_neighborhood}"
            sample = evaluation.prc_real_images
            return (
                text if sample is None else f"{text} against {sample} real images, a random sample"
            )
        return f"{text}; against the file {Path(evaluation.reference).name}: {ONLY_FID}"

    def page(
        self, store: Store, summary: RunSummary, plan: LoopPlan, folder: Path | None
    ) -> PagePart:
        from sims_core.reports.curves import curves, shown_metrics
        from sims_core.reports.drawing import written

        k = plan.experiment.evaluation.neighborhoods
        return PagePart(
            {
                "curves": written(curves(summary.arms, k), folder, "figure", rows=2),
                "metrics": shown_metrics(summary.arms, k),
                "strips": _strips(store, plan),
                "grids": _grids(store, plan),
                **images_context(store, plan.experiment, plan.setup[0].ref),
            },
            "images.html.j2",
            ("figure",),
        )

    def samples(
        self, store: Store, experiment: Experiment, artifacts: Mapping[str, ArtifactRef]
    ) -> Picture | None:
        grid = (store.open_artifact(artifacts[roles.PREVIEW]) / GRID_FILE).read_bytes()
        return Picture(grid, "samples from the same seeds in every generation")


IMAGES = ImagesReport()


def images_context(store: Store, experiment: Experiment, real: ArtifactRef) -> dict[str, Any]:
    """What every page on images shows."""
    from sims_core.reports.drawing import grid_uri

    features, data = experiment.evaluation.features, cast(ImageData, experiment.data)
    if not has_images(data):
        real = decode_request(data).ref
    return {
        "real_grid": grid_uri(store, real),
        "num_preview": experiment.evaluation.num_preview,
        "features": features,
        "feature_space": FEATURE_SPACES[features],
    }


def _strips(store: Store, plan: LoopPlan) -> list[dict[str, Any]]:
    """For each arm one picture: a row a noise, a column a generation; none of a single one."""
    from sims_core.reports.drawing import png_uri

    count = min(STRIP_NOISES, plan.experiment.evaluation.num_preview)
    strips = []
    for arm in plan.of_seed(plan.seed).arms:
        shown = shown_generations(arm.generations, most=STRIP_GENERATIONS)
        if len(shown) < 2:
            continue
        folders = [store.open_artifact(arm.artifacts(t)[roles.PREVIEW]) for t in shown]
        rows = zip(*(stream_images(folder, 0, count) for folder in folders), strict=True)
        picture = image_grid(np.stack([image for row in rows for image in row]), len(shown))
        strips.append({"arm": arm.name, "shown": shown, "uri": png_uri(picture)})
    return strips


def _grids(store: Store, plan: LoopPlan) -> list[dict[str, Any]]:
    from sims_core.reports.drawing import grid_uri

    return [
        {
            "arm": arm.name,
            "images": [
                {"t": t, "uri": grid_uri(store, arm.artifacts(t)[roles.PREVIEW])}
                for t in shown_generations(arm.generations)
            ],
        }
        for arm in plan.of_seed(plan.seed).arms
    ]
