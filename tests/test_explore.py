"""Exploring data: every number against numpy on the whole data set, every fault planted and found, the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import photo_samples
import pytest
from scipy import stats
from test_report import Parsed

import potstill as ps
from potstill.cli import call
from potstill.errors import DataError
from potstill.explore import columns, explore, gather, projection
from potstill.explore.found import Exploration
from potstill.report import explored, explored_figures, theme

RNG = np.random.default_rng(0)


def pictures(n: int = 60, channels: int = 1, dtype: Any = np.uint8) -> tuple[np.ndarray, np.ndarray]:
    """Three kinds of pictures; the first column is always 7."""
    labels = np.arange(n) % 3
    found = RNG.integers(0, 90, (n, channels, 6, 5)) + 50 * labels[:, None, None, None]
    found[..., 0] = 7
    return found.astype(dtype), labels


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return {"train": pictures(90, 2), "validation": pictures(30, 2), "test": pictures(45, 2)}


@pytest.fixture(scope="module")
def seen(parts: dict[str, Any]) -> Exploration:
    return explore(parts)


def told(found: Exploration) -> str:
    return "\n".join(f"{'grave' if fault.grave else 'look'}: {fault.what}" for fault in found.faults)


# ---------------------------------------------------------------- numbers against numpy


def test_counts(seen: Exploration) -> None:
    assert {name: (one.examples, one.labelled, one.per_group) for name, one in seen.splits.items()} == {
        "train": (90, 90, (30, 30, 30)),
        "validation": (30, 30, (10, 10, 10)),
        "test": (45, 45, (15, 15, 15)),
    }
    assert all(one.different == one.examples for one in seen.splits.values())
    assert (seen.form, seen.shape, seen.groups, seen.columns) == ("pictures", (2, 6, 5), ("0", "1", "2"), ())


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_values_are_those_of_all_numbers(dtype: Any) -> None:
    whole = {name: pictures(n, 2, dtype) for name, n in (("train", 90), ("validation", 30), ("test", 45))}
    found = explore(whole).values
    assert found is not None
    everything = np.concatenate([x.ravel() for x, _ in whole.values()]).astype(np.float64)
    assert (found.least, found.greatest) == (everything.min(), everything.max())
    assert found.mean == pytest.approx(everything.mean())
    assert found.std == pytest.approx(everything.std())
    assert found.zeros == pytest.approx((everything == 0).mean())
    for name, (x, _) in whole.items():
        assert found.counts[name] == tuple(np.histogram(x.astype(np.float64), found.edges)[0])
        assert sum(found.counts[name]) == x.size
    train = whole["train"][0].astype(np.float64)
    np.testing.assert_allclose(found.channels, np.stack([train.mean((0, 2, 3)), train.std((0, 2, 3))], 1))
    assert (found.constant, found.blank) == (12, 0)


def test_means_of_the_groups(parts: dict[str, Any], seen: Exploration) -> None:
    x, y = parts["train"]
    means = np.stack([x[y == k].astype(np.float64).mean(0) for k in range(3)])
    np.testing.assert_allclose(seen.pictures["means"], means)
    distance = {(a, b): np.sqrt(((means[a] - means[b]) ** 2).mean()) for a, b in ((0, 1), (0, 2), (1, 2))}
    assert [(int(p.first), int(p.second)) for p in seen.nearest] == sorted(distance, key=lambda pair: distance[pair])
    assert [p.distance for p in seen.farthest] == pytest.approx(sorted(distance.values(), reverse=True))
    own = np.sqrt(((x - means[y]) ** 2).mean((1, 2, 3)))
    assert seen.within == pytest.approx(np.sqrt((own**2).mean()))
    order = np.argsort(-own, kind="stable")[:12]
    assert [(place, int(name)) for place, name, _ in seen.atypical] == [(row, y[row]) for row in order]
    np.testing.assert_array_equal(seen.pictures["atypical"], x[order])


def test_examples_are_of_their_group(parts: dict[str, Any], seen: Exploration) -> None:
    x, y = parts["train"]
    for group in range(3):
        mine = {row.tobytes() for row in x[y == group]}
        shown = {row.tobytes() for row in seen.pictures["examples"][group]}
        assert len(shown) == 8
        assert shown <= mine


@pytest.mark.parametrize("exact", [500, 3], ids=["as a whole", "the first ones"])
def test_components(monkeypatch: pytest.MonkeyPatch, exact: int) -> None:
    """Directions, shares and points of a decomposition of the whole matrix, up to sign."""
    monkeypatch.setattr(projection, "_EXACT", exact)
    x, y = pictures(80)
    found = projection.components(
        gather.gather({"train": (x, y)}, folder=None, task="multiclass", target=None, validation=0, test=0)
    )
    flat = x.reshape(80, -1).astype(np.float64)
    centred = flat - flat.mean(0)
    _, values, vectors = np.linalg.svd(centred, full_matrices=False)
    shares = values**2 / (values**2).sum()
    np.testing.assert_allclose(found.projection.shares[:3], shares[:3], rtol=1e-3)
    overlap = np.abs(np.sum(found.vectors[:2] * vectors[:2], axis=1))
    np.testing.assert_allclose(overlap, 1, atol=1e-3)
    assert (found.vectors[np.arange(2), np.abs(found.vectors[:2]).argmax(1)] > 0).all()
    points = np.array([point[:2] for point in found.projection.points])
    rows = projection.chosen(80, 80)
    np.testing.assert_allclose(np.abs(points), np.abs(centred[rows] @ vectors[:2].T), atol=0.5)
    assert [group for *_, group in found.projection.points] == y[rows].tolist()
    gaps = np.sqrt(((flat[:, None] - flat[None]) ** 2).sum(-1))[~np.eye(80, dtype=bool)]
    assert found.typical == pytest.approx(np.median(gaps), rel=0.05)


def test_blocks_change_nothing(parts: dict[str, Any], seen: Exploration, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is gone through at a time: 60,000 pictures need no more memory than these."""
    monkeypatch.setattr(gather, "_BLOCK", 7 * 60)
    other = explore(parts)
    one, two = seen.to_dict(), other.to_dict()
    for key in one:
        if key not in ("values", "nearest", "farthest", "within", "atypical", "near"):
            assert one[key] == two[key], key
    for key in ("edges", "counts", "constant", "blank"):
        assert one["values"][key] == two["values"][key]
    for key in ("mean", "std", "least", "zeros"):
        assert one["values"][key] == pytest.approx(two["values"][key])
    np.testing.assert_allclose(seen.pictures["means"], other.pictures["means"])


