"""Exploring texts: every number against loops over the texts, every fault planted and found, the page, the command."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from test_report import Parsed

from potstill.cli import call
from potstill.data.text import words_of
from potstill.errors import DataError
from potstill.explore import explore, telling, text_faults, texts
from potstill.explore.found import Exploration
from potstill.report import explored, explored_texts

RNG = np.random.default_rng(3)
WORDS = tuple(f"{a}{b}{c}" for a in "bdfglmnprst" for b in "aeiou" for c in "klmnrs")
OWN = {"glad": ("good", "love", "thanks"), "sad": ("bad", "miss", "sorry")}


def sentence(label: str, at: int) -> str:
    """Eight to fourteen words, as likely for both labels but for one of its own in two thirds of them."""
    words = RNG.choice(WORDS, 8 + at % 7, p=CHANCE).tolist()
    if at % 3:
        words[at % 5] = str(RNG.choice(OWN[label]))
    return " ".join(map(str, words))


CHANCE = 1 / np.arange(4, len(WORDS) + 4)
CHANCE /= CHANCE.sum()


def rows(n: int) -> list[tuple[str, str]]:
    """(label, text), the labels in turns."""
    return [(label, sentence(label, i)) for i in range(n) for label in [("glad", "sad")[i % 2]]]


def written(path: Path, content: list[tuple[str, ...]], head: tuple[str, ...] = ("label", "text")) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([head, *content])
    path.write_text(out.getvalue(), encoding="utf-8")
    return str(path)


def look(folder: Path, train: list[tuple[str, str]], test: list[tuple[str, str]] | None = None) -> Exploration:
    """With a test set from another file."""
    sets = {"new": written(folder / "new.csv", test)} if test else 0
    return explore(written(folder / "train.csv", train), target="label", validation=0, test=sets)


def told(found: Exploration) -> str:
    return "\n".join(f"{'grave' if fault.grave else 'look'}: {fault.what}" for fault in found.faults)


@pytest.fixture(scope="module")
def train() -> list[tuple[str, str]]:
    return rows(400)


@pytest.fixture(scope="module")
def test() -> list[tuple[str, str]]:
    return rows(120)


@pytest.fixture(scope="module")
def seen(
    train: list[tuple[str, str]], test: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Exploration:
    return look(tmp_path_factory.mktemp("texts"), train, test)


# ---------------------------------------------------------------- numbers against loops


def test_texts_drawn_alike_need_no_mending(seen: Exploration) -> None:
    assert seen.form == "texts"
    assert seen.faults == ()
    assert (seen.values, seen.projection, seen.near, seen.nearest, seen.twins) == (None, None, (), (), ())
    assert [one.name for one in seen.columns] == ["label"]
    assert seen.splits["new"].examples == 120


def test_lengths(seen: Exploration, train: list[tuple[str, str]]) -> None:
    assert seen.texts is not None
    told = seen.texts.splits["train"]
    for group, one in [(None, told.whole), *zip(seen.groups, told.groups, strict=True)]:
        mine = [text for label, text in train if group in (None, label)]
        assert one is not None
        assert one.texts == len(mine)
        for lengths, counts in ((one.words, [len(t.split()) for t in mine]), (one.characters, list(map(len, mine)))):
            assert (lengths.least, lengths.greatest) == (min(counts), max(counts))
            assert (lengths.median, lengths.mean) == (np.median(counts), pytest.approx(np.mean(counts)))
            assert (lengths.low, lengths.high) == tuple(np.quantile(counts, [0.05, 0.95]))
    assert told.tokens == sum(len(text.split()) for _, text in train)
    counts = Counter(len(text.split()) for _, text in train)
    for low, high, count in zip(seen.texts.edges[:-1], seen.texts.edges[1:], told.counts, strict=True):
        assert count == sum(counts[n] for n in range(int(low + 1), int(high + 1)))


def test_unknown_words_are_told_of_training_texts_by_the_others(tmp_path: Path) -> None:
    train, test = rows(60), rows(30)
    found = look(tmp_path, train, test).texts
    assert found is not None
    cut = {name: [words_of(text) for _, text in part] for name, part in (("train", train), ("new", test))}
    spread = Counter(word for words in cut["train"] for word in set(words))
    for name, lacks in (("train", lambda w: spread[w] == 1), ("new", lambda w: w not in spread)):
        some = np.array([sum(map(lacks, words)) for words in cut[name]])
        of = np.array([len(words) for words in cut[name]])
        share = some.sum() / of.sum()
        one = found.splits[name]
        assert one.unknown == pytest.approx(share) != 0
        drawn = RNG.integers(0, len(of), (4000, len(of)))  # a bootstrap over texts
        assert one.error == pytest.approx((some[drawn].sum(1) / of[drawn].sum(1)).std(), rel=0.1)
    assert (found.vocabulary, found.once) == (len(spread), sum(count == 1 for count in spread.values()))


def test_words_that_tell(seen: Exploration, train: list[tuple[str, str]]) -> None:
    assert seen.texts is not None
    having = {label: Counter(w for mine, text in train if mine == label for w in set(text.split())) for label in OWN}
    for group, words, common in zip(seen.groups, seen.texts.telling, seen.texts.frequent, strict=True):
        other = "sad" if group == "glad" else "glad"
        assert {one.word for one in words[:3]} == set(OWN[group])
        for one in (words[0], common[0]):
            a, c = having[group][one.word], having[other][one.word]
            assert (one.inside, one.outside) == (a / 200, c / 200)
            odds = np.array([a, 200 - a, c, 200 - c]) + 0.5
            assert one.z == pytest.approx(np.log(odds[0] * odds[3] / odds[1] / odds[2]) / np.sqrt((1 / odds).sum()))
        assert common[0].inside * 200 == max(having[group].values())


def test_what_a_word_tells_is_what_scipy_says() -> None:
    counts, sizes = np.array([[30, 2, 9], [5, 5, 5], [40, 20, 10], [0, 0, 0]]), np.array([40, 20, 10])
    found = telling.told(counts, sizes)
    for row in range(2):
        table = np.stack([counts[row], sizes - counts[row]])
        assert found[row] == pytest.approx(stats.contingency.association(table, method="cramer") ** 2)
    assert found[2:].tolist() == [0, 0]  # everywhere, and nowhere
    assert telling.told(np.array([[7, 0]]), np.array([7, 9]))[0] == pytest.approx(1)


def test_texts_that_read_like_another_group() -> None:
    """Naive Bayes over the words of a text, its own counts left out, against loops."""
    content = [("a", "x y"), ("a", "x z"), ("b", "u v"), ("b", "u y"), ("a", "u v"), ("b", "u u w"), ("c", "w z"),
               ("", "x x x")]  # fmt: skip
    groups = np.array(["abc".find(label or "?") for label, _ in content])
    vocabulary: dict[str, int] = {}
    ids = texts.cut([text for _, text in content], vocabulary, grow=True)
    counted = telling.count(ids.ids, ids.text, groups, len(vocabulary), 3)
    wanted = {}
    for row, (label, text) in enumerate(content):
        score = {}
        for k in "abc":
            others = [set(t.split()) for i, (mine, t) in enumerate(content) if mine == k and i != row]
            score[k] = np.log(len(others) + 0.5) + sum(
                np.log((sum(w in one for one in others) + 0.5) / (len(others) + 1)) for w in set(text.split())
            )
        if label and (like := max((k for k in "abc" if k != label), key=lambda k: score[k])):
            wanted[row] = ("abc".find(like), score[like] - score[label])
    found = telling.against(ids.ids, ids.text, groups, counted)
    assert [row for row, *_ in found] == sorted((r for r in wanted if wanted[r][1] > 0), key=lambda r: -wanted[r][1])
    assert found[0][0] == 4
    for row, like, by in found:
        assert (like, by) == (wanted[row][0], pytest.approx(wanted[row][1]))


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ("@Ann  Good  morning!!! http://a.b/c?d", "@user good morning http"),
        ("good morning &amp; www.x.org", "good morning http"),
        (":-) :-)", ":-) :-)"),
        ("", ""),
    ],
)
def test_a_text_without_its_writing(raw: str, wanted: str) -> None:
    assert texts.normal(raw) == wanted


@pytest.mark.parametrize(
    ("marker", "has", "lacks"),
    [
        ("mention", "hi @ann", "a @ b"),
        ("link", "see http://x.y", "www"),
        ("hashtag", "#one", "# one"),
        ("HTML entity", "a &lt; b &#39;", "AT&T; & co"),
        ("HTML tag", "a<br/>b", "a < b > c"),
        ("smiley", "well :-)", "10:30 (p. 8)"),
        ("smiley", "\U0001f600", "\u00e9"),
        ("digit", "a1", "one"),
        ("capitals only", "NO 1!", "No"),
        ("broken characters", "caf\u00c3\u00a9", "caf\u00e9 \u00c3o"),
        ("broken characters", "don\u00e2\u20ac\u2122t", "don\u2019t"),
    ],
)
def test_markers(marker: str, has: str, lacks: str) -> None:
    assert texts.MARKERS[marker](has)
    if marker != "HTML entity":
        assert not texts.MARKERS[marker](lacks)


# ---------------------------------------------------------------- faults


def changed(some: list[tuple[str, str]], change: Callable[[str, str, int], str]) -> list[tuple[str, str]]:
    return [(label, change(label, text, i)) for i, (label, text) in enumerate(some)]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda k, t, _: t + " zzz" * (k == "sad"), 'grave: The word "zzz" all but tells the label: 100 % of the texts '
         "of sad have it, and 0 % of the others."),
        (lambda k, t, i: t + f" @ann{i}" * (k == "glad" or i % 3), "look: Mentions are in 100 % of the training "
         "texts of glad and in 66 % of those of sad."),
        (lambda k, t, i: t + f" http://a{i}.b" * (k == "glad"), "grave: Links are in 100 % of the training texts of "
         "glad and in 0 % of those of sad."),
        (lambda k, t, i: t + " caf\u00c3\u00a9" * (k == "sad" and i % 9 == 0), "look: Broken characters are in 11 % of "
         "the training texts of sad and in 0 % of those of glad."),
        (lambda k, t, _: t + " so" * 30 * (k == "sad"), "of the label."),
        (lambda _, t, i: t.replace(" ", " &amp; ", 1) if i < 9 else t, "look: Texts with HTML entities: 9 in train."),
        (lambda _, t, i: t if i else "", "look: Texts without any word: 1 in train."),
        (lambda _, t, i: t + " so" * 70 * (i % 3 == 0), "of the training texts have more than 64 words."),
    ],
)  # fmt: skip
def test_faults_are_found(
    tmp_path: Path, train: list[tuple[str, str]], change: Callable[[str, str, int], str], fault: str
) -> None:
    assert fault in told(look(tmp_path, changed(train, change)))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda t, i: t + " 12" * (i % 2), "look: Digits are in 50 % of the texts of new, and in 0 % of train."),
        (lambda t, i: t + " quu qui quo"[: 4 * (i % 4)], "of the words of new are in no training text; of a training "
         "text,"),
        (lambda t, i: t if i else "", "look: Texts without any word: 1 in new."),
    ],
)  # fmt: skip
def test_faults_of_another_split_are_found(
    tmp_path: Path,
    train: list[tuple[str, str]],
    test: list[tuple[str, str]],
    change: Callable[[str, int], str],
    fault: str,
) -> None:
    assert fault in told(look(tmp_path, train, changed(test, lambda _, text, i: change(text, i))))


@pytest.mark.parametrize(
    ("there", "here", "fault"), [(0.05, 0.06, False), (0.05, 0.16, True), (0.003, 0.01, True), (0.003, 0.008, False)]
)
def test_markers_of_another_split_are_told_where_they_differ_much(
    seen: Exploration, there: float, here: float, fault: bool
) -> None:
    """However sure the difference is: here the shares are those of a hundred thousand texts."""
    assert seen.texts is not None
    splits = {}
    for (name, one), share in zip(seen.texts.splits.items(), (there, here), strict=True):
        markers = dict.fromkeys(one.whole.markers, 0) | {"link": int(100_000 * share)}
        splits[name] = replace(one, whole=replace(one.whole, texts=100_000, markers=markers), groups=(None, None))
    found = text_faults.faults(replace(seen.texts, splits=splits), seen.groups, 1e-4)
    assert any(one.what.startswith("Links are in") for one in found) == fault


def test_texts_that_are_there_in_another_writing(tmp_path: Path) -> None:
    train, test = rows(60), rows(30)
    train[7] = (train[7][0], f"@ann  {train[2][1].upper()}!")  # glad and sad
    train[2] = (train[2][0], f"@bob {train[2][1]}")
    test[4] = (test[4][0], f"@you: {train[20][1]} :-)")  # both glad; but for a mention more
    train[20] = (train[20][0], f"@me {train[20][1]}")
    test[5] = train[31]  # equal as it is
    found = look(tmp_path, train, test)
    assert found.texts is not None
    within, between = found.texts.twins
    assert (within.splits, within.extra, within.conflicts) == (("train",), 1, 1)
    assert within.shown == ((("train", 2), ("train", 7)),)
    assert (between.splits, between.extra, between.conflicts) == (("train", "new"), 1, 0)
    assert between.shown == ((("train", 20), ("new", 4)),)
    assert [(one.splits, one.extra) for one in found.twins] == [(("train", "new"), 1)]
    assert found.texts.shown["new 4"] == test[4][1]
    text = told(found)
    assert (
        "look: There before but for case, mentions, links, blanks and signs: 1 in train (1 with another label)." in text
    )
    assert "look: In two splits but for case, mentions, links, blanks and signs: 1 in train and new." in text
    assert "grave: 1 example of new is in train too." in text


# ---------------------------------------------------------------- which column, which table


def test_a_table_with_texts_and_other_columns(tmp_path: Path) -> None:
    kinds = ("one of the first kind", "one of the second", "none of them")
    content = [(k, text, str(i % 5), sentence(k, i), kinds[i % 3]) for i, (k, text) in enumerate(rows(80))]
    path = written(tmp_path / "t.csv", content, ("label", "title", "stars", "body", "kind"))
    found = explore(path, target="label", validation=0, test=20)
    assert found.texts is not None
    assert (found.texts.column, found.texts.others) == ("title", ("body",))
    assert [one.name for one in found.columns] == ["stars", "kind", "label"]
    assert "look: body holds texts too; this is title." in told(found)
    other = explore(path, target="label", validation=0, test=20, text="body").texts
    assert other is not None
    assert (other.column, other.others) == ("body", ("title",))
    named = {"name": path, "categorical": ["title", "body"]}
    assert explore(named, target="label", validation=0, test=20).form == "table"
    stars = explore(path, target="label", validation=0, test=20, text="stars").texts
    assert stars is not None
    assert stars.vocabulary == 5
    for wrong, words in (("boddy", 'Did you mean "body"'), ("label", "this column is the target")):
        with pytest.raises(DataError, match=words):
            explore(path, target="label", text=wrong)
    with pytest.raises(DataError, match="no table with columns"):
        explore("digits", text="body")


def test_texts_of_a_regression(tmp_path: Path) -> None:
    content = [(f"{i / 7}", text) for i, (_, text) in enumerate(rows(80))]
    found = explore(written(tmp_path / "t.csv", content, ("price", "text")), task="regression", target="price", test=0)
    assert found.texts is not None
    assert [len(words) > 0 for words in found.texts.frequent] == [True] * 4
    assert "Texts of" in explored.render(found)


def test_texts_without_labels_count_as_texts(tmp_path: Path) -> None:
    some = rows(60)
    found = look(tmp_path, [("" if i % 10 == 0 else label, text) for i, (label, text) in enumerate(some)])
    assert found.texts is not None
    one = found.texts.splits["train"]
    assert one.whole.texts == 60
    assert sum(group.texts for group in one.groups if group) == 54
    assert found.texts.vocabulary == len({word for _, text in some for word in text.split()})


# ---------------------------------------------------------------- page and command


def test_the_page(seen: Exploration, train: list[tuple[str, str]]) -> None:
    text = explored.render(seen)
    assert text == explored.render(seen)
    page = Parsed(text)
    assert page.texts("h2") == [
        *("To look at", "Splits and labels", "Texts", "Words", "Columns", "Duplicates", "Examples"),
    ]
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for tag, a, _ in page.all if tag == "a"} <= set(ids)
    body = page.texts("main")[0]
    assert "Words of a text" in text
    assert "520 examples: texts, 2 classes" in page.texts("header")[0]
    assert seen.texts is not None
    for example in (one for some in seen.texts.examples for one in some):
        assert (example.group, example.text) == train[example.row]
        assert example.text in body
    assert f"{explored_texts.percent(seen.texts.splits['new'].unknown)}" in body


def test_texts_of_strangers_do_no_harm(tmp_path: Path) -> None:
    hostile = '<script>alert("x")</script> <b>and more of that</b>'
    some = [*rows(60), ("glad", hostile), ("sad", "a\x01b \U0001f600 " + "so long " * 90)]
    text = explored.render(look(tmp_path, some))
    assert "\x01" not in text
    page = Parsed(text)
    assert "script" not in {tag for tag, *_ in page.all}
    assert hostile not in page.texts("title")
    assert "HTML tag" in page.texts("main")[0]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    some = rows(60)
    written(Path("train.csv"), some)
    written(Path("other.csv"), [some[0], *rows(20)])

    def run(*arguments: str) -> tuple[int, Any]:
        status = call(["explore", "train.csv", "--target", "label", "--validation", "0", *arguments])
        return status, capsys.readouterr()

    status, said = run("--test", '{ other = "other.csv" }')
    assert status == 0
    assert "1 example of other is in train too" in " ".join(said.out.split())
    assert "Page: explored/train.html" in said.out
    status, said = run("--test", "0", "--text", "text", "--json")
    assert json.loads(said.out)["texts"]["column"] == "text"
    for wrong in (("--test", "other.csv"), ("--text", "txt")):
        assert run(*wrong)[0] == 2


def test_real_tweets(real_data: Path) -> None:
    found = explore("tweets", folder=real_data, validation=0)
    assert found.texts is not None
    assert "thanks" in {one.word for one in found.texts.telling[1]}
    assert "sad" in {one.word for one in found.texts.telling[0]}
    assert "Texts with HTML entities" in told(found)
    Parsed(explored.render(found))
