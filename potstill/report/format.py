"""Numbers as people write them. A value that is missing or not finite is an en dash, never "nan"."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import Any

from potstill.metrics import FRACTIONS

MISSING = "–"
MEASURED = ("absolute_error", "squared_error", "teacher_squared_error")  # in units of a regression's targets
_MINUS = "\u2212"
_WORDS = {
    "agreement": "agreement with the teacher",
    "brier": "Brier score",
    "macro_f1": "macro F1",
    "negative_log_likelihood": "negative log-likelihood",
    "r2": "R²",
    "teacher_kl": "KL divergence from the teacher",
    "teacher_squared_error": "squared distance from the teacher",
    "uncertainty": "degree of uncertainty",
}


def clean(text: str) -> str:
    """Text without control characters and lone surrogates, which neither HTML nor XML can carry.

    >>> clean("a\\x00b\\tc")
    'a\ufffdb c'
    """
    spaced = text.replace("\t", " ").replace("\r\n", "\n").replace("\r", "\n")
    return "".join("\ufffd" if _unprintable(letter) else letter for letter in spaced)


def _unprintable(letter: str) -> bool:
    return letter != "\n" and (unicodedata.category(letter) in ("Cc", "Cs") or letter in "\ufffe\uffff")


def shorten(text: str, length: int) -> str:
    """At most `length` characters, cut in the middle, because names differ at their ends.

    >>> shorten("from-teacher-unlabelled", 15)
    'from-te…abelled'
    """
    text = " ".join(clean(text).split())
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


def brief(values: Sequence[Any], length: int) -> list[str]:
    """Numbers as ticks of an axis, with as few digits as keep them apart where more have no room; other values cut.

    >>> brief([0.000605, 0.00122, 0.01], 6), brief([0.5, 1, 10], 6), brief(["fresh", "once-in-a-while"], 6)
    (['0.0006', '0.0012', '0.01'], ['0.5', '1', '10'], ['fresh', 'onc…le'])
    """
    whole = [anything(value) for value in values]
    tries = [[f"{value:.{digits}g}" for value in values] for digits in (3, 2, 1)] if all(map(is_number, values)) else []
    for texts in (whole, *tries):
        if max(map(len, texts)) <= length and len(set(texts)) == len(set(whole)):
            return texts
    return [shorten(text, length) for text in whole]


def shape(sizes: Sequence[int]) -> str:
    """The shape of an example: 1 × 28 × 28."""
    return " × ".join(map(count, sizes))


def wrap(text: str, length: int, lines: int = 2) -> list[str]:
    """At most `lines` lines of at most `length` characters, broken at spaces and hyphens where there are any."""
    rest = " ".join(clean(text).split())
    done: list[str] = []
    while len(rest) > length and len(done) < lines - 1:
        cut = max(rest.rfind(mark, length // 3, length) for mark in " -_,:/") + 1 or length
        done.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return [*done, shorten(rest, length)]


def metric_name(metric: str) -> str:
    """A metric's name in words: "error_rate" is "error rate"."""
    return _WORDS.get(metric, metric.replace("_", " "))


def capital(text: str) -> str:
    """With a capital first letter; the rest as it is."""
    return text[:1].upper() + text[1:]


def is_share(metric: str) -> bool:
    """Whether a metric is a share in [0, 1] that people read in percent."""
    return metric in FRACTIONS


def axis(metric: str) -> str:
    """What stands beside an axis of this metric: its name, and "%" for a share."""
    return metric_name(metric) + (", %" if is_share(metric) else "")


def tick(metric: str, x: float, *, plus: bool = False) -> str:
    """A short number at such an axis: a share in percent, a difference of shares in points."""
    shown = 100 * x if is_share(metric) else x
    sign = "+" if plus and shown > 0 else ""
    return sign + f"{shown:.4g}".replace("-", _MINUS)


def round_number(x: float) -> str:
    """A number at an axis of no metric, as it is.

    >>> round_number(80.0), round_number(-1.5), round_number(12000.0)
    ('80', '−1.5', '12,000')
    """
    return f"{x:,.6g}".replace("-", _MINUS)


def unit(metric: str) -> str:
    """The unit of a difference in this metric; empty where there is none."""
    return "points" if is_share(metric) else ""


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _signed(text: str, plus: bool) -> str:
    if text.startswith("-"):
        return _MINUS + text[1:] if float(text.replace(",", "")) != 0 else text[1:]
    return f"+{text}" if plus and float(text.replace(",", "")) != 0 else text


def number(value: float | None, digits: int = 4, *, plus: bool = False) -> str:
    """About `digits` significant digits, never more decimals than digits.

    >>> number(0.23456), number(1234567.0), number(-0.5, plus=True)
    ('0.2346', '1,234,567', '−0.5000')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    size = abs(value)
    if size >= 1e15 or 0 < size < 10.0**-digits / 2:
        return _signed(f"{value:.2e}", plus)
    whole = len(str(int(size))) if size >= 1 else 0
    return _signed(f"{value:,.{max(0, digits - whole)}f}", plus)


def measured(value: float | None, *, plus: bool = False) -> str:
    """A number in units of the user's own: as `number`, but small ones have three significant digits too.

    >>> measured(0.0001071), measured(-0.5, plus=True), measured(0.00004)
    ('0.000107', '−0.5000', '4.00e-05')
    """
    if value is None or not 10.0**-4 / 2 <= abs(value) < 0.1:
        return number(value, plus=plus)
    return _signed(f"{value:.{2 - math.floor(math.log10(abs(value)))}f}", plus)


def _plain(metric: str, x: float, *, plus: bool = False) -> str:
    return measured(x, plus=plus) if metric in MEASURED else number(x, plus=plus)


def value(metric: str, x: float | None, *, bare: bool = False) -> str:
    """A metric's value: "93.83 %" for a share (without the sign where `bare`), else four digits."""
    if x is None or not math.isfinite(x):
        return MISSING
    if not is_share(metric):
        return _plain(metric, x)
    return _signed(f"{100 * x:.2f}", False) + ("" if bare else " %")


