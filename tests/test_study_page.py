"""Pages of studies: numbers as in the kept results, prose kept, nothing edited by hand."""

from __future__ import annotations

import doctest
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from report_samples import SAMPLES, Maker, put

from potstill.errors import PotstillError
from potstill.study.plan import Plan
from potstill.study.results import Results

DOCS = Path(__file__).resolve().parents[1] / "docs"
sys.path.insert(0, str(DOCS))  # as for a script there


def load() -> Any:
    spec = importlib.util.spec_from_file_location("study_page", DOCS / "study_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["study_page"] = module
    spec.loader.exec_module(module)
    return module


study_page = load()


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder of studies with one page."""
    folder = tmp_path / "studies"
    study_page.keep(put(tmp_path / "run", SAMPLES["published"]()), "paper", folder)
    study_page.write(folder)
    return folder


def current(folder: Path) -> bool:
    made = study_page.files(folder)
    return all(path.is_file() and path.read_text("utf-8") == text for path, text in made.items()) and not (
        study_page.orphans(made, folder)
    )


def test_kept_pages_are_made_from_kept_results() -> None:
    """Numbers between the markers are never edited by hand; no figure is left over."""
    assert current(DOCS / "studies"), "run scripts/docs"


def test_numbers_of_a_page_are_those_of_the_results(kept: Path) -> None:
    results, text = SAMPLES["published"]()[0], (kept / "paper.md").read_text("utf-8")
    rows = {row.split(" | ")[0].removeprefix("| "): row for row in text.splitlines() if " 10 seeds | " in row}
    assert set(rows) == set(results.models)
    for key, model in results.models.items():
        ours, theirs = model.metrics["error_rate"], results.published[0].metrics["error_rate"][key]
        shown = f"{100 * theirs:.2f} % | {100 * ours.mean:.2f} % ± {100 * ours.std:.2f}, 10 seeds"
        assert shown in rows[key]
    assert all(verdict.sentence in text.replace("\\", "") for verdict in results.verdicts)
    assert "2.13.0+cpu" in text
    assert "58.3 s with 2 workers" in text
    drawn = re.findall(r"\]\((figures/[^)]+)\)", text)
    assert drawn == ["figures/paper-bars-error_rate.svg", "figures/paper-forest-error_rate.svg"]
    assert all((kept / name).is_file() for name in drawn)
    again = Results.model_validate_json((kept / "paper.json").read_text("utf-8"))
    assert again == results


def test_prose_stays_and_numbers_do_not(kept: Path) -> None:
    page = kept / "paper.md"
    first = page.read_text("utf-8")
    prose = first.replace("## What holds", "Our reading: batch 128.\n\n## What holds") + "\nNothing holds.\n"
    page.write_text(prose, "utf-8")
    assert current(kept)
    page.write_text(prose.replace("2.89 %", "2.98 %"), "utf-8")
    assert not current(kept)
    study_page.write(kept)
    assert page.read_text("utf-8") == prose
    page.write_text(prose.replace(study_page.END, ""), "utf-8")
    with pytest.raises(PotstillError, match=r"paper\.md has not one pair of the markers"):
        study_page.files(kept)


def test_a_figure_is_made_anew_where_its_texts_are_wrong_only(kept: Path) -> None:
    figure = kept / "figures" / "paper-bars-error_rate.svg"
    text = figure.read_text("utf-8")
    figure.write_text(text.replace("<path ", "<path opacity='0.9' ", 1), "utf-8")
    assert current(kept), "another version of the drawing library"
    figure.write_text(text.replace("2.89", "2.98"), "utf-8")
    assert not current(kept)
    (kept / "figures" / "old.svg").write_text("<svg/>")
    study_page.write(kept)
    assert figure.read_text("utf-8") == text
    assert not (kept / "figures" / "old.svg").exists()


def test_index_lists_the_pages(kept: Path) -> None:
    index = kept / "README.md"
    index.write_text((DOCS / "studies" / "README.md").read_text("utf-8"), "utf-8")
    assert "Hard labels against distillation on MNIST" not in index.read_text("utf-8").split(study_page.END)[1]
    study_page.write(kept)
    assert re.search(r"\| \[Hard labels against distillation on MNIST\]\(paper\.md\) \| 5 \| 10 \| ", index.read_text())
    (kept / "paper.json").unlink()
    study_page.write(kept)
    assert "No study is kept yet." in index.read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("published", ["bars-error_rate", "forest-error_rate"]),
        ("demo", ["bars-accuracy", "forest-accuracy"]),
        ("sweep", ["gain-student-against-alone", "forest-accuracy"]),
        ("zipped", ["gain-student-against-alone-monitor-objective", "forest-error_rate"]),
        ("bare", []),
    ],
)
def test_figures_that_matter(name: str, wanted: list[str]) -> None:
    assert [one.name for one in study_page.figures(SAMPLES[name]()[0])] == wanted


def test_frequencies_of_two_classes_are_kept_and_shown(tmp_path: Path) -> None:
    """Those on test examples: the table's shares are counted from the run's own arrays."""
    results, arrays = SAMPLES["evaluated"]()
    assert arrays is not None
    folder = tmp_path / "studies"
    study_page.keep(put(tmp_path / "run", (results, arrays)), "measured", folder)
    study_page.write(folder)
    assert current(folder)
    kept = study_page.read_arrays(folder / "measured.json")
    assert {key: set(by_split) for key, by_split in kept.frequencies.items()} == {
        key: {"test"} & set(by_split) for key, by_split in arrays.frequencies.items()
    }
    text = (folder / "measured.md").read_text("utf-8")
    assert re.findall(r"### (.*)", text)[-5:] == [
        "Uncertainty and accuracy on every split",
        "Prediction frequencies",
        "Test conditions",
        "What students have of their teachers",
        "Figures",
    ]
    assert any(name.startswith("figures/measured-generations-") for name in re.findall(r"\]\((figures/[^)]+)\)", text))
    (table,) = re.findall(r"\| 0\.00 to 0\.05 \|([^\n]*)", text)
    shown = [cell.strip() for cell in table.split("|")[:-1]]
    keys = [key for key in study_page.Cast(results).order if "test" in arrays.frequencies.get(key, {})]
    for key, cell in zip(keys, shown, strict=True):
        counts = arrays.frequencies[key]["test"].counts
        assert cell == f"{100 * sum(one[0] / sum(one) for one in counts) / len(counts):.2f} %"


def test_f1_by_class_and_fronts_are_kept_and_shown(tmp_path: Path) -> None:
    """F1 of a class from the run's own counts; the matrix of the best model; fronts of four sizes."""
    make = Maker("f1", seeds=3, metric="macro_f1")
    for level, size in ((0.7, 10), (0.9, 40), (0.8, 20), (0.75, 30)):
        make.model(f"of-{size}", level, 0.001, parameters=1000 * size)
    results, arrays = make.results(), make.figures()
    folder = tmp_path / "studies"
    study_page.keep(put(tmp_path / "run", (results, arrays)), "told", folder)
    study_page.write(folder)
    assert current(folder)
    kept = study_page.read_arrays(folder / "told.json")
    assert (kept.confusion, kept.curves, kept.frequencies) == (arrays.confusion, {}, {})
    text = (folder / "told.md").read_text("utf-8")
    fronts = re.findall(r"\]\(figures/told-(front-[^)]+)\.svg\)", text)
    assert fronts == ["front-parameters", "front-multiply_adds", "front-latency"]
    assert "Confusion matrix of of-40" in text
    (row,) = re.findall(r"### F1 by class\n.*?\n(\| of-10 \|[^\n]*)", text, re.DOTALL)
    counts = arrays.confusion["of-10"]
    wanted = 100 * 2 * counts[0][0] / (sum(counts[0]) + sum(one[0] for one in counts))
    assert row.split(" | ")[1] == f"{wanted:.2f}"


@pytest.mark.parametrize("name", ["bare", "failures", "hostile", "generations"])
def test_every_kind_of_study_has_a_page(name: str) -> None:
    results = SAMPLES[name]()[0]
    core = study_page.core(results, name)
    assert core.startswith(study_page.BEGIN)
    assert core.endswith(study_page.END)
    assert "<script" not in core
    rows = [line for line in core.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) >= 3 for row in rows)


