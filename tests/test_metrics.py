"""Metrics: one table with a float64 or scikit-learn oracle per metric, and universal tests for every row."""

from __future__ import annotations

import doctest
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy import special, stats
from sklearn import metrics as sk

from potstill import metrics
from potstill.errors import DataError, SettingError

Array = np.ndarray[Any, Any]


def answers(n: int, classes: int, *, seed: int = 0, sharp: float = 2.0) -> Array:
    """(n, K) float32 log-probabilities, as a network gives them."""
    logits = np.random.default_rng(seed).normal(size=(n, classes)) * sharp
    return special.log_softmax(logits, axis=1).astype(np.float32)


def truth(n: int, classes: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).integers(0, classes, n)


def ece_by_loops(predictions: Array, labels: Array) -> float:
    p = np.exp(predictions.astype(np.float64))
    total = 0.0
    for b in range(15):
        rows = [i for i in range(len(p)) if b / 15 < min(p[i].max(), 1.0) <= (b + 1) / 15]
        if rows:
            right = np.mean([p[i].argmax() == labels[i] for i in rows])
            total += len(rows) / len(p) * abs(right - np.mean([p[i].max() for i in rows]))
    return total


def uncertainty_by_loops(predictions: Array, _: Array) -> float:
    p = np.exp(predictions.astype(np.float64))
    if p.shape[1] == 2:  # eq. 15 of paper 1, word for word
        return float(np.mean([(row[1] - (1.0 if row[1] > 0.5 else 0.0)) ** 2 for row in p]))
    return float(np.mean([0.5 * np.sum((row - np.eye(len(row))[row.argmax()]) ** 2) for row in p]))


@dataclass(frozen=True)
class Row:
    better: str
    oracle: Callable[[Array, Array], float]
    per_example: bool = True
    fraction: bool = False
    reads: str = "labels"
    best: float = 0.0  # the value of a certain and right model


def _top(predictions: Array) -> Array:
    return predictions.argmax(axis=1)


def _f1(predictions: Array, labels: Array) -> float:
    every = range(predictions.shape[1])
    return float(sk.f1_score(labels, _top(predictions), labels=every, average="macro", zero_division=0))


def _kl(student: Array, teacher: Array) -> float:
    p, q = np.exp(teacher.astype(np.float64)), np.exp(student.astype(np.float64))
    return float(stats.entropy(p, q, axis=1).mean())


def _cross_entropy(predictions: Array, labels: Array) -> float:
    return float(-np.log(np.exp(predictions.astype(np.float64))[np.arange(len(labels)), labels]).mean())


def _brier(predictions: Array, labels: Array) -> float:
    p = np.exp(predictions.astype(np.float64))
    if p.shape[1] == 2:
        return float(sk.brier_score_loss(labels, p[:, 1], pos_label=1))
    p /= p.sum(axis=1, keepdims=True)
    return float(sk.brier_score_loss(labels, p, labels=range(p.shape[1])))


TABLE = {
    "accuracy": Row("higher", lambda p, y: float(sk.accuracy_score(y, _top(p))), fraction=True, best=1.0),
    "agreement": Row("higher", lambda p, t: float(np.mean(_top(p) == _top(t))), fraction=True, reads="teacher", best=1),
    "brier": Row("lower", _brier),
    "calibration_error": Row("lower", ece_by_loops, per_example=False, fraction=True),
    "cross_entropy": Row("lower", _cross_entropy),
    "error_rate": Row("lower", lambda p, y: float(sk.zero_one_loss(y, _top(p))), fraction=True),
    "macro_f1": Row("higher", _f1, per_example=False, fraction=True, best=1.0),
    "teacher_kl": Row("lower", _kl, reads="teacher"),
    "uncertainty": Row("lower", uncertainty_by_loops, reads="predictions"),
}
SHAPES = [(1, 2), (40, 2), (40, 3), (301, 10), (7, 30)]


def second(row: Row, n: int, classes: int) -> Array:
    return answers(n, classes, seed=7) if row.reads == "teacher" else truth(n, classes)


def test_every_metric_has_a_row() -> None:
    assert metrics.names(regression=False) == tuple(sorted(TABLE))
    assert metrics.names() == tuple(sorted((*TABLE, *metrics.names(regression=True))))
    assert {name for name, row in TABLE.items() if row.fraction} == metrics.FRACTIONS


@pytest.mark.parametrize("name", TABLE)
def test_declarations(name: str) -> None:
    metric, row = metrics.get(name, classes=3), TABLE[name]
    assert (metric.name, metric.better, metric.per_example) == (name, row.better, row.per_example)
    assert metric.needs_teacher == (row.reads == "teacher")
    assert metric.needs_labels == (row.reads == "labels")


