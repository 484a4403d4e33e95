"""Texts: words, hashing, tf-idf, word ids and their networks, sentence embeddings, errors in words."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from study_samples import run
from torch import nn

import potstill as ps
from potstill import evaluation, networks, outputs, report, storage
from potstill.cli.entry import call
from potstill.data import cache, declared, text
from potstill.data.sparse import Sparse
from potstill.errors import DataError, MissingExtraError, NetworkError
from potstill.networks.words import lengths_of
from potstill.study import telling

RNG = np.random.default_rng(0)
N = 120
LABELS = np.arange(N) % 2
GOOD, BAD, OTHER = ("great", "love", "don't"), ("sad", "hate", ":-("), ("the", "@ann", "day", "it", "...")
TEXTS = [
    " ".join([*RNG.choice(GOOD if label else BAD, 2), *RNG.choice(OTHER, int(RNG.integers(1, 5)))])
    for label in LABELS.tolist()
]
TWO = {
    "words": {"column": "text", "as": "hashing", "width": 64},
    "tokens": {"column": "text", "as": "tokens", "length": 9},
}
PARTS: dict[str, Any] = {"validation": 20, "test": 30}


def table(texts: list[str] | None = None, labels: Any = LABELS) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["label", "text"])
    writer.writerows(zip(labels, texts or TEXTS, strict=True))
    return out.getvalue()


def written(folder: Path, content: str | None = None, name: str = "tweets.csv") -> str:
    (folder / name).write_text(content or table(), encoding="utf-8")
    return str(folder / name)


def opened(folder: Path, inputs: Any, **options: Any) -> Any:
    return ps.data.open(written(folder), target="label", inputs=inputs, **(PARTS | options))


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "mask", "wanted"),
    [
        ("It's GREAT!! :-)", False, ["it's", "great", "!!", ":-)"]),
        ("@Ann_1 @bob: no.", False, ["@ann_1", "@bob", ":", "no", "."]),
        ("@Ann_1 @bob: no.", True, ["@user", "@user", ":", "no", "."]),
        ("  \u00dcber caf\u00e9 3.5  ", False, ["\u00fcber", "caf\u00e9", "3", ".", "5"]),
        ("", True, []),
    ],
)
def test_words_of_a_text(raw: str, mask: bool, wanted: list[str]) -> None:
    assert text.words_of(raw, mask=mask) == wanted


# --- sparse rows -----------------------------------------------------------------------------------------------------


def test_sparse_rows_are_dense_ones_in_little_room() -> None:
    from scipy.sparse import csr_array

    dense = torch.where(torch.rand(50, 30) < 0.1, torch.randn(50, 30), 0.0)
    dense[7] = 0
    packed = csr_array(dense.numpy())
    rows = Sparse(
        torch.from_numpy(packed.indptr.astype(np.int64)),
        torch.from_numpy(packed.indices.astype(np.int32)),
        torch.from_numpy(packed.data),
        30,
    )
    assert (len(rows), tuple(rows.shape), rows.dtype) == (50, (50, 30), torch.float32)
    for index in (torch.tensor([3, 7, 3, 49]), torch.arange(50), torch.tensor([7]), torch.zeros(0, dtype=torch.int64)):
        assert torch.equal(rows.index_select(0, index), dense[index])
    assert torch.equal(rows[4:9], dense[4:9])
    for wrong in (torch.tensor([50]), torch.tensor([-1])):
        with pytest.raises(IndexError):
            rows.index_select(0, wrong)


# --- hashing and tf-idf ----------------------------------------------------------------------------------------------


def cut(texts: list[str], ngrams: int = 1, mask: bool = False) -> list[list[str]]:
    found = []
    for one in texts:
        words = text.words_of(one, mask=mask)
        found.append([" ".join(words[i : i + n]) for n in range(1, ngrams + 1) for i in range(len(words) - n + 1)])
    return found


@pytest.mark.parametrize(("ngrams", "mask"), [(1, False), (2, True)])
def test_hashed_words(tmp_path: Path, ngrams: int, mask: bool) -> None:
    """Against counts by scikit-learn's hash function, word by word."""
    from sklearn.utils import murmurhash3_32

    keys = {"column": "text", "as": "hashing", "width": 16, "ngrams": ngrams, "mask": mask}
    found = opened(tmp_path, {"words": keys})
    assert found.spec.shape == (16,)
    wanted = np.zeros((N, 16))
    for row, words in zip(wanted, cut(TEXTS, ngrams, mask), strict=True):
        for word in words:
            number = murmurhash3_32(word.encode())
            row[abs(number) % 16] += 1 if number >= 0 else -1
    wanted /= np.maximum(np.linalg.norm(wanted, axis=1, keepdims=True), 1e-12)
    for part in (found.train, found.validation, found.test):
        assert np.allclose(part.fetch(torch.arange(len(part))).inputs, wanted[part.rows], atol=1e-6)
        assert torch.equal(part.block(2, 5), part.fetch(torch.arange(2, 5)).inputs)
        assert isinstance(part.raw, Sparse)


