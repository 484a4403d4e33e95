"""The most telling errors of a study of texts: test examples about which a model is sure and wrong, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from potstill import storage
from potstill.data import ArraySource
from potstill.errors import StorageError
from potstill.evaluation import Predictions
from potstill.study.plotted import TellingText

if TYPE_CHECKING:
    from potstill.study.collect import Found

KEPT: Final = 30  # texts that each seed's evaluation keeps
SHOWN: Final = 10


def _file(unit: Path, split: str) -> Path:
    return unit / "predictions" / f"{split}.texts.json"


def keep(unit: Path, split: str, source: ArraySource, found: Predictions) -> None:
    """The texts of the surest errors on a test set, beside the predictions; nothing where examples are no texts."""
    if not source.texts or found.regression:
        return
    sure = _sure(found)
    rows = [int(row) for row in np.argsort(-sure, kind="stable")[:KEPT] if sure[row] > 0]
    texts = {str(row): source.texts[int(source.rows[row])] for row in rows}
    storage.write_json(_file(unit, split), {"texts": texts})


def errors(root: Path, found: Found, classes: Sequence[str]) -> list[TellingText]:
    """The surest errors over all seeds on the verdict's test set, the surest first; empty where no text was kept.

    A row counts with its mean over seeds of the probability of the wrong answer, 0 where a seed is right.
    """
    texts: dict[int, str] = {}
    split = found.family.plan.verdict.on
    for unit in dict.fromkeys(found.family.units[seed] for seed in found.seeds):
        path = _file(root / unit, split)
        try:
            kept = storage.read_json(path)["texts"] if path.is_file() else {}
        except (StorageError, KeyError):
            kept = {}  # `verify` blames it; a report has the rest
        texts |= {int(row): str(text) for row, text in kept.items()}
    if not texts:
        return []
    told = [found.predictions[seed][split] for seed in found.seeds]
    sure = np.stack([_sure(one) for one in told])
    rows = sorted((row for row in texts if row < sure.shape[1]), key=lambda row: (-sure[:, row].mean(), row))
    return [_text(texts[row], row, told, sure=sure[:, row], classes=classes) for row in rows[:SHOWN]]


def _sure(found: Predictions) -> NDArray[np.float64]:
    """(n,) the probability of a wrong answer; 0 where it is right, or nobody knows."""
    answer = found.log_probs.argmax(axis=1)
    probability = np.exp(found.log_probs[np.arange(len(answer)), answer].astype(np.float64))
    return np.where(found.labelled & (answer != found.labels), probability, 0.0)


def _text(
    text: str, row: int, told: Sequence[Predictions], *, sure: NDArray[np.float64], classes: Sequence[str]
) -> TellingText:
    wrong: list[Any] = [one.log_probs[row].argmax() for one, p in zip(told, sure, strict=True) if p > 0]
    return TellingText(
        row=row,
        text=text,
        label=classes[int(told[0].labels[row])],
        predicted=classes[int(Counter(wrong).most_common(1)[0][0])],
        confidence=float(sure[sure > 0].mean()),
        wrong=len(wrong),
        seeds=len(told),
    )
