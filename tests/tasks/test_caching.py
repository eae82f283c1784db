from __future__ import annotations

from prefect.cache_policies import INPUTS

from sims_core.data.config import DigitsData
from sims_core.data.stages import PREPARE
from sims_core.store.artifacts import ArtifactRef, StageRequest
from tasks.caching import BY_DIGEST
from tasks.stages import stage_task

REQUEST = PREPARE.request(DigitsData())


def _key(policy, label="prepare data", request=REQUEST, upstream=()):
    inputs = {"label": label, "request": request, "upstream": list(upstream)}
    return policy.compute_key(task_ctx=None, inputs=inputs, flow_parameters={"seed": 1})


def test_the_cache_key_is_the_digest_of_the_request():
    assert _key(BY_DIGEST) == REQUEST.digest == REQUEST.ref.digest


def test_how_a_stage_is_shown_does_not_change_its_key():
    upstream = [ArtifactRef(kind="images", digest="0" * 64)]
    other = {"label": "t=02 prepare", "upstream": upstream}
    assert _key(BY_DIGEST, **other) == _key(BY_DIGEST)
    # Prefect's own policy would compute the stage again for each of them.
    assert _key(INPUTS, label="t=02 prepare") != _key(INPUTS)


def test_what_changes_the_result_changes_the_key():
    assert _key(BY_DIGEST, request=PREPARE.request(DigitsData(num_images=10))) != REQUEST.digest
    next_version = StageRequest.model_validate({**REQUEST.model_dump(), "version": 2})
    assert _key(BY_DIGEST, request=next_version) != REQUEST.digest


def test_a_stage_has_one_task_that_keeps_references_as_json():
    task = stage_task("prepare")
    assert stage_task("prepare") is task
    assert task.name == "prepare"
    assert task.persist_result is True
    assert task.result_serializer == "json"
