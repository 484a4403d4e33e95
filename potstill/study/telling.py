"""The most telling errors of a study of texts: test examples about which a model is sure and wrong, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from potstill import storage
from potstill.data import ArraySource
from potstill.errors import StorageError
from potstill.evaluation import Predictions
from potstill.study.plotted import TellingText, Turning, TurningText

if TYPE_CHECKING:
    from potstill.study.collect import Found, Reader

KEPT: Final = 30  # texts that each seed's evaluation keeps
SHOWN: Final = 10
TURNING: Final = 6  # texts of a comparison, each way,
LEAST: Final = 0.5  # of whose seeds so many more are right


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
    split = found.family.plan.verdict.on
    texts = _kept(root, found, split)
    if not texts:
        return []
    seeds = found.seeds[:1] if found.family.settings["shared"] else found.seeds  # one training is told once
    told = [found.predictions[seed][split] for seed in seeds]
    sure = np.stack([_sure(one) for one in told])
    rows = sorted((row for row in texts if row < sure.shape[1]), key=lambda row: (-sure[:, row].mean(), row))
    return [_text(texts[row], row, told, sure=sure[:, row], classes=classes) for row in rows[:SHOWN]]


def _kept(root: Path, found: Found, split: str) -> dict[int, str]:
    """Texts by row of a test set, of all seeds of a model."""
    texts: dict[int, str] = {}
    for unit in dict.fromkeys(found.family.units[seed] for seed in found.seeds):
        path = _file(root / unit, split)
        try:
            kept = storage.read_json(path)["texts"] if path.is_file() else {}
        except (StorageError, KeyError):
            kept = {}  # `verify` blames it; a report has the rest
        texts |= {int(row): str(text) for row, text in kept.items()}
    return texts


def turning(reader: Reader, pairs: Sequence[tuple[str, str]], classes: Sequence[str]) -> list[Turning]:
    """For each pair of compared models, the kept texts that one of them answers rightly and the other does not, with at
    least half of the seeds more.

    Kept are the surest errors of every model, so that what one is very sure and wrong about is among them.
    """
    texts: dict[str, dict[int, str]] = {}
    for key in reader.tree.families:
        found = reader.find(key)
        texts.setdefault(_place(found), {}).update(_kept(reader.root, found, found.family.plan.verdict.on))
    made = [_turning(reader.find(a), reader.find(b), texts[_place(reader.find(a))], classes) for a, b in pairs]
    return [one for one in made if one is not None]


def _place(found: Found) -> str:
    """Test set and point of a sweep: rows mean the same where both are the same."""
    return storage.canonical([found.family.plan.verdict.on, dict(found.family.point)])


def _turning(ours: Found, theirs: Found, texts: Mapping[int, str], classes: Sequence[str]) -> Turning | None:
    seeds = [seed for seed in ours.seeds if seed in theirs.seeds]
    split = ours.family.plan.verdict.on
    if not texts or not seeds:
        return None
    mine = [ours.predictions[seed][split] for seed in seeds]
    others = [theirs.predictions[seed][split] for seed in seeds]
    if len(mine[0].labels) != len(others[0].labels):
        return None
    right = np.stack([[_right(one) for one in told] for told in (mine, others)])  # (2, S, n)
    true = np.stack([np.mean([_true(one) for one in told], axis=0) for told in (mine, others)])
    gain = (right[0].mean(0) - right[1].mean(0)) + (true[0] - true[1]) / (4 * len(seeds))  # seeds first, then how sure
    rows = [row for row in texts if row < len(gain) and mine[0].labelled[row]]
    share = right.mean(1)
    better = sorted((row for row in rows if share[0, row] - share[1, row] >= LEAST), key=lambda row: (-gain[row], row))
    worse = sorted((row for row in rows if share[1, row] - share[0, row] >= LEAST), key=lambda row: (gain[row], row))

    def told(row: int) -> TurningText:
        said = (_most([one.log_probs[row].argmax() for one in side]) for side in (mine, others))
        return TurningText(
            row=row,
            text=texts[row],
            label=classes[int(mine[0].labels[row])],
            said=(classes[next(said)], classes[next(said)]),
            right=(int(right[0, :, row].sum()), int(right[1, :, row].sum())),
            true=(float(true[0, row]), float(true[1, row])),
        )

    return Turning(
        model=ours.family.key,
        other=theirs.family.key,
        seeds=len(seeds),
        gained=float((right[0] & ~right[1]).sum() / len(seeds)),
        lost=float((right[1] & ~right[0]).sum() / len(seeds)),
        neither=float((mine[0].labelled & ~right[0] & ~right[1]).sum() / len(seeds)),
        better=[told(row) for row in better[:TURNING]],
        worse=[told(row) for row in worse[:TURNING]],
    )


def _right(found: Predictions) -> NDArray[np.bool_]:
    """(n,) whether the answer is right; False where nobody knows."""
    right: NDArray[np.bool_] = found.labelled & (found.log_probs.argmax(axis=1) == found.labels)
    return right


def _true(found: Predictions) -> NDArray[np.float64]:
    """(n,) the probability of the label."""
    told: NDArray[np.float64] = np.exp(found.log_probs[np.arange(len(found.labels)), found.labels].astype(np.float64))
    return told


def _most(answers: Sequence[Any]) -> int:
    return int(Counter(map(int, answers)).most_common(1)[0][0])


def _sure(found: Predictions) -> NDArray[np.float64]:
    """(n,) the probability of a wrong answer; 0 where it is right, or nobody knows."""
    answer = found.log_probs.argmax(axis=1)
    probability = np.exp(found.log_probs[np.arange(len(answer)), answer].astype(np.float64))
    return np.where(found.labelled & (answer != found.labels), probability, 0.0)


def _text(
    text: str, row: int, told: Sequence[Predictions], *, sure: NDArray[np.float64], classes: Sequence[str]
) -> TellingText:
    wrong = [one.log_probs[row].argmax() for one, p in zip(told, sure, strict=True) if p > 0]
    return TellingText(
        row=row,
        text=text,
        label=classes[int(told[0].labels[row])],
        predicted=classes[_most(wrong)],
        confidence=float(sure[sure > 0].mean()),
        wrong=len(wrong),
        seeds=len(told),
    )