def test_features_are_compared_in_units_of_their_own() -> None:
    """A feature that is a million times as large weighs no more than another."""
    x = RNG.normal(size=(90, 4))
    y = (x[:, 1] > 0).astype(np.int64)
    plain, large = (explore({"train": (x * unit, y)}, test=0, validation=0) for unit in (1, np.array([1e6, 1, 1, 1])))
    assert plain.projection is not None
    assert large.projection is not None
    np.testing.assert_allclose(plain.projection.shares, large.projection.shares, rtol=1e-4)
    assert plain.within == pytest.approx(large.within)
    assert plain.nearest[0].distance == pytest.approx(large.nearest[0].distance, rel=1e-4)


# ---------------------------------------------------------------- twice, or nearly so


def test_twins_are_found_with_their_rows() -> None:
    train, test = pictures(30), pictures(15)
    train[0][5], train[0][9] = train[0][2], train[0][2]  # 5 has the same label, 2 and 9 are of other classes
    test[0][4] = train[0][7]  # 4 and 7: the same class
    test[0][5] = train[0][0]  # 5 and 0: others
    found = explore({"train": train, "test": test}, validation=0)
    within, between = found.twins
    assert (within.splits, within.extra, within.conflicts) == (("train",), 2, 1)
    assert within.shown == ((("train", 2), ("train", 9)), (("train", 2), ("train", 5)))
    assert (between.splits, between.extra, between.conflicts) == (("train", "test"), 2, 1)
    assert set(between.shown) == {(("train", 0), ("test", 5)), (("train", 7), ("test", 4))}
    assert found.splits["train"].different == 28
    text = told(found)
    assert "grave: 2 examples of test are in train too, 1 of them with another label." in text
    assert "grave: 2 examples of train are there before, 1 of them with another label." in text


