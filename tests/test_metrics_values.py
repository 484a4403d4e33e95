"""Metrics of a regression: one table with a scikit-learn oracle per metric, and universal tests for every row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from potstill import metrics
from potstill.errors import DataError, SettingError
from potstill.study.statistics import pseudo_values
from potstill.types import DataSpec

Array = np.ndarray[Any, Any]


def values(n: int, targets: int, *, seed: int = 0) -> Array:
    """(n, D) float32, each target of its own size and far from zero."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, targets)) * 10.0 ** np.arange(targets) + 100).astype(np.float32)


@dataclass(frozen=True)
class Row:
    better: str
    oracle: Callable[[Array, Array], float]
    per_example: bool = True
    reads: str = "labels"
    best: float = 0.0
    wide: bool = False  # reads log variances too

    def found(self, n: int, targets: int) -> Array:
        """Predictions, with log variances where those are read."""
        logs = np.random.default_rng(7).normal(size=(n, targets)).astype(np.float32)
        return np.concatenate([values(n, targets), logs][: 1 + self.wide], 1)


def _mse(values: Array, labels: Array) -> float:
    return float(sk.mean_squared_error(labels.astype(float), values.astype(float)))


def _likelihood(answers: Array, labels: Array) -> float:
    means, logs = np.split(answers.astype(float), 2, axis=1)
    return float(-stats.norm.logpdf(labels.astype(float), means, np.exp(logs / 2)).sum(1).mean())


TABLE = {
    "absolute_error": Row("lower", lambda v, y: float(sk.mean_absolute_error(y.astype(float), v.astype(float)))),
    "r2": Row("higher", lambda v, y: float(sk.r2_score(y.astype(float), v.astype(float))), False, best=1.0),
    "negative_log_likelihood": Row("lower", _likelihood, wide=True, best=0.0),
    "squared_error": Row("lower", _mse),
    "teacher_squared_error": Row("lower", _mse, reads="teacher"),
}
every_row = pytest.mark.parametrize("name", TABLE)


def test_every_metric_has_a_row() -> None:
    assert metrics.names(regression=True) == tuple(sorted(TABLE))


@every_row
def test_declarations(name: str) -> None:
    metric, row = metrics.get(name, targets=2), TABLE[name]
    assert (metric.name, metric.better, metric.per_example) == (name, row.better, row.per_example)
    assert metric.needs_teacher == (row.reads == "teacher")
    assert metric.needs_labels == (row.reads == "labels")
    assert not metric.fraction
    declared, fitting = (
        metrics.declared(name),
        metrics.fitting(name, DataSpec((3,), (), "regression", targets=("a", "b"))),
    )
    assert (declared.better, fitting.better) == (row.better, row.better)
    assert fitting.phi(row.found(4, 2), values(4, 2, seed=1)).shape[0] == 4
    assert metric.needs_variances == row.wide


@pytest.mark.parametrize(("n", "targets"), [(2, 1), (40, 1), (40, 3)])
@every_row
def test_oracle(name: str, n: int, targets: int) -> None:
    found, labels = TABLE[name].found(n, targets), values(n, targets, seed=1)
    assert metrics.get(name, targets=targets).value(found, labels) == pytest.approx(TABLE[name].oracle(found, labels))


@every_row
def test_form(name: str) -> None:
    """phi is (n, d) float64; combine is vectorised over leading axes; rows may come in any order or in parts."""
    metric, row = metrics.get(name, targets=3), TABLE[name]
    found, labels = row.found(50, 3), values(50, 3, seed=1)
    phi = metric.phi(found, labels)
    assert phi.dtype == np.float64
    assert phi.shape == (50, 1 if row.per_example else phi.shape[1])
    order = np.random.default_rng(3).permutation(50)
    np.testing.assert_array_equal(metric.phi(found[order], labels[order]), phi[order])
    np.testing.assert_array_equal(metric.phi(found[:20], labels[:20]), phi[:20])
    without = phi.sum(axis=0) - phi
    np.testing.assert_allclose(metric.combine(without, 49), [metric.combine(w, 49) for w in without], rtol=1e-12)
    value = metric.value(found, labels)
    np.testing.assert_allclose(metric.combine(np.tile(phi.sum(axis=0), (2, 3, 1)), 50), np.full((2, 3), value))


