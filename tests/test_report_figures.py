"""Bars of teachers and students, gains across a sweep, published numbers, and figures as files: to scale, and named."""

from __future__ import annotations

import itertools
import json
import math
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from report_samples import SAMPLES, SVG, Maker, metric_values, put

from potstill import report
from potstill.report import (
    bars,
    errors,
    export,
    figures,
    gain,
    groups,
    inputs,
    page,
    published,
    scatter,
    sections,
    theme,
)
from potstill.report import format as fmt
from potstill.report.names import Cast
from potstill.report.sections import Ids
from potstill.study.plotted import TargetErrors
from potstill.study.results import Published

NUMBER = re.compile(r"^[+−]?[\d.]+$")


@pytest.fixture(autouse=True)
def _drawing():
    with theme.drawing():
        yield


def cast(name):
    return Cast(SAMPLES[name]()[0])


def scale(root, anchor, along):
    """(slope, offset) of pixels over values, from the labels of an axis and the lines of the grid beside them."""
    texts = [t for t in root.iter(f"{SVG}text") if t.get("text-anchor") == anchor and NUMBER.match(t.text or "")]
    labels = sorted((float(t.get(along)), float(t.text.replace("−", "-"))) for t in texts)
    grid = sorted(start["xy".index(along)] for start, _ in lines(root, None, "var(--grid)"))
    assert [y for y, _ in labels] == pytest.approx(grid, abs=6)
    return np.polyfit([value for _, value in labels], grid, 1)


def lines(root, width, colour=None):
    """((x, y), (x, y)) of every straight line of this width, and of this colour."""
    found = []
    for path in root.iter(f"{SVG}path"):
        ends = re.fullmatch(r"M ([\d.]+) ([\d.]+) L ([\d.]+) ([\d.]+)", path.get("d", ""))
        if ends and path.get("stroke-width") == width and colour in (None, path.get("stroke")):
            x, y, u, v = map(float, ends.groups())
            found.append(((x, y), (u, v)))
    return found


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (
            "demo",
            [
                ["teacher", "from-teacher", "from-teacher-unlabelled", "pseudo-labels"],
                ["ensemble", "from-ensemble-unlabelled"],
                ["alone"],
            ],
        ),
        ("published", [["large", "from-large"], ["ensemble", "from-ensemble"], ["alone"]]),
        ("single_seed", [["teacher", "student"], ["alone"]]),
        ("generations", [["teacher", *(f"{c}-chain (generation 4 of 4)" for c in ("hard", "soft"))], ["alone"]]),
        ("failures", [["teacher", "student"], ["alone"]]),
        ("two_seeds", None),  # their teacher is a file
        ("bare", None),  # no baseline
        ("many_classes", None),
    ],
)
def test_bars_group_students_with_their_teacher(name, wanted):
    (point,) = groups.points(cast(name))
    found = groups.groups(cast(name), point)
    assert (found and [[bar.name for bar in group] for group in found.groups]) == wanted
    if found:
        roles = [bar.role for bar in found.bars]
        assert [roles[0], roles[-1]] == ["teacher", "baseline"]
        assert roles.count("teacher") == len(found.groups) - 1


def test_a_baseline_that_teaches_is_drawn_once():
    make = Maker("self", seeds=2)
    make.model("alone", 0.9)
    make.model("student", 0.9, teachers=["alone"])
    found = groups.groups(Cast(make.results()), {})
    assert [[(bar.name, bar.role) for bar in g] for g in found.groups] == [
        [("alone", "baseline"), ("student", "student")]
    ]


def test_a_baseline_that_learns_is_no_student():
    make = Maker("self", seeds=2)
    make.model("teacher", 0.9)
    make.model("alone", 0.9, teachers=["teacher"])
    assert groups.groups(Cast(make.results()), {}) is None
    make.model("student", 0.9, teachers=["teacher"])
    found = groups.groups(Cast(make.results()), {})
    assert [[bar.name for bar in g] for g in found.groups] == [["teacher", "student"], ["alone"]]