def test_rows_are_those_of_the_part_that_was_read() -> None:
    """Where test examples are taken from the training part, their rows are its rows."""
    x, y = pictures(60)
    x[40] = x[3]
    found = explore((x, y), test=20, validation=10)
    places = {place for one in found.twins for pair in one.shown for _, place in pair}
    assert places == {3, 40}


def test_nearly_equal_examples() -> None:
    train, test = pictures(60), pictures(30)
    flat = {name: x.reshape(len(x), -1).astype(np.float64) for name, (x, _) in (("train", train), ("test", test))}
    test[0][11] = np.clip(train[0][8].astype(np.int64) + RNG.integers(-1, 2, train[0][8].shape), 0, 255)
    test[0][12] = train[0][9]  # equal: not nearly
    found = explore({"train": train, "test": test}, validation=0)
    flat["test"] = test[0].reshape(30, -1).astype(np.float64)
    gaps = np.sqrt(((flat["test"][:, None] - flat["train"][None]) ** 2).sum(-1))
    (one,) = found.near
    wanted = [row for row in np.flatnonzero(gaps.min(1) <= one.radius) if gaps[row].min() > 0]
    assert wanted == [11]
    assert (one.count, one.splits, one.radius) == (1, ("train", "test"), pytest.approx(0.05 * one.typical))
    ((first, second, gap),) = one.shown
    assert (first, second) == (("train", int(gaps[11].argmin())), ("test", 11))
    assert gap == pytest.approx(gaps[11].min())
    assert "look: 1 example of test is nearly in train (nearer than 5%" in told(found)


# ---------------------------------------------------------------- columns


def test_what_columns_tell_is_what_scipy_says() -> None:
    groups, values = np.repeat([0, 1, 2], [20, 30, 40]), RNG.normal(size=90)
    values[groups == 1] += 0.8
    f = stats.f_oneway(*(values[groups == k] for k in range(3))).statistic
    assert columns.correlation_ratio(values, groups) == pytest.approx(2 * f / (2 * f + 87))
    words = np.where(RNG.random(90) < 0.7, groups, RNG.integers(0, 3, 90))
    counts = np.zeros((3, 3), int)
    np.add.at(counts, (words, groups), 1)
    assert columns.cramer(words, groups) == pytest.approx(stats.contingency.association(counts, method="cramer") ** 2)
    hidden = groups.copy()
    hidden[::2] = -1
    assert columns.correlation_ratio(values, hidden) == pytest.approx(
        columns.correlation_ratio(values[1::2], groups[1::2])
    )
    assert columns.correlation_ratio(np.ones(90), groups) is None
    assert columns.cramer(np.zeros(90, int), groups) is None


TABLE = "id,size,colour,same,copy,label\n" + "".join(
    f"{i},{i % 5 + i / 100},{'red' if i % 3 else 'blue'},1,{'yes' if i % 2 else 'no'},{'a' if i % 2 else 'b'}\n"
    for i in range(80)
)


def test_columns_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "things.csv"
    path.write_text(TABLE.replace("7,2.07", "7,?"))
    found = explore(str(path), target="label", test=0, validation=0)
    by_name = {one.name: one for one in found.columns}
    assert list(by_name) == ["id", "size", "colour", "same", "copy", "label"]
    size = by_name["size"]
    values = np.array([i % 5 + i / 100 for i in range(80) if i != 7])
    assert (size.kind, size.missing, size.different) == ("number", {"train": 1}, len(set(values)))
    assert size.numbers["median"] == pytest.approx(np.median(values))
    assert (size.numbers["mean"], size.numbers["std"]) == (pytest.approx(values.mean()), pytest.approx(values.std()))
    assert sum(size.histogram) == 79
    assert by_name["colour"].words == (("red", 53), ("blue", 27))
    assert by_name["copy"].told == pytest.approx(1.0)
    assert by_name["label"].told is None
    text = told(found)
    assert "look: The same in all training examples: same." in text
    assert "look: size: no value (1 in train)." in text
    assert "grave: copy all but tells the label (100.0% of it)." in text
    assert "colour all but" not in text
    assert found.values is None