def test_command_repeats_the_study() -> None:
    results = SAMPLES["bare"]()[0]
    plan = Plan.load("demo")
    for said, seeds, wanted in (
        (plan, len(plan.seed_list), "potstill run demo"),
        (plan.with_seeds(3), 3, "potstill run demo --seeds 3"),
        (plan.with_settings(["training.batch_size=7"]), len(plan.seed_list), None),
    ):
        changed = results.model_copy(update={"plan_toml": said.to_toml(), "seeds": list(range(seeds))})
        assert study_page.shipped(changed, "demo") == wanted
    assert study_page.shipped(results, "demo") is None, "its plan is no TOML"


def test_a_plan_of_ones_own_is_kept_beside_the_page(tmp_path: Path) -> None:
    study_page.keep(put(tmp_path / "run", SAMPLES["demo"]()), "mine", tmp_path)
    study_page.write(tmp_path)
    assert "potstill run docs/studies/mine.toml\n" in (tmp_path / "mine.md").read_text("utf-8")
    assert (tmp_path / "mine.toml").read_text("utf-8") == SAMPLES["demo"]()[0].plan_toml


def test_large_results_are_kept_without_what_nothing_is_compared_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_page, "MOST", 1000)
    run = put(tmp_path / "run", SAMPLES["published"]())
    results = study_page.read(study_page.keep(run, "paper", tmp_path))
    assert {metric for model in results.models.values() for metric in model.metrics} == {"error_rate"}
    whole = SAMPLES["published"]()[0]
    assert results.verdicts == whole.verdicts
    assert results.models["large"].metrics["error_rate"] == whole.models["large"].metrics["error_rate"]