def spread(metric: str, x: float | None) -> str:
    """A standard deviation in the metric's unit, after a plus-minus sign; empty where there is none."""
    return f"± {value(metric, x, bare=True)}" if _finite(x) else ""


def difference(metric: str, x: float | None, *, bare: bool = False) -> str:
    """A signed difference: "+4.31 points" for a share (without the unit where `bare`), else four digits."""
    if x is None or not math.isfinite(x):
        return MISSING
    if not is_share(metric):
        return _plain(metric, x, plus=True)
    return _signed(f"{100 * x:.2f}", True) + ("" if bare else " points")


def interval(metric: str, ends: tuple[float, float] | None) -> str:
    """Both ends of an interval of differences, or "no interval". An end that is not zero is not shown as zero."""
    if ends is None:
        return "no interval"
    if not is_share(metric):
        return f"[{_plain(metric, ends[0], plus=True)}, {_plain(metric, ends[1], plus=True)}]"
    least = min((abs(100 * end) for end in ends if end), default=1.0)
    digits = next((n for n in (2, 3, 4) if least >= 0.5 * 10.0**-n), 2)
    return f"[{_signed(f'{100 * ends[0]:.{digits}f}', True)}, {_signed(f'{100 * ends[1]:.{digits}f}', True)}]"


def count(n: float | None) -> str:
    """A number of things: thousands separated, from ten million on in millions or more."""
    if n is None or not math.isfinite(n):
        return MISSING
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e7, "M")):
        if abs(n) >= size:
            return f"{n / (1e6 if letter == 'M' else size):,.1f} {letter}"
    return f"{n:,.0f}"


def size(n: float | None) -> str:
    """Bytes in decimal units: "4.8 kB"."""
    if n is None or not math.isfinite(n):
        return MISSING
    for power, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(n) >= power:
            return f"{n / power:.1f} {name}"
    return f"{n:.0f} B"


def milliseconds(ms: float | None) -> str:
    """A short time, three digits: "85.0 µs", "12.3 ms", "1.20 s"."""
    if ms is None or not math.isfinite(ms):
        return MISSING
    for scale, name in ((1e3, "s"), (1.0, "ms"), (1e-3, "µs")):
        if abs(ms) >= scale or name == "µs":
            shown = ms / scale
            return f"{shown:.{2 if abs(shown) < 10 else 1 if abs(shown) < 100 else 0}f} {name}"
    raise AssertionError("unreachable")


def seconds(s: float | None) -> str:
    """A long time: "4.2 s", "2 min 5 s", "1 h 4 min", "3 d 2 h"."""
    if s is None or not math.isfinite(s):
        return MISSING
    if s < 1:
        return milliseconds(1e3 * s)
    if s < 59.95:
        return f"{s:.1f} s"
    whole = round(s)
    for large, small, names in ((60, 1, "min s"), (3600, 60, "h min"), (86400, 3600, "d h")):
        if whole < large * (60 if names == "min s" else 24) or names == "d h":
            first, second = names.split()
            rest = whole % large // small
            return f"{whole // large} {first}" + (f" {rest} {second}" if rest else "")
    raise AssertionError("unreachable")


def ratio(x: float | None, reference: float | None, *, less: str = "less", more: str = "more") -> str:
    """How many times less or more than a reference; empty where it cannot be said.

    >>> ratio(1210, 151306, less="fewer"), ratio(3.0, 2.0), ratio(1.0, 1.01)
    ('125× fewer', '1.5× more', 'about the same')
    """
    if not x or not reference or not math.isfinite(x) or not math.isfinite(reference):
        return ""
    times = max(x, reference) / min(x, reference)
    if times < 1.05:
        return "the same" if x == reference else "about the same"
    return f"{times:,.{0 if times >= 10 else 1}f}× {less if x < reference else more}"


def plural(n: int, word: str, many: str | None = None) -> str:
    """ "1 seed", "2 seeds"."""
    return f"{count(n)} {word if n == 1 else many or word + 's'}"


def is_number(thing: Any) -> bool:
    """Whether a value out of JSON is a number; True and False are none."""
    return isinstance(thing, int | float) and not isinstance(thing, bool)


def place(x: float) -> str:
    """A value of a swept number, whole ones with all digits.

    >>> place(0.1), place(10_000_000.0)
    ('0.1', '10000000')
    """
    return anything(x if x % 1 else int(x))


def anything(thing: Any) -> str:
    """A value out of JSON on one line."""
    if thing is None:
        return MISSING
    if isinstance(thing, bool):
        return "yes" if thing else "no"
    if isinstance(thing, float):
        return f"{thing:g}"
    if isinstance(thing, dict):
        return ", ".join(f"{key} {anything(inner)}" for key, inner in thing.items()) or MISSING
    if isinstance(thing, list | tuple):
        return ", ".join(anything(inner) for inner in thing) or MISSING
    return str(thing)
