"""The report: well-formed, self-contained, complete, and the same each time."""

from __future__ import annotations

import base64
import doctest
import hashlib
import json
import math
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from report_browser import CHROMIUM, measure, visit
from report_samples import HOSTILE, SAMPLES, SVG, Maker, put

from potstill import report
from potstill.errors import RunError, StorageError
from potstill.report import curves, figures, page, sections, spread, tables, theme, tree
from potstill.report import format as fmt
from potstill.report.names import Cast
from potstill.study.plotted import Curve
from potstill.study.results import Published

VOID = {"meta", "br", "hr", "img", "input", "link"}
every_sample = pytest.mark.parametrize("name", sorted(SAMPLES))


@cache
def sample(name):
    return SAMPLES[name]()


@cache
def written(name):
    return page.render(*sample(name))


class Parsed(HTMLParser):
    """Elements with their attributes and whole text; complains about tags that do not nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.all, self.open = [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {[tag for tag, _, _ in self.open]}"

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len(dict(attrs)), f"an attribute twice in <{tag}>: {attrs}"
        one = (tag, dict(attrs), [])
        self.all.append(one)
        if tag not in VOID:
            self.open.append(one)

    def handle_startendtag(self, tag, attrs):
        self.all.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1][0] == tag, f"</{tag}> closes <{self.open[-1][0]}>"
        self.open.pop()

    def handle_data(self, data):
        for _, _, parts in self.open:
            parts.append(data)

    def texts(self, tag):
        return [" ".join("".join(parts).split()) for name, _, parts in self.all if name == tag]

    def attributes(self, name):
        return [attrs[name] for _, attrs, _ in self.all if name in attrs]


@cache
def parsed(name):
    return Parsed(written(name))


def plain(text):
    return " ".join(fmt.clean(text).split())


@every_sample
def test_page_is_well_formed_and_every_drawing_is_xml(name):
    one = parsed(name)
    assert one.texts("html")
    for drawing in re.findall(r"<svg.*?</svg>", written(name), re.DOTALL):
        root = ET.fromstring(drawing)
        inner = [child.tag.rpartition("}")[2] for child in root]
        assert inner[:2] == ["title", "desc"]
        assert root.get("role") == "img"
        assert root.get("viewBox")
        assert not re.search(r"#[0-9a-f]{6}\b", drawing.replace("href", "")), "a colour that dark mode cannot change"


@every_sample
def test_page_loads_nothing_and_runs_nothing(name):
    one = parsed(name)
    tags = {tag for tag, _, _ in one.all}
    assert not tags & {"script", "iframe", "object", "embed", "link", "img", "base", "form", "image", "audio", "video"}
    for tag, attributes, _ in one.all:
        for key, value in attributes.items():
            assert not key.startswith("on"), f"<{tag} {key}>"
            assert key not in ("style", "src", "srcset", "action", "data"), f"<{tag} {key}>"
            if key in ("href", "xlink:href"):
                assert value.startswith("#")
            if key != "xmlns":
                assert "://" not in (value or "")
    styles = one.texts("style")
    assert len(styles) == 1
    assert not re.search(r"url\(|@import|expression|</", styles[0])


@every_sample
def test_policy_admits_the_style_and_nothing_else(name):
    text = written(name)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policies = [a["content"] for tag, a, _ in parsed(name).all if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == [f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"]
    assert text.index("Content-Security-Policy") < text.index("<style>")


@every_sample
def test_ids_are_unique_and_every_reference_has_its_target(name):
    one = parsed(name)
    ids = one.attributes("id")
    assert len(ids) == len(set(ids))
    wanted = [value[1:] for value in one.attributes("href")]
    wanted += [
        word for key in ("aria-labelledby", "aria-describedby") for v in one.attributes(key) for word in v.split()
    ]
    wanted += re.findall(r"url\(#([^)]+)\)", written(name))
    assert set(wanted) <= set(ids)


@every_sample
def test_page_can_be_heard(name):
    one = parsed(name)
    assert dict(one.all[0][1]) == {"lang": "en"}
    assert one.all[0][0] == "html"
    assert any(a.get("name") == "viewport" and "width=device-width" in a["content"] for _, a, _ in one.all)
    levels = [int(tag[1]) for tag, _, _ in one.all if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(one.texts("h2"))
    assert len(one.texts("caption")) == len(one.texts("table")) > 0
    assert all(one.texts("caption"))
    assert all(a.get("scope") in ("row", "col") for tag, a, _ in one.all if tag == "th")
    scrolling = [a for _, a, _ in one.all if "scroll" in a.get("class", "").split()]
    assert all(a["tabindex"] == "0" and a["role"] == "region" and a["aria-label"] for a in scrolling)
    assert one.all[[tag for tag, _, _ in one.all].index("body") + 1][1] == {"class": "skip", "href": "#main"}


@every_sample
def test_every_verdict_model_failure_and_note_is_on_the_page(name):
    results, _ = sample(name)
    one = parsed(name)
    paragraphs, text = one.texts("p"), " ".join(one.texts("body"))
    for verdict in results.verdicts:
        assert plain(verdict.sentence) in paragraphs
    said = [t for t in one.texts("li") if any(plain(v.sentence) in t for v in results.verdicts)]
    assert [v.decision in t for v, t in zip(results.verdicts, said, strict=True)] == [True] * len(results.verdicts)
    heads = one.texts("th")
    for model in results.models.values():
        assert any(head.startswith(plain(model.model)) for head in heads)
        assert all(plain(failure.reason) in text for failure in model.failures)
        assert all(plain(note) in text for note in model.notes)
    assert plain(results.title) in one.texts("h1")
    assert plain(results.plan_toml) in one.texts("code")
    assert f"read {fmt.plural(results.test_reads.count, 'time')}" in text
    assert "nan" not in re.sub(r"[a-z]{2,}nan|nan[a-z]{2,}|loss is NaN", "", text)


@pytest.mark.parametrize(("looks", "fine"), [(1, True), (2, False)])
def test_seeds_chosen_after_the_only_read_are_no_first_look(looks: int, fine: bool):
    results, arrays = sample("bare")
    reads = results.test_reads.model_copy(update={"count": 1, "plans": 1, "looks": looks})
    text = page.render(results.model_copy(update={"test_reads": reads}), arrays)
    assert ("No model, setting or seed was chosen after looking at it" in text) == fine
    assert ("makes the next intervals too optimistic" in text) != fine


def test_sections_come_in_the_order_of_importance():
    wanted = ["Verdicts", "Models", "Teachers and students", "Family tree", "Seed by seed", "Learning curves"]
    wanted += [
        "Confusion",
        "Calibration",
        "Quality for its cost",
        "Cost",
        "Which seed to ship",
        "Environment and data",
        "Plan",
        "Test reads",
    ]
    assert parsed("demo").texts("h2") == wanted
    assert parsed("failures").texts("h2")[:2] == ["Verdicts", "Failures and notes"]
    assert parsed("bare").texts("h2") == [h for h in wanted if h not in (wanted[2], *wanted[4:9])]
    measured = ["Test conditions", "Uncertainty", "What students have of their teachers", "Generations"]
    told = parsed("evaluated").texts("h2")
    assert [head for head in told if head in measured] == measured
    assert told.index("Generations") + 1 == told.index("Learning curves")
    assert told.index("Prediction frequencies") + 1 == told.index("Cost")
    assert parsed("sweep").texts("h2")[2:4] == ["Teachers and students", "Gain"]


def test_hostile_text_stays_text():
    text = written("hostile")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert HOSTILE in parsed("hostile").texts("h1")
    assert "null \ufffd and bell \ufffd" in " ".join(parsed("hostile").texts("li"))
    drawn = [t for t in parsed("hostile").texts("title") if "$x_1$" in t]
    assert drawn, "dollars are no mathematics"


def test_same_results_give_the_same_page_whatever_the_settings_of_matplotlib(tmp_path):
    path = report.write(put(tmp_path, sample("single_seed")))
    first = path.read_bytes()
    assert path == tmp_path / "report.html"
    assert report.write(tmp_path).read_bytes() == first
    (tmp_path / "matplotlibrc").write_text(
        "font.size: 31\nxtick.direction: in\nxtick.major.pad: 25\nsvg.fonttype: path\n"
    )
    code = (
        "import sys; from pathlib import Path; from potstill import report; report.write(Path(sys.argv[1]));"
        "print([name for name in ('torch', 'matplotlib.pyplot') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path)],
        env={"MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "PYTHONHASHSEED": "7", "PATH": "", "HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
    assert path.read_bytes() == first


def _without(key):
    def damage(text):
        value = json.loads(text)
        del value[key]
        return json.dumps(value)

    return damage


@pytest.mark.parametrize(
    ("file", "damage", "error", "words"),
    [
        ("results.json", None, RunError, ["results.json", "run the plan first"]),
        ("results.json", lambda text: text[: len(text) // 2], StorageError, ["results.json", "not valid JSON"]),
        ("results.json", lambda text: "[]", StorageError, ["results.json", "top level"]),
        ("results.json", _without("verdicts"), StorageError, ["results.json", "verdicts", "Field required"]),
        ("results.json", lambda text: text.replace('"format": 1', '"format": 99'), RunError, ["format 99", "format 1"]),
        ("figures.json", lambda text: "{", StorageError, ["figures.json", "not valid JSON"]),
        ("figures.json", lambda text: '{"format": 1, "x": 2}', StorageError, ["figures.json", "classes", "1 more"]),
        ("figures.json", lambda text: '{"format": 0}', RunError, ["figures.json", "format 0"]),
    ],
)
def test_damaged_input_is_refused_with_its_place(tmp_path, file, damage, error, words):
    put(tmp_path, sample("bare"))
    path = tmp_path / file
    if damage is None:
        path.unlink()
    else:
        path.write_text(damage(path.read_text()))
    with pytest.raises(error) as caught:
        report.write(tmp_path)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_no_folder_is_an_error_and_no_figures_are_a_note(tmp_path):
    with pytest.raises(RunError, match="no such folder"):
        report.write(tmp_path / "nowhere")
    put(tmp_path, sample("single_seed"))
    (tmp_path / "figures.json").unlink()
    assert "figures.json is missing" in report.write(tmp_path).read_text()


def test_page_cannot_be_written_is_a_storage_error(tmp_path):
    put(tmp_path, sample("bare"))
    (tmp_path / "report.html").mkdir()
    with pytest.raises(StorageError, match=r"report\.html"):
        report.write(tmp_path)


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (fmt.value("accuracy", 0.9383), "93.83 %"),
        (fmt.value("accuracy", None), "–"),
        (fmt.value("cross_entropy", 0.23456), "0.2346"),
        (fmt.value("accuracy", math.nan), "–"),
        (fmt.difference("accuracy", 0.0431), "+4.31 points"),
        (fmt.difference("error_rate", -0.006), "−0.60 points"),
        (fmt.difference("accuracy", -1e-9), "0.00 points"),
        (fmt.difference("cross_entropy", -0.01), "−0.0100"),
        (fmt.interval("accuracy", (-0.01, 0.02)), "[−1.00, +2.00]"),
        (fmt.interval("accuracy", (0.00001, 0.02)), "[+0.001, +2.000]"),
        (fmt.interval("accuracy", (0.0, 0.02)), "[0.00, +2.00]"),
        (fmt.interval("cross_entropy", (-0.1, 0.2)), "[−0.1000, +0.2000]"),
        (fmt.interval("accuracy", None), "no interval"),
        (fmt.spread("accuracy", 0.0061), "± 0.61"),
        (fmt.spread("accuracy", None), ""),
        (fmt.number(1e-7), "1.00e-07"),
        (fmt.number(1234567.0), "1,234,567"),
        (fmt.number(0.0), "0.0000"),
        (fmt.count(1210), "1,210"),
        (fmt.count(25_600_000), "25.6 M"),
        (fmt.count(4.1e9), "4.1 G"),
        (fmt.size(4840), "4.8 kB"),
        (fmt.size(999), "999 B"),
        (fmt.size(102_400_000), "102.4 MB"),
        (fmt.milliseconds(12.34), "12.3 ms"),
        (fmt.milliseconds(0.085), "85.0 µs"),
        (fmt.milliseconds(1234), "1.23 s"),
        (fmt.milliseconds(0.0), "0.00 µs"),
        (fmt.seconds(0.4), "400 ms"),
        (fmt.seconds(58.34), "58.3 s"),
        (fmt.seconds(59.99), "1 min"),
        (fmt.seconds(125), "2 min 5 s"),
        (fmt.seconds(3840), "1 h 4 min"),
        (fmt.seconds(93600), "1 d 2 h"),
        (fmt.ratio(1210, 151306, less="fewer"), "125× fewer"),
        (fmt.ratio(3, 2), "1.5× more"),
        (fmt.ratio(1.0, 1.01), "about the same"),
        (fmt.ratio(2, 2), "the same"),
        (fmt.ratio(2, 0), ""),
        (fmt.ratio(None, 2), ""),
        (fmt.plural(1, "seed"), "1 seed"),
        (fmt.plural(0, "seed"), "0 seeds"),
        (fmt.anything({"a": [1, 2.5, True], "b": None}), "a 1, 2.5, yes, b –"),
        (fmt.shorten("a\nb", 10), "a b"),
        (fmt.wrap("from-teacher-unlabelled", 14), ["from-teacher-", "unlabelled"]),
        (fmt.wrap("x" * 30, 10), ["x" * 10, "xxxxx…xxxx"]),
        (fmt.brief([0.0010, 0.0011, 0.5], 4), ["0.…1", "0.…1", "0.5"]),
        (fmt.brief([0.00101, 0.00202, None], 3), ["0…1", "0…2", "–"]),
        (fmt.metric_name("macro_f1"), "macro F1"),
    ],
)  # fmt: skip
def test_numbers_are_written_for_people(shown, wanted):
    assert shown == wanted


def test_examples_of_the_documentation_hold():
    done = doctest.testmod(fmt)
    assert done.attempted >= 4
    assert done.failed == 0


def test_band_follows_the_seeds_that_are_still_training():
    curve = Curve(
        seeds=[0, 1, 2],
        steps=[[10, 20, 30], [10, 20], [10, 30]],
        series={"train_objective": [[3.0, 2.0, 1.0], [5.0, 4.0], [4.0, math.nan]], "empty": [[], [], []]},
    )
    band = curves.band(curve, "train_objective")
    np.testing.assert_array_equal(band.steps, [10, 20, 30])
    np.testing.assert_allclose(band.mean, [4.0, 3.0, 1.0])
    np.testing.assert_allclose(band.low, [3.0, 2.0, 1.0])
    np.testing.assert_allclose(band.high, [5.0, 4.0, 1.0])
    np.testing.assert_array_equal(band.seeds, [3, 2, 1])
    assert curves.band(curve, "empty") is None
    assert curves.band(curve, "unknown") is None


def test_band_interpolates_seeds_that_were_measured_elsewhere_and_thins_long_curves():
    curve = Curve(seeds=[0, 1], steps=[[0, 10], [5, 15]], series={"train_objective": [[0.0, 10.0], [1.0, 3.0]]})
    band = curves.band(curve, "train_objective")
    np.testing.assert_array_equal(band.steps, [0, 5, 10, 15])
    np.testing.assert_allclose(band.mean, [0.0, 3.0, 6.0, 3.0])
    steps = list(range(1, 5001))
    long = curves.band(Curve(seeds=[0], steps=[steps], series={"x": [[float(s) for s in steps]]}), "x")
    assert len(long.steps) <= curves.PLACES
    assert (long.steps[0], long.steps[-1]) == (1, 5000)
    np.testing.assert_allclose(long.mean, long.steps)


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("name", ["demo", "published", "two_seeds"])
def test_forest_draws_every_interval_to_scale(name, wide):
    verdicts = sample(name)[0].verdicts
    with theme.drawing():
        drawing = figures.forest([figures.Row(v.model, v.baseline, v) for v in verdicts], "f", wide=wide)
    root = ET.fromstring(drawing)
    spot = re.compile(r"^[+−]?[\d.]+$")
    texts = [t for t in root.iter(f"{SVG}text") if t.get("text-anchor") == "middle"]
    ticks = [(float(t.text.replace("−", "-")), float(t.get("x"))) for t in texts if spot.match(t.text or "")]
    slope, zero = np.polyfit(*zip(*ticks, strict=True), 1)
    drawn = []
    for path in root.iter(f"{SVG}path"):
        ends = re.fullmatch(r"M ([\d.]+) ([\d.]+) L ([\d.]+) ([\d.]+)", path.get("d", ""))
        if ends and path.get("stroke-width") == "2.6":
            drawn.append((float(ends.group(2)), float(ends.group(1)), float(ends.group(3))))
    assert len(drawn) == len(verdicts)
    right = max(x for _, _, x in drawn)
    cut = 0
    for (_, low, high), verdict in zip(sorted(drawn), verdicts, strict=True):
        wanted = [zero + slope * 100 * end for end in verdict.interval]
        assert low == pytest.approx(wanted[0], abs=1.0)
        cut += wanted[1] > right + 1
        assert high == pytest.approx(min(wanted[1], right), abs=1.0)
    assert cut == (1 if name == "two_seeds" else 0)


def test_pairs_follow_the_verdict_also_with_a_teacher_shared_by_all_seeds():
    make = Maker("pairs", seeds=3)
    make.model("teacher", 0.95)
    make.model("student", 0.9, teachers=["teacher"])
    make.verdict("student", "teacher")
    results = make.results()
    student, verdict = results.models["student"], results.verdicts[0]
    found = sections.seed_pairs(Cast(results), verdict)
    assert [p.seed for p in found] == [0, 1, 2]
    np.testing.assert_allclose([p.model for p in found], student.metrics["accuracy"].values)
    np.testing.assert_allclose([p.baseline for p in found], results.models["teacher"].metrics["accuracy"].values)
    shared = results.models["teacher"].model_copy(update={"shared": True, "seeds": [0]})
    one = shared.metrics["accuracy"].model_copy(update={"values": [0.5]})
    shared = shared.model_copy(update={"metrics": {"accuracy": one}})
    found = sections.seed_pairs(
        Cast(results.model_copy(update={"models": {"student": student, "teacher": shared}})), verdict
    )
    assert [p.baseline for p in found] == [0.5, 0.5, 0.5]
    nothing = sections.seed_pairs(Cast(results.model_copy(update={"models": {}})), verdict)
    np.testing.assert_allclose([p.model - p.baseline for p in nothing], verdict.differences)
    assert {p.baseline for p in nothing} == {0.0}


def test_models_keep_the_order_of_the_plan_and_sweeps_their_order_of_size():
    assert Cast(sample("demo")[0]).order[:3] == ["teacher", "ensemble", "alone"]
    order = Cast(sample("sweep")[0]).order
    assert order == ["teacher"] + [f"{m}@data.labelled={n}" for m in ("alone", "student") for n in (100, 1000, 10000)]
    assert Cast(sample("generations")[0]).order[2:5] == [f"hard-chain/generation-{at}" for at in (1, 2, 3)]


def test_models_with_other_numbers_of_labelled_examples_are_all_told():
    results = sample("evaluated")[0]
    numbers = dict(zip(results.models, (100, 600, 300), strict=False))
    split = results.models[next(iter(numbers))].splits["validation"]
    few = {k: {"validation": split.model_copy(update={"examples": 600, "labelled": n})} for k, n in numbers.items()}
    models = {k: m.model_copy(update={"splits": few.get(k, {})}) for k, m in results.models.items()}
    found = spread.splits(Cast(results.model_copy(update={"models": models})))
    assert found is not None
    assert "validation: 600 examples, 100 or 300 labelled" in found.caption


def test_an_input_is_told_with_its_form():
    results, arrays = sample("demo")
    inputs = {
        "large": {"shape": [1, 28, 28], "vocabulary": 0},
        "tokens": {"shape": [64], "vocabulary": 20_000},
    }
    models = {k: m.model_copy(update={"sees": "tokens" if k == "alone" else None}) for k, m in results.models.items()}
    data = results.data | {"inputs": inputs}
    named = results.model_copy(update={"models": models, "data": data})
    rows = {row[0].text: row[1].notes for row in tables.models(Cast(named)).rows}
    assert rows["alone"] == ("tokens: 64 of 20,000 words", "hard_labels")
    assert rows["teacher"] == ("hard_labels",)
    text = page.render(named, arrays)
    assert "1 × 28 × 28" in text
    assert "vocabulary" not in text


@pytest.mark.parametrize(
    ("name", "key", "teacher", "baseline"),
    [
        ("demo", "from-teacher", "teacher", "alone"),
        ("demo", "alone", None, None),
        ("sweep", "student@data.labelled=1000", "teacher", "alone@data.labelled=1000"),
        ("sweep", "teacher", None, None),  # which of the three baselines would be arbitrary
        ("generations", "soft-chain/generation-3", "teacher", "alone"),
        ("two_seeds", "student-1", None, "alone"),
        ("bare", "only", None, None),
    ],
)
def test_teacher_and_baseline_of_a_model(name, key, teacher, baseline):
    cast = Cast(sample(name)[0])
    assert (cast.teacher(key), cast.baseline(key)) == (teacher, baseline)
    assert cast.is_baseline(key) == (key == "alone")


def test_a_chain_of_generations_is_meant_by_its_last():
    results = sample("generations")[0]
    assert Cast(results).find("hard-chain", results.models["alone"]) == "hard-chain/generation-4"
    assert Cast(results).find("hard-chain/generation-2", results.models["alone"]) == "hard-chain/generation-2"
    assert Cast(results).find("nobody", results.models["alone"]) is None


def test_published_numbers_stand_beside_ours_or_are_named():
    text = " ".join(parsed("published").texts("td"))
    assert "2.89 %" in text
    assert "ours" in text
    assert "inside our interval" in text
    assert any("50.00 %" in item for item in parsed("published").texts("li"))


def test_published_numbers_stand_beside_every_point_of_a_sweep():
    results = sample("zipped")[0]
    keys = [key for key, one in results.models.items() if one.model == "student"]
    numbers = {"student": 0.0289, keys[1]: 0.05}
    source = Published(source="a paper", metrics={"error_rate": numbers})
    cast = Cast(results.model_copy(update={"published": [source]}))
    assert len(keys) == 3
    assert [cast.published("error_rate", key) for key in keys] == [[(0, 0.0289)], [(0, 0.05)], [(0, 0.0289)]]
    assert cast.published("error_rate", "large") == []
    assert cast.published_elsewhere() == []


def test_costs_are_held_against_the_teacher():
    cells = parsed("demo").texts("td")
    assert any("125× fewer" in text for text in cells)
    assert any("4.8 kB" in text and "125× smaller" in text for text in cells)
    assert sum("× faster" in text for text in cells) == 2 * 4


def test_confusion_has_true_classes_in_rows_and_folds_many_classes_into_a_list():
    table = tables.confusion([[5, 1], [2, 8]], ["cat", "dog"], "m")
    assert [[cell.text for cell in row] for row in table.rows] == [["cat", "5", "1"], ["dog", "2", "8"]]
    assert [[cell.kind.split()[0] for cell in row[1:]] for row in table.rows] == [["hit", "miss"], ["miss", "hit"]]
    assert table.columns[1:] == ("cat", "dog")
    many = [[90 if row == column else 0 for column in range(21)] for row in range(21)]
    many[3][7], many[9][2] = 10, 30
    table = tables.confusion(many, [f"c{at}" for at in range(21)], "m")
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["c9", "c2", "30", "25.0 %"],
        ["c3", "c7", "10", "10.0 %"],
    ]
    assert "1,890 of 1,930 test predictions right" in table.caption


@every_sample
def test_tree_shows_every_model_once(name):
    results, _ = sample(name)
    nodes = tree.family(Cast(results))
    wanted = {one.model for one in results.models.values()}
    assert {n.name for n in nodes if not n.outside} == wanted
    assert len(nodes) == len({n.name for n in nodes})

    def count(branches):
        return sum(1 + count(branch.students) for branch in branches)

    assert count(tree.outline(nodes)) == len(nodes)
    places = tree._places(nodes)
    for left in nodes:
        for right in nodes:
            if left is not right and left.depth == right.depth:
                assert abs(places[left.name][1] - places[right.name][1]) >= tree.BOX[1]


def test_tree_of_a_long_family_or_a_damaged_cycle_is_an_outline():
    make = Maker("deep", seeds=1)
    for at in range(6):
        make.model(f"m{at}", 0.9, teachers=[f"m{at - 1}"] if at else [])
    nodes = tree.family(Cast(make.results()))
    assert [n.depth for n in nodes] == list(range(6))
    assert tree.draw(nodes, "t") is None
    make.models["m0"] = make.models["m0"].model_copy(update={"teachers": ["m5"]})
    assert len(tree.family(Cast(make.results()))) == 6
    assert "m5" in page.render(make.results(), make.figures())


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_read_in_light_dark_and_on_paper():
    style = (Path(report.__file__).parent / "page.css").read_text()
    themes = [
        dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)
    ]
    light, dark, printed = themes
    assert light == printed
    assert set(theme.ROLES) <= set(light) == set(dark)
    for colours in (light, dark):
        for role in ("ink", "quiet", "link", "better", "worse", "equivalent", "undecided", "model", "baseline"):
            assert contrast(colours[role], colours["paper"]) >= 4.5, role
            assert contrast(colours[role], colours["raised"]) >= 4.5, role
            assert contrast(colours[role], colours["band"]) >= 3.0, role
        assert contrast(colours["model"], colours["paper"]) >= 4.5


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.mark.browser
@needs_browser
def test_browser_has_nothing_to_complain_about(tmp_path):
    path = report.write(put(tmp_path, sample("hostile")))
    seen, complaints = visit(path)
    assert complaints == []
    assert plain(sample("hostile")[0].verdicts[0].sentence) in Parsed(seen).texts("p")
    broken = path.read_text().replace("</body>", '<p style="color: red">x</p><script>console.log(1)</script></body>')
    path.write_text(broken)
    assert len(visit(path)[1]) >= 2, "the policy forbids both, and the browser says so"


@pytest.mark.browser
@needs_browser
@pytest.mark.parametrize("name", ["crowded", "demo", "evaluated", "published", "regression", "tuned", "zipped"])
def test_figures_fit_phones_and_desks(tmp_path, name):
    found = measure(written(name), (360, 390, 800, 1280), tmp_path)
    assert {width: out for width, (_, out) in found.items()} == {360: [], 390: [], 800: [], 1280: []}
    assert all(texts > 100 for texts, _ in found.values())


@pytest.mark.browser
@needs_browser
def test_measuring_finds_what_does_not_fit(tmp_path):
    broken = (
        written("demo").replace('width="236"', 'width="90"').replace("<main", f"<p><code>{'w' * 300}</code></p><main")
    )
    broken = broken.replace("overflow-wrap: break-word", "")
    out = measure(broken, (1280,), tmp_path)[1280][1]
    assert any("page of" in one for one in out)
    assert any("out of box" in one for one in out)