def test_rare_words_weigh_more(tmp_path: Path) -> None:
    """tf-idf against its formula, from the training rows alone."""
    found = opened(tmp_path, {"words": {"column": "text", "as": "tfidf", "least": 3}})
    rows = found.train.rows.tolist()
    documents = Counter(word for row in rows for word in set(text.words_of(TEXTS[row])))
    words = sorted(word for word, count in documents.items() if count >= 3)
    assert found.spec.recipe["words"] == words
    weight = {word: math.log((1 + len(rows)) / (1 + documents[word])) + 1 for word in words}
    counts = [Counter(text.words_of(one)) for one in TEXTS]
    wanted = np.array([[count[word] * weight[word] for word in words] for count in counts])
    wanted /= np.maximum(np.linalg.norm(wanted, axis=1, keepdims=True), 1e-12)
    for part in (found.train, found.test):
        assert np.allclose(part.fetch(torch.arange(len(part))).inputs, wanted[part.rows], atol=1e-6)
    fewer = opened(tmp_path, {"words": {"column": "text", "as": "tfidf", "features": 4}})
    assert fewer.spec.shape == (4,)


# --- word ids --------------------------------------------------------------------------------------------------------


def test_word_ids(tmp_path: Path) -> None:
    found = opened(tmp_path, {"tokens": {"column": "text", "as": "tokens", "length": 4, "least": 2, "words": 9}})
    count = Counter(word for row in found.train.rows.tolist() for word in text.words_of(TEXTS[row]))
    vocabulary = sorted(count, key=lambda word: (-count[word], word))[:9]
    assert found.spec.recipe["vocabulary"] == vocabulary
    assert found.spec.vocabulary == 11
    assert found.spec.shape == (4,)
    place = {word: i for i, word in enumerate(vocabulary, 2)}
    for part in (found.train, found.test):
        ids = part.fetch(torch.arange(len(part))).inputs
        assert ids.dtype == torch.int64
        for row, one in zip(part.rows.tolist(), ids.tolist(), strict=True):
            wanted = [place.get(word, 1) for word in text.words_of(TEXTS[row])][:4]
            assert one == wanted + [0] * (4 - len(wanted))
        assert torch.equal(part.block(1, 3), ids[1:3])


def test_training_rows_alone_make_the_vocabulary(tmp_path: Path) -> None:
    kinds = {"tokens": TWO["tokens"], "rare": {"column": "text", "as": "tfidf"}}
    first = opened(tmp_path, kinds)
    held = {int(first.test.rows[0]), int(first.validation.rows[0])}
    odd = ["zebra zebra zebra" if row in held else one for row, one in enumerate(TEXTS)]
    second = ps.data.open(written(tmp_path, table(odd), "odd.csv"), target="label", inputs=kinds, **PARTS)
    for name in kinds:
        assert first.train.several[name].spec.recipe == second.train.several[name].spec.recipe
    assert second.test.seeing("tokens").fetch(torch.tensor([0])).inputs[0, :4].tolist() == [1, 1, 1, 0]
    assert not second.test.seeing("rare").fetch(torch.tensor([0])).inputs.any()