@every_row
def test_jackknife_leaves_one_example_out(name: str) -> None:
    metric, row = metrics.get(name, targets=2), TABLE[name]
    found, labels = row.found(30, 2), values(30, 2, seed=1)
    whole = metric.value(found, labels)
    brute = [30 * whole - 29 * row.oracle(np.delete(found, i, 0), np.delete(labels, i, 0)) for i in range(30)]
    np.testing.assert_allclose(pseudo_values(metric, metric.phi(found, labels)), brute, rtol=1e-6)


@every_row
def test_right_values_reach_the_best(name: str) -> None:
    labels = values(12, 2)
    sure = np.full((12, 2), -np.log(2 * np.pi), np.float32)  # a variance whose density is 1 at the mean
    found = np.concatenate([labels, sure][: 1 + TABLE[name].wide], 1)
    assert metrics.get(name, targets=2).value(found, labels) == pytest.approx(TABLE[name].best, abs=1e-6)


@every_row
def test_variances_change_only_what_reads_them(name: str) -> None:
    metric, row = metrics.get(name, targets=2), TABLE[name]
    labels, logs = values(9, 2, seed=1), np.ones((9, 2), np.float32)
    both = np.concatenate([values(9, 2), logs], 1)
    if row.wide:
        with pytest.raises(DataError, match=r"found values alone, of shape \(9, 2\); a likelihood wants variances"):
            metric.phi(values(9, 2), labels)
        assert metric.value(both, labels) != metric.value(np.concatenate([values(9, 2), 2 * logs], 1), labels)
    else:
        assert metric.value(both, labels) == metric.value(values(9, 2), labels)


def test_the_mean_of_the_labels_explains_nothing() -> None:
    labels = values(12, 1).astype(float)
    assert metrics.get("r2", targets=1).value(np.full((12, 1), labels.mean()), labels) == pytest.approx(0, abs=1e-9)


def test_r2_of_a_target_that_is_always_the_same() -> None:
    """As scikit-learn: 1 where every value is right, else 0; the other target counts as ever."""
    metric = metrics.get("r2", targets=2)
    for size in (7.0, 7.3):  # the sum of squares of the second is not exact
        labels = np.column_stack([np.full(9, size), np.arange(9.0)])
        assert metric.value(labels, labels) == 1.0
        wanted = sk.r2_score(np.floor(labels), np.floor(labels) + 0.5)
        assert metric.value(labels + 0.5, labels) == pytest.approx(wanted)


BAD = {
    "one axis": (values(4, 1)[:, 0], r"shape \(4,\), wanted \(n, 2\)"),
    "other targets": (values(4, 3), r"shape \(4, 3\), wanted \(n, 2\)"),
    "no rows": (values(4, 2)[:0], "no examples"),
    "NaN": (np.where(np.arange(8).reshape(4, 2) == 5, np.nan, values(4, 2)), "row 2 .*NaN"),
    "infinity": (np.where(np.arange(8).reshape(4, 2) == 5, np.inf, values(4, 2)), "row 2 .*infinity"),
    "whole numbers": (np.zeros((4, 2), np.int64), "dtype int64"),
    "fewer rows": (values(3, 2), "but"),
}


@pytest.mark.parametrize("fault", BAD)
@every_row
def test_bad_values_are_refused(name: str, fault: str) -> None:
    bad, message = BAD[fault]
    metric = metrics.get(name, targets=2)
    wide = TABLE[name].wide and bad.shape[1:] == (2,) and bad.dtype.kind == "f"
    with pytest.raises(DataError, match=message):
        metric.phi(np.concatenate([bad, bad], 1) if wide else bad, values(4, 2))
    with pytest.raises(DataError, match=message):
        metric.phi(TABLE[name].found(4, 2), bad)


def test_metrics_of_classes_and_of_values_are_told_apart() -> None:
    with pytest.raises(SettingError, match=r'"r2" is one of values, and here are classes\. Known: accuracy'):
        metrics.get("r2", classes=3)
    with pytest.raises(
        SettingError, match=r'"accuracy" is one of classes, and here are values\. Known: absolute_error'
    ):
        metrics.get("accuracy", targets=1)
    with pytest.raises(SettingError, match=r'Unknown metric "squared_eror"\. Did you mean "squared_error"'):
        metrics.get("squared_eror", targets=1)
    with pytest.raises(SettingError, match="targets: found 0"):
        metrics.get("r2", targets=0)