@pytest.mark.parametrize(("few", "told"), [(2, ["cat", "dog"]), (1, [])])
def test_large_results_keep_a_few_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int, told: list[str]
) -> None:
    monkeypatch.setattr(study_page, "MOST", 1000)
    monkeypatch.setattr(study_page, "FEW", few)
    run = put(tmp_path / "run", SAMPLES["evaluated"]())
    results = study_page.read(study_page.keep(run, "measured", tmp_path))
    assert all(list(split.classes) == told for one in results.models.values() for split in one.splits.values())
    assert all(set(one.splits) == {"train", "validation", "test"} for one in results.models.values())
    assert [part.name for part in results.inheritance["chain#1"].classes] == ["", *told]


def test_a_machines_path_is_refused(tmp_path: Path) -> None:
    run = put(tmp_path / "run", SAMPLES["demo"]())
    value = json.loads((run / "results.json").read_text("utf-8"))
    value["data"]["plan"]["source"]["folder"] = "/somewhere/else/pictures"
    (run / "results.json").write_text(json.dumps(value), "utf-8")
    with pytest.raises(PotstillError, match="/somewhere/else/pictures, a path of the machine"):
        study_page.keep(run, "demo", tmp_path)
    assert not (tmp_path / "demo.json").exists()


def test_notes_of_data_name_files_without_their_folder(tmp_path: Path) -> None:
    run = put(tmp_path / "run", SAMPLES["demo"]())
    value = json.loads((run / "results.json").read_text("utf-8"))
    value["data"]["notes"] = ["/somewhere/tables/a.data.gz: 3 of 9 rows lack a value, in x.", "1/2 of a note"]
    (run / "results.json").write_text(json.dumps(value), "utf-8")
    told = study_page.read(study_page.keep(run, "demo", tmp_path)).data["notes"]
    assert told == ["a.data.gz: 3 of 9 rows lack a value, in x.", "1/2 of a note"]


def test_examples_of_the_generator_hold() -> None:
    done = doctest.testmod(study_page.study_tables)
    assert (done.failed, done.attempted > 0) == (0, True)