def test_a_regression(tmp_path: Path) -> None:
    x = RNG.normal(size=(120, 3))
    y = np.stack([x @ [1.0, 0.0, 2.0], x[:, 1]], 1)
    found = explore({"train": (x, y)}, task="regression", test=40, validation=0)
    assert found.groups == ("lowest quarter", "second quarter", "third quarter", "highest quarter")
    assert found.splits["train"].per_group == (20, 20, 20, 20)
    assert list(found.labels) == ["target1", "target2"]
    assert (
        y[:, 0].min() - 1e-6
        < found.labels["target1"]["least"]
        < found.labels["target1"]["greatest"]
        < y[:, 0].max() + 1e-6
    )
    assert [one.told is not None for one in found.columns] == [True] * 3
    assert found.columns[2].told > found.columns[1].told  # type: ignore[operator]
    assert "labels" not in told(found)
    assert "Targets of the labelled training examples" in explored.render(found)


# ---------------------------------------------------------------- faults


def test_faults_of_labels() -> None:
    x, _ = pictures(120)
    y = np.repeat([0, 1, 2], [90, 22, 8])
    tests = pictures(60)[0], np.repeat([0, 1], 30)
    found = explore({"train": (x, y), "test": tests, "unlabelled": pictures(11)[0]}, validation=0)
    text = told(found)
    assert "look: 0 has 11.2 times as many training labels as 2." in text
    assert "grave: Fewer than 10 training labels: 2." in text
    assert "grave: test has no example of 2." in text
    assert "look: 11 of 131 examples of train carry no label." in text
    assert "look: The classes have other shares in test than in train." in text


def test_blank_and_constant_pictures() -> None:
    x, y = pictures(30)
    x[4] = 9
    x[:, :, :4] = 9
    text = told(explore({"train": (x, y)}, test=0, validation=0))
    assert "1 example holds one number alone." in text
    assert "20 of 30 places hold the same number" in text
    assert "hold" not in told(explore({"train": pictures(30)}, test=0, validation=0))


def test_pictures_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    files: dict[str, Any] = dict(photo_samples.tree({"train": 12, "test": 12}))
    files["train/cats/broken.png"] = b"\x89PNG no more"
    files["test/dogs/000.png"] = files["train/dogs/003.png"]
    folder = photo_samples.write(tmp_path / "photos", files)
    found = explore(folder, validation=0)
    assert "train/cats/broken.png" in told(found)
    assert "left out as duplicates" in told(found)
    assert found.splits["train"].examples == 23
    with pytest.raises(DataError, match=r"broken\.png"):
        explore({"name": str(folder), "corrupt": "refuse"}, validation=0)


def test_nothing_to_mend() -> None:
    assert explore({"train": pictures(90), "test": pictures(45)}, validation=0).faults == ()


@pytest.mark.parametrize("name", ["digits", "diabetes", "linear", "softmax-linear", "privileged"])
def test_built_in_data(name: str) -> None:
    task = "regression" if name in ("diabetes", "linear") else "multiclass"
    found = explore(name, task=task)  # type: ignore[arg-type]
    assert found.splits["train"].examples > 50
    assert "test" in found.splits
    Parsed(explored.render(found))


def test_real_data(real_data: Path) -> None:
    found = explore("fashion-mnist", folder=real_data)
    assert (found.nearest[0].first, found.nearest[0].second) == ("Pullover", "Shirt")
    assert found.shape == (1, 28, 28)


# ---------------------------------------------------------------- page and command