def test_points_of_a_sweep_hold_what_does_not_depend_on_it():
    assert groups.points(cast("sweep")) == [{"data.labelled": n} for n in (100, 1000, 10000)]
    found = groups.groups(cast("sweep"), {"data.labelled": 1000})
    assert found.where == "labelled = 1000"
    assert [bar.name for bar in found.bars] == ["teacher", "student", "alone"]
    means = [
        cast("sweep").results.models[f"{m}@data.labelled=1000"].metrics["accuracy"].mean for m in ("student", "alone")
    ]
    assert [bar.mean for bar in found.bars[1:]] == means
    told = [groups.groups(cast("zipped"), point).where for point in groups.points(cast("zipped"))]
    assert told == [
        f"validation = {v}, monitor = {m}"
        for m, v in (("objective", 0.1), ("objective", 0.2), ("train_objective", "0"))
    ]


def test_a_generation_keeps_its_number_without_its_point():
    assert cast("generations").bare("hard-chain/generation-2") == "hard-chain (generation 2 of 4)"
    assert cast("sweep").bare("student@data.labelled=100") == "student"


def test_bars_are_drawn_to_scale_with_their_spread_and_published_numbers():
    of = groups.groups(cast("published"), {})
    root = ET.fromstring(bars.upright(of, "b"))
    slope, zero = scale(root, "end", "y")
    tops = []
    for path in root.iter(f"{SVG}path"):
        corners = re.findall(r"([\d.]+) ([\d.]+)", path.get("d", ""))
        if path.get("stroke-width") == "1.6" and path.get("d", "").endswith("z") and path.get("clip-path"):
            ys = {float(y) for _, y in corners}
            assert max(ys) == pytest.approx(zero, abs=1.0), "a bar begins at zero"
            tops.append((float(corners[0][0]), (min(ys) - zero) / slope))
    assert [top for _, top in sorted(tops)] == pytest.approx([100 * bar.mean for bar in of.bars], abs=0.02)
    spreads = sorted(
        (one[0], sorted([(one[1] - zero) / slope, (two[1] - zero) / slope])) for one, two in lines(root, "1.6")
    )
    wanted = [[100 * (bar.mean - bar.std), 100 * (bar.mean + bar.std)] for bar in of.bars]
    np.testing.assert_allclose([ends for _, ends in spreads], wanted, atol=0.02)
    marks = sorted(
        (float(u.get("x")), float(u.get("y"))) for u in root.iter(f"{SVG}use") if u.get("fill") == "var(--paper)"
    )
    shown = [(y - zero) / slope for _, y in marks if y > 62]  # one is the legend's
    assert shown == pytest.approx([2.01, 2.89, 1.81, 2.68, 2.26], abs=0.02)
    texts = [t.text for t in root.iter(f"{SVG}text")]
    assert {"error rate, % (lower is better)", "distilled student", "published"} <= set(texts)


@pytest.mark.parametrize("wide", [True, False])
def test_lying_bars_are_marks_where_lengths_would_show_nothing(wide):
    of = groups.groups(cast("demo"), {})
    root = ET.fromstring(bars.lying(of, "b", wide=wide))
    slope, zero = scale(root, "middle", "x")
    fills = {"teacher": "var(--quiet)", "student": "var(--model)", "baseline": "var(--baseline)"}
    uses = [u for u in root.iter(f"{SVG}use") if u.get("fill") in fills.values() and not u.get("stroke-width")]
    found = sorted((float(u.get("y")), (float(u.get("x")) - zero) / slope, u.get("fill")) for u in uses)
    assert [x for _, x, _ in found] == pytest.approx([100 * bar.mean for bar in of.bars], abs=0.02)
    assert [fill for _, _, fill in found] == [fills[bar.role] for bar in of.bars]
    assert "does not begin at zero" in bars.whole(cast("demo"), Ids()).note
    assert "does not begin" not in bars.whole(cast("published"), Ids()).note


