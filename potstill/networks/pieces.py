"""A fully connected network's numbers in pieces, whose gradients are made and used up one after the other.

A step of a large network goes through arrays that no cache holds. With gradients that lie where those of the piece
before lay they are a sixth less, and what is done to a piece finds it nearer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Rows(NamedTuple):
    """Some rows of a layer, and where the gradients go: of weights (rows, in), with the last rows of biases (out,).

    Each a pair: those of means, and those of log standard deviations.
    """

    layer: int
    rows: slice
    by_weight: tuple[Tensor, Tensor]
    by_bias: tuple[Tensor, Tensor] | None


class Flat(NamedTuple):
    """Numbers of one kind per weight and bias, all (n,), layer by layer, weights before biases.

    `by_means` and `by_log_stds` are gradients. Passes leave in the latter twice that with respect to the variances,
    which times the variances is that with respect to the log standard deviations.
    """

    means: Tensor
    log_stds: Tensor
    variances: Tensor
    by_means: Tensor
    by_log_stds: Tensor


class Piece(NamedTuple):
    """A stretch of a network's numbers, the number of the piece in the order of backward passes, and what it holds."""

    number: int
    stretch: slice
    own: Flat
    rows: list[Rows]


class _Part(NamedTuple):
    layer: int
    start: int
    stop: int


def pieces_of(shapes: Sequence[tuple[int, int]], whole: Flat, most: int | None) -> list[Piece]:
    """Layers of `shapes` (out, in) from the last to the first, in pieces of at most `most` weights; None: in one.

    Layers of more are cut into equal numbers of rows, at least one. The gradients of several pieces lie in the same
    place, at the beginning of `whole`'s.
    """
    starts = list(itertools.accumulate((outputs * (width + 1) for outputs, width in shapes), initial=0))
    cuts, found = _cut(shapes, most), []
    for number, cut in enumerate(cuts):
        (first, low, _), (last, _, high) = cut[-1], cut[0]
        begin = starts[first] + low * shapes[first][1]
        outputs, width = shapes[last]
        stretch = slice(begin, starts[last + 1] if high == outputs else starts[last] + high * width)
        at = slice(0, stretch.stop - begin) if len(cuts) > 1 else stretch
        own = Flat(*(flat[stretch] for flat in whole[:3]), *(flat[at] for flat in whole[3:]))
        found.append(
            Piece(number, stretch, own, [_rows(part, shapes, starts[part.layer] - begin, own) for part in cut])
        )
    return found


def _rows(part: _Part, shapes: Sequence[tuple[int, int]], at: int, own: Flat) -> Rows:
    """`at`: where the layer begins in the piece, below 0 where it begins before it."""
    layer, start, stop = part
    outputs, width = shapes[layer]
    weights, biases = (
        slice(at + start * width, at + stop * width),
        slice(at + stop * width, at + stop * width + outputs),
    )
    return Rows(
        layer,
        slice(start, stop),
        (own.by_means[weights].view(-1, width), own.by_log_stds[weights].view(-1, width)),
        (own.by_means[biases], own.by_log_stds[biases]) if stop == outputs else None,
    )


def _cut(shapes: Sequence[tuple[int, int]], most: int | None) -> list[list[_Part]]:
    found: list[list[_Part]] = []
    limit = sum(map(math.prod, shapes)) if most is None else most
    room = 0
    for layer, (outputs, width) in reversed(list(enumerate(shapes))):
        count = -(-outputs // max(limit // width, 1))
        rows = -(-outputs // count)
        for start in range((outputs - 1) // rows * rows, -1, -rows):
            stop = min(start + rows, outputs)
            room -= (stop - start) * width
            if room < 0 or not found:
                found.append([])
                room = limit - (stop - start) * width
            found[-1].append(_Part(layer, start, stop))
    return found
