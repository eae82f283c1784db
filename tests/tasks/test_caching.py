from __future__ import annotations

from prefect.cache_policies import INPUTS

from sims_core.data.config import DigitsData
from sims_core.data.stages import PREPARE
from sims_core.store.artifacts import StageRequest
from sims_core.studies.plan import PlannedStage
from sims_core.studies.running import Batch
from tasks.caching import BY_DIGEST
from tasks.stages import stage_task

REQUEST = PREPARE.request(DigitsData())


def _batch(request=REQUEST, t=0):
    return Batch((PlannedStage(t, "prepare data", request),))


def _key(policy, batch, make=list):
    inputs = {"label": batch.label, "digest": batch.digest, "make": make}
    return policy.compute_key(task_ctx=None, inputs=inputs, flow_parameters={"seed": 1})


def test_the_cache_key_is_the_digest_of_the_request():
    assert _key(BY_DIGEST, _batch()) == REQUEST.digest == REQUEST.ref.digest


def test_how_a_stage_is_shown_does_not_change_its_key():
    assert _key(BY_DIGEST, _batch(t=2), dict) == _key(BY_DIGEST, _batch())
    # Prefect's own policy would compute the stage again.
    assert _key(INPUTS, _batch(t=2)) != _key(INPUTS, _batch())


def test_what_changes_the_result_changes_the_key():
    other = PREPARE.request(DigitsData(num_images=10))
    assert _key(BY_DIGEST, _batch(other)) != REQUEST.digest
    next_version = StageRequest.model_validate({**REQUEST.model_dump(), "version": 2})
    assert _key(BY_DIGEST, _batch(next_version)) != REQUEST.digest


def test_a_stage_has_one_task_that_keeps_references_as_json():
    task = stage_task("prepare")
    assert stage_task("prepare") is task
    assert task.name == "prepare"
    assert task.persist_result is True
    assert task.result_serializer == "json"