def test_lying_bars_begin_at_zero():
    of = groups.groups(cast("published"), {})
    root = ET.fromstring(bars.lying(of, "b", wide=False))
    slope, zero = scale(root, "middle", "x")
    found = []
    for path in root.iter(f"{SVG}path"):
        if path.get("stroke-width") == "1.6" and path.get("d", "").endswith("z") and path.get("clip-path"):
            xs = [(float(x) - zero) / slope for x in re.findall(r"([\d.]+) [\d.]+", path.get("d"))]
            found.append((min(xs), max(xs)))
    np.testing.assert_allclose(found, [(0, 100 * bar.mean) for bar in of.bars], atol=0.02)


def test_many_bars_lie():
    drawn = bars.whole(cast("crowded"), Ids())
    assert drawn.wide.count("<text") > 2 * bars.UPRIGHT
    box = re.search(r'viewBox="0 0 860 (\d+)"', drawn.wide)
    assert int(box[1]) > 30 * 17
    assert "One seed" in bars.whole(cast("single_seed"), Ids()).note


def along(values, key="data.labelled", metric="accuracy", lower=False, gaps=None):
    """A sweep of one pair over values, with these gaps."""
    make = Maker("sweep", seeds=4, metric=metric)
    for at, value in enumerate(values):
        point = value if isinstance(value, dict) else {key: value}
        gap = gaps[at] if gaps else 0.05
        make.model(f"alone@{at}", 0.5, 0.001, model="alone", point=point)
        make.model(f"student@{at}", 0.5 + gap, 0.001, model="student", point=point, teachers=["t"])
        make.verdict(f"student@{at}", f"alone@{at}", lower=lower)
    return Cast(make.results())


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([100, 300, 1000], [("data.labelled", "", [100, 300, 1000])]),
        ([300, 100], [("data.labelled", "", [100, 300])]),
        (["a", "b"], []),
        ([True, False], []),
        ([[1, 2], [3, 4]], []),
        ([{"a.x": 1, "b.y": "p"}, {"a.x": 2, "b.y": "q"}], []),  # nothing moves alone
        ([{"a.x": 1, "b.y": "p"}, {"a.x": 2, "b.y": "p"}], [("a.x", "y = p", [1, 2])]),
        (
            [{"a.x": x, "b.x": z} for x in (1, 2) for z in (5, 6)],
            [("a.x", f"b.x = {z}", [1, 2]) for z in (5, 6)] + [("b.x", f"a.x = {x}", [5, 6]) for x in (1, 2)],
        ),
    ],
)
def test_gain_is_drawn_where_one_number_moves(values, wanted):
    found = gain.chains(along(values))
    shown = [(chain.across, chain.rest, [x for x, _ in chain.places]) for chain in found]
    assert sorted(shown) == sorted(wanted)
    assert all((chain.model, chain.baseline) == ("student", "alone") for chain in found)


def test_gain_of_zipped_readings_is_drawn_along_the_numbers_that_move_alone():
    (chain,) = gain.chains(cast("zipped"))
    assert (chain.across, chain.heading) == ("data.validation", "student against alone (monitor = objective)")