def test_what_a_column_became_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    kinds = {**TWO, "rare": {"column": "text", "as": "tfidf"}}
    first = opened(tmp_path, kinds)
    monkeypatch.setattr(text, "words_of", lambda *_, **__: pytest.fail("cut again"))
    second = opened(tmp_path, kinds)
    index = torch.arange(len(first.train))
    for name in kinds:
        one, two = first.train.seeing(name), second.train.seeing(name)
        assert torch.equal(one.fetch(index).inputs, two.fetch(index).inputs)
        assert one.spec == two.spec
    (damaged,) = {path.parent for path in (tmp_path / "cache").rglob("ids.npy")}
    storage.write_bytes(damaged / "ids.npy", b"x")
    assert cache._read(damaged) is None
    monkeypatch.undo()
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    third = opened(tmp_path, kinds).train.seeing("tokens")
    assert torch.equal(third.fetch(index).inputs, first.train.seeing("tokens").fetch(index).inputs)


FAULTS: list[tuple[Any, str]] = [
    ({"a": {"column": "tex", "as": "hashing"}}, 'Unknown column "tex". Did you mean "text"'),
    ({"a": {"column": "label", "as": "tokens"}}, '"label" is a target'),
    ({"a": {"column": "text"}}, r"say what is to be made of them: as = KIND, which can be array, embedding, hashing"),
    ({"a": {"column": "text", "as": "hasing"}}, 'Unknown kind of input "hasing". Did you mean "hashing"'),
    ({"a": {"as": "tokens"}}, 'needs the key "column"'),
    ({"a": {"column": "text", "as": "hashing", "width": 0}}, "width .* is 0"),
    ({"a": {"column": "text", "as": "tokens", "length": 0}}, "length .* is 0"),
    ({"a": {"column": "text", "as": "tfidf", "least": 1000}}, "has no words to learn from"),
]


@pytest.mark.parametrize(("inputs", "message"), FAULTS)
def test_faulty_text_inputs_are_refused(tmp_path: Path, inputs: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(tmp_path, inputs)


def test_texts_are_of_tables() -> None:
    with pytest.raises(DataError, match="is no table"):
        ps.data.open("digits", inputs={"a": {"column": "text", "as": "hashing"}})


# --- networks of word ids --------------------------------------------------------------------------------------------

ROWS: dict[str, dict[str, Any]] = {
    "bilstm": {"name": "bilstm", "hidden": 5, "width": 4},
    "embedding_bag": {"name": "embedding_bag", "width": 4},
}
DIALS: list[dict[str, Any]] = [*ROWS.values(), {**ROWS["bilstm"], "pooling": "mean"}]
IDS = torch.tensor([[3, 5, 2, 0, 0, 0], [4, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 0]])


def test_every_network_of_words_has_a_row() -> None:
    assert set(ROWS) == set(networks.names(words=True)) == set(networks.ON_WORDS)
    assert not set(networks.names()) & set(networks.ON_WORDS)


@pytest.mark.parametrize("spec", DIALS, ids=str)
def test_padding_changes_no_answer(spec: dict[str, Any]) -> None:
    network = networks.seeded(spec, (6,), 3, seed=0, vocabulary=9).eval()
    with torch.no_grad():
        found = network(IDS)
        assert found.shape == (4, 3)
        assert found.isfinite().all()
        for row, ids in enumerate(IDS):
            alone = ids[: max(int((ids != 0).sum()), 1)][None]
            assert torch.allclose(network(alone)[0], found[row], atol=1e-6)
            longer = torch.cat([alone, torch.zeros(1, 5, dtype=torch.int64)], 1)
            assert torch.allclose(network(longer)[0], found[row], atol=1e-6)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(network(IDS[order]), found[order], atol=1e-6)
    network.train()
    network(IDS).sum().backward()
    embedding = next(m for m in network.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)))
    assert not embedding.weight.grad[0].any()  # type: ignore[index]
    assert embedding.weight.grad[3].any()  # type: ignore[index]


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_bilstm_against_two_lstms_word_by_word(pooling: str) -> None:
    """Each direction by torch's cell on one text at a time, without padding."""
    network = networks.build({**ROWS["bilstm"], "pooling": pooling}, (6,), 2, vocabulary=9).eval()
    lstm, table_ = network.encoder.lstm, network.encoder.embedding.weight

    def one_way(words: torch.Tensor, suffix: str) -> list[torch.Tensor]:
        cell = nn.LSTMCell(4, 5)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        cell.load_state_dict({name: getattr(lstm, f"{name}_l0{suffix}") for name in names})
        state, out = (torch.zeros(1, 5), torch.zeros(1, 5)), []
        for word in words:
            state = cell(word[None], state)
            out.append(state[0][0])
        return out

    with torch.no_grad():
        for ids in IDS[:3]:
            words = table_[ids[ids != 0]]
            forwards, backwards = one_way(words, ""), one_way(words.flip(0), "_reverse")[::-1]
            states = torch.stack([torch.cat(pair) for pair in zip(forwards, backwards, strict=True)])
            pooled = states.amax(0) if pooling == "max" else states.mean(0)
            assert torch.allclose(network.head(pooled), network(ids[None])[0], atol=1e-6)


