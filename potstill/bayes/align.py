"""A teacher's posterior brought to the shape of a student: layers first or last, neurons by an order, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

from torch import Tensor

from potstill.bayes.grow import Wider, add_layer, add_neurons, can_repeat
from potstill.bayes.layout import Layer, Layout
from potstill.bayes.order import Order, Removal, keep_neurons
from potstill.bayes.posterior import GaussianPosterior
from potstill.bayes.reduce import Layers, cannot_merge, remove_layer
from potstill.errors import PosteriorError
from potstill.registry import Spec


@dataclass(frozen=True, slots=True)
class Reduction:
    """A posterior for a student, and what was done to get there; layers by the teacher's names."""

    posterior: GaussianPosterior
    neurons: tuple[Removal, ...] = ()
    layers: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


class _Match(NamedTuple):
    """Which hidden layers of the teacher stand behind each hidden layer of the student, as (first, last) of each."""

    groups: tuple[tuple[int, int], ...]
    cost: tuple[int, int]


def reduce_to(
    posterior: GaussianPosterior,
    student: Layout,
    *,
    order: Spec | Order = "cost",
    layers: Layers = "merge",
    wider: Wider = "error",
    greedy: bool = False,
    shift_means: bool = False,
    curvature: Tensor | None = None,
    variance: float = 1.0,
    seed: int = 0,
) -> Reduction:
    """The posterior of a teacher as one over a student's weights: the prior of Bayesian distillation.

    A student with fewer layers gets the teacher's with as few neurons removed as can be: `layers` "merge" multiplies
    what is between, "drop" removes neurons until layers are equally wide and makes one the identity (`remove_layer`).
    Then neurons go, from the last hidden layer to the first, in the `order` given, all at once or one by one
    (`greedy`). `wider` says what more neurons and layers are (`add_neurons`, `add_layer`, of `variance`); without it a
    larger student is refused. `curvature` (P,): for the order brain_damage. `seed`: of net2net.

    Means stay (`shift_means` False): conditioning them too helps only where next to nothing is removed. Raises
    `PosteriorError`, naming the layer, for what cannot be aligned.
    """
    teacher = posterior.layout
    teacher.chain("The teacher's posterior")
    student.chain("The student's network")
    _ends(teacher, student)
    match = _best(teacher, student, layers, wider)
    gone: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    if len(student.layers) > len(teacher.layers):
        posterior, added = _deeper(posterior, match, student, variance)
        curvature = None
    if len(student.layers) < len(teacher.layers) and layers == "merge":
        curvature = None
        posterior, gone = _merged(posterior, match)
    widths = [student.widths[i] for i, (first, last) in enumerate(match.groups) for _ in range(last + 1 - first)]
    removed = []
    for number in range(len(widths) - 1, -1, -1):
        missing = widths[number] - posterior.layout.widths[number]
        if missing > 0:
            posterior = add_neurons(posterior, number, missing, how=wider, variance=variance, seed=seed)
            curvature = None
        elif missing < 0:
            posterior, curvature, removal = keep_neurons(
                posterior, number, widths[number], order, curvature=curvature, greedy=greedy, shift_means=shift_means
            )
            removed.append(removal)
    if len(widths) > len(student.widths):
        posterior, gone = _dropped(posterior, match, shift_means=shift_means)
    return Reduction(_renamed(posterior, student), tuple(removed), gone, added)


def _ends(teacher: Layout, student: Layout) -> None:
    first, theirs_first = student.layers[0], teacher.layers[0]
    if bool(first.kernel) != bool(theirs_first.kernel):
        raise PosteriorError(
            "The student's layers cannot be aligned with the teacher's: "
            f"{first.name} has {_kernel(first)}, {theirs_first.name} {_kernel(theirs_first)}."
        )
    for what, own, theirs in (
        ("inputs", student.layers[0].weight[1], teacher.layers[0].weight[1]),
        ("outputs", student.layers[-1].outputs, teacher.layers[-1].outputs),
    ):
        if own != theirs:
            raise PosteriorError(f"The student has {own} {what}, the teacher's posterior {theirs}: both see one task.")


def _best(teacher: Layout, student: Layout, layers: Layers, wider: Wider) -> _Match:
    """The way to stand the layers beside each other that adds, then removes, the fewest neurons; else the first."""
    if layers not in ("drop", "merge"):
        raise PosteriorError(f'Layers are removed by "drop" or "merge"; found "{layers}".')
    hidden, wanted = len(teacher.widths), len(student.widths)
    if wanted > hidden and wider == "error":
        raise PosteriorError(
            f"The student has {wanted} hidden layers, the teacher's posterior {hidden}. "
            'Say what more layers are: wider = "prior" or "net2net".'
        )
    reasons: list[str] = []
    found = []
    for groups in _groups(hidden, wanted, layers):
        reason = _misfit(teacher, student, groups, layers)
        if reason:
            reasons.append(reason)
        else:
            found.append(_Match(groups, _work(teacher, student, groups)))
    if not found:
        why = reasons[0] if reasons else f"{hidden} hidden layers against {wanted}"
        raise PosteriorError(f"The student's layers cannot be aligned with the teacher's: {why}.")
    return min(found, key=lambda match: match.cost)


