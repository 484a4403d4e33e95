"""Which rows are validation, test and labelled: stratified by label, and decided by keys alone.

Where labels are no classes (a regression), all rows are of one class here, so that nothing is stratified.
Splits have a constant key, so that all seeds of a study share them; labelled subsets are keyed by the seed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from potstill import seeding
from potstill.errors import DataError

Rows = NDArray[np.int64]


def allot(counts: Rows, wanted: int, *, lowest: Rows, highest: Rows) -> Rows:
    """How many of each class: proportional to `counts`, by largest remainders, within [lowest, highest].

    `counts`, `lowest`, `highest` and the result are (K,), and sum(lowest) <= wanted <= sum(highest). Off the exact
    share by less than one, unless the bounds force more.
    """
    share = counts * (wanted / counts.sum())
    given: Rows = np.clip(np.floor(share).astype(np.int64), lowest, highest)
    while given.sum() != wanted:
        step = 1 if given.sum() < wanted else -1
        room = given < highest if step > 0 else given > lowest
        given[np.argmax(np.where(room, (share - given) * step, -np.inf))] += step
    return given


def stratified(labels: Rows, given: Rows, *key: str | int) -> Rows:
    """Rows (sorted), `given[c]` of each class c, drawn by the key. `labels` (n,) counts classes from 0."""
    order = seeding.permutation(len(labels), *key).numpy()
    ordered = labels[order]
    picked = [order[np.flatnonzero(ordered == c)[:count]] for c, count in enumerate(given) if count]
    return np.sort(np.concatenate(picked)) if picked else np.zeros(0, np.int64)


def size(asked: float | None, default: float, total: int, what: str) -> int:
    """The number of rows that `asked` (a fraction, a count, None for the default) means of `total` rows."""
    fraction = default if asked is None else asked
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or fraction < 0 or fraction != fraction:
        raise DataError(f"{what} = {asked!r}: wanted a fraction between 0 and 1 or a whole number of examples.")
    if isinstance(fraction, int):
        return fraction
    if fraction >= 1:
        raise DataError(
            f"{what} = {asked!r}: a number with a point is a fraction and must be below 1; "
            f"for a number of examples write {what} = {int(min(fraction, 2**31))}."
        )
    count = round(fraction * total)
    if asked and not count:
        raise DataError(f"{what} = {asked!r} of {total} labelled examples is none. Ask for more, or write {what} = 0.")
    return count


def hold_out(labels: Rows, count: int, what: str) -> Rows:
    """Positions (sorted) of `count` stratified rows for `what`; every class keeps at least one row. `labels` (n,).

    The same for every seed. `DataError` where too few rows are left.
    """
    counts = np.bincount(labels)
    highest = np.maximum(counts - 1, 0)
    if count > highest.sum():
        classes = int((counts > 0).sum())
        found, stays = (f" of {classes} classes", "one of each class") if classes > 1 else ("", "one")
        raise DataError(
            f"{what} = {count}: found {len(labels)} labelled training examples{found}, and {stays} must stay for "
            f"training; at most {int(highest.sum())} can be held out."
        )
    if not count:
        return np.zeros(0, np.int64)
    return stratified(labels, allot(counts, count, lowest=np.zeros_like(counts), highest=highest), "split", what)


def kept_rows(labels: Rows, count: int, *key: str | int) -> Rows:
    """Positions (sorted) of `count` stratified rows, one or more of each class. `labels` (n,).

    The first word of the key names the setting that asks for them, in the `DataError` where there are not so many.
    """
    counts = np.bincount(labels)
    classes = int((counts > 0).sum())
    if isinstance(count, bool) or not isinstance(count, int) or not classes <= count <= len(labels):
        least = f"{classes} (one example of each class)" if classes > 1 else "1"
        raise DataError(
            f"{key[0]} = {count!r}: wanted a whole number from {least} to {len(labels)} (the labelled training "
            "examples that validation and test leave)."
        )
    return stratified(labels, allot(counts, count, lowest=np.minimum(counts, 1), highest=counts), *key)
