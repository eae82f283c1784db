"""Whether a server is named, told without Prefect as Prefect itself would tell it."""

from __future__ import annotations

import pytest

ASK_OURS = "from infra.server.named import names_a_server; print(names_a_server())"
ASK_PREFECT = "from prefect.settings import PREFECT_API_URL; print(bool(PREFECT_API_URL.value()))"
URL = "http://127.0.0.1:4999/api"
PROFILES = f"""
active = "ours"
[profiles.ours]
PREFECT_API_URL = "{URL}"
[profiles.local]
"""


@pytest.mark.parametrize(
    ("files", "environment", "named"),
    [
        ({}, {}, False),
        ({}, {"PREFECT_API_URL": URL}, True),
        ({".env": f"PREFECT_API_URL={URL}\n"}, {}, True),
        ({".env": "# PREFECT_API_URL=x\n"}, {}, False),
        ({"prefect.toml": f'[api]\nurl = "{URL}"\n'}, {}, True),
        ({"prefect.toml": "[server]\nanalytics_enabled = false\n"}, {}, False),
        ({"pyproject.toml": f'[tool.prefect.api]\nurl = "{URL}"\n'}, {}, True),
        ({"home/profiles.toml": PROFILES}, {}, True),
        ({"home/profiles.toml": PROFILES}, {"PREFECT_PROFILE": "local"}, False),
    ],
)
def test_every_place_where_prefect_looks(files, environment, named, python, tmp_path, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "home").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    ours, prefects = (python(code, cwd=tmp_path) for code in (ASK_OURS, ASK_PREFECT))
    assert ours.stdout.strip() == str(named), ours.stderr
    assert prefects.stdout.strip() == str(named), prefects.stderr
