"""What is not needed is not imported: importing torch or Prefect costs seconds."""

from __future__ import annotations

import json

WITHOUT_PREFECT = """
import json, sys
from pathlib import Path

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("prefect", "infra", "tasks", "flows"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
from sims_core.catalog import run_stage
from sims_core.engine.execution import Execution
from sims_core.reports.base import report_of
from sims_core.store.store import Store
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Arm, plan_loop

asked = json.load(sys.stdin)
arms = tuple(Arm.model_validate(arm) for arm in asked["arms"])
plan = plan_loop(Experiment.model_validate(asked["experiment"]), arms, asked["generations"], 0)
store = Store.open(Path(sys.argv[1]))
for stage in plan:
    run_stage(store, stage.request, Execution(threads=1))
arms = report_of(plan).findings(store, plan)["arms"]
print(json.dumps([arm.model_dump(mode="json", exclude_defaults=True) for arm in arms]))
"""


def test_the_command_line_starts_without_torch_and_prefect(python):
    code = (
        "import sys, infra.cli.main;"
        "print([m for m in ('torch', 'prefect', 'pydantic', 'numpy') if m in sys.modules])"
    )
    done = python(code)
    assert done.stdout.strip() == "[]", done.stderr


def test_checking_a_run_needs_no_torch(python):
    code = (
        "import sys; from infra.cli.runs import check_run, dry_run_of;"
        "dry_run_of(check_run('sims-loop/digits', [])).json(); print('torch' in sys.modules)"
    )
    assert python(code).stdout.strip() == "False"


def test_the_science_without_prefect_finds_the_same(python, tiny_run, tiny_plan, tmp_path):
    """sims_core alone, in an interpreter where prefect cannot be imported."""
    plan = tiny_plan()
    asked = {
        "experiment": plan.experiment.model_dump(mode="json"),
        "arms": [arm.arm.model_dump(mode="json") for arm in plan.arms],
        "generations": plan.generations,
    }
    done = python(WITHOUT_PREFECT, str(tmp_path / "store"), input=json.dumps(asked))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == tiny_run.summary["arms"]
