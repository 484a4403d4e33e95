"""The family tree: who learnt from whom. A drawing for wide pages, an outline for narrow ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from markupsafe import Markup

from potstill.report import format as fmt
from potstill.report.names import Cast
from potstill.report.svg import element
from potstill.study.words import INFERRED

BOX: Final = (236, 92)  # width and height of a model's box
PILL: Final = (84, 36)  # recorded outputs
GAP: Final = 150  # between columns: holds the pill and the arrows
LABELS: Final = frozenset({"hard_labels", "squared_error", "gaussian"})  # a teacher of these alone gives a prior
DEEPEST: Final = 3  # columns that fit; deeper families are shown as an outline at any width


@dataclass(frozen=True)
class Node:
    """A model of the plan; its sweep points and generations share one box. `depth` counts teachers above it.

    `prior`: it has nothing of its teachers but a posterior, of which its prior is made.
    """

    name: str
    details: tuple[str, ...]
    teachers: tuple[str, ...]
    members: int = 1
    baseline: bool = False
    outside: bool = False
    live: bool = False
    depth: int = 0
    prior: bool = False


class Branch(NamedTuple):
    """A node of the outline, below its first teacher."""

    node: Node
    also: tuple[str, ...]
    students: list[Branch]

    @property
    def flow(self) -> str:
        """What its students have of it."""
        words = " ".join(_between([branch.node for branch in self.students]))
        return words if words == "posterior as prior" else f"{words} teach"


def family(cast: Cast) -> list[Node]:
    """The models of a study and the teachers that come from outside it, in the plan's order."""
    models = cast.results.models
    groups: dict[str, list[str]] = {}
    for key in cast.order:
        groups.setdefault(models[key].model, []).append(key)
    parents = {name: _teachers(cast, keys) for name, keys in groups.items()}
    depths = {name: _depth(name, parents, frozenset()) for name in groups}
    nodes = [
        Node(teacher, ("from outside the study",), (), outside=True)
        for teacher in dict.fromkeys(t for ts in parents.values() for t in ts)
        if teacher not in groups
    ]
    return nodes + [_node(cast, keys, parents[name], depth=depths[name]) for name, keys in groups.items()]


def _teachers(cast: Cast, keys: list[str]) -> tuple[str, ...]:
    models = cast.results.models
    found: dict[str, None] = {}
    for key in keys:
        for name in models[key].teachers:
            teacher = cast.find(name, models[key])
            known = name if teacher is None else models[teacher].model
            if known != models[key].model:
                found[known] = None
    return tuple(found)


def _depth(name: str, parents: Mapping[str, tuple[str, ...]], above: frozenset[str]) -> int:
    """Longest way up to a model without a teacher; a damaged file's cycle is cut."""
    inner = [t for t in parents.get(name, ()) if t not in above and t != name]
    return max((1 + _depth(t, parents, above | {name}) for t in inner), default=0)


def _node(cast: Cast, keys: list[str], teachers: tuple[str, ...], *, depth: int) -> Node:
    models = cast.results.models
    first, metric = models[keys[0]], cast.results.metric
    name = first.model
    several = {
        "member": first.members,
        "generation": first.generations,
        "sweep point": len({fmt.anything(models[key].point) for key in keys}),
    }
    what = [first.network, *(fmt.plural(n, word) for word, n in several.items() if n > 1)]
    plan = cast.results.plan.get("models")
    settings = plan.get(name) if isinstance(plan, dict) else None
    prior = bool(teachers) and isinstance(settings, dict) and _of_labels(settings.get("objective"))
    _, _, inferred = first.objective.partition(INFERRED)
    told = [inferred] if inferred and (prior or not teachers) else [first.objective] if teachers else []
    details = [", ".join(what), *told]
    means = [models[key].metrics[metric].mean for key in keys if metric in models[key].metrics]
    result = "no result"
    if len(keys) > 1 and means:
        result = f"{fmt.value(metric, min(means))} to {fmt.value(metric, max(means))}"
    elif means:
        one = models[keys[0]].metrics[metric]
        result = f"{fmt.value(metric, one.mean)} {fmt.spread(metric, one.std)}"
    live = isinstance(settings, dict) and settings.get("answers") == "live"
    base = cast.results.baseline
    baseline = base is not None and name == (models[base].model if base in models else base)
    return Node(name, (*details, result), teachers, first.members, baseline, False, live, depth, prior)


def _of_labels(objective: object) -> bool:
    """Whether an objective of a plan, or a list of them, learns from labels alone."""
    found = objective if isinstance(objective, list | tuple) else [objective]
    return all((one.get("name") if isinstance(one, dict) else one) in LABELS for one in found)


def _between(students: Sequence[Node]) -> tuple[str, str]:
    """What is between a teacher and its students, in two words."""
    priors = [student.prior for student in students]
    if any(priors):
        return ("posterior", "as prior") if all(priors) else ("outputs,", "posterior")
    return ("asked", "live") if all(student.live for student in students) else ("recorded", "outputs")


def outline(nodes: list[Node]) -> list[Branch]:
    """The family as nested lists; a student of several teachers stands below the first and names the others."""
    known = {node.name for node in nodes}
    below: dict[str, list[Node]] = {}
    for node in sorted(nodes, key=lambda node: node.depth):
        home = node.teachers[0] if node.teachers and node.depth and node.teachers[0] in known else ""
        below.setdefault(home, []).append(node)

    def grow(name: str, above: frozenset[str]) -> list[Branch]:
        return [
            Branch(node, node.teachers[1:], grow(node.name, above | {node.name}))
            for node in below.get(name, [])
            if node.name not in above
        ]

    return grow("", frozenset())


