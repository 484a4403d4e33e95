"""Chains of generations on the page: the right numbers, to scale, from results.json and figures.json alone."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from report_samples import SAMPLES, SVG, Maker, metric_values
from study_samples import odd_or_even, run

from potstill import report, storage
from potstill.report import generations, page, spread, theme
from potstill.report.names import Cast
from potstill.report.sections import Ids
from potstill.study.measured import ClassMeasures, SplitMeasures
from potstill.study.plotted import Figures, Frequencies
from potstill.study.results import Results

NUMBER = re.compile(r"[\d.]+")


@pytest.fixture(autouse=True)
def _drawing() -> Any:
    with theme.drawing():
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Figures, str]:
    folder = tmp_path_factory.mktemp("generations") / "run"
    results = run(odd_or_even(), folder)
    figures = Figures.model_validate(storage.read_json(folder / "figures.json"))
    return results, figures, report.write(folder).read_text()


def test_a_chain_begins_with_its_teacher(done: tuple[Results, Figures, str]) -> None:
    (chain,) = generations.chains(Cast(done[0]))
    assert chain.name == "chain"
    assert chain.keys == ((0, "teacher"), (1, "chain#1"), (2, "chain#2"), (3, "chain#3"))


def test_the_table_has_every_generation_and_split(done: tuple[Results, Figures, str]) -> None:
    cast = Cast(done[0])
    table = generations.table(cast, generations.chains(cast)[0])
    assert table.columns[1:] == (
        "Uncertainty, train", "Accuracy, train", "Uncertainty, validation", "Accuracy, validation",
        "Uncertainty, test", "Accuracy, test",
    )  # fmt: skip
    assert [row[0].text for row in table.rows] == ["0", "1", "2", "3"]
    last = done[0].models["chain#3"].splits
    assert last["test"].accuracy is not None
    assert table.rows[3][5].text == f"{last['test'].uncertainty.mean:.4f}"
    assert table.rows[3][6].text == f"{100 * last['test'].accuracy.mean:.2f} %"
    assert table.rows[3][1].notes == (f"± {last['train'].uncertainty.std:.4f}",)


def labels(root: ET.Element, anchor: str) -> list[tuple[float, float]]:
    """(value, place) of the labels of an axis: of the vertical one where they end, else of the horizontal one."""
    along = "y" if anchor == "end" else "x"
    found = [t for t in root.iter(f"{SVG}text") if t.get("text-anchor") == anchor and NUMBER.fullmatch(t.text or "")]
    return [(float(t.text or ""), float(t.get(along, 0))) for t in found]


def test_a_trend_is_drawn_to_scale(done: tuple[Results, Figures, str]) -> None:
    cast = Cast(done[0])
    (chain,) = generations.chains(cast)
    root = ET.fromstring(generations.trend(cast, chain, "uncertainty", "t"))
    slope, zero = np.polyfit(*zip(*labels(root, "end"), strict=True), 1)
    lines = [p.get("d", "") for p in root.iter(f"{SVG}path") if p.get("stroke-width") == "1.8"]
    drawn = [np.array(re.findall(r"([\d.]+) ([\d.]+)", d), float) for d in lines]
    of_chain = {len(points): points for points in drawn if len(points) == 4}
    assert len([points for points in drawn if len(points) == 4]) == 3  # train, validation, test
    assert of_chain
    first = next(points for points in drawn if len(points) == 4)  # test, drawn first
    wanted = [done[0].models[key].splits["test"].uncertainty.mean for _, key in chain.keys]
    gaps = np.diff(first[:, 1])
    np.testing.assert_allclose(gaps, slope * np.diff(wanted), atol=0.5)
    np.testing.assert_allclose(first[:, 1], zero + slope * np.array(wanted), atol=5)  # a label is beside its tick
    desc = root.find(f"{SVG}desc")
    assert desc is not None
    assert f"test: generation 0 {wanted[0]:.4f}, generation 1 {wanted[1]:.4f}" in (desc.text or "")


def banded(root: ET.Element) -> list[str]:
    """The outline of every band, in the order in which they are drawn."""
    used = [one.get("href", "")[1:] for one in root.iter(f"{SVG}use") if one.get("fill-opacity") == "0.2"]
    paths = {p.get("id"): p.get("d", "") for p in root.iter(f"{SVG}path")}
    return [paths[name] for name in used]


def test_the_band_runs_from_the_least_to_the_greatest_seed(done: tuple[Results, Figures, str]) -> None:
    cast = Cast(done[0])
    (chain,) = generations.chains(cast)
    root = ET.fromstring(generations.trend(cast, chain, "accuracy", "t"))
    slope, _ = np.polyfit(*zip(*labels(root, "end"), strict=True), 1)
    bands = banded(root)
    assert len(bands) == 3
    values = [done[0].models[key].splits["test"].accuracy.values for _, key in chain.keys]  # type: ignore[union-attr]
    span = max(map(max, values)) - min(map(min, values))
    points = np.array(re.findall(r"(-?[\d.]+) (-?[\d.]+)", bands[0]), float)
    assert np.ptp(points[:, 1]) == pytest.approx(abs(slope) * 100 * span, abs=1)


def test_all_generations_are_in_one_histogram(done: tuple[Results, Figures, str]) -> None:
    results, figures, text = done
    found = generations.pictures(Cast(results), figures, Ids())
    assert [one.heading for one in found] == ["chain"]
    assert len(found[0].drawings) == 3  # two trends, the test histogram
    assert len(found[0].more) == 8  # its classes; validation and train, with theirs
    root = ET.fromstring(found[0].drawings[2])
    desc, title = root.find(f"{SVG}desc"), root.find(f"{SVG}title")
    assert desc is not None
    assert title is not None
    assert "all generations of chain on test examples" in (title.text or "")
    told = (desc.text or "").split("; ")
    assert [one.split(",")[0] for one in told] == ["the teacher", *(f"generation {n}" for n in (1, 2, 3))]
    for key, one in zip(("teacher", "chain#1", "chain#2", "chain#3"), told, strict=True):
        counts = np.array(figures.frequencies[key]["test"].counts)
        share = counts[:, 19].mean() / 300
        assert f"0.95 to 1.00: {100 * share:.2f} %" in one or not share
    titles = [ET.fromstring(one).findtext(f"{SVG}title") for one in found[0].more]
    assert titles[0].endswith("on test examples of true class even")  # type: ignore[union-attr]
    assert 'id="generations"' in text


def test_shades_go_from_pale_to_strong(done: tuple[Results, Figures, str]) -> None:
    drawn = generations.pictures(Cast(done[0]), done[1], Ids())[0].drawings[2]
    root = ET.fromstring(drawn)
    long = [p for p in root.iter(f"{SVG}path") if p.get("stroke-width") == "1.6" and len(p.get("d", "")) > 200]
    assert [p.get("stroke") for p in long] == ["var(--baseline)", *["var(--model)"] * 3]
    opacity = [float(p.get("stroke-opacity") or p.get("opacity") or 1) for p in long[1:]]
    assert opacity == pytest.approx([0.25, 0.625, 1.0], abs=0.01)


def split_of(level: float, seeds: int, n: int) -> SplitMeasures:
    values = metric_values([level] * seeds)
    part = ClassMeasures(examples=n // 2, accuracy=values, uncertainty=values)
    return SplitMeasures(examples=n, labelled=n, accuracy=values, uncertainty=values, classes={"cat": part})


def with_splits(seeds: int, **points: Any) -> tuple[Results, Figures]:
    make = Maker("Chains", seeds=seeds)
    make.model("teacher", 0.9)
    for end in (1, 2):
        for at in (1, 2, 3):
            point = {"data.labelled": 10 * end}
            above = "teacher" if at == 1 else f"c@{end}#{at - 1}"
            make.model(f"c@{end}#{at}", 0.8, model="c", generation=at, generations=3, point=point, teachers=[above])
    models = {
        key: one.model_copy(update={"splits": {"test": split_of(0.1, seeds, 40)}}) for key, one in make.models.items()
    }
    counts = Frequencies(seeds=[0], low=[n / 20 for n in range(20)], counts=[[2] * 20])
    results = make.results(models=models)
    return results, make.figures().model_copy(update={"frequencies": {key: {"test": counts} for key in models}})


def test_chains_of_a_sweep_stand_apart_and_one_seed_has_no_band() -> None:
    results, figures = with_splits(1)
    found = generations.chains(Cast(results))
    assert [(chain.name, len(chain.keys)) for chain in found] == [("c (labelled = 10)", 4), ("c (labelled = 20)", 4)]
    root = ET.fromstring(generations.trend(Cast(results), found[0], "accuracy", "t"))
    assert banded(root) == []
    text = page.render(results, figures)
    assert text.count("of all generations of") >= 2
    assert "nan" not in text.replace("enan", "")
    assert page.render(results, None).count('id="generations"') == 1


def test_without_splits_there_is_no_section() -> None:
    results, figures = SAMPLES["generations"]()
    assert generations.chains(Cast(results)) == []
    assert 'id="generations"' not in page.render(results, figures)
    assert spread.splits(Cast(results)) is None