def test_lengths_of_texts() -> None:
    assert lengths_of(IDS).tolist() == [3, 1, 6, 1]
    assert lengths_of(torch.tensor([[0, 3, 0]])).tolist() == [2]


def test_sizes_of_networks_of_words() -> None:
    network = networks.build(ROWS["bilstm"], (6,), 3, vocabulary=9)
    lstm = 2 * 4 * 5 * (4 + 5)
    assert networks.cost(network, (6,), vocabulary=9)[:2] == (9 * 4 + lstm + 2 * 2 * 4 * 5 + 10 * 3 + 3, 6 * lstm + 30)
    bag = networks.build("embedding_bag:4", (6,), 3, vocabulary=9)
    assert networks.cost(bag, (6,), vocabulary=9)[:2] == (9 * 4 + 4 * 3 + 3, 12)


REFUSED: list[tuple[Any, tuple[int, ...], int, str]] = [
    ("linear", (6,), 9, "linear takes numbers, and these examples are word ids"),
    ("bilstm", (6,), 0, 'bilstm takes word ids, .* as = "tokens"'),
    ("bilstm", (1, 6, 6), 9, r"bilstm takes word ids .length,."),
    ("bilstm:0", (6,), 9, "hidden is 0"),
    ({"name": "bilstm", "dropout": 1.0}, (6,), 9, "dropout is 1.0"),
    ({"name": "embedding_bag", "width": 0}, (6,), 9, "width is 0"),
    (lambda shape, outputs: nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, outputs)), (6,), 9, "wanted are logits"),
]


