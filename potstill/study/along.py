"""How a regression's model answers along one input, the others at their means: what a figure of intervals needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from potstill.data import Data
from potstill.evaluation import predict
from potstill.types import Teacher

PLACES: Final = 61  # from the least to the greatest training example
MOST_POINTS: Final = 200


def along(model: Teacher, data: Data) -> dict[str, Any]:
    """Values and standard deviations (where the model answers them) at `PLACES` places of the input that goes most
    with the first target: its correlation over labelled training rows is the largest.

    Where examples have one number there are also some of them, with their labels: test examples, else training ones.
    Empty for other tasks, and for inputs that are no plain rows of numbers.
    """
    train = data.train
    spec, raw = train.spec, train.raw
    plain = len(spec.shape) == 1 and isinstance(raw, Tensor) and raw.dtype == torch.float32
    if spec.task != "regression" or not plain or spec.recipe or train.several:
        return {}
    rows = raw.index_select(0, train.rows).double()
    chosen = _telling(rows[train.labelled].numpy(), train.labels[train.labelled][:, 0].double().numpy())
    places = torch.linspace(float(rows[:, chosen].min()), float(rows[:, chosen].max()), PLACES)
    made = rows.mean(0).float().repeat(PLACES, 1)
    made[:, chosen] = places
    empty = torch.zeros(PLACES, len(spec.targets))
    there = torch.ones(PLACES, dtype=torch.bool)
    found = predict(
        model,
        replace(train, raw=made, labels=empty, labelled=there, selection=None, digests=None, names=(), texts=()),
    )
    logs = found.log_variances
    told: dict[str, Any] = {"input": f"x{chosen + 1}", "at": places.tolist(), "values": found.values.T.tolist()}
    told["sigmas"] = [] if logs is None else np.exp(logs / 2).T.tolist()
    return told | (_points(data) if rows.shape[1] == 1 else {})


def _telling(rows: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> int:
    """The column whose correlation with the labels is the largest; one that does not vary has none."""
    centred, right = rows - rows.mean(axis=0), labels - labels.mean()
    size = np.sqrt(np.square(centred).sum(axis=0))
    return int(np.argmax(np.abs(centred.T @ right) / np.where(size > 0, size, np.inf)))


def _points(data: Data) -> dict[str, Any]:
    source = data.train if data.test is None else data.test
    chosen = torch.arange(len(source))[source.labelled][:MOST_POINTS]
    return {
        "points": source.fetch(chosen).inputs[:, 0].tolist(),  # type: ignore[arg-type]
        "labels": source.labels[chosen].T.tolist(),
    }