def test_the_page(seen: Exploration) -> None:
    text = explored.render(seen)
    assert text == explored.render(seen)
    page = Parsed(text)
    (policy,) = [a["content"] for tag, a, _ in page.all if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    for tag, attributes, _ in page.all:
        assert tag not in ("script", "iframe", "object", "link", "form")
        assert not any(key.startswith("on") or key == "style" for key in attributes)
        if "src" in attributes:
            assert attributes["src"].startswith("data:image/png;base64,")
            assert attributes["alt"]
        if "href" in attributes:
            assert attributes["href"][1:] in ids
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert ET.fromstring(drawing).get("role") == "img"
        assert not re.search(r"#[0-9a-f]{6}\b", drawing.replace("href", "")), "a colour that dark mode cannot change"
    assert "Whoever reads this page has looked at them." in page.texts("main")[0]
    assert len([1 for tag, *_ in page.all if tag == "img"]) == 3 + 3 + 1
    assert page.texts("h2") == [
        *("To look at", "Splits and labels", "Values", "Mean pictures", "Distances of the means", "Duplicates"),
        *("Two principal components", "Examples"),
    ]


def test_without_test_examples_nobody_has_looked() -> None:
    found = explore({"train": pictures(30)}, test=0, validation=0)
    assert "Whoever reads this page" not in explored.render(found)


def test_names_of_strangers_do_no_harm(tmp_path: Path) -> None:
    hostile = '<script>alert("x")</script>'
    x, y = pictures(30)
    found = explore({"train": (x, y), "classes": [hostile, "b & c", "d" * 90]}, test=0, validation=0)
    page = Parsed(explored.render(found))
    assert "script" not in {tag for tag, *_ in page.all}
    assert hostile in page.texts("main")[0]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)

    def ask(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = call(["explore", *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return ask


def test_the_command(run: Callable[..., Any]) -> None:
    x, y = pictures(60)
    x[1], x[30] = x[0], x[0]
    np.savez("mine.npz", inputs=x, labels=y)
    status, out, _ = run("mine.npz", "--test", "12", "--validation", "0")
    assert status == 0
    assert "whoever reads it has taken a look at them" in out
    assert "! " in out
    assert out.rstrip().endswith("Page: explored/mine.html")
    assert Parsed(Path("explored/mine.html").read_text()).texts("h1") == ["Data: mine"]
    status, out, _ = run("mine.npz", "--test", "12", "--validation", "0", "--json", "--out", "page.html")
    found = json.loads(out)
    assert found["splits"]["test"]["examples"] == 12
    assert found == json.loads(json.dumps(explore("mine.npz", test=12, validation=0).to_dict()))
    assert Path("page.html").is_file()
    for wrong, words in {
        ("digitz",): ['Unknown data source "digitz"', 'Did you mean "digits"'],
        ("mine.npz", "--task", "regresion"): ['Did you mean "regression"'],
        ("mine.npz", "--target", "label"): ["to take a target from"],
    }.items():
        status, out, err = run(*wrong)
        assert (status, out) == (2, "")
        assert all(word in err for word in words)


def test_a_table_by_command(run: Callable[..., Any]) -> None:
    Path("things.csv").write_text(TABLE)
    status, out, _ = run("things.csv", "--target", "label", "--test", "0", "--validation", "0")
    assert status == 0
    assert "copy all but tells the label" in out
    page = Parsed(Path("explored/things.html").read_text())
    assert "blue" in page.texts("main")[0]
    assert ps.data.open("things.csv", target="label", test=0).train.spec.shape  # read as it is for training


@pytest.mark.parametrize("falls", [2.0, 50.0, 5000.0])
def test_figures_are_drawn_for_a_telephone(falls: float) -> None:
    with theme.drawing():
        drawn = [
            explored_figures.counts(["a", "b"], {"train": [9, 8], "validation": [2, 1], "test": [3, 3]}, prefix="a"),
            explored_figures.histogram([0, 1, 2], {"train": [round(1000 * falls), 1000]}, prefix="b"),
            explored_figures.scatter([(0.0, 0.0, 0), (1.0, 1.0, 1)], ["a", "b"], [0.5, 0.2], prefix="c"),
        ]
    for one in drawn:
        root = ET.fromstring(one)
        assert float(str(root.get("viewBox")).split()[2]) <= 380, "text of 9.5 units is one of 9 pixels there"
        texts = [text.text or "" for text in root.iter("{http://www.w3.org/2000/svg}text")]
        assert not any("$" in text for text in texts), "mathematics that no browser reads"
    shares = [t for t in ET.fromstring(drawn[1]).iter("{http://www.w3.org/2000/svg}text") if float(t.get("x", 99)) < 56]
    assert 3 <= len([t for t in shares if (t.text or "").replace(".", "").isdigit()]) <= 9, "ticks of the shares"
