"""A plan's files that this machine does not have are said before it runs."""

from __future__ import annotations

import pytest

from sims_core.data.config import KnownImages
from sims_core.data.known import KNOWN_SETS
from sims_core.data.stages import PREPARE_KNOWN
from sims_core.engine.execution import DataFiles
from sims_core.evaluation.config import ExtractorConfig
from sims_core.evaluation.stages import EXTRACTOR
from sims_core.evaluation.weights import IN_DATA_FOLDER, OFFICIAL_INCEPTION, RESNET_SHA256
from sims_core.studies.absent_files import SIZES, absent_files

CIFAR10 = PREPARE_KNOWN.request(KnownImages(source="cifar10"))
TEST_SPLIT = PREPARE_KNOWN.request(KnownImages(source="cifar10", split="test"))
INCEPTION = EXTRACTOR.request(ExtractorConfig(features="inception", sha256=OFFICIAL_INCEPTION))
RESNET = EXTRACTOR.request(ExtractorConfig(features="resnet20", sha256=RESNET_SHA256["resnet20"]))
REQUESTS = [CIFAR10, TEST_SPLIT, INCEPTION, INCEPTION, RESNET]


def test_each_absent_file_is_said_once_with_what_brings_it(tmp_path):
    said = absent_files(REQUESTS, DataFiles(downloads=tmp_path))
    assert len(said) == 3
    images, inception, resnet = said
    assert images.startswith("cifar10 (170 MB) is not on this machine: the run fetches it")
    assert "cifar-10-python.tar.gz" in images
    assert "inception (96 MB) are not" in inception
    assert "SIMS_INCEPTION_WEIGHTS" in inception
    assert "nothing fetches them: set SIMS_DATA to a folder with cifar10_resnet/" in resnet


@pytest.mark.parametrize("place", ["source", "downloads"])
def test_what_is_there_is_not_said(tmp_path, place):
    archive = tmp_path / "cifar10" / "cifar-10-binary.tar.gz"
    weights = [tmp_path / IN_DATA_FOLDER[name] for name in ("inception", "resnet20")]
    for path in (archive, *weights):
        path.parent.mkdir()
        path.touch()
    said = absent_files(REQUESTS, DataFiles(**{place: tmp_path}))
    assert [sentence.split()[0] for sentence in said] == (
        [] if place == "source" else ["the", "the"]  # weights are looked for in the data folder
    )
    named = DataFiles(source=tmp_path / "nothing", inception=archive)
    assert absent_files([INCEPTION], named) == []


def test_every_known_set_has_a_size():
    assert SIZES.keys() == KNOWN_SETS.keys()