def _groups(hidden: int, wanted: int, layers: Layers) -> Iterator[tuple[tuple[int, int], ...]]:
    """For each hidden layer of the student, the first and the last hidden layer of the teacher behind it."""
    if wanted > hidden and hidden:  # each of the teacher's stands behind one or more of the student's, in a row
        for cuts in combinations(range(1, wanted), hidden - 1):
            sizes = [b - a for a, b in zip((0, *cuts), (*cuts, wanted), strict=True)]
            yield tuple((i, i) for i, size in enumerate(sizes) for _ in range(size))
    elif wanted <= hidden and (layers == "merge" or wanted == hidden):
        for kept in combinations(range(hidden), wanted):
            yield tuple((i, i) for i in kept)
    elif wanted < hidden:
        for cuts in combinations(range(1, hidden), wanted - 1) if wanted else ():
            yield tuple((a, b - 1) for a, b in zip((0, *cuts), (*cuts, hidden), strict=True))


def _misfit(teacher: Layout, student: Layout, groups: tuple[tuple[int, int], ...], layers: Layers) -> str:
    for own, (first, last) in zip(student.layers, groups, strict=False):
        for number in range(first, last + 1):
            theirs = teacher.layers[number]
            if own.kernel != theirs.kernel:
                return f"{own.name} has {_kernel(own)}, {theirs.name} {_kernel(theirs)}"
    kept = {number for first, last in groups for number in range(first, last + 1)}
    if len(student.layers) < len(teacher.layers) and layers == "merge":
        reasons = (cannot_merge(teacher, number) for number in range(len(teacher.widths)) if number not in kept)
        return next((reason for reason in reasons if reason), "")
    if len(student.layers) > len(teacher.layers):
        repeated = [first for first, _ in groups if sum(first == other for other, _ in groups) > 1]
        cannot = [teacher.layers[number].name for number in repeated if not can_repeat(teacher, number)]
        return f"no layer that changes nothing can stand after {cannot[0]}" if cannot else ""
    return ""


def _work(teacher: Layout, student: Layout, groups: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """Neurons to add, and neurons to remove."""
    gaps = [
        width - teacher.widths[number]
        for width, (first, last) in zip(student.widths, groups, strict=True)
        for number in range(first, last + 1)
    ]
    return sum(gap for gap in gaps if gap > 0), -sum(gap for gap in gaps if gap < 0)


def _merged(posterior: GaussianPosterior, match: _Match) -> tuple[GaussianPosterior, tuple[str, ...]]:
    kept = {first for first, _ in match.groups}
    gone = [number for number in range(len(posterior.layout.widths)) if number not in kept]
    names = tuple(posterior.layout.layers[number].name for number in gone)
    for number in reversed(gone):
        posterior = remove_layer(posterior, number, "merge")
    return posterior, names


def _dropped(
    posterior: GaussianPosterior, match: _Match, *, shift_means: bool
) -> tuple[GaussianPosterior, tuple[str, ...]]:
    gone = [number for first, last in match.groups for number in range(first + 1, last + 1)]
    names = tuple(posterior.layout.layers[number].name for number in gone)
    for number in reversed(gone):
        posterior = remove_layer(posterior, number, "drop", shift_means=shift_means)
    return posterior, names


def _deeper(
    posterior: GaussianPosterior, match: _Match, student: Layout, variance: float
) -> tuple[GaussianPosterior, tuple[str, ...]]:
    sources = [first for first, _ in match.groups]
    new = [i for i in range(1, len(sources)) if sources[i] == sources[i - 1]]
    for i in reversed(new):
        posterior = add_layer(posterior, sources[i], f"+{student.layers[i].name}", variance=variance)
    return posterior, tuple(student.layers[i].name for i in new)


def _renamed(posterior: GaussianPosterior, student: Layout) -> GaussianPosterior:
    """Under the student's names; the first difference that is left is refused."""
    for theirs, own in zip(posterior.layout.layers, student.layers, strict=True):
        for what, a, b in (
            ("shape", own.weight, theirs.weight),
            ("biases", own.bias, theirs.bias),
            ("convolution", own.settings, theirs.settings),
            ("what follows it", own.after, theirs.after),
            ("pixels per channel", own.spread, theirs.spread),
        ):
            if a != b:
                raise PosteriorError(
                    f"{own.name} cannot be aligned with the teacher's {theirs.name.lstrip('+')}: {what} {_told(a)} "
                    f"against {_told(b)}."
                )
    named = [
        replace(theirs, name=own.name) for theirs, own in zip(posterior.layout.layers, student.layers, strict=True)
    ]
    layout = posterior.layout.with_layers(named)
    return GaussianPosterior(layout, posterior.mean, posterior.covariance, posterior.info)


def _kernel(layer: Layer) -> str:
    return f"a kernel of {'x'.join(map(str, layer.kernel))}" if layer.kernel else "no kernel (it is linear)"


def _told(value: object) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value)) if all(isinstance(x, int) for x in value) else " ".join(map(str, value))
    return {True: "there", False: "not there"}.get(value, str(value)) if isinstance(value, bool) else str(value)
