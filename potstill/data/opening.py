"""`open`: from a name, a path or arrays to train, validation and test sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import torch

from potstill.data import checks, declared, named, testsets, views
from potstill.data.making import Splitter
from potstill.data.opened import Data
from potstill.data.parts import Contents, Part, Target
from potstill.errors import DataError, unknown
from potstill.registry import Spec
from potstill.types import DataSpec, TargetScaling, Task

SPLITS: Final = ("train", "validation", "test")

Arrays: TypeAlias = "tuple[Any, Any] | Mapping[str, Any]"


def open(
    source: str | Path | Arrays,
    *,
    validation: float | None = None,
    test: float | Mapping[str, Any] | None = None,
    train: int | None = None,
    labelled: int | None = None,
    redraw: Literal["seed"] | None = None,
    augment: views.Augmentation | Spec | Sequence[Spec] = (),
    task: Task = "multiclass",
    scale_targets: bool = True,
    seed: int = 0,
    folder: str | Path | None = None,
    splits: Sequence[str] = SPLITS,
    inputs: Mapping[str, Any] | Sequence[str] | None = None,
    target: Target = None,
    like: DataSpec | None = None,
) -> Data:
    """Open a data set and split it.

    `source`: a built-in name (`names()`), the path of a folder or file, a table `{"name": name or path, options}`, or
    arrays: `(inputs, labels)` or `{"train": (x, y), "test": (x, y), "unlabelled": x}` (see `arrays` for the keys of
    files and dictionaries, `tree` for folders of pictures and `pixels.Options` for their options). Inputs are rows
    (n, F) or pictures (n, H, W), (n, C, H, W) or (n, H, W, C); uint8 is kept and scaled by 1/255 (digits by 1/16),
    anything else becomes float32 and is taken as it is. Labels are whole numbers from 0, or text (classes: sorted).

    `validation`, `test`: a whole number of examples, a fraction below 1, or 0 for none; taken from the labelled
    training examples, stratified by label and the same for every `seed`. Where the data has such a part, that one is
    used, and only 0 may be given. Otherwise the default is 0.2 of them for test, then 0.1 of the rest for validation.
    `test` may be a table of test sets by name, files, arrays (x, y) or `True` for the data's own (`testsets.find`);
    then nothing is held out for it, and `splits` may name those to build, "test" standing for all.
    `train`: this many of the labelled training examples that are left are used, stratified and the same for every
    seed; the others are left out. `labelled`: this many training examples, stratified and keyed by `seed`, keep their
    label, and at most as many validation examples; test keeps all. `redraw="seed"`: a source that the program draws
    (`softmax-linear`, ...) is drawn anew for each `seed`, all its parts; otherwise there is one draw.
    `augment`: transforms of views 1, 2, ... (`views`). `task="binary"` needs exactly two classes; the second is the
    positive one. `task="regression"`: labels are finite numbers, (n,) or (n, D), and nothing is stratified. Networks
    then learn targets of mean 0 and standard deviation 1 over the labelled training rows, and answers are scaled back;
    `scale_targets=False` takes targets as they are. `folder`: the user's data folder, by default `$POTSTILL_DATA`.
    `splits`: those to build beside train; parts that are not asked for are not read, and rows that would be theirs are
    never in train. Only pictures are decoded all at once, so that what is wrong with test pictures shows before a
    training.

    `inputs`: what the examples are given as, by name, the first being the default: `{"x": {}, "x_star": {}}` for arrays
    of these names (`array` names another), `{"large": {}, "small": {"resize": 7}}` for pictures and smaller ones made
    from them. A model sees one of them (`fit(sees=...)`). Arrays that have names need no declaration. `target`: of a
    table, the column that holds the labels, a list of columns, or how many at the end; by default the last one. `like`:
    the `spec` of a model that is to see these data; its input is then made as it was for its training, by what those
    rows told, and `inputs` and `target` say nothing.

    `DataError`: whatever cannot be used, saying where, what was found and wanted, and what to do.
    """
    several = test if isinstance(test, Mapping) else None
    for word in splits:
        if word not in (*SPLITS, *(several or ())):
            raise DataError(unknown("split", word, (*SPLITS, *(several or ()))))
    if task not in get_args(Task):
        raise DataError(unknown("task", str(task), get_args(Task)))
    if like is not None:
        inputs, target = declared.like(like)
    told = declared.read(inputs)
    contents = _redrawn(named.locate(source, folder, task, wanted=declared.arrays(told), target=target), redraw, seed)
    sets = (
        None if several is None else testsets.find(several, contents, folder, task=task, wanted=declared.arrays(told))
    )
    part = contents.parts["train"]()
    classes, targets = _names(contents, part, task)
    spec = DataSpec((), classes, task, targets=targets)
    makers = declared.makers(told, contents)
    made = Splitter(contents, part, spec, makers, views.build(augment), seed, train, labelled)
    found = made.data(validation, None if isinstance(test, Mapping) else test, splits, sets)
    if several is not None:
        found = replace(found, notes=(*found.notes, *testsets.unused(several, contents)))
    return _scaled(found) if task == "regression" and scale_targets else found


def _names(contents: Contents, part: Part, task: Task) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the classes and of the targets; `DataError` where the labels are not what the task wants."""
    where = part.where_labels or part.where
    if task == "regression":
        if part.labels.ndim != 2:
            raise DataError(
                f'{where}: found classes, and task = "regression" wants measured numbers. Leave task out, or give '
                "arrays: inputs and the numbers."
            )
        if not len(part.labels):
            raise DataError(f"{where}: found no labelled example, wanted at least one.")
        return (), checks.target_names(part.labels.shape[1], contents.targets, where)
    if part.labels.ndim == 2:
        raise DataError(f'{where}: found measured numbers as labels, with task = "{task}"; say task = "regression".')
    classes = checks.class_names(part.labels, contents.classes, where)
    if task == "binary" and len(classes) != 2:
        raise DataError(f'task = "binary" needs two classes; {contents.name} has {len(classes)}: {", ".join(classes)}.')
    return classes, ()


def _scaled(data: Data) -> Data:
    """With mean and standard deviation of the labelled training rows; a target that is the same in all is shifted."""
    labels = data.train.labels[data.train.labelled].double()
    spread = labels.std(0, correction=0)
    scale = torch.where(spread > 0, spread, 1.0)
    scaling = TargetScaling(tuple(scale.tolist()), tuple(labels.mean(0).tolist()))
    validation, test = (None if one is None else one.with_scaling(scaling) for one in (data.validation, data.test))
    train = data.train.with_scaling(scaling)
    named = {name: one.with_scaling(scaling) for name, one in data.named.items()}
    truth = None if data.truth is None else replace(data.truth, scaling=scaling)
    return replace(data, train=train, validation=validation, test=test, spec=train.spec, named=named, truth=truth)


def _redrawn(contents: Contents, redraw: str | None, seed: int) -> Contents:
    if redraw is None:
        return contents
    if redraw != "seed":
        raise DataError(f'redraw = {redraw!r}: wanted is "seed", examples drawn anew for every seed, or None.')
    if contents.redrawn is None:
        raise DataError(
            f'redraw = "seed": the examples of {contents.name} are given, they cannot be drawn anew. Leave redraw out, '
            f"or take a source that the program draws: {', '.join(named.drawn())}."
        )
    return contents.redrawn(seed)
