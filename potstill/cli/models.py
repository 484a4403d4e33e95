"""`record` and `predict`: one model, or an ensemble's folder, on data."""

from __future__ import annotations

import csv
import io
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

from potstill.cli import text
from potstill.errors import DataError, NetworkError, SettingError, unknown

if TYPE_CHECKING:
    from potstill.data import ArraySource, Data
    from potstill.evaluation import Predictions
    from potstill.networks.model import Model
    from potstill.types import DataSpec, Teacher


_SPLITS = ("train", "validation", "test")
_MADE = ("size", "interpolation", "crop")  # keys of pictures that decide what a network sees


@dataclass(frozen=True)
class Opening:
    """Which data, and which split of it. `validation` and `test` are numbers or fractions, as in a plan.

    Test sets that a run's plan gives names can be asked for by them, where the source is the plan's.
    `source`: a name or path, or a source's table as a plan has it (`{ name = "photos", size = 64 }`).
    """

    source: str
    split: str | None
    folder: Path | None
    validation: float | None = None
    test: float | None = None

    @property
    def table(self) -> dict[str, Any]:
        """The source as a table with a name."""
        from potstill.study.plan_text import parse_value

        found = parse_value(self.source) if self.source.lstrip().startswith("{") else self.source
        if isinstance(found, dict) and not isinstance(found.get("name"), str):
            raise SettingError(
                f'{self.source}: wanted is a table with a name, such as {{ name = "photos", size = 64 }}.'
            )
        return found if isinstance(found, dict) else {"name": self.source}

    def open(
        self, spec: DataSpec, split: str, plan: Mapping[str, Any], augment: Sequence[Any] = ()
    ) -> tuple[Data, ArraySource]:
        """The data and its split, as a model with this `spec` sees it; `plan` is the [data] by which it was trained."""
        from potstill import data

        own = plan.get("source", {}).get("name") == self.table["name"] and "targets" not in spec.recipe
        planned = plan.get("test") if own and self.test is None else None
        sets: dict[str, Any] = planned if isinstance(planned, dict) else {}
        if split not in (*_SPLITS, *sets):
            raise SettingError(unknown("split", split, (*_SPLITS, *sets)))
        held = {"validation": count(self.validation), "test": sets or count(self.test)}
        found = data.open(
            self.table,
            **held,  # type: ignore[arg-type]
            augment=augment,
            task=spec.task,
            folder=self.folder,
            inputs=plan.get("inputs") if own else None,
            like=None if own else spec,
        )
        for note in found.notes:
            _warn(note)
        part = found.test if split == "test" else found.split(split)
        if part is None:
            raise DataError(f"{self.source} has no {split} examples; choose another --split.")
        return found, part.seeing(spec.sees) if part.spec.sees else part


def count(value: float | None) -> float | None:
    """A number of examples as a whole number, a fraction as it is."""
    return int(value) if value is not None and value.is_integer() else value


def _load(folder: Path) -> tuple[Teacher, DataSpec]:
    """A model, or the ensemble of the `member-N` folders below, on the device where this process computes."""
    from potstill import networks
    from potstill.engine import Engine
    from potstill.teachers import Ensemble

    device = Engine.pick().device
    members = sorted(folder.glob("member-*"), key=lambda path: int("0" + path.name.partition("-")[2]))
    if (folder / "network.json").is_file() or not members:
        model: Model = networks.load(folder).on(device)
        return model, model.spec
    models = [networks.load(member).on(device) for member in members]
    return Ensemble(models), models[0].spec


def _fits(spec: DataSpec, source: DataSpec, where: str) -> None:
    for name in ("shape", "classes", "targets", "preprocessing"):
        mine, theirs = getattr(spec, name), getattr(source, name)
        if mine != theirs:
            raise NetworkError(f"The model was trained on data with {name} {mine}; {where} has {theirs}.")


def _planned(model: Path) -> dict[str, Any]:
    """The `[data]` of the plan by which a run's model was trained; empty for another model."""
    from potstill import storage

    paths = [path / "result.json" for path in (model, *model.glob("member-*"))]
    path = next((path for path in paths if path.is_file()), None)
    found: dict[str, Any] = storage.read_json(path).get("settings", {}).get("data", {}).get("plan", {}) if path else {}
    return found


def _same_split(model: Path, opening: Opening, split: str) -> None:
    """Warns where a run's model is asked about its own data set, split otherwise than in its plan."""
    plan = _planned(model)
    if plan.get("source", {}).get("name") != opening.table["name"]:
        return
    sizes = {"test": plan.get("test"), "validation": plan.get("validation")}
    if isinstance(sizes["test"], dict):  # test sets of their own: no examples are held out
        sizes["test"] = None
    asked = {"test": count(opening.test), "validation": count(opening.validation)}
    matters = ("test",) if split == "test" else ("test", "validation")  # test examples are taken first
    if any(sizes[name] != asked[name] for name in matters):
        options = " ".join(f"--{name} {size}" for name, size in sizes.items() if size is not None)
        _warn(
            f"the model's plan splits {opening.source} otherwise, so examples that the model was trained on may be "
            f"test examples here. The plan's split: {options or 'neither --test nor --validation'}."
        )


