"""What quality costs, and how well classes are told: fronts against all pairs, figures to scale, F1 of scikit-learn."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from report_samples import SAMPLES, SVG, Maker
from sklearn.metrics import confusion_matrix, f1_score

from potstill.report import classes, page, pareto, spread, theme
from potstill.report.names import Cast
from potstill.report.pareto import Spot
from potstill.report.sections import Ids


@pytest.fixture(autouse=True)
def _drawing():
    with theme.drawing():
        yield


def spots(*pairs):
    return [Spot(str(at), str(at), "other", cost, value, 0.0) for at, (cost, value) in enumerate(pairs)]


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_no_other_model_equals_or_beats_for_the_same_or_less(seed, higher):
    random = np.random.default_rng(seed)
    given = spots(*zip(random.integers(1, 7, 12), random.integers(1, 9, 12), strict=True))
    sign = 1 if higher else -1
    kept = []
    for at, one in enumerate(given):
        rivals = [
            other
            for place, other in enumerate(given)
            if other.cost <= one.cost
            and sign * other.value >= sign * one.value
            and place != at
            # of equal ones the first stands for all
            and ((other.cost, other.value) != (one.cost, one.value) or place < at)
        ]
        if not rivals:
            kept.append(one)
    assert pareto.front(given, higher=higher) == sorted(kept, key=lambda one: one.cost)


def study(metric="macro_f1", **levels):
    make = Maker("sizes", seeds=3, metric=metric)
    for name, (level, parameters) in levels.items():
        make.model(name, level, 0.0, parameters=parameters, teachers=["large"] if name.startswith("taught") else [])
    return make


SIZES = {"large": (0.94, 900_000), "wasteful": (0.90, 1_200_000), "taught": (0.91, 10_000), "alone": (0.89, 10_000)}


def test_models_stand_where_their_cost_and_quality_are():
    cast = Cast(study(**SIZES).results())
    found = pareto.pictures(cast, Ids())
    assert [one.heading.partition(" against ")[2] for one in found] == [
        "parameters",
        "multiply-adds per example",
        "ms per call, batch 1, 1 thread",
    ]
    root = drawing(found[0])
    assert "taught: 91.00 % for 10,000, on the front" in (root[1].text or "")
    assert (root[1].text or "").endswith("alone: 89.00 % for 10,000")
    placed = {t.text: (float(t.get("x")), float(t.get("y"))) for t in root.iter(f"{SVG}text") if t.text in SIZES}
    assert placed.keys() == SIZES.keys()
    marks = [(float(one.get("x")), float(one.get("y"))) for one in root.iter(f"{SVG}use")]
    ticks = {
        t.text: float(t.get("y"))
        for t in root.iter(f"{SVG}text")
        if re.fullmatch(r"[\d.]+", t.text or "") and t.get("x")
    }
    slope, zero = np.polyfit([float(tick) for tick in ticks], list(ticks.values()), 1)
    for name, (level, parameters) in SIZES.items():
        wanted = slope * 100 * level + zero
        near = [x for x, y in marks if abs(y - wanted) < 6 and abs(x - placed[name][0]) < 90]
        assert near, name
        assert min(abs(placed[name][1] - wanted), 40) < 40, (name, parameters)
    left = min(x for x, _ in marks if x > 52)
    assert placed["large"][0] > placed["taught"][0] >= left - 90


def drawing(picture, form="wide"):
    """One of the forms in which a front is drawn."""
    return next(
        div[0]
        for div in ET.fromstring(f"<div>{picture.drawings[0]}</div>")
        if div.get("class") == {"wide": "wide", "narrow": "no-wide"}[form]
    )


def sizes(root):
    return [float(one.get("font-size") or 12.0) for one in root.iter(f"{SVG}text")]


@pytest.mark.parametrize(("form", "shown"), [("wide", 500), ("narrow", 340)])
def test_text_can_be_read_on_desks_and_phones(form, shown):
    """`shown`: units of a page that a figure has; the page's test in a browser tells what a window makes of it."""
    for one in pareto.pictures(Cast(study(**SIZES).results()), Ids()):
        root = drawing(one, form)
        assert min(sizes(root)) * shown / float(root.get("viewBox").split()[2]) >= 9
        assert root.get("aria-labelledby").endswith("-narrow-title") == (form == "narrow")


@pytest.mark.parametrize("form", ["wide", "narrow"])
@pytest.mark.parametrize("least", [0.0123, 9_550, 47_000, 800_000])
@pytest.mark.parametrize("times", [1.2, 3.0, 40.0, 3000.0])
def test_an_axis_of_cost_has_ticks_beside_each_other(form, least, times):
    given = spots((least, 0.9), (least * times**0.5, 0.91), (least * times, 0.93))
    root = ET.fromstring(pareto.draw(Cast(study(**SIZES).results()), given, given, "cost", prefix="a", form=form))
    bottom = max(float(t.get("y")) for t in root.iter(f"{SVG}text") if t.get("text-anchor") == "middle")
    ticks = [
        (float(t.get("x")), t.text)
        for t in root.iter(f"{SVG}text")
        if t.get("text-anchor") == "middle" and abs(float(t.get("y")) - bottom) < 1
    ]
    assert 2 <= len(ticks) <= 6, ticks
    for (x, text), (after, other) in itertools.pairwise(ticks):
        assert after - x > 6.5 * (len(text) + len(other)) / 2, ticks