@pytest.mark.parametrize(("metric", "lower"), [("accuracy", False), ("error_rate", True), ("brier", True)])
def test_gain_is_drawn_to_scale_and_upwards_is_better(metric, lower):
    (chain,) = gain.chains(along([1, 2, 3, 4], metric=metric, lower=lower, gaps=[-0.05, 0.04, 0.0, 0.09]))
    root = ET.fromstring(gain.draw(chain, "g"))
    slope, zero = scale(root, "end", "y")
    unit, sign = 1 if metric == "brier" else 100, -1 if lower else 1
    drawn = sorted(
        (one[0], sorted([(one[1] - zero) / slope, (two[1] - zero) / slope])) for one, two in lines(root, "1.4")
    )
    wanted = [sorted(unit * sign * end for end in v.interval) for _, v in chain.places]
    np.testing.assert_allclose([ends for _, ends in drawn], wanted, atol=0.004 * unit)
    marks = [
        u
        for u in root.iter(f"{SVG}use")
        if re.fullmatch(r"var\(--(better|worse|undecided|equivalent)\)", u.get("stroke", ""))
    ]
    found = sorted((float(u.get("x")), (float(u.get("y")) - zero) / slope, u.get("stroke")) for u in marks)
    assert [y for _, y, _ in found] == pytest.approx(
        [unit * sign * v.difference for _, v in chain.places], abs=0.004 * unit
    )
    decisions = [v.decision for _, v in chain.places]
    assert decisions[:2] == (["better", "worse"] if lower else ["worse", "better"])
    assert [colour for _, _, colour in found] == [f"var(--{decision})" for decision in decisions]
    texts = {t.text: float(t.get("y")) for t in root.iter(f"{SVG}text")}
    assert texts["↑ model better"] < min(y for (_, y), _ in lines(root, "1.4")) < texts["↓ model worse"]
    assert slope < 0
    assert f"{chain.across} 4: difference" in root.find(f"{SVG}desc").text


@pytest.mark.parametrize(
    ("values", "position"),
    [
        ([30, 100, 300, 1000], math.log),
        ([1, 10, 20], math.log),
        ([1, 10, 19], float),
        ([0.0, 0.1, 0.5, 0.9], float),
        ([0.0, 0.001, 0.01, 1.0], [0.0, 0.001, 0.01, 1.0].index),  # evenly, or they would hide each other
        ([-3, 1, 5], float),
    ],
)
def test_places_of_a_sweep_are_apart(values, position):
    (chain,) = gain.chains(along(values))
    root = ET.fromstring(gain.draw(chain, "g"))
    drawn = np.asarray(sorted(one[0] for one, _ in lines(root, "1.4")))
    wanted = np.asarray([position(x) for x in values], float)
    np.testing.assert_allclose((drawn - drawn[0]) / np.ptp(drawn), (wanted - wanted[0]) / np.ptp(wanted), atol=0.005)


def test_an_interval_that_leaves_the_gain_is_cut_with_an_arrow():
    cut = along([1, 2, 3])
    wide = cut.results.verdicts[0].model_copy(update={"interval": (-5.0, 5.0)})
    results = cut.results.model_copy(update={"verdicts": [wide, *cut.results.verdicts[1:]]})
    (chain,) = gain.chains(Cast(results))
    drawn = gain.draw(chain, "g")
    whole = gain.draw(gain.chains(cut)[0], "g")
    shown = [len(re.findall(r'<use [^>]*stroke="var\(--better\)"', text)) for text in (whole, drawn)]
    assert shown == [3, 5]
    none = [v.model_copy(update={"interval": None, "decision": "undecided"}) for v in cut.results.verdicts]
    (chain,) = gain.chains(Cast(cut.results.model_copy(update={"verdicts": none})))
    assert not lines(ET.fromstring(gain.draw(chain, "g")), "1.4")


def errors_like(true, predicted):
    return TargetErrors(seeds=[0], true=true, predicted=predicted, edges=[-1.0, 0.0, 1.0], counts=[[1, 1]])