@pytest.mark.parametrize(("n", "classes"), SHAPES)
@pytest.mark.parametrize("name", TABLE)
def test_oracle(name: str, n: int, classes: int) -> None:
    row, predictions = TABLE[name], answers(n, classes)
    other = second(row, n, classes)
    assert metrics.get(name, classes=classes).value(predictions, other) == pytest.approx(
        row.oracle(predictions, other), abs=2e-6
    )


@pytest.mark.parametrize("name", TABLE)
def test_form(name: str) -> None:
    """phi is (n, d) float64; combine is vectorised over leading axes; rows may come in any order or in parts."""
    metric, row = metrics.get(name, classes=4), TABLE[name]
    predictions, other = answers(50, 4), second(row, 50, 4)
    phi = metric.phi(predictions, other)
    assert phi.dtype == np.float64
    assert phi.shape[0] == 50
    assert phi.ndim == 2
    if row.per_example:
        assert phi.shape[1] == 1
    value = metric.value(predictions, other)
    order = np.random.default_rng(3).permutation(50)
    np.testing.assert_array_equal(metric.phi(predictions[order], other[order]), phi[order])
    np.testing.assert_array_equal(metric.phi(predictions[:20], other[:20]), phi[:20])
    without = phi.sum(axis=0) - phi
    np.testing.assert_allclose(metric.combine(without, 49), [metric.combine(w, 49) for w in without], atol=1e-15)
    np.testing.assert_allclose(metric.combine(np.tile(phi.sum(axis=0), (2, 3, 1)), 50), np.full((2, 3), value))


@pytest.mark.parametrize("name", TABLE)
def test_jackknife_identities(name: str) -> None:
    """combine(sum - phi_i, n - 1) is the metric without example i; of a mean, the pseudo-values are the numbers."""
    metric, row = metrics.get(name, classes=3), TABLE[name]
    predictions, other = answers(30, 3), second(row, 30, 3)
    phi = metric.phi(predictions, other)
    without = metric.combine(phi.sum(axis=0) - phi, 29)
    brute = [row.oracle(np.delete(predictions, i, axis=0), np.delete(other, i, axis=0)) for i in range(30)]
    np.testing.assert_allclose(without, brute, atol=2e-6)
    if row.per_example:
        pseudo = 30 * metric.combine(phi.sum(axis=0), 30) - 29 * without
        np.testing.assert_allclose(pseudo, phi[:, 0], atol=1e-12)


@pytest.mark.parametrize("name", TABLE)
def test_a_certain_and_right_model_reaches_the_best_value(name: str) -> None:
    labels = np.arange(12) % 3
    predictions = np.where(np.eye(3)[labels] == 1, 0.0, -np.inf)
    other = predictions if TABLE[name].reads == "teacher" else labels
    assert metrics.get(name, classes=3).value(predictions, other) == TABLE[name].best


@pytest.mark.parametrize("name", TABLE)
def test_impossible_predictions_stay_finite(name: str) -> None:
    """log p = -inf for the label, or for the teacher's answer, gives a finite metric."""
    predictions = np.array([[0.0, -np.inf], [-np.inf, 0.0]], np.float32)
    other = predictions[::-1] if TABLE[name].reads == "teacher" else np.array([1, 0])
    value = metrics.get(name, classes=2).value(predictions, other)
    assert np.isfinite(value)
    if name in {"cross_entropy", "teacher_kl"}:
        assert value == pytest.approx(126 * np.log(2))  # the smallest normal float32 is 2^-126


def test_teacher_kl_is_zero_when_both_answer_the_same() -> None:
    predictions = answers(100, 5, sharp=30)
    assert metrics.get("teacher_kl", classes=5).phi(predictions, predictions).max() == 0.0


def test_binary_yes_needs_more_than_a_half() -> None:
    half, above = np.log([[0.5, 0.5]]), np.log([[0.49, 0.51]])
    accuracy = metrics.get("accuracy", classes=2)
    assert accuracy.value(half, np.array([0])) == 1.0
    assert accuracy.value(above, np.array([1])) == 1.0


def test_uncertainty_ends() -> None:
    uncertainty, labels = metrics.get("uncertainty", classes=4), np.zeros(1, np.int64)
    assert uncertainty.value(np.log(np.full((1, 4), 0.25)), labels) == pytest.approx(3 / 8)
    assert metrics.get("uncertainty", classes=2).value(np.log([[0.7, 0.3]]), labels) == pytest.approx(0.09)


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_macro_f1_counts_a_class_that_never_occurs_as_zero(absent: int) -> None:
    labels = np.array([c for c in range(3) if c != absent] * 5)
    predictions = special.log_softmax(9.0 * np.eye(3)[labels], axis=1)
    assert metrics.get("macro_f1", classes=3).value(predictions, labels) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("n", "classes"), SHAPES)