@pytest.mark.parametrize(("spec", "shape", "vocabulary", "message"), REFUSED)
def test_networks_of_words_are_checked(spec: Any, shape: tuple[int, ...], vocabulary: int, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        networks.build(spec, shape, 2, vocabulary=vocabulary)


def test_dropout_makes_a_layer_of_its_own() -> None:
    network = networks.build({**ROWS["embedding_bag"], "dropout": 0.5}, (6,), 2, vocabulary=9)
    assert [name for name, _ in network.named_children()] == ["encoder", "dropout", "head"]


@pytest.mark.parametrize("name", ROWS)
def test_networks_of_words_train_continue_and_distil(tmp_path: Path, name: str) -> None:
    found = opened(tmp_path, TWO)
    spec = {**ROWS[name], "dropout": 0.1}
    settings: dict[str, Any] = {"sees": "tokens", "seed": 0, "batch_size": 32}
    straight = ps.fit(spec, found, epochs=3, **settings)
    asked = iter([False, True])
    with pytest.raises(ps.errors.Interrupted):
        ps.fit(spec, found, epochs=3, folder=tmp_path / "m", should_stop=lambda: next(asked), **settings)
    continued = ps.fit(spec, found, epochs=3, folder=tmp_path / "m", **settings)
    for key, value in straight.network.state_dict().items():
        assert torch.equal(value, continued.network.state_dict()[key])
    loaded = ps.load(tmp_path / "m")
    assert loaded.spec == straight.spec
    assert loaded.spec.vocabulary == found.train.several["tokens"].spec.vocabulary
    told = ps.record(loaded, found.train, tmp_path / "outputs")
    student = ps.fit("linear", found, teacher=told, sees="words", epochs=2, batch_size=32)
    assert set(ps.evaluate(student, found.test, teacher=loaded)) >= {"accuracy", "agreement"}
    assert len(evaluation.call_times([loaded], 3, seconds=0.0)) >= 3
    assert evaluation.cost([loaded]).parameters == sum(p.numel() for p in loaded.network.parameters())


# --- sentence embeddings ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with random weights, as transformers saves it."""
    with warnings.catch_warnings(action="ignore"):
        transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({w for one in TEXTS for w in one.split()}), "@user"]
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    transformers.BertModel(config).eval().save_pretrained(folder)
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore")
def test_sentences_are_means_of_states(tmp_path: Path, bert: Path) -> None:
    import transformers

    inputs = {"sentence": {"column": "text", "as": "embedding", "model": str(bert), "length": 5}}
    found = opened(tmp_path, inputs)
    assert found.spec.shape == (8,)
    model, cutter = (
        transformers.BertModel.from_pretrained(bert).eval(),
        transformers.AutoTokenizer.from_pretrained(bert),
    )
    part = found.test
    inputs_ = part.fetch(torch.arange(len(part))).inputs
    for row, mine in list(zip(part.rows.tolist(), inputs_, strict=True))[:6]:
        told = cutter(TEXTS[row], truncation=True, max_length=5, return_tensors="pt")
        with torch.no_grad():
            assert torch.allclose(model(**told).last_hidden_state[0].mean(0), mine, atol=1e-5)
    student = ps.fit("linear", found, steps=2)
    student.save(tmp_path / "m")
    raw = ps.data.inputs(written(tmp_path, table(TEXTS[:3], LABELS[:3]), "new.csv"), ps.load(tmp_path / "m").spec)
    whole = opened(tmp_path, inputs, validation=0, test=0).train
    assert torch.allclose(raw.block(0, 3), whole.block(0, 3), atol=1e-5)
    (bert / "more.txt").write_text("changed")
    try:
        with pytest.raises(DataError, match="holds another model"):
            ps.data.inputs(written(tmp_path, table(["new"], [0]), "other.csv"), student.spec)
    finally:
        (bert / "more.txt").unlink()


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_is_not_there(tmp_path: Path, bert: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text((bert / "config.json").read_text())
    with pytest.raises(DataError, match=r"holds no model\.safetensors"):
        opened(tmp_path, {"s": {"column": "text", "as": "embedding", "model": str(tmp_path / "empty")}})


def test_embeddings_name_the_extra(tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"potstill\[hub\]"):
        opened(tmp_path, {"s": {"column": "text", "as": "embedding", "model": str(bert)}})


# --- plans, predictions, the report ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that reads words in order, a linear student of hashed words; one text is full of HTML."""
    folder = tmp_path_factory.mktemp("text")
    texts = ["<b>sad & </b> sad <script>x</script>" if i == 5 else one for i, one in enumerate(TEXTS)]
    labels = [1 - label if i % 7 == 5 else label for i, label in enumerate(LABELS.tolist())]
    plan = {
        "seeds": 2,
        "data": {"source": written(folder, table(texts, labels)), "target": "label", "inputs": TWO, **PARTS},
        "training": {"steps": 40, "batch_size": 32, "optimizer": {"name": "adam", "learning_rate": 0.02}},
        "models": {
            "teacher": {"network": ROWS["bilstm"], "sees": "tokens"},
            "alone": {"network": "linear"},
            "student": {"network": "linear", "teacher": "teacher"},
        },
        "evaluation": {"latency": {"batch": [2]}},
    }
    run(plan, folder / "run")
    return folder


def test_a_study_of_texts(finished: Path) -> None:
    header = outputs.open(finished / "run/outputs/teacher/plain/seed-0/train").manifests[0].header
    assert header.sees == "tokens"
    teacher = networks.load(finished / "run/models/teacher/seed-0")
    assert teacher.spec.vocabulary > 10
    costs = storage.read_json(finished / "run/models/teacher/cost.json")
    assert costs["multiply_adds"] == 9 * 2 * 4 * 5 * (4 + 5) + 10 * 2
    assert costs["latency"][0]["median_ms"] > 0
    assert call(["verify", str(finished / "run")]) == 0


def test_check_tells_every_input(finished: Path, capsys: Any) -> None:
    assert call(["check", str(finished / "run" / "plan.toml")]) == 0
    assert "examples of tokens 9, words 64; 2 classes" in capsys.readouterr().out


def test_errors_are_shown_in_words(finished: Path) -> None:
    figures = storage.read_json(finished / "run/figures.json")["texts"]
    test = ps.data.open(str(finished / "tweets.csv"), target="label", inputs=TWO, **PARTS).test
    for key in ("teacher", "alone", "student"):
        told = [
            evaluation.load_predictions(finished / f"run/models/{key}/seed-{seed}/predictions/test.safetensors")
            for seed in (0, 1)
        ]
        sure = np.zeros(len(test))
        for one in told:
            probs = np.exp(one.log_probs.astype(np.float64))
            sure += np.where(probs.argmax(1) != one.labels, probs.max(1), 0) / 2
        best = figures[key]
        assert len(best) == min(10, int((sure > 0).sum()))
        assert [row["row"] for row in best] == np.argsort(-sure, kind="stable")[: len(best)].tolist()
        for row in best:
            assert row["text"] == test.texts[int(test.rows[row["row"]])]
            assert row["label"] == test.spec.classes[int(test.labels[row["row"]])] != row["predicted"]
            assert row["confidence"] * row["wrong"] / 2 == pytest.approx(sure[row["row"]])


def test_errors_of_a_shared_model_are_told_once(finished: Path) -> None:
    told = evaluation.load_predictions(finished / "run/models/teacher/seed-0/predictions/test.safetensors")
    for shared, seeds in ((True, 1), (False, 2)):
        family = SimpleNamespace(
            plan=SimpleNamespace(verdict=SimpleNamespace(on="test")),
            settings={"shared": shared},
            units=dict.fromkeys((0, 1), "models/teacher/seed-0"),
        )
        found: Any = SimpleNamespace(family=family, seeds=[0, 1], predictions={seed: {"test": told} for seed in (0, 1)})
        errors = telling.errors(finished / "run", found, ("0", "1"))
        assert {(one.wrong, one.seeds) for one in errors} == {(seeds, seeds)}


def test_texts_that_a_verdict_turns_on(finished: Path) -> None:
    """Against the stored predictions: who is right with how many seeds, for which kept texts, of all test examples."""
    figures = storage.read_json(finished / "run/figures.json")
    test = ps.data.open(str(finished / "tweets.csv"), target="label", inputs=TWO, **PARTS).test
    kept = {
        int(row)
        for path in (finished / "run").glob("models/*/seed-*/predictions/test.texts.json")
        for row in storage.read_json(path)["texts"]
    }
    pairs = [(one["model"], one["baseline"]) for one in storage.read_json(finished / "run/results.json")["verdicts"]]
    assert [(one["model"], one["other"]) for one in figures["turning"]] == pairs
    for one in figures["turning"]:
        right, true = [], []
        for key in (one["model"], one["other"]):
            told = [
                evaluation.load_predictions(finished / f"run/models/{key}/seed-{seed}/predictions/test.safetensors")
                for seed in (0, 1)
            ]
            right.append(np.stack([t.log_probs.argmax(1) == t.labels for t in told]))
            true.append(np.mean([np.exp(t.log_probs[np.arange(len(t.labels)), t.labels]) for t in told], axis=0))
        assert one["gained"] == (right[0] & ~right[1]).sum() / 2
        assert one["lost"] == (right[1] & ~right[0]).sum() / 2
        assert one["neither"] == (~right[1] & ~right[0]).sum() / 2
        ahead = right[0].sum(0) - right[1].sum(0)
        for name, sign in (("better", 1), ("worse", -1)):
            ours = [row for row in kept if sign * int(ahead[row]) >= 1]
            ours.sort(key=lambda row: (-sign * (ahead[row] + (true[0][row] - true[1][row]) / 4), row))
            assert [row["row"] for row in one[name]] == ours[:6]
            for row in one[name]:
                at = row["row"]
                assert row["text"] == test.texts[int(test.rows[at])]
                assert row["right"] == [int(side[:, at].sum()) for side in right]
                assert row["true"] == pytest.approx([side[at] for side in true])
    assert any(one["better"] or one["worse"] for one in figures["turning"])
    page = report.write(finished / "run").read_text(encoding="utf-8")
    assert "What verdicts turn on" in page
    assert "Right with the model alone" in page
    assert "student against alone" in page


def test_the_report_escapes_texts(finished: Path) -> None:
    folder = finished / "run"
    figures = storage.read_json(folder / "figures.json")
    figures["texts"]["student"][0]["text"] = "<script>alert(1)</script> & \u202e more " + "x" * 1000
    storage.write_json(folder / "figures.json", figures)
    page = report.write(folder).read_text(encoding="utf-8")
    assert '<h2 id="texts">Most telling errors</h2>' in page
    assert "student: surest errors on test data" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp;" in page
    assert "<script" not in page
    assert "x" * 500 not in page
    assert figures["texts"]["alone"][0]["text"].split()[0].replace("'", "&#39;") in page


def test_predict_takes_texts(finished: Path, tmp_path: Path, capsys: Any) -> None:
    new = written(tmp_path, 'text\nlove love @ann\n"sad, hate"\n', "new.csv")
    for name in ("student", "teacher"):
        model = finished / "run/models" / name / "seed-0"
        loaded = networks.load(model)
        raw = declared.BY_RECIPE[loaded.spec.recipe["kind"]](loaded.spec.recipe)
        assert raw.shape == loaded.spec.shape
        capsys.readouterr()
        assert call(["predict", str(model), new]) == 0
        rows = [line.split(",") for line in capsys.readouterr().out.splitlines()]
        assert rows[0] == ["row", "class", "p(0)", "p(1)"]
        source = ps.data.inputs(new, loaded.spec)
        assert np.allclose(np.array(rows[1:])[:, 2:].astype(float), loaded(source.block(0, 2)).softmax(1), atol=1e-5)
    with pytest.raises(DataError, match="trained on a table"):
        ps.data.inputs(np.zeros((2, 64), np.float32), loaded.spec)


def test_tweets_of_their_own_files(real_data: Path) -> None:
    folder = ROOT.parent / "shared" / "data" / "small"
    if not (folder / "tweets").is_dir():
        pytest.skip("no tweets")
    found = ps.data.open("tweets", folder=folder, task="binary", inputs=TWO, validation=100)
    assert found.spec.classes == ("0", "1")
    assert len(found.train) + len(found.validation) == 2000
    assert len(found.test) > 100
    with pytest.raises(DataError, match='as = "hashing"'):
        ps.data.open("tweets", folder=folder)


def test_a_study_of_texts_is_written_as_json(finished: Path) -> None:
    recipe = json.loads((finished / "run/models/teacher/seed-0/recipe.json").read_text())
    assert recipe["kind"] == "tokens"
    assert recipe["vocabulary"]
