"""Principal components of the training examples, found on some of them where there are many."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from potstill.explore.found import Floats, Projection
from potstill.explore.gather import Gathered
from potstill.seeding import key

ROWS: Final = 2000  # training examples that components are found on,
POINTS: Final = 1000  # and of those, points that are drawn
COMPONENTS: Final = 12
_EXACT: Final = 500  # a smaller side of the matrix than this is decomposed as a whole
_PAIRS: Final = 2000


class Components(NamedTuple):
    """`vectors` (k, F), orthonormal, each with its largest entry positive; what was found; and the median distance of
    two of the examples."""

    vectors: Floats
    projection: Projection
    typical: float


def components(found: Gathered) -> Components:
    """Of training examples in the units in which they are compared; pictures have one unit."""
    train = found.train
    rows = chosen(len(train), ROWS)
    matrix = train.some(rows)
    centred = matrix - matrix.mean(0)
    values, vectors = _decomposed(centred, min(COMPONENTS, *centred.shape))
    vectors = vectors * np.sign(vectors[np.arange(len(vectors)), np.abs(vectors).argmax(1)])[:, None]
    total = float((centred**2).sum())
    shares = tuple((values**2 / total).tolist()) if total else ()
    flat = centred[:POINTS] @ vectors[:2].T
    flat = np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    points = tuple(
        (float(x), float(y), int(group)) for (x, y), group in zip(flat, train.groups[rows[:POINTS]], strict=True)
    )
    return Components(vectors, Projection(shares, points, len(rows), len(train)), _typical(matrix))


def chosen(count: int, most: int) -> NDArray[np.int64]:
    """Numbers of `most` of so many rows, the same ones every time, in a random order."""
    return np.random.default_rng(key("explore", count)).permutation(count)[:most].astype(np.int64)


def _decomposed(centred: Floats, number: int) -> tuple[Floats, Floats]:
    """Singular values (k,) and right singular vectors (k, F)."""
    if min(centred.shape) <= _EXACT:
        _, values, vectors = np.linalg.svd(centred, full_matrices=False)
        return values[:number], vectors[:number]
    from sklearn.utils.extmath import randomized_svd

    _, values, vectors = randomized_svd(centred, number, n_iter=7, random_state=0)
    return values, vectors


def _typical(matrix: Floats) -> float:
    """The median distance of two examples."""
    if len(matrix) < 2:
        return 0.0
    random = np.random.default_rng(key("explore", "pairs", len(matrix)))
    first = random.integers(0, len(matrix), _PAIRS)
    second = (first + random.integers(1, len(matrix), _PAIRS)) % len(matrix)
    return float(np.median(np.sqrt(((matrix[first] - matrix[second]) ** 2).sum(1))))