def draw(nodes: list[Node], prefix: str) -> Markup | None:
    """The family as boxes in columns by depth, each teacher's recorded outputs between it and its students.

    None where there is nothing to connect, or where the family is too deep for a page.
    """
    depth = max((node.depth for node in nodes), default=0)
    if not 0 < depth < DEEPEST:
        return None
    places = _places(nodes)
    width = (depth + 1) * BOX[0] + depth * GAP + 12
    height = max(y for _, y in places.values()) + BOX[1] / 2 + 8
    tip = Markup(
        '<defs><marker id="{0}-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>'
    ).format(prefix)
    edges = Markup("").join(_edges(nodes, places, prefix))
    boxes = Markup("").join(_box(node, *places[node.name]) for node in nodes)
    told = "; ".join(f"{node.name} learns from {', '.join(node.teachers)}" for node in nodes if node.teachers)
    return element(
        tip + edges + boxes,
        prefix=prefix,
        title="Family tree of the models",
        description=told,
        box=f"0 0 {width:.0f} {height:.0f}",
        kind="tree",
    )


def _places(nodes: list[Node]) -> dict[str, tuple[float, float]]:
    """Left edge and middle of every box. The fullest column is even; the others stand near those they belong to."""
    columns: dict[int, list[Node]] = {}
    for node in nodes:
        columns.setdefault(node.depth, []).append(node)
    step = BOX[1] + 18
    middle: dict[str, float] = {}
    for at in sorted(columns):
        rank = {name: place for place, name in enumerate(middle)}
        lone = {n.name: not any(n.name in other.teachers for other in nodes) for n in columns[at]}
        columns[at].sort(key=lambda n: (min((rank[t] for t in n.teachers if t in rank), default=0), lone[n.name]))
        for place, node in enumerate(columns[at]):
            middle[node.name] = (place + 0.5) * step
    fullest = max(columns, key=lambda at: (len(columns[at]), at))
    order = [*range(fullest - 1, -1, -1), *range(fullest + 1, max(columns) + 1)]
    for at in order:
        wanted = []
        for node in columns.get(at, []):
            kin = [n.name for n in nodes if node.name in n.teachers] if at < fullest else list(node.teachers)
            near = [middle[name] for name in kin if name in middle]
            wanted.append(sum(near) / len(near) if near else float("inf"))
        free, bottom = step / 2, len(columns[fullest]) * step - step / 2
        for place, node in enumerate(columns.get(at, [])):
            room = bottom - (len(columns[at]) - 1 - place) * step
            middle[node.name] = max(free, min(wanted[place], room))
            free = middle[node.name] + step
    return {n.name: (4 + n.depth * (BOX[0] + GAP), middle[n.name]) for n in nodes}


def _edges(nodes: list[Node], places: Mapping[str, tuple[float, float]], prefix: str) -> list[Markup]:
    parts = []
    for teacher in nodes:
        students = [n for n in nodes if teacher.name in n.teachers and n.depth > teacher.depth]
        if not students:
            continue
        x, y = places[teacher.name][0] + BOX[0], places[teacher.name][1]
        start = x + 22 + PILL[0]
        parts.append(Markup('<path class="edge" d="M{} {:.0f}H{}"/>').format(x, y, x + 22))
        for student in students:
            end, to = places[student.name]
            bend = start + (end - start) * 0.5
            path = f"M{start} {y:.0f}C{bend:.0f} {y:.0f} {bend:.0f} {to:.0f} {end} {to:.0f}"
            kind = "edge live" if student.live else "edge"
            parts.append(Markup('<path class="{}" d="{}" marker-end="url(#{}-tip)"/>').format(kind, path, prefix))
        words = _between(students)
        parts.append(
            Markup(
                '<rect class="pill" x="{}" y="{:.0f}" width="{}" height="{}" rx="18"/>'
                '<text class="small" x="{}" y="{:.0f}" text-anchor="middle">{}</text>'
                '<text class="small" x="{}" y="{:.0f}" text-anchor="middle">{}</text>'
            ).format(
                x + 22,
                y - PILL[1] / 2,
                *PILL,
                start - PILL[0] / 2,
                y - 3,
                words[0],
                start - PILL[0] / 2,
                y + 11,
                words[1],
            )
        )
    return parts


def _box(node: Node, x: float, y: float) -> Markup:
    top = y - BOX[1] / 2
    kind = "box" + (" base" if node.baseline else "") + (" outside" if node.outside else "")
    shape = Markup('<rect class="{}" x="{}" y="{:.0f}" width="{}" height="{}" rx="7"/>')
    back = shape.format(kind, x + 5, top + 5, *BOX) if node.members > 1 else Markup("")
    names = fmt.wrap(node.name, 22)
    lines = [("name", line) for line in names] + [("small", fmt.shorten(d, 29)) for d in node.details]
    if node.baseline:
        lines[-1] = ("small", fmt.shorten(f"baseline · {node.details[-1]}", 29))
    first = y - 17 * (len(lines) - 1) / 2 + 4.5
    texts = Markup("").join(
        Markup('<text class="{}" x="{}" y="{:.1f}">{}</text>').format(style, x + 12, first + 17 * at, line)
        for at, (style, line) in enumerate(lines)
    )
    full = Markup("<title>{}</title>").format(fmt.clean(node.name))
    return Markup("<g>{}{}{}{}</g>").format(full, back, shape.format(kind, x, top, *BOX), texts)