def test_confusion(n: int, classes: int) -> None:
    predictions, labels = answers(n, classes), truth(n, classes)
    found = metrics.confusion(predictions, labels, classes)
    np.testing.assert_array_equal(found, sk.confusion_matrix(labels, _top(predictions), labels=range(classes)))


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_reliability(bins: int) -> None:
    predictions, labels = answers(500, 3), truth(500, 3)
    found = metrics.reliability(predictions, labels, bins)
    p = np.exp(predictions.astype(np.float64)).max(axis=1)
    right = _top(predictions) == labels
    assert found.low == [b / bins for b in range(bins)]
    assert sum(found.count) == 500
    for b in range(bins):
        rows = (p > b / bins) & (p <= (b + 1) / bins)
        assert found.count[b] == rows.sum()
        if rows.any():
            assert found.confidence[b] == pytest.approx(p[rows].mean())
            assert found.accuracy[b] == pytest.approx(right[rows].mean())
        else:
            assert found.confidence[b] is None
            assert found.accuracy[b] is None


def test_bins_are_closed_above() -> None:
    assert metrics.reliability(np.log([[0.5, 0.5], [0.0001, 0.9999]]), np.array([0, 1]), 2).count == [1, 1]
    assert metrics.reliability(np.array([[0.0, -np.inf]]), np.array([0]), 2).count == [0, 1]


def test_reliability_and_calibration_error_agree() -> None:
    predictions, labels = answers(500, 3), truth(500, 3)
    bins = metrics.reliability(predictions, labels)
    gaps = [
        count * abs(a - c)
        for count, a, c in zip(bins.count, bins.accuracy, bins.confidence, strict=True)
        if a is not None and c is not None
    ]
    assert metrics.get("calibration_error", classes=3).value(predictions, labels) == pytest.approx(sum(gaps) / 500)


GOOD, LABELS = answers(4, 3), np.array([0, 1, 2, 0])
BAD_PREDICTIONS = {
    "one axis": (GOOD[:, 0], r"shape \(4,\)"),
    "other classes": (answers(4, 2), r"shape \(4, 2\), wanted \(n, 3\)"),
    "no rows": (GOOD[:0], "no examples"),
    "NaN": (np.where(np.arange(12).reshape(4, 3) == 7, np.nan, GOOD), r"row 2 .*NaN"),
    "infinity": (np.where(np.arange(12).reshape(4, 3) == 7, np.inf, GOOD), "row 2 .*log-probabilities"),
    "probabilities": (np.exp(GOOD), "row 0 .*do not sum to one"),
    "logits": (5 * GOOD, "do not sum to one"),
    "numbers of classes": (np.zeros((4, 3), np.int64), "dtype int64"),
    "objects": (GOOD.astype(object), "dtype object"),
}
BAD_LABELS = {
    "too many": (np.zeros(5, np.int64), r"shape \(5,\), wanted \(4,\)"),
    "two axes": (LABELS[:, None], r"shape \(4, 1\)"),
    "outside": (np.array([0, 1, 3, 0]), "row 2 has label 3, wanted 0 to 2"),
    "unlabelled": (np.array([0, -1, 2, 0]), "row 1 has label -1.*without a label"),
    "float": (LABELS.astype(float), "dtype float64"),
}


@pytest.mark.parametrize("fault", BAD_PREDICTIONS)
@pytest.mark.parametrize("name", TABLE)
def test_bad_predictions_are_refused(name: str, fault: str) -> None:
    predictions, message = BAD_PREDICTIONS[fault]
    metric, row = metrics.get(name, classes=3), TABLE[name]
    with pytest.raises(DataError, match=message):
        metric.phi(predictions, GOOD if row.reads == "teacher" else LABELS)
    if row.reads == "teacher":
        with pytest.raises(DataError, match="teacher's predictions.*" + message):
            metric.phi(GOOD, predictions)
        with pytest.raises(DataError, match="4 predictions but 3 of the teacher"):
            metric.phi(GOOD, GOOD[:3])


@pytest.mark.parametrize("fault", BAD_LABELS)
@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.reads == "labels"])
def test_bad_labels_are_refused(name: str, fault: str) -> None:
    labels, message = BAD_LABELS[fault]
    with pytest.raises(DataError, match=message):
        metrics.get(name, classes=3).phi(GOOD, labels)


def test_confusion_and_reliability_refuse_the_same() -> None:
    with pytest.raises(DataError, match="label 3"):
        metrics.confusion(GOOD, np.array([0, 1, 3, 0]), 3)
    with pytest.raises(DataError, match="shape"):
        metrics.reliability(GOOD[:, 0], LABELS)
    with pytest.raises(SettingError, match="bins: found 0"):
        metrics.reliability(GOOD, LABELS, 0)


def test_settings_are_checked() -> None:
    with pytest.raises(SettingError, match=r'Unknown metric "acuracy"\. Did you mean "accuracy"'):
        metrics.get("acuracy", classes=3)
    with pytest.raises(SettingError, match="classes: found 1"):
        metrics.get("accuracy", classes=1)


def test_examples_in_docstrings_and_no_torch() -> None:
    assert doctest.testmod(metrics).failed == 0
    code = "import sys, potstill.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