def test_figures_of_one_target_have_one_scale():
    near = errors_like([0.0, 100.0], [1.0, 98.0])
    off = errors_like([0.0, 100.0], [40.0, 104.0])
    ends = [scatter.Scale.of(one, [near, off]) for one in (near, off)]
    assert ends[0][:2] == ends[1][:2] == pytest.approx((-4.16, 108.16))  # 4 % of 104 beyond either end
    assert ends[1].residual == pytest.approx(1.06 * 40)
    assert ends[0].residual == pytest.approx(1.06 * 3 * 2)  # one that is far off does not flatten the others
    root = ET.fromstring(scatter.against(near, "y by a", ends[0], prefix="p"))
    (((x, y), (u, v)),) = lines(root, "1.4")
    assert (u - x) / (v - y) == pytest.approx(-(300 - 52 - 14) / (250 - 24 - 42), rel=1e-3)  # corner to corner
    told = {t.text for t in root.iter(f"{SVG}text")}
    assert {"0", "30", "60"} <= told
    one = scatter.Scale.of(errors_like([2.0], [2.0]), [errors_like([2.0], [2.0])])
    assert (one.low, one.high, one.residual) == (1.0, 3.0, 1.0)


def test_small_numbers_have_room_and_digits():
    """Squared errors of a target that is measured in thousandths."""
    verdicts = [
        v.model_copy(
            update={"metric": "squared_error", "difference": 1.67e-5, "interval": (1e-6, 3.25e-5), "margin": 0.0}
        )
        for v in cast("demo").results.verdicts[:1]
    ]
    root = ET.fromstring(figures.forest([figures.Row("a", "b", v) for v in verdicts], "f", wide=True))
    ticks = sorted(
        (float(t.get("x")), len(t.text)) for t in root.iter(f"{SVG}text") if (t.text or "").endswith("e\u221205")
    )
    assert len(ticks) > 1
    assert all(6.4 * (a[1] + b[1]) / 2 < b[0] - a[0] for a, b in itertools.pairwise(ticks))
    seeds = [figures.Pair(0, 0.000107, 0.000124), figures.Pair(1, 0.000108, 0.000119)]
    root = ET.fromstring(figures.pairs(verdicts[0], "t", seeds, prefix="p"))
    told = [t for t in root.iter(f"{SVG}text") if (t.text or "").startswith("0.000")]
    assert told
    assert all(float(t.get("x")) > 6.4 * len(t.text) for t in told)  # anchored at their ends
    assert fmt.value("squared_error", 0.0001071) == "0.000107"
    assert fmt.value("r2", 0.0001071) == "0.0001"
    assert fmt.interval("squared_error", (-0.0123456, 0.5)) == "[−0.0123, +0.5000]"


def test_inputs_of_telling_rows_stand_in_one_cell_where_they_are_many():
    results, arrays = SAMPLES["regression"]()
    many = [f"x{i}" for i in range(21)]
    rows = [
        row.model_copy(update={"inputs": [float(i) / 8 for i in range(20)] + ["Perm"]})
        for row in arrays.telling[0].rows
    ]
    wide = arrays.telling[0].model_copy(update={"inputs": many, "rows": rows})
    few, lots = errors.telling(Cast(results), arrays.model_copy(update={"telling": [arrays.telling[0], wide]}))
    assert few.columns[1:4] == ("age", "town", "height")
    assert lots.columns[:3] == ("Row", "Inputs", "Label")
    assert lots.rows[0][1].text.startswith("x0 0; x1 0.125; ")
    assert lots.rows[0][1].text.endswith("x20 Perm")


def test_a_forest_has_room_for_its_numbers():
    rows = [
        figures.Row("a", "b", v.model_copy(update={"metric": "r2", "margin": 0.0}), "")
        for v in cast("demo").results.verdicts
    ]
    told = ET.fromstring(figures.forest(rows, "f", wide=True))
    texts = list(told.iter(f"{SVG}text"))
    numbers = [t for t in texts if "[" in (t.text or "")]
    assert len(numbers) == len(rows)
    assert all(float(t.get("x")) + 7 * len(t.text) < 860 for t in numbers)  # R² has four decimals
    assert not [t for t in texts if "margin" in (t.text or "")]  # there is none


def test_forest_of_a_sweep_names_pair_and_point():
    forest = sections.forests(cast("zipped"), Ids())[0]
    texts = [t.text for t in ET.fromstring(forest.wide).iter(f"{SVG}text")]
    assert texts.count("student against alone") == 3
    assert {"validation = 0.2, monitor = objective", "validation = 0, monitor = train_objective"} <= set(texts)