def test_names_keep_off_bars_and_the_stair():
    """On its right `low` would lie on the bar of `barred`, and `first` on the stair that begins there."""
    given = [
        Spot("first", "first", "other", 10_000, 0.80, 0.0),
        Spot("low", "low", "other", 10_000, 0.70, 0.0),
        Spot("barred", "barred", "other", 10_300, 0.76, 0.09),
        Spot("best", "best", "other", 20_000, 0.90, 0.0),
    ]
    cast = Cast(study(**SIZES).results())
    root = ET.fromstring(pareto.draw(cast, given, pareto.front(given, higher=True), "cost", prefix="a"))
    place = {t.text: t for t in root.iter(f"{SVG}text")}
    assert place["low"].get("text-anchor") == "end"
    assert place["first"].get("text-anchor") == "end"


def test_numbers_stand_beside_by_rising_cost():
    (first, *_) = pareto.pictures(Cast(study(**SIZES).results()), Ids())
    (table,) = first.numbers
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["taught", "10,000", "91.00 %", "yes"],
        ["alone", "10,000", "89.00 %", ""],
        ["large", "900,000", "94.00 %", "yes"],
        ["wasteful", "1,200,000", "90.00 %", ""],
    ]


def test_lower_is_better_for_errors_and_names_of_many_are_left_to_the_table():
    make = study("error_rate", large=(0.06, 900_000), mid=(0.07, 90_000), bad=(0.09, 95_000), small=(0.2, 9_000))
    (first, *_) = pareto.pictures(Cast(make.results()), Ids())
    assert [row[0].text for row in first.numbers[0].rows if row[3].text] == ["small", "mid", "large"]
    many = {f"model-{at}": (0.5 + at / 100, 1000 * (at + 1)) for at in range(pareto.NAMED + 1)}
    many["model-3"] = (0.3, 4000)
    drawn = str(pareto.pictures(Cast(study(**many).results()), Ids())[0].drawings[0])
    assert ">model-3<" not in drawn
    assert ">model-24<" in drawn


@pytest.mark.parametrize(
    ("name", "there"), [("demo", True), ("published", True), ("sweep", False), ("single_seed", False)]
)
def test_the_section_is_there_for_three_costs_and_no_sweep(name, there):
    assert ('<h2 id="front">' in page.render(*SAMPLES[name]())) == there


@pytest.mark.parametrize("seed", range(5))
def test_f1_by_class_is_that_of_scikit_learn(seed):
    random = np.random.default_rng(seed)
    labels, answers = random.integers(0, 4, (2, 50))
    answers[answers == 3] = 0  # a class that is never predicted
    matrix = confusion_matrix(labels, answers, labels=range(6))  # and two that are not there
    wanted = f1_score(labels, answers, labels=range(6), average=None, zero_division=0.0)
    np.testing.assert_allclose(classes.f1(matrix.tolist()), wanted, atol=1e-12)


def test_f1_by_class_has_a_column_for_each_or_for_the_worst():
    results, arrays = SAMPLES["demo"]()
    table = classes.table(Cast(results), arrays)
    assert table.columns == ("Model", *arrays.classes)
    assert [row[0].text for row in table.rows] == [Cast(results).name(key) for key in Cast(results).order]
    key = Cast(results).order[0]
    assert table.rows[0][3].text == f"{100 * classes.f1(arrays.confusion[key])[2]:.2f}"
    results, arrays = SAMPLES["many_classes"]()
    table = classes.table(Cast(results), arrays)
    assert len(table.columns) == 1 + classes.MOST < 1 + len(arrays.classes)
    mean = np.mean([classes.f1(matrix) for matrix in arrays.confusion.values()], axis=0)
    left = set(arrays.classes) - set(table.columns)
    assert min(mean[arrays.classes.index(name)] for name in left) >= max(
        mean[arrays.classes.index(name)] for name in table.columns[1:]
    )
    results, arrays = SAMPLES["binary"]()
    assert classes.table(Cast(results), arrays) is None


def test_classes_stand_in_the_order_of_the_data():
    results, _ = SAMPLES["evaluated"]()
    names = [row[0].notes[0] for row in spread.classes(Cast(results)).rows]
    own = list(dict.fromkeys(names))
    turned = results.model_copy(update={"data": results.data | {"classes": own[::-1]}})
    assert list(dict.fromkeys(row[0].notes[0] for row in spread.classes(Cast(turned)).rows)) == own[::-1]
