"""The documentation runs: examples of the README, generated pages, the published schema."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from potstill.errors import PlanError
from potstill.study.plan import Plan
from potstill.study.study import Study

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Fit, record, distil, evaluate, save; then the five lines of plain torch; they give the same logits."""
    import torch

    import potstill as ps

    monkeypatch.chdir(tmp_path)
    first, study, plain = blocks("python")
    names: dict[str, Any] = {}
    exec(first, names)  # noqa: S102
    assert "accuracy" in capsys.readouterr().out
    assert names["student"].info["steps"] == 1500
    exec(plain, names)  # noqa: S102
    batch = names["data"].test.fetch(torch.arange(50), 0)
    assert torch.equal(names["net"](batch.inputs), ps.load("student")(batch.inputs))
    assert len([line for line in plain.splitlines() if line.strip()]) == 5
    ast.parse(study)


def test_the_readmes_plan_is_one() -> None:
    text, tuning = blocks("toml")
    plan = Plan.from_dict(tomllib.loads(text))
    assert plan.comparisons()[0] == ("student", "alone")
    assert Plan.from_dict(tomllib.loads(text + tuning)).tables.tune is not None
    with pytest.raises(PlanError, match="trials"):  # equal for everybody
        Plan.from_dict(tomllib.loads(text + tuning.replace("points = 12", "points = 11")))


def test_the_plans_page_is_true() -> None:
    """Keys of the tables on the page are those that a plan knows."""
    page = (ROOT / "docs" / "plans.md").read_text(encoding="utf-8")
    from potstill.study import tables

    heads = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", page, re.MULTILINE)
    listed = {key for head in heads for key in re.findall(r"\w+", head)}
    wanted = (tables.Data, tables.Model, tables.Training, tables.Verdict, tables.Tune, tables.Evaluation)
    assert listed == {key for table in wanted for key in table.model_fields}


def test_generated_pages_are_up_to_date() -> None:
    found = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "build.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr


def test_every_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_results_follow_the_published_schema(tmp_path: Path) -> None:
    plan = {
        "title": "Schema",
        "seeds": 3,
        "data": {"source": "digits", "test": 300, "validation": 100},
        "training": {"steps": 5},
        "models": {
            "alone": {"network": "linear"},
            "t": {"network": "mlp:4"},
            "s": {"network": "linear", "teacher": "t"},
        },
        "evaluation": {"latency": {"batch": []}},
    }
    Study.open(plan, folder=tmp_path / "run").run(workers=1)
    schema = json.loads((ROOT / "docs" / "results.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8")), schema)


def test_the_project_speaks_of_itself_alone() -> None:
    """No machine's path in anything that is kept."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".txt", ".cff", ".json"} or path.parent.name in {"scripts", ".ci"}:
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"/(?:work|home|root|Users)/[a-z]", text), name