@pytest.mark.parametrize(
    ("values", "number", "wanted"),
    [
        ([0.01, 0.02, 0.03], 0.0447, "inside our interval"),  # t(2, .975) = 4.302653; half = .024841
        ([0.01, 0.02, 0.03], 0.0449, "outside our interval"),
        ([0.01, 0.02, 0.03], -0.0049, "outside our interval"),
        ([0.02, 0.02], 0.02, "inside our interval"),
        ([0.02], 0.02, "not known: one seed"),
    ],
)
def test_published_number_is_inside_the_interval_of_our_mean_or_not(values, number, wanted):
    make = Maker("p", seeds=len(values), metric="error_rate")
    make.model("alone", 0.5)
    ours = metric_values(values)
    make.models["alone"] = make.models["alone"].model_copy(update={"metrics": {"error_rate": ours}})
    source = Published(source="a paper", metrics={"error_rate": {"alone": number}})
    (row,) = published.table(Cast(make.results(published=[source]))).rows
    assert row[-1].text == wanted
    if len(values) == 3:
        assert row[-2].text == "−0.48 to 4.48 %"
        np.testing.assert_allclose(published.interval(ours), [0.02 - 0.0248414, 0.02 + 0.0248414], atol=1e-7)


def test_names_of_figures_tell_and_are_unique_in_any_case():
    ids = Ids()
    assert ids.new("forest", "error_rate") == "forest-error_rate"
    assert ids.new("forest", "error_rate") == "forest-error_rate-2"
    assert ids.new("Forest", "Error_rate") == "Forest-Error_rate-3"
    assert ids.new("curves", "a/b <x>@k=1", "../..") == "curves-a-b-x-k-1"
    assert ids.new("\u65e5\u672c") == "figure"
    assert ids.new() == "figure-2"
    long = {ids.new("seeds", f"{'x' * 300}{at}") for at in range(3)}
    assert len(long) == 3
    assert all(len(name) <= sections.LONGEST + 2 for name in long)


@pytest.mark.parametrize("name", ["hostile", "published", "zipped"])
def test_every_figure_of_the_page_becomes_a_file_that_stands_alone(name, tmp_path):
    sample = SAMPLES[name]()
    folder, out = put(tmp_path / "run", sample), tmp_path / "figures"
    paths = report.write_figures(folder, out)
    whole = page.render(*inputs.load(folder))
    assert len(paths) == len({path.name.casefold() for path in paths}) == whole.count("<svg ")
    index = json.loads((out / export.INDEX).read_text(encoding="utf-8"))
    assert [one["file"] for one in index] == [path.name for path in paths]
    assert sorted(path.name for path in out.iterdir()) == sorted([*(path.name for path in paths), export.INDEX])
    for path, listed in zip(paths, index, strict=True):
        text = path.read_text(encoding="utf-8")
        root = ET.fromstring(text)
        assert "var(" not in text
        assert not re.search(r"(href|src)=\"[^#]|url\([^#]|<script", text)
        left, top, width, height = (float(part) for part in root.get("viewBox").split())
        assert (float(root.get("width")), float(root.get("height"))) == (width, height)
        paper = next(child for child in root if child.tag not in (f"{SVG}title", f"{SVG}desc", f"{SVG}style"))
        shown = [paper.get(key) for key in ("x", "y", "width", "height", "fill")]
        assert shown == [f"{left:g}", f"{top:g}", f"{width:g}", f"{height:g}", "#ffffff"]
        assert (root.find(f"{SVG}title").text, root.find(f"{SVG}desc").text) == (listed["title"], listed["description"])
        drawn = f'<title id="{path.stem}-title">'
        assert whole.count(drawn) == 1
        if root.get("class") == "tree":
            assert ".tree .box" in root.find(f"{SVG}style").text
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in report.write_figures(folder, out)] == before
