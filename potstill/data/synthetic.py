"""Data drawn by the program: every number has a key, so that the same draw is the same on every machine.

A draw is the study's, one for all seeds, or a seed's own (`redraw = "seed"`). Row i of a part depends on the source,
the draw, the part and i alone, up to standardising: a smaller part is the beginning of a larger one, other labels
leave inputs as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from potstill import seeding
from potstill.data.parts import Contents, Part
from potstill.errors import DataError

Floats = NDArray[np.float64]
Setting = Literal["clean-labels", "clean-features", "relevant-features", "sample-features", "largest-features"]
STUDY: Final = "study"


@dataclass(frozen=True)
class _Draw:
    """The numbers of one source and draw, by what they are for."""

    source: str
    draw: str | int

    def normal(self, what: str, rows: int, width: int) -> Floats:
        return seeding.normal(self._key(what), np.arange(rows), width)

    def uniform(self, what: str, rows: int, width: int) -> Floats:
        return seeding.uniform(self._key(what), np.arange(rows), width)

    def _key(self, what: str) -> int:
        return seeding.key("drawn", self.source, self.draw, what)


def softmax_linear(
    folder: Path | None,  # noqa: ARG001 - built-in sets have one signature
    *,
    features: int = 10,
    classes: int = 3,
    train: int = 1000,
    test: int = 100,
    temperature: float = 1.0,
    labels: Literal["drawn", "likeliest"] = "drawn",
) -> Contents:
    """Classes of a linear law: x ~ N(0, I), W ~ N(0, 1), p = softmax(x W / temperature), and the label drawn from p.

    `labels = "likeliest"` takes the argmax of p instead. temperature -> 0: both agree; temperature -> infinity: drawn
    labels say nothing, the likeliest stay what they are. W is drawn once, x and labels for each part. The truth is
    logits x W / temperature; with the likeliest labels, which are certain, there is none.

    Reference: paper 2, "Probabilistic interpretation of the distillation problem" (Grabovoy and Strijov 2022), the
    synthetic set: 10 features, 3 classes, 1,000 and 100 examples. In the authors' program labels are drawn at
    temperature 1, whatever the temperature of the teacher's answers.
    """
    name = "softmax-linear"
    _at_least(name, features=(features, 1), classes=(classes, 2), train=(train, 1), test=(test, 1))
    _positive(name, temperature=temperature)

    def law(draw: _Draw) -> NDArray[np.float32]:
        return (draw.normal("weights", features, classes) / temperature).astype(np.float32)

    def part(draw: _Draw, word: str, rows: int) -> Part:
        inputs = draw.normal(f"{word} inputs", rows, features).astype(np.float32)
        probabilities = _softmax(inputs.astype(np.float64) @ law(draw).astype(np.float64))
        if labels == "likeliest":
            chosen = probabilities.argmax(axis=1)
        else:
            below = probabilities.cumsum(axis=1)[:, :-1]  # so that rounding cannot lead past the last class
            chosen = (draw.uniform(f"{word} labels", rows, 1) >= below).sum(axis=1)
        return Part(inputs, chosen.astype(np.int64), f"{name}, {word}")

    names, truth = tuple(map(str, range(classes))), law if labels == "drawn" else None
    return _contents(name, {"train": train, "test": test}, part, names, truth=truth)


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


def privileged(
    folder: Path | None,  # noqa: ARG001 - built-in sets have one signature
    *,
    setting: Setting = "clean-labels",
    features: int = 50,
    relevant: int = 3,
    train: int = 200,
    test: int = 10_000,
    standardise: bool = True,
) -> Contents:
    """Two classes of a linear law with privileged information: inputs `x` for a student, `x_star` for its teacher.

    `setting` says what x* is; a ~ N(0, I), drawn once; J are `relevant` of the features.

    - `clean-labels` (1): x ~ N(0, I), x* = <a, x>, y = [x* + e > 0], e ~ N(0, 1).
    - `clean-features` (2): x* ~ N(0, I), x = x* + e, e ~ N(0, I), y = [<a, x*> > 0].
    - `relevant-features` (3): x ~ N(0, I), x* = x_J, y = [<a_J, x*> > 0], J at random and the same for all examples.
    - `sample-features` (4): the same with J at random for each example, and a_J with it.
    - `largest-features`: J the largest features of each example, in falling order, the first of a for all of them,
      and the median of <a, x*> in place of 0. The paper prints numbers for (4) that its text cannot give (three numbers
      without their places say next to nothing of y), and that this, a line of the authors' program, gives.

    `standardise`: each feature of x and x* by the mean and the standard deviation of the training part, as the
    authors' program does; the text does not say so.

    Reference: Lopez-Paz, Bottou, Schoelkopf, Vapnik 2016, "Unifying distillation and privileged information", section
    6, experiments 1 to 4: 50 features, 200 and 10,000 examples, 100 repetitions.
    """
    name = "privileged"
    _at_least(name, features=(features, 1), relevant=(relevant, 1), train=(train, 2), test=(test, 1))
    if relevant > features:
        raise DataError(
            f'relevant of the data source "{name}" is {relevant}; wanted is at most {features}, all features.'
        )

    def part(draw: _Draw, word: str, rows: int) -> Part:
        found = _examples(draw, word, rows, setting=setting, features=features, relevant=relevant)
        if standardise:
            first = found if word == "train" else None
            first = first or _examples(draw, "train", train, setting=setting, features=features, relevant=relevant)
            found = found.scaled(first)
        arrays = {"x": found.inputs.astype(np.float32), "x_star": found.starred.astype(np.float32)}
        return Part(arrays["x"], found.labels, f"{name}, {word}", named=arrays)

    return _contents(name, {"train": train, "test": test}, part, ("0", "1"), inputs=("x", "x_star"))


def linear(
    folder: Path | None,  # noqa: ARG001 - built-in sets have one signature
    *,
    features: int = 10,
    targets: int = 1,
    train: int = 900,
    test: int = 124,
    noise: float = 0.1,
) -> Contents:
    """A linear regression: x ~ N(0, I), w ~ N(0, 1), y = <w, x> + noise e, e ~ N(0, 1); needs `task = "regression"`.

    `noise` is a standard deviation, in units of y; 0: y is what x says. w is drawn once. The truth is <w, x>.

    Reference: paper 2, "Bayesian distillation of deep learning models" (Grabovoy and Strijov 2021), the synthetic set:
    1,024 rows of 10 features, 900 of them for training. In the authors' program 0.1 is the standard deviation.
    """
    name = "linear"
    _at_least(name, features=(features, 1), targets=(targets, 1), train=(train, 1), test=(test, 1))
    if not (noise >= 0 and np.isfinite(noise)):
        raise DataError(f'noise of the data source "{name}" is {noise}; wanted is a finite number of at least 0.')

    def law(draw: _Draw) -> NDArray[np.float32]:
        return draw.normal("weights", features, targets).astype(np.float32)

    def part(draw: _Draw, word: str, rows: int) -> Part:
        inputs = draw.normal(f"{word} inputs", rows, features).astype(np.float32)
        true = inputs.astype(np.float64) @ law(draw).astype(np.float64)
        values = true + noise * draw.normal(f"{word} noise", rows, targets)
        return Part(inputs, values.astype(np.float32), f"{name}, {word}")

    return _contents(name, {"train": train, "test": test}, part, None, truth=law)


class Examples(NamedTuple):
    """What the student sees, (n, F); what the teacher sees, (n, G); the labels, (n,) int64 of 0 and 1."""

    inputs: Floats
    starred: Floats
    labels: NDArray[np.int64]

    def scaled(self, by: Examples) -> Examples:
        """With the mean and the standard deviation of `by` taken out."""
        return Examples(_scaled(self.inputs, by.inputs), _scaled(self.starred, by.starred), self.labels)


def _scaled(values: Floats, by: Floats) -> Floats:
    spread = by.std(axis=0)
    return np.asarray((values - by.mean(axis=0)) / np.where(spread > 0, spread, 1.0), np.float64)


def _examples(draw: _Draw, word: str, rows: int, *, setting: Setting, features: int, relevant: int) -> Examples:
    law = draw.normal("law", 1, features)[0]
    plain = draw.normal(f"{word} inputs", rows, features)
    if setting == "clean-labels":
        distance = plain @ law
        noise = draw.normal(f"{word} noise", rows, 1)[:, 0]
        return Examples(plain, distance[:, None], _above(distance + noise, 0.0))
    if setting == "clean-features":
        return Examples(plain + draw.normal(f"{word} noise", rows, features), plain, _above(plain @ law, 0.0))
    if setting == "relevant-features":
        places = draw.uniform("places", 1, features).argsort(axis=1)[:, :relevant].repeat(rows, axis=0)
    elif setting == "sample-features":
        places = draw.uniform(f"{word} places", rows, features).argsort(axis=1)[:, :relevant]
    else:
        places = (-plain).argsort(axis=1, kind="stable")[:, :relevant]
    starred = np.take_along_axis(plain, places, axis=1)
    if setting == "largest-features":
        values = starred @ law[:relevant]
        return Examples(plain, starred, _above(values, float(np.median(values))))
    return Examples(plain, starred, _above((starred * law[places]).sum(axis=1), 0.0))


def _above(values: Floats, threshold: float) -> NDArray[np.int64]:
    return np.asarray(values > threshold, np.int64)


def _contents(
    name: str,
    sizes: Mapping[str, int],
    part: Callable[[_Draw, str, int], Part],
    classes: tuple[str, ...] | None,
    *,
    truth: Callable[[_Draw], NDArray[np.float32]] | None = None,
    inputs: tuple[str, ...] = (),
) -> Contents:
    """The study's draw, which can be drawn anew; a part is drawn when it is asked for."""

    def drawn(draw: str | int) -> Contents:
        numbers = _Draw(name, draw)
        parts = {word: partial(part, numbers, word, rows) for word, rows in sizes.items()}
        law = None if truth is None else partial(truth, numbers)
        return Contents(name, parts, classes, redrawn=drawn, truth=law, inputs=inputs)

    return drawn(STUDY)


def _at_least(name: str, **values: tuple[int, int]) -> None:
    for word, (value, least) in values.items():
        if value < least:
            raise DataError(f'{word} of the data source "{name}" is {value}; wanted is at least {least}.')


def _positive(name: str, **values: float) -> None:
    for word, value in values.items():
        if not (value > 0 and np.isfinite(value)):
            raise DataError(f'{word} of the data source "{name}" is {value}; wanted is a finite number above 0.')


SOURCES: Final[Mapping[str, Callable[..., Contents]]] = {
    "linear": linear,
    "privileged": privileged,
    "softmax-linear": softmax_linear,
}
