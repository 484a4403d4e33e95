"""The report's section on tuning: every trial, the winner, and figures to scale."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from report_samples import RATE, SVG, trial, tuned

from potstill.report import page, theme, tuning
from potstill.report.names import Cast
from potstill.report.sections import Ids
from potstill.study.results import Results, TunedModel, Tuning


def of(results: Results) -> Tuning:
    assert results.tuning is not None
    return results.tuning


def drawn(found: Tuning, name: str) -> ET.Element:
    with theme.drawing():
        drawing = tuning.draw(found, name, "x")
    assert drawing is not None
    return ET.fromstring(drawing)


def test_the_section_is_there_only_where_something_was_tuned() -> None:
    results, arrays = tuned()
    assert '<h2 id="tuning">' in page.render(results, arrays)
    assert 'id="tuning"' not in page.render(results.model_copy(update={"tuning": None}), arrays)


def test_it_says_how_many_trials_and_seeds_and_that_no_test_data_were_read() -> None:
    with theme.drawing():
        found = tuning.section(Cast(tuned()[0]), Ids())
    assert found is not None
    assert found.told.startswith("6 trials of each tuned model, all combinations, on seeds 1000, 1001, which")
    assert "The lowest mean error rate on validation data wins. No trial read the test data" in found.told
    assert [one.heading for one in found.pictures] == ["alone", "gridded", "drawn"]  # as in the plan
    notes = [one.note for one in found.pictures]
    assert notes[0] == "Trial 3 won with learning_rate = 0.001: 3.05 % ± 0.07. Trial 6 failed and could not win."
    assert notes[1] == "Trial 4 won with temperature = 4, alpha = 0.5: 2.90 % ± 0.14."
    assert "Its learning_rate is near the highest that was searched and its members is the highest that" in notes[2]


@pytest.mark.parametrize(
    ("space", "won", "told"),
    [
        ([1, 4, 20], 20, "highest"),
        ([20, 1, 4], 1, "lowest"),
        ([1, 4, 20], 4, None),
        ([1, 4], 4, None),
        (["a", "b", "c"], "c", None),
        ({"log": [1e-4, 1e-2], "points": 3}, 1e-2, "highest"),
        ({"log": [1e-4, 1e-2], "points": 3}, 1e-3, None),
        ({"log": [1e-4, 1e-2]}, 1.5e-4, "near the lowest"),
        ({"log": [1e-4, 1e-2]}, 1.7e-4, None),
        ({"linear": [0.0, 1.0]}, 0.95, "near the highest"),
        ({"linear": [0.0, 1.0]}, 0.85, None),
    ],
)
def test_a_winner_at_an_end_of_what_was_searched(space: Any, won: Any, told: str | None) -> None:
    values = space if isinstance(space, list) else [1e-4, 1e-3, 1e-2]
    trials = [trial(n, {RATE: x}, [0.03]) for n, x in enumerate((*values, won), 1)]
    found = tuning._edge(TunedModel(search={RATE: space}, trials=trials, winner=len(trials)), RATE)
    assert found is None if told is None else found is not None and told in found


def test_one_seed_has_no_spread_and_its_sentence_no_gap() -> None:
    rates = [3e-4, 0.000605, 0.00122]
    trials = [trial(n, {RATE: x}, [0.03 + 0.01 * n]) for n, x in enumerate(rates, 1)]
    one = TunedModel(search={RATE: rates}, trials=trials, winner=2)
    found = of(tuned()[0]).model_copy(update={"models": {"alone": one}})
    with theme.drawing():
        note = tuning._picture(found, "alone", "x").note
    assert note == "Trial 2 won with learning_rate = 0.000605: 5.00 %."


def test_ticks_of_a_heat_map_are_numbers_that_can_be_read() -> None:
    rates, decays = [0.0003, 0.000605, 0.001221, 0.002464, 0.004970, 0.01], [0.0, 0.001, 0.01, 0.1]
    settings = [{RATE: a, "training.optimizer.weight_decay": b} for a in rates for b in decays]
    trials = [trial(n, one, [0.03]) for n, one in enumerate(settings, 1)]
    found = of(tuned()[0]).model_copy(update={"models": {"alone": TunedModel(search={}, trials=trials, winner=1)}})
    texts = {text.text for text in drawn(found, "alone").iter(f"{SVG}text")}
    assert {"0.0003", "0.0006", "0.0012", "0.0025", "0.005", "0.01", "0", "0.1"} <= texts
    assert not any("…" in (text or "") for text in texts)


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_the_table_has_the_best_first_and_failures_last(better: str) -> None:
    found = of(tuned()[0]).model_copy(update={"better": better})
    table = tuning.table(found, "alone")
    order = [row[0].text for row in table.rows]
    ranked = [3, 2, 4, 1, 5] if better == "lower" else [1, 5, 2, 4, 3]
    assert order == [f"Trial {n}" for n in (*ranked, 6)]
    assert {row[0].text: row[0].notes for row in table.rows}["Trial 3"] == ("winner",)
    assert sum("winner" in row[0].notes for row in table.rows) == 1
    assert table.columns == ("Trial", "Validation error rate", "Learning_rate", "Per seed", "Trained")
    first = {row[0].text: row for row in table.rows}["Trial 1"]
    assert [cell.text for cell in first[1:]] == ["4.65 %", "0.0001", "4.60, 4.70", "1 min 15 s"]
    assert first[1].notes == ("± 0.07",)
    failed = table.rows[-1]
    assert (failed[1].text, failed[1].kind) == ("failed", "bad")
    assert "seed 1000" in failed[1].notes[0]


def rectangles(root: ET.Element) -> list[tuple[float, float, ET.Element]]:
    """Centres of all closed paths of four corners."""
    found = []
    for path in root.iter(f"{SVG}path"):
        numbers = [float(x) for x in re.findall(r"-?[\d.]+", path.get("d", ""))]
        if path.get("d", "").endswith("z") and len(numbers) in (8, 10):
            found.append((float(np.mean(numbers[:8:2])), float(np.mean(numbers[1:8:2])), path))
    return found


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_the_heat_map_puts_every_trial_in_its_cell(better: str) -> None:
    """Columns are temperatures, rows alphas with the least below; the best is the strongest, the winner outlined."""
    found = of(tuned()[0]).model_copy(update={"better": better})
    root = drawn(found, "gridded")
    one = found.models["gridded"]
    cells = [
        (x, y, float(p.get("opacity") or p.get("fill-opacity") or 1))
        for x, y, p in rectangles(root)
        if p.get("fill") == "var(--model)"
    ]
    xs, ys = sorted({round(x) for x, _, _ in cells}), sorted({round(y) for _, y, _ in cells}, reverse=True)
    assert (len(xs), len(ys), len(cells)) == (3, 2, 6)
    opacity = {(xs.index(round(x)), ys.index(round(y))): a for x, y, a in cells}
    places = {
        t.number: (
            [1, 4, 20].index(t.settings["objective.temperature"]),
            [0.1, 0.5].index(t.settings["objective.alpha"]),
        )
        for t in one.trials
    }
    ranked = sorted(one.trials, key=lambda t: (t.mean or 0.0) * (-1 if better == "lower" else 1))
    strengths = [opacity[places[t.number]] for t in ranked]
    assert strengths == sorted(strengths)
    assert len(set(strengths)) == 6
    assert strengths[0] > 0
    assert strengths[-1] == pytest.approx(tuning.DARKEST)
    (outline,) = [(x, y) for x, y, p in rectangles(root) if p.get("stroke") == "var(--ink)"]
    assert (xs.index(round(outline[0])), ys.index(round(outline[1]))) == places[4]
    texts = [(t.text, float(t.get("x", 0)), float(t.get("y", 0))) for t in root.iter(f"{SVG}text")]
    for t in one.trials:
        x, y = xs[places[t.number][0]], ys[places[t.number][1]]
        assert any(text == f"{100 * (t.mean or 0):.2f}" and abs(a - x) < 3 and abs(b - y) < 9 for text, a, b in texts)


def test_a_failed_trial_is_crossed_in_the_heat_map() -> None:
    found = of(tuned()[0])
    trials = list(found.models["gridded"].trials)
    trials[0] = trial(1, trials[0].settings, [])
    broken = TunedModel(search={}, trials=trials, winner=4)
    root = drawn(found.model_copy(update={"models": {"gridded": broken}}), "gridded")
    assert [t.text for t in root.iter(f"{SVG}text")].count("×") == 1
    assert len([p for _, _, p in rectangles(root) if p.get("fill") == "var(--model)"]) == 5


def marks(root: ET.Element) -> list[tuple[float, float, bool]]:
    """Places of the round marks, and whether they are filled; pixels of the figure."""
    round_ones = {f"#{path.get('id')}" for path in root.iter(f"{SVG}path") if "C" in path.get("d", "")}
    found = []
    for use in root.iter(f"{SVG}use"):
        if (
            use.get("href") in round_ones
            and use.get("fill") in ("var(--model)", "var(--paper)")
            and use.get("stroke") in ("var(--model)", "var(--ink)")
        ):
            found.append((float(use.get("x", 0)), float(use.get("y", 0)), use.get("fill") == "var(--model)"))
    return sorted(found)


def test_a_searched_number_is_drawn_to_scale() -> None:
    found = of(tuned()[0])
    places = marks(drawn(found, "alone"))
    done = [t for t in found.models["alone"].trials if t.mean is not None]
    assert len(places) == len(done) == 5
    wanted_x = [math.log(t.settings[RATE]) for t in done]
    wanted_y = [t.mean or 0.0 for t in done]
    for got, wanted, sign in (([x for x, _, _ in places], wanted_x, 1), ([y for _, y, _ in places], wanted_y, -1)):
        slope, start = np.polyfit(wanted, got, 1)
        assert sign * slope > 0
        assert got == pytest.approx([start + slope * w for w in wanted], abs=0.5)
    assert [filled for _, _, filled in places] == [False, False, True, False, False]


def test_other_searches_have_a_mark_for_each_trial() -> None:
    found = of(tuned()[0])
    places = marks(drawn(found, "drawn"))
    x = [place for place, _, _ in places]
    numbers = [1, 3, 4, 5, 6]
    slope, start = np.polyfit(numbers, x, 1)
    assert x == pytest.approx([start + slope * n for n in numbers], abs=0.5)
    assert [filled for _, _, filled in places] == [False] * 4 + [True]


def test_every_trial_is_in_the_description() -> None:
    root = drawn(of(tuned()[0]), "gridded")
    told = root.findtext(f"{SVG}desc") or ""
    assert "trial 1 (temperature = 1, alpha = 0.1): 4.10 %; " in told
    assert "trial 4 (temperature = 4, alpha = 0.5): 2.90 %, the winner; " in told
    assert "trial 6 (network = mlp:1, learning_rate = 0.0857143, members = 6): 3.80 %" in (
        drawn(of(tuned()[0]), "drawn").findtext(f"{SVG}desc") or ""
    )


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ([{"members": n} for n in (1, 2, 3)], [1, 2, 3]),
        ([{"members": n} for n in (1, 4, 20)], [0, math.log(4), math.log(20)]),
        ([{"members": n} for n in (0, 4, 20)], [0, 4, 20]),
        ([{"known": name} for name in ("a", "b", "c")], [1, 2, 3]),
        ([{"a.b": n % 2, "c.b": n} for n in (1, 2, 3)], [1, 2, 3]),
    ],
)
def test_every_kind_of_search_can_be_drawn(settings: list[dict[str, Any]], wanted: list[float]) -> None:
    one = TunedModel(search={}, trials=[trial(n, s, [0.1 * n]) for n, s in enumerate(settings, 1)], winner=1)
    found = of(tuned()[0]).model_copy(update={"models": {"m": one}, "metric": "cross_entropy"})
    places = [x for x, _, _ in marks(drawn(found, "m"))]
    slope, start = np.polyfit(wanted, places, 1)
    assert places == pytest.approx([start + slope * x for x in wanted], abs=0.5)


def test_nothing_is_drawn_where_all_failed() -> None:
    one = TunedModel(search={}, trials=[trial(1, {"members": 1}, [])], winner=1)
    assert tuning.draw(of(tuned()[0]).model_copy(update={"models": {"m": one}}), "m", "x") is None