def _warn(sentence: str) -> None:
    typer.echo(f"warning: {sentence}", err=True)


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C asks to save and leave, a second one stops at once."""
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def record(model: Path, opening: Opening, out: Path, *, views: int, augment: Sequence[str], top_k: int | None) -> None:
    """Ask once, keep every answer."""
    from potstill import outputs
    from potstill.cli.progress import Progress, Told
    from potstill.study.plan_text import parse_value

    if bool(views) != bool(augment):
        raise SettingError("--views V and --augment NAME belong together: V augmented views of every example.")
    teacher, spec = _load(model)
    _, source = opening.open(spec, opening.split or "train", _planned(model), [parse_value(word) for word in augment])
    _fits(spec, source.spec, opening.source)
    _same_split(model, opening, opening.split or "train")
    with Progress() as progress, _stopping() as should_stop:
        progress(Told("begin", "recording"))
        stored = outputs.record(
            teacher,
            source,
            out,
            views=range(views + 1),
            top_k=top_k,
            should_stop=should_stop,
            progress=lambda done, total: progress(Told("rows", "", done, total)),
        )
    size = sum(shard.bytes for manifest in stored.manifests for shard in manifest.shards)
    typer.echo(
        f"{out}: {text.plural(len(stored), 'example')}, {text.plural(len(stored.views), 'view')}, "
        f"{text.plural(stored.members, 'member')}, {stored.outputs} {stored.kind}, {text.size(size)}"
    )


def predict(model: Path, opening: Opening, out: Path | None) -> None:
    """Class and probabilities of every example; of a regression the values."""
    from potstill import data
    from potstill.data import loose
    from potstill.evaluation import predict as ask

    if out is not None and out.suffix not in (".csv", ".npz"):
        raise SettingError(f'--out {out} ends in "{out.suffix}"; wanted is a file that ends in .csv or .npz.')
    teacher, spec = _load(model)
    table = opening.table
    whole = table["name"] in data.names() or not loose.holds(table, opening.folder)
    if whole or opening.split is not None or opening.test is not None:
        _, source = opening.open(spec, opening.split or "test", _planned(model))
        _fits(spec, source.spec, opening.source)
        _same_split(model, opening, opening.split or "test")
    else:
        # Pictures are cropped and resized as the training's were, unless other keys are given.
        made = {key: value for key, value in _planned(model).get("source", {}).items() if key in _MADE}
        source = data.inputs({**made, **table}, spec, folder=opening.folder)
    found = ask(teacher, source)
    if out is None:
        typer.echo(_csv(found, spec.names, source.names), nl=False)
        return
    _write(out, found, spec.names, source.names)
    typer.echo(f"{out}: {text.plural(len(found.answers), 'example')}", err=True)


def _csv(found: Predictions, named: Sequence[str], names: Sequence[str]) -> str:
    """One row per example: number, file (of pictures), then what was predicted; `named` are classes or targets."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    head, rows = (_values if found.regression else _probabilities)(found, named)
    writer.writerow(["row", *(["file"] if names else []), *head])
    for i, row in enumerate(rows):
        writer.writerow([i, *names[i : i + 1], *row])
    return lines.getvalue()


def _probabilities(found: Predictions, classes: Sequence[str]) -> tuple[list[str], Iterator[list[str]]]:
    """Class, label where there are labels, a probability per class."""
    import numpy as np

    labelled = bool(found.labelled.any())
    head = ["class", *(["label"] if labelled else []), *(f"p({name})" for name in classes)]
    best, probabilities = found.log_probs.argmax(axis=1), np.exp(found.log_probs)

    def rows() -> Iterator[list[str]]:
        for i, row in enumerate(probabilities):
            label = [classes[found.labels[i]] if found.labelled[i] else ""] if labelled else []
            yield [classes[best[i]], *label, *(f"{p:.6g}" for p in row)]

    return head, rows()


def _values(found: Predictions, targets: Sequence[str]) -> tuple[list[str], Iterator[list[str]]]:
    """A value per target, a standard deviation where the model answers variances, a label where there are labels."""
    import numpy as np

    labelled, logs = bool(found.labelled.any()), found.log_variances
    head = [*targets, *(f"sd({name})" for name in targets if logs is not None)]
    head += [f"label({name})" for name in targets if labelled]

    def rows() -> Iterator[list[str]]:
        for i, row in enumerate(found.values):
            told = [*row, *(np.exp(logs[i] / 2) if logs is not None else ())]
            label = found.labels[i] if found.labelled[i] else [None] * len(targets)
            yield [*(f"{x:.8g}" for x in told), *("" if x is None else f"{x:.8g}" for x in label if labelled)]

    return head, rows()


def _write(out: Path, found: Predictions, named: Sequence[str], names: Sequence[str]) -> None:
    import numpy as np

    from potstill import storage

    if out.suffix == ".csv":
        storage.write_text(out, _csv(found, named, names))
        return
    arrays: dict[str, Any] = {}
    if found.regression:
        arrays |= {"values": found.values, "targets": np.array(named)}
        if found.log_variances is not None:
            arrays["sds"] = np.exp(found.log_variances / 2)
        hidden: float = np.nan
    else:
        arrays |= {"predicted": found.log_probs.argmax(axis=1), "probabilities": np.exp(found.log_probs)}
        arrays["classes"] = np.array(named)
        hidden = -1
    if names:
        arrays["files"] = np.array(names)
    if found.labelled.any():
        known = found.labelled[:, None] if found.regression else found.labelled
        arrays["labels"] = np.where(known, found.labels, hidden)
    with storage.writing(out) as file:
        np.savez(file, allow_pickle=False, **arrays)
