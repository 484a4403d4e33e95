"""Plans: what is refused and where it is said, shorthand, merging, sweeps, and what `show` prints."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from potstill.errors import NotYetError, PlanError
from potstill.study import plan_text
from potstill.study import sweep as sweeps
from potstill.study.plan import Plan, differences

BASE = """\
title = "t"
seeds = 3
[data]
source = "digits"
[training]
epochs = 2
[models.large]
network = "mlp:8"
[models.small]
network = "mlp:4"
teacher = "large"
[verdict]
baseline = "large"
"""


def load(tmp_path: Path, text: str) -> Plan:
    file = tmp_path / "some.toml"
    file.write_text(text, encoding="utf-8")
    return Plan.load(file)


def edited(changes: dict[str, str]) -> str:
    text = BASE
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


SOURCE, EPOCHS, MLP8, MLP4 = 'source = "digits"', "epochs = 2", 'network = "mlp:8"', 'network = "mlp:4"'
TEACHER, BASELINE = 'teacher = "large"', 'baseline = "large"'

# changes of BASE, dotted key and line of the error, words in its message
ZIP = 'sweep."data.labelled, models.small.known"'
BUDGETS = "training.epochs, training.steps"


def zipped(values: str) -> dict[str, str]:
    return {BASELINE: f'[sweep]\n"data.labelled, models.small.known" = [{values}]'}


BAD: list[tuple[dict[str, str], str, int, str]] = [
    # unknown keys, at every level
    ({'title = "t"': 'titel = "t"'}, "titel", 1, '"title"'),
    ({SOURCE: SOURCE + "\nvalidatoin = 0.1"}, "data.validatoin", 5, '"validation"'),
    ({EPOCHS: "epoch = 2"}, "training.epoch", 6, '"epochs"'),
    ({MLP8: MLP8 + "\nnetwrk = 1"}, "models.large.netwrk", 9, '"network"'),
    ({MLP8: MLP8 + "\ntraining = { epocs = 1 }"}, "models.large.training.epocs", 9, '"epochs"'),
    ({BASELINE: 'basline = "large"'}, "verdict.basline", 13, '"baseline"'),
    ({"[verdict]": "[evaluation.latency]\nbach = [1]\n[verdict]"}, "evaluation.latency.bach", 13, '"batch"'),
    ({"[verdict]": "[verdcit]"}, "verdcit", 12, '"verdict"'),
    ({SOURCE: 'source = { name = "digits", sise = 3 }'}, "data.source.sise", 4, "no key"),
    ({EPOCHS: 'optimizer = { name = "adam", esp = 1 }'}, "training.optimizer.esp", 6, '"eps"'),
    ({TEACHER: TEACHER + '\nobjective = { name = "hinton", alpa = 2 }'}, "models.small.objective.alpa", 12, '"alpha"'),
    ({EPOCHS: 'augment = ["flip",\n { name = "shift", part = 0.1 }]'}, "training.augment[1].part", 7, "fraction"),
    # unknown names
    ({SOURCE: 'source = "digts"'}, "data.source", 4, '"digits"'),
    ({MLP8: 'network = "mpl:8"'}, "models.large.network", 8, '"mlp"'),
    ({EPOCHS: 'optimizer = "adm"'}, "training.optimizer", 6, '"adam"'),
    ({EPOCHS: 'schedule = "cosin"'}, "training.schedule", 6, '"cosine"'),
    ({EPOCHS: 'augment = ["flop"]'}, "training.augment[0]", 6, '"flip"'),
    ({TEACHER: TEACHER + '\nobjective = "hintn"'}, "models.small.objective", 12, '"hinton"'),
    ({EPOCHS: 'monitor = "objectiv"'}, "training.monitor", 6, '"objective"'),
    ({EPOCHS: 'select = "acuracy"'}, "training.select", 6, '"accuracy"'),
    ({EPOCHS: 'select = "agreement"'}, "training.select", 6, "needs a teacher"),
    ({BASELINE: 'metric = "error_rat"'}, "verdict.metric", 13, '"error_rate"'),
    ({BASELINE: 'baseline = "larg"'}, "verdict.baseline", 13, '"large"'),
    ({TEACHER: 'teacher = "larg"'}, "models.small.teacher", 11, '"large"'),
    ({BASELINE: 'compare = [["small", "large"],\n["smal", "large"]]'}, "verdict.compare[1]", 14, '"small"'),
    ({BASELINE: '[published]\nsource = "s"\naccuracy = { larg = 0.9 }'}, "published.accuracy.larg", 15, '"large"'),
    ({BASELINE: '[published]\nsource = "s"\nacuracy = { large = 0.9 }'}, "published.acuracy", 15, '"accuracy"'),
    ({BASELINE: "[evaluation]\nsplits = ['tset']"}, "evaluation.splits[0]", 14, '"test"'),
    ({BASELINE: "[evaluation]\nsplits = ['train']"}, "evaluation.splits", 14, 'given on "test"'),
    ({BASELINE: "[evaluation]\nsplits = ['test', 'test']"}, "evaluation.splits", 14, '"test" twice'),
    ({BASELINE: "[evaluation]\nlabels = ['true', 'techer']"}, "evaluation.labels[1]", 14, '"teacher"'),
    ({BASELINE: "[evaluation]\nlabels = []"}, "evaluation.labels", 14, "found []"),
    ({BASELINE: "[evaluation]\nviews = [0, 3]"}, "evaluation.views", 14, "no training has any"),
    ({BASELINE: "[evaluation]\nviews = [0, -3]"}, "evaluation.views", 14, "found [0, -3]"),
    ({BASELINE: "[evaluation]\nviews = [0, 0]"}, "evaluation.views", 14, "0 twice"),
    # values of the wrong kind
    ({"seeds = 3": "seeds = true"}, "seeds", 2, "found true"),
    ({"seeds = 3": "seeds = 0"}, "seeds", 2, "found 0"),
    ({"seeds = 3": "seeds = []"}, "seeds", 2, "at least one"),
    ({"seeds = 3": "seeds = [4, 1, 4]"}, "seeds", 2, "4 twice"),
    ({"seeds = 3": "seeds = [-1]"}, "seeds", 2, "found [-1]"),
    ({'title = "t"': "title = 1979-05-27"}, "title", 1, "datetime"),
    ({SOURCE: SOURCE + "\nvalidation = 1.5"}, "data.validation", 5, "found 1.5"),
    ({SOURCE: SOURCE + "\ntest = 0"}, "data.test", 5, "found 0"),
    ({SOURCE: SOURCE + '\nlabelled = "100"'}, "data.labelled", 5, 'found "100"'),
    ({SOURCE: SOURCE + '\ntask = "multi"'}, "data.task", 5, '"multiclass", "binary" or "regression"'),
    ({"[data]\n" + SOURCE: "data = 3"}, "data", 3, "found 3; wanted is a table"),
    ({EPOCHS: "epochs = -1"}, "training.epochs", 6, "found -1"),
    ({EPOCHS: "batch_size = 32.0"}, "training.batch_size", 6, "found 32.0"),
    ({EPOCHS: 'precision = "fp16"'}, "training.precision", 6, '"bf16"'),
    ({EPOCHS: 'views = "frsh"'}, "training.views", 6, '"fresh"'),
    ({EPOCHS: "label_smoothing = 1.0"}, "training.label_smoothing", 6, "[0, 1)"),
    ({EPOCHS: "clip = -1"}, "training.clip", 6, "found -1"),
    ({MLP8: MLP8 + "\nmembers = 0"}, "models.large.members", 9, "found 0"),
    ({TEACHER: TEACHER + "\ngenerations = 0"}, "models.small.generations", 12, "found 0"),
    ({TEACHER: TEACHER + "\nknown = 1.5"}, "models.small.known", 12, "fraction"),
    ({TEACHER: TEACHER + '\nanswers = "kept"'}, "models.small.answers", 12, '"stored"'),
    ({TEACHER: TEACHER + "\nobjective = []"}, "models.small.objective", 12, "at least one"),
    ({TEACHER: "teacher = 1"}, "models.small.teacher", 11, "found 1"),
    ({MLP8: "network = 8"}, "models.large.network", 8, "found 8"),
    ({BASELINE: "margin = -0.1"}, "verdict.margin", 13, "found -0.1"),
    ({BASELINE: "margin = 5"}, "verdict.margin", 13, "accuracy lies between 0 and 1, so half a"),
    ({BASELINE: "[evaluation]\nlatency.batch = [1, 0]"}, "evaluation.latency.batch", 14, "found [1, 0]"),
    ({BASELINE: '[published]\nsource = "s"\naccuracy = { large = "x" }'}, "published.accuracy.large", 15, 'found "x"'),
    # values that the named function refuses
    ({TEACHER: TEACHER + '\nobjective = { name = "hinton", alpha = 1.5 }'}, "models.small.objective.alpha", 12, "1.5"),
    ({EPOCHS: 'optimizer = { name = "sgd", momentum = -1 }'}, "training.optimizer.momentum", 6, "-1"),
    ({EPOCHS: 'optimizer = { name = "adam", betas = "x" }'}, "training.optimizer.betas", 6, "tuple"),
    ({EPOCHS: 'schedule = { name = "cosine", warmup = 2 }'}, "training.schedule.warmup", 6, "2"),
    ({EPOCHS: 'augment = [{ name = "shift", fraction = 7.0 }]'}, "training.augment[0].fraction", 6, "7.0"),
    ({MLP8: 'network = "mlp:a"'}, "models.large.network", 8, "whole numbers"),
    ({MLP8: 'network = "mlp:0"'}, "models.large.network", 8, "at least 1"),
    ({MLP8: 'network = { name = "mlp", dropout = 2.0 }'}, "models.large.network.dropout", 8, "2.0"),
    # missing
    ({SOURCE + "\n": ""}, "data.source", 3, "missing"),
    ({MLP8 + "\n": ""}, "models.large.network", 7, "missing"),
    ({BASELINE: "[published]"}, "published.source", 13, "missing"),
    # settings that do not fit each other
    ({EPOCHS: "epochs = 2\nsteps = 3"}, "training.steps", 7, "both"),
    ({MLP8: MLP8 + "\ntraining = { epochs = 1, steps = 1 }"}, "models.large.training.steps", 9, "both"),
    ({EPOCHS: "epochs = 0"}, "training.epochs", 6, "no weights"),
    ({MLP8: MLP8 + "\ntraining = { steps = 0 }"}, "models.large.training.steps", 9, "no weights"),
    ({MLP8: "weights = 'w'\nmembers = 2\ntraining.epochs = 0"}, "models.large.members", 9, "equal"),
    ({TEACHER: 'teacher = "small"'}, "models.small.teacher", 11, "own teacher"),
    ({TEACHER: 'teacher = ["large", "large"]'}, "models.small.teacher", 11, "twice"),
    ({TEACHER: TEACHER + '\nobjective = "hard_labels"'}, "models.small.objective", 12, "learns nothing"),
    ({TEACHER: 'objective = "hinton"'}, "models.small.objective", 11, "no `teacher`"),
    ({TEACHER: "generations = 3"}, "models.small.generations", 11, "no `teacher`"),
    ({TEACHER: 'known = "labelled"'}, "models.small.known", 11, "no `teacher`"),
    ({TEACHER: 'answers = "live"'}, "models.small.answers", 11, "no `teacher`"),
    ({TEACHER: TEACHER + "\nshared = true"}, "models.small.shared", 12, '"large" is one per seed'),
    ({MLP8: MLP8 + '\nteacher = "small"'}, "models.large.teacher", 9, "large <- small <- large"),
    ({MLP8: MLP8 + '\noutputs = "o"'}, "models.large.network", 8, "given by its outputs"),
    ({MLP8: 'outputs = "o"'}, "models.large.kind", 7, "missing"),
    ({MLP8: MLP8 + '\nkind = "logits"'}, "models.large.kind", 9, "no outputs"),
    ({MLP8: 'outputs = "o"\nkind = "logits"'}, "verdict.baseline", 14, "say nothing about test"),
    (
        {MLP8: 'outputs = "o"\nkind = "logits"', TEACHER: TEACHER + '\nanswers = "live"'},
        "models.small.answers",
        13,
        "cannot be asked",
    ),
    ({MLP8: 'outputs = "o"\nkind = "logits"', EPOCHS: "augment = ['flip']"}, "training.augment", 6, "plain examples"),
    ({SOURCE: SOURCE + "\nvalidation = 0", EPOCHS: "patience = 2"}, "training.patience", 7, "data.validation is 0"),
    ({SOURCE: SOURCE + "\nvalidation = 0", EPOCHS: "select = 'brier'"}, "training.select", 7, '"last"'),
    ({SOURCE: SOURCE + "\nvalidation = 0", EPOCHS: "monitor = 'brier'"}, "training.monitor", 7, "validation"),
    ({BASELINE: 'compare = [["small", "small"]]'}, "verdict.compare[0]", 13, "with itself"),
    ({BASELINE: 'compare = [["small", "large"], ["large", "small"]]'}, "verdict.compare[1]", 13, "twice"),
    ({BASELINE: BASELINE + '\nmetric = "agreement"'}, "verdict.baseline", 13, '"large" has none'),
    ({"[models.large]": "[models.truth]"}, "models.truth", 7, "reserved"),
    ({"[models.large]": '[models."a.b"]'}, 'models."a.b"', 7, "not a name"),
    # sweeps
    ({BASELINE: '[sweep]\n"data.labeled" = [1]'}, 'sweep."data.labeled"', 14, '"labelled"'),
    ({BASELINE: '[sweep]\n"models.smal.known" = [0.5]'}, 'sweep."models.smal.known"', 14, '"small"'),
    ({BASELINE: '[sweep]\n"training.epochs" = [1, -1]'}, 'sweep."training.epochs"', 14, "training.epochs=-1"),
    ({BASELINE: '[sweep]\n"verdict.margin" = [1]'}, 'sweep."verdict.margin"', 14, "cannot be swept"),
    ({BASELINE: '[sweep]\n"data.labelled" = []'}, 'sweep."data.labelled"', 14, "empty"),
    ({BASELINE: '[sweep]\n"data.labelled" = [10, 10]'}, 'sweep."data.labelled"', 14, "twice"),
    ({BASELINE: '[sweep]\n"models.small.known" = [0.5, "0.5"]'}, 'sweep."models.small.known"', 14, "twice"),
    ({BASELINE: '[sweep]\n"data labelled" = [10]'}, 'sweep."data labelled"', 14, "cannot read the key"),
    ({BASELINE: '[sweep]\n"data.labelled" = 10'}, 'sweep."data.labelled"', 14, "a list of values"),
    (zipped("[1, 0.5], [2]"), f"{ZIP}[1]", 14, "found [2]; wanted is a list of 2 values, one for each of data.lab"),
    (zipped("[1, 0.5, 2]"), f"{ZIP}[0]", 14, "wanted is a list of 2 values"),
    (zipped("1"), f"{ZIP}[0]", 14, "found 1; wanted is a list of 2 values"),
    (zipped(""), ZIP, 14, "empty"),
    (zipped("[1, 0.5], [1, 0.5]"), ZIP, 14, "found 1, 0.5 twice"),
    (zipped("[1, 0.5], [1, 2.0]"), ZIP, 14, "at the point data.labelled=1, models.small.known=2.0: models.small.known"),
    ({BASELINE: '[sweep]\n"data.labelled, seeds" = [[1, 2]]'}, 'sweep."data.labelled, seeds"', 14, "seeds cannot be"),
    ({BASELINE: '[sweep]\n"data.labelled," = [[1, 2]]'}, 'sweep."data.labelled,"', 14, "cannot read the key"),
    ({BASELINE: '[sweep]\n"data.labelled, data.test" = [[1, 2]]\n"data.test" = [3]'}, 'sweep."data.test"', 15, "once"),
    ({BASELINE: '[sweep]\n"data.test, data.test" = [[1, 1]]'}, 'sweep."data.test, data.test"', 14, "data.test twice"),
    ({BASELINE: '[sweep]\n"training.epochs, training.steps" = [[1, 1]]'}, f'sweep."{BUDGETS}"', 14, "sets again what"),
    ({BASELINE: '[sweep]\n"models.small.objective.alpha" = [1]\n"models.small.objective" = ["hinton"]'},
     'sweep."models.small.objective"', 15, "models.small.objective sets again what models.small.objective.alpha"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "key", "line", "words"), BAD, ids=[f"{i}-{row[1]}" for i, row in enumerate(BAD)])
def test_a_bad_plan_is_refused_with_key_and_line(
    tmp_path: Path, changes: dict[str, str], key: str, line: int, words: str
) -> None:
    with pytest.raises(PlanError) as caught:
        load(tmp_path, edited(changes))
    assert (caught.value.key, caught.value.line) == (key, line), caught.value
    assert words in str(caught.value)
    assert not isinstance(caught.value, NotYetError)


@pytest.mark.parametrize(
    ("text", "line"),
    [("[data]\nsource = \n", 2), ('title = "x', 1), ("a = 1\na = 2\n", 2), ("[data]\n[data]\n", 2)],
)
def test_bad_toml_is_told_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(PlanError, match="not TOML") as caught:
        load(tmp_path, text)
    assert caught.value.line == line


def test_a_text_without_quotes_is_told_to_take_some(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="A text stands in quotes"):
        load(tmp_path, "[data]\nsource = digits\n")


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match='Did you mean "demo"'):
        Plan.load("dmeo")
    with pytest.raises(PlanError, match=r"nowhere\.toml cannot be read"):
        Plan.load(tmp_path / "nowhere.toml")
    (tmp_path / "latin.toml").write_bytes(b'title = "\xe9"')
    with pytest.raises(PlanError, match="UTF-8"):
        Plan.load(tmp_path / "latin.toml")


# ---------------------------------------------------------------- what is not built yet

MODELS = {"alone": {"network": "linear"}}
# Each text holds what the plan language says; the keys that are not built, in the order in which they are refused.
SNIPPETS: dict[str, tuple[str, list[str]]] = {
    "tuning and sweep": (
        """
[data]
source = "digits"
[models.alone]
network = "linear"
[tune]
method = "grid"
seeds  = 2
[tune.search.alone]
"training.optimizer.learning_rate" = { log = [1e-4, 1e-2], points = 20 }
[sweep]
"data.labelled" = [100, 300, 1000, 10000]
""",
        ["tune"],
    ),
    "photos": (
        """
[data]
source = { name = "cats-dogs", size = 224, resize = "nearest" }
task = "binary"
[training]
optimizer = { name = "adam", learning_rate = 1e-4, eps = 1e-7, decay = 0.0 }
select  = "accuracy"
augment = ["flip", { name = "shift", fraction = 0.4 }]
views   = "fresh"
[models.teacher]
network  = { name = "resnet50", dropout = 0.5 }
weights  = "hub:microsoft/resnet-50"
shared   = true
training = { epochs = 25, augment = ["flip"], optimizer = { name = "adam", learning_rate = 1e-6, decay = 0.01 } }
[models.hard-chain]
network = "resnet18"
teacher = "teacher"
objective = "pseudo_labels"
generations = 7
[evaluation]
splits = ["train", "validation", "test"]
labels = ["true", "teacher"]
views  = [0, 10]
latency = { batch = [1, 32], threads = [1, 2] }
""",
        [
            "data.source",
        ],
    ),
    "privileged": (
        """
[data]
source = "tweets/train.csv.gz"
inputs = { words = { column = "text", as = "hashing" }, tokens = { column = "text", as = "tokens" } }
target = "label"
test   = { random = "tweets/random.csv.gz", manual = { file = "tweets/manual.csv.gz", drop = { label = [2] } } }
[models.alone]
network = "linear"
[models.teacher]
network = "bilstm:128"
sees = "tokens"
[models.student]
network = "linear"
teacher = "teacher"
objective = { name = "probabilistic", lam = 0.25, temperature = 2.0, normalizer = "none" }
known = 0.3
[verdict]
metric = "cross_entropy"
on = "random"
compare = [["student", "alone"], ["student", "teacher"]]
""",
        [],
    ),
    "synthetic": (
        """
[data]
source = { name = "softmax-linear", features = 10, classes = 3, train = 1000, test = 100 }
redraw = "seed"
[models.student]
network = "linear"
teacher = "truth"
""",
        [],
    ),
    "bayesian": (
        """
[data]
source = "digits"
[training]
steps = 11300
batch_size = 8
[models.teacher]
network = "mlp:100-50"
inference = { name = "variational" }
[models.distil-student-all]
network   = "mlp:10-10"
teacher   = "teacher"
inference = { name = "variational", beta = 1.0, start = "prior", prior = { from = "teacher", mean = true } }
[evaluation]
every = 100
[verdict]
metric = { area_under = "cross_entropy" }
""",
        [],
    ),
    "several objectives": (
        """
[data]
source = "digits"
[models.teacher]
network = "linear"
[models.student]
network = "linear"
teacher = "teacher"
objective = [{ name = "hinton", alpha = 0.1 }, { name = "hints", student = "block2", teacher = "block3", weight = 1.0 }]
answers   = "live"
""",
        [],
    ),
    "a teacher that the user brings": (
        """
[data]
source = "digits"
[models.brought]
weights = "folder"
training = { epochs = 0 }
[models.asked]
outputs = "logits.npy"
kind = "logits"
[models.one]
network = "linear"
teacher = ["brought", "asked"]
known = "indices.npy"
""",
        [],
    ),
}


def taken_out(raw: dict[str, Any], key: str) -> None:
    """Remove what is not built, so that the next such key is found."""
    *above, last = key.replace("[1]", ".1").split(".")
    table: Any = raw
    for part in above:
        table = table[part]
    if last in ("network", "source"):
        table[last] = {"network": "linear", "source": "digits"}[last]
    elif isinstance(table, list):
        del table[int(last)]
    else:
        del table[last]


@pytest.mark.parametrize("name", SNIPPETS)
def test_the_plan_language_parses_and_what_is_not_built_is_refused(name: str) -> None:
    text, not_yet = SNIPPETS[name]
    raw, refused = tomllib.loads(text), []
    for _ in not_yet:
        with pytest.raises(NotYetError, match="not built yet") as caught:
            Plan.from_dict(raw)
        refused.append(str(caught.value.key))
        taken_out(raw, refused[-1])
    assert refused == not_yet
    assert Plan.from_dict(raw)


# ---------------------------------------------------------------- shorthand, merging, defaults


def plan_of(models: dict[str, Any], **top: Any) -> Plan:
    return Plan.from_dict({"data": {"source": "digits"}, "models": models, **top})


def test_shorthand_is_expanded_into_tables() -> None:
    plan = plan_of(
        {
            "a": {"network": "mlp:100-50"},
            "b": {"network": "mlp:4", "teacher": "a"},
            "c": {"network": {"name": "mlp", "hidden": [4]}, "teacher": ["a"], "objective": ["hinton"]},
        },
        training={"optimizer": "sgd", "augment": "flip"},
    )
    models = plan.to_dict()["models"]
    assert models["a"]["network"] == {"name": "mlp", "hidden": [100, 50]}
    assert models["a"]["objective"] == {"name": "hard_labels"}
    assert models["b"]["teacher"] == ["a"]
    assert models["b"]["objective"] == {"name": "hinton"}
    assert models["b"] == models["c"]
    assert plan.to_dict()["training"]["optimizer"] == {"name": "sgd"}
    assert plan.to_dict()["training"]["augment"] == [{"name": "flip"}]
    assert plan.to_dict()["data"] == {"source": {"name": "digits"}, "task": "multiclass"}
    assert plan.data_dict()["labelled"] is None


def test_a_models_training_is_merged_key_by_key_and_tables_whole() -> None:
    plan = plan_of(
        {
            "a": {"network": "linear"},
            "b": {
                "network": "linear",
                "training": {"steps": 7, "patience": 0, "optimizer": {"name": "adam", "eps": 1e-7}},
            },
        },
        training={"epochs": 3, "patience": 2, "batch_size": 16, "optimizer": {"name": "adam", "learning_rate": 0.5}},
        verdict={"metric": "brier"},
    )
    a, b = plan.resolved("a").training, plan.resolved("b").training
    assert a is not None
    assert b is not None
    assert (a.epochs, a.steps, a.patience, a.batch_size, a.optimizer["learning_rate"]) == (3, None, 2, 16, 0.5)
    assert (b.epochs, b.steps, b.patience, b.batch_size, b.optimizer["learning_rate"]) == (None, 7, None, 16, 1e-3)
    assert b.optimizer["eps"] == 1e-7
    assert (a.select, a.monitor, a.clip, a.views) == ("brier", "objective", None, "fresh")


def test_what_the_loop_takes_is_what_a_plan_resolves_to() -> None:
    from potstill.training.settings import Training

    resolved = plan_of({"a": {"network": "linear"}}).resolved("a").to_dict()
    assert Training(**{**resolved["training"], "augment": ()}) == Training(
        optimizer=resolved["training"]["optimizer"], schedule={"name": "constant"}
    )


@pytest.mark.parametrize(
    ("training", "own", "answers"),
    [
        ({}, {}, "stored"),
        ({"views": 3}, {}, "stored"),
        ({"augment": ["flip"]}, {}, "live"),
        ({"augment": ["flip"], "views": 3}, {}, "stored"),
        ({"augment": ["flip"]}, {"answers": "stored"}, "stored"),
        ({}, {"answers": "live"}, "live"),
        ({"augment": ["flip"]}, {"training": {"augment": []}}, "stored"),
    ],
)
def test_answers_are_stored_unless_every_view_is_fresh(
    training: dict[str, Any], own: dict[str, Any], answers: str
) -> None:
    plan = plan_of({"t": {"network": "linear"}, "s": {"network": "linear", "teacher": "t", **own}}, training=training)
    assert plan.resolved("s").answers == answers
    assert plan.resolved("t").answers is None


@pytest.mark.parametrize(
    ("model", "shared", "as_is"),
    [
        ({"network": "linear"}, False, False),
        ({"network": "linear", "shared": True}, True, False),
        ({"weights": "w", "training": {"epochs": 0}}, True, True),
        ({"weights": "w"}, False, False),
        ({"outputs": "o", "kind": "logits"}, True, False),
    ],
)
def test_a_model_that_does_not_depend_on_the_seed_is_shared(model: dict[str, Any], shared: bool, as_is: bool) -> None:
    resolved = plan_of({"m": model, "other": {"network": "linear"}}).resolved("m")
    assert (resolved.shared, resolved.used_as_is) == (shared, as_is)


def test_selection_falls_back_where_the_verdicts_metric_cannot_be_watched() -> None:
    models = {"t": {"network": "linear"}, "s": {"network": "linear", "teacher": "t"}}
    told = plan_of(models, verdict={"metric": "agreement"}).resolved("s").training
    none = Plan.from_dict({"data": {"source": "digits", "validation": 0}, "models": models}).resolved("s").training
    assert told is not None
    assert none is not None
    assert (told.select, none.select) == ("accuracy", "last")


def test_seeds() -> None:
    assert plan_of(MODELS).seed_list == [0, 1, 2, 3, 4]
    assert plan_of(MODELS, seeds=[7, 3]).seed_list == [7, 3]
    assert plan_of(MODELS, seeds=[7, 3]).with_seeds(2).seed_list == [0, 1]
    with pytest.raises(PlanError, match="found 0"):
        plan_of(MODELS).with_seeds(0)


# ---------------------------------------------------------------- settings from the command line


def test_settings_are_put_into_the_expanded_plan() -> None:
    plan = Plan.load("mnist-hard-vs-distilled").with_settings(
        [
            "training.steps=30",
            "models.large.training.epochs=3",
            "models.large.training.optimizer.eps=1e-7",
            "models.from-large.objective.temperature=2",
            "models.alone.network=mlp:16",
            "title=a = b",
            'data.source={ name = "digits" }',
            "verdict.margin = 0.01",
            "seeds=[1, 2]",
        ]
    )
    large, alone = plan.resolved("large").training, plan.resolved("alone").training
    assert large is not None
    assert alone is not None
    assert (large.epochs, large.steps, alone.epochs, alone.steps) == (3, None, None, 30)
    assert large.optimizer["learning_rate"] == 1e-3
    assert large.optimizer["eps"] == 1e-7
    assert plan.resolved("from-large").objective == ({"name": "hinton", "temperature": 2.0, "alpha": 0.1},)
    assert (
        plan.resolved("alone").network
        == plan.with_settings(["models.alone.network.hidden=[16]"]).resolved("alone").network
    )
    assert (plan.title, plan.data.source, plan.verdict.margin, plan.seed_list) == (
        "a = b",
        {"name": "digits"},
        0.01,
        [1, 2],
    )
    assert plan.name == "mnist-hard-vs-distilled"
    assert plan.with_settings([]) is plan


@pytest.mark.parametrize(
    ("setting", "key", "words"),
    [
        ("training.epoch=3", "training.epoch", '"epochs"'),
        ("trainig.epochs=3", "trainig", '"training"'),
        ("models.teachr.network=linear", "models.teachr.network", '"teacher"'),
        ("models.teacher.trainig.epochs=3", "models.teacher.trainig", '"training"'),
        ("models.alone.objective.alpha=0.1", "models.alone.objective.alpha", "no key"),
        ("training.augment.fraction=1", "training.augment.fraction", "a list"),
        ("title.x=1", "title.x", "no table"),
        ("training.epochs=three", "training.epochs", 'found "three"'),
        ("tune.seeds=3", "tune.search", "is missing"),
        ("nonsense", None, "KEY=VALUE"),
        ("a b=1", None, "cannot read the key"),
        ("=1", None, "KEY=VALUE"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(setting: str, key: str | None, words: str) -> None:
    with pytest.raises(PlanError) as caught:
        Plan.load("demo").with_settings([setting])
    assert (caught.value.key, caught.value.line) == (key, None)
    assert words in str(caught.value)


def test_a_swept_key_cannot_be_set_unnoticed() -> None:
    keys = 'sweep={"data.labelled" = [20, 50], "models.alone.network" = ["mlp:3"], "training.steps" = [1]}'
    plan = Plan.load("demo").with_settings([keys])
    for setting in (
        "data.labelled=30",
        "models.alone.network.hidden=[3]",
        "data={source='digits'}",
        "training.epochs=1",
    ):
        with pytest.raises(PlanError, match="swept over"):
            plan.with_settings([setting])
    plan = plan.with_settings(["data.test=500", "models.alone.training.steps=2", 'sweep."data.labelled"=[20]'])
    assert len(plan.points()) == 1


# ---------------------------------------------------------------- sweeps


def test_points_are_the_grid() -> None:
    plan = plan_of(
        {"t": {"network": "linear"}, "s": {"network": "linear", "teacher": "t"}},
        training={"steps": 5},
        sweep={"data.labelled": [20, 50], "models.s.training.epochs": [1, 2], "models.s.objective": ["pseudo_labels"]},
    )
    points = plan.points()
    assert [tuple(p.settings.values())[:2] for p in points] == [(20, 1), (20, 2), (50, 1), (50, 2)]
    assert points[1].label == "data.labelled=20, models.s.training.epochs=2, models.s.objective=pseudo_labels"
    there = points[1].plan
    training = there.resolved("s").training
    assert training is not None
    assert (there.data.labelled, training.epochs, training.steps) == (20, 2, None)
    assert there.resolved("s").objective == ({"name": "pseudo_labels"},)
    assert there.points()[0].plan is there
    assert there.points()[0].settings == {}
    assert there.resolved("t") == plan.resolved("t")


def test_the_end_of_a_dial_where_the_teacher_has_no_weight_can_be_swept() -> None:
    models = {"t": {"network": "linear"}, "s": {"network": "linear", "teacher": "t"}}
    assert len(plan_of(models, sweep={"models.s.objective.alpha": [0.0, 0.5, 1.0]}).points()) == 3
    assert plan_of({"s": {"network": "linear", "objective": {"name": "hinton", "alpha": 1.0}}})


def test_keys_that_are_joined_are_set_together() -> None:
    watched = [["objective", 0.1, "accuracy"], ["train_objective", 0, "last"]]
    plan = plan_of(
        {"s": {"network": "linear"}},
        training={"epochs": 5, "patience": 2},
        sweep={"training.batch_size": [8, 16], "training.monitor, data.validation ,training.select": watched},
    )
    points = plan.points()
    assert [list(point.settings.values()) for point in points] == [[size, *row] for size in (8, 16) for row in watched]
    names = ["training.batch_size", "training.monitor", "data.validation", "training.select"]
    assert all(list(point.settings) == names for point in points)
    label = "training.batch_size=8, training.monitor=train_objective, data.validation=0, training.select=last"
    assert points[1].label == label
    training = points[1].plan.resolved("s").training
    assert training is not None
    assert (training.batch_size, training.monitor, training.select) == (8, "train_objective", "last")
    assert points[1].plan.data.validation == 0
    with pytest.raises(PlanError, match="swept over; set the sweep instead"):
        plan.with_settings(["data.validation=0.2"])


def test_an_objective_and_then_its_keys_can_be_swept() -> None:
    models = {"t": {"network": "linear"}, "s": {"network": "linear", "teacher": "t"}}
    sweep = {"models.s.objective": [{"name": "hinton"}, {"name": "logit_mse"}], "models.s.objective.alpha": [0.0, 0.5]}
    assert len(plan_of(models, sweep=sweep).points()) == 4


# entries, points as columns of values, what was found at each point, the keys that it depends on
DEPENDS: dict[str, tuple[list[str], dict[str, str], str, list[str]]] = {
    "nothing": (["a", "b"], {"a": "1122", "b": "1212"}, "xxxx", []),
    "one of two": (["a", "b"], {"a": "1122", "b": "1212"}, "xyxy", ["b"]),
    "both, at one place only": (["a", "b"], {"a": "1122", "b": "1212"}, "xxxy", ["a", "b"]),
    "joined, both": (["a, b"], {"a": "12", "b": "12"}, "xy", ["a", "b"]),
    "joined, neither": (["a, b"], {"a": "12", "b": "12"}, "xx", []),
    "joined, the first alone": (["a, b"], {"a": "112", "b": "122"}, "xxy", ["a"]),
    "joined, the second alone": (["a, b"], {"a": "112", "b": "122"}, "xyy", ["b"]),
    "joined, neither tells": (["a, b"], {"a": "112", "b": "122"}, "xyx", ["a", "b"]),
    "joined and single": (["c", "a, b"], {"c": "111222", "a": "112112", "b": "122122"}, "xxyzzw", ["c", "a"]),
    "single alone": (["c", "a, b"], {"c": "111222", "a": "112112", "b": "122122"}, "xxxyyy", ["c"]),
    "joined at one place only": (["c", "a, b"], {"c": "111222", "a": "112112", "b": "122122"}, "xxxyyz",
                                 ["c", "a", "b"]),
}  # fmt: skip


@pytest.mark.parametrize(("entries", "columns", "found", "names"), DEPENDS.values(), ids=DEPENDS)
def test_the_swept_keys_that_make_a_difference(
    entries: list[str], columns: dict[str, str], found: str, names: list[str]
) -> None:
    points = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    assert sweeps.depends(entries, points, found) == names


def test_a_point_is_checked_when_the_plan_is_read() -> None:
    with pytest.raises(PlanError, match=r"at the point models\.s\.network=densnet"):
        plan_of({"s": {"network": "linear"}}, sweep={"models.s.network": ["linear", "densnet"]})
    with pytest.raises(PlanError, match="1001 points"):
        plan_of(MODELS, sweep={"data.labelled": list(range(20, 1021))})


# ---------------------------------------------------------------- family, comparisons, differences


def student(*teachers: str, **more: Any) -> dict[str, Any]:
    return {"network": "linear", "teacher": list(teachers), **more}


def test_order_and_depth() -> None:
    plan = plan_of(
        {"d": student("b", "c"), "c": student("b", generations=3), "b": student("a"), "a": {"network": "linear"}}
    )
    assert plan.order() == ["a", "b", "c", "d"]
    assert [plan.depth(name) for name in "abcd"] == [0, 1, 2, 5]
    with pytest.raises(PlanError, match='Unknown model "e"'):
        plan.depth("e")


PLAIN = {"network": "linear"}


@pytest.mark.parametrize(
    ("models", "verdict", "expected"),
    [
        ({"t": PLAIN, "alone": PLAIN, "s": student("t")}, {}, [("s", "alone"), ("s", "t")]),
        ({"t": PLAIN, "plain": PLAIN, "s": student("t")}, {}, [("s", "plain"), ("s", "t")]),
        ({"t": PLAIN, "p": PLAIN, "q": PLAIN, "s": student("t")}, {}, [("s", "t")]),
        ({"t": PLAIN, "s": student("t")}, {"baseline": "t"}, [("s", "t")]),
        ({"t": PLAIN, "b": student("t"), "s": student("t")}, {"baseline": "b"}, [("s", "b"), ("b", "t"), ("s", "t")]),
        ({"t": PLAIN, "u": PLAIN, "s": student("t", "u")}, {}, [("s", "t"), ("s", "u")]),
        (
            {"o": {"outputs": "o", "kind": "logits"}, "alone": PLAIN, "s": student("o")},
            {},
            [("s", "alone")],
        ),
        ({"t": PLAIN, "alone": PLAIN, "s": student("t")}, {"compare": [["t", "alone"]]}, [("t", "alone")]),
        ({"t": PLAIN, "alone": PLAIN, "s": student("t"), "r": student("s")}, {"metric": "agreement"}, [("r", "s")]),
        ({"t": PLAIN, "s": student("t"), "alone": student("s")}, {}, [("s", "alone"), ("s", "t")]),
        ({"a": PLAIN, "alone": student("a"), "b": student("alone")}, {}, [("b", "alone"), ("alone", "a")]),
    ],
)
def test_comparisons(models: dict[str, Any], verdict: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert plan_of(models, verdict=verdict).comparisons() == expected


@pytest.mark.parametrize(
    ("a", "b", "data", "expected"),
    [
        ({}, {}, {}, []),
        ({"objective": {"name": "hinton", "alpha": 0.9}}, {"teacher": "u", "answers": "live"}, {}, []),
        ({"network": "mlp:16"}, {}, {}, ["network (mlp:16 against linear)"]),
        ({"members": 3, "generations": 2}, {}, {}, ["members (3 against 1)", "generations (2 against 1)"]),
        ({"training": {"steps": 9}}, {"training": {"steps": 4}}, {}, ["training.steps (9 against 4)"]),
        ({"training": {"steps": 9}}, {}, {}, ["training budget (9 steps against 20 epochs)"]),
        (
            {"training": {"optimizer": {"name": "adam", "learning_rate": 0.1}}},
            {},
            {},
            ["training.optimizer.learning_rate (0.1 against 0.001)"],
        ),
        (
            {"training": {"schedule": "cosine"}},
            {},
            {},
            ["training.schedule (cosine(warmup=0.0, floor=0.0) against constant)"],
        ),
        ({"training": {"views": 3}}, {}, {}, []),
        ({"training": {"augment": ["flip"]}}, {}, {}, ["training.augment (flip against none)"]),
        (
            {"training": {"batch_size": 8, "patience": 2, "precision": "bf16", "label_smoothing": 0.1}},
            {},
            {},
            [
                "training.batch_size (8 against 128)",
                "training.patience (2 against none)",
                "training.precision (bf16 against float32)",
                "training.label_smoothing (0.1 against 0.0)",
            ],
        ),
        ({"known": 0.5}, {}, {}, ["rows that the teacher answers for (50 % against all)"]),
        (
            {"known": 0.25, "objective": "soft_labels"},
            {"objective": "soft_labels"},
            {},
            [
                "training rows (those that the teacher answers for against all)",
                "rows that the teacher answers for (25 % against all)",
            ],
        ),
        (
            {"known": "rows.npy"},
            {"known": "labelled"},
            {"labelled": 50},
            [
                "training rows (the labelled ones and those that the teacher answers for against the labelled ones)",
                "rows that the teacher answers for (those in rows.npy against the labelled ones)",
            ],
        ),
        ({"known": 1.0}, {}, {}, []),
        (
            {"objective": {"name": "hinton", "alpha": 1.0}},
            {},
            {"labelled": 50},
            ["training rows (the labelled ones against all)"],
        ),
        ({"known": "labelled"}, {}, {}, []),
        ({"known": "labelled"}, {}, {"labelled": 50}, ["training rows (the labelled ones against all)"]),
        (
            {"weights": "w", "training": {"epochs": 0}},
            {},
            {},
            [
                "starting weights (w against none)",
                "trained (once for all seeds against once per seed)",
                "training (none (used as it is) against 20 epochs)",
            ],
        ),
    ],
)  # fmt: skip
def test_differences_name_all_settings_but_the_method(
    a: dict[str, Any], b: dict[str, Any], data: dict[str, Any], expected: list[str]
) -> None:
    base = {"network": "linear", "teacher": "t"}
    models = {"t": PLAIN, "u": PLAIN, "a": base | a, "b": base | b}
    plan = Plan.from_dict({"data": {"source": "digits"} | data, "models": models})
    assert differences(plan, "a", "b") == expected
    assert len(differences(plan, "b", "a")) == len(expected)


def test_unlabelled_rows_are_a_difference_between_a_student_and_plain_training() -> None:
    plan = Plan.load("demo")
    assert differences(plan, "from-teacher-same-examples", "alone") == []
    assert differences(plan, "from-teacher", "alone") == ["training rows (all against the labelled ones)"]


# ---------------------------------------------------------------- shipped plans, round trips


@pytest.mark.parametrize("name", Plan.names())
def test_a_shipped_plan_is_shown_as_toml_that_loads(tmp_path: Path, name: str) -> None:
    plan = Plan.load(name)
    assert load(tmp_path, plan.text) == plan
    assert "#" in plan.text
    about = Plan.about(name)
    assert about["title"] == plan.title
    assert about["needs"]
    assert about["time"]
    assert all(plan.resolved(model).to_dict() for model in plan.models)


def resolved_toml(plan: Plan, tmp_path: Path) -> None:
    text = plan.to_toml()
    again = load(tmp_path, text)
    assert again == plan
    assert again.to_toml() == text
    assert Plan.from_dict(plan.to_dict()) == plan
    assert [point.plan for point in again.points()] == [point.plan for point in plan.points()]


ROUND = [
    *[(name, []) for name in Plan.names()],
    ("demo", ["seeds=[5, 2]", 'story="a\\n\\"b\\" \\\\ \\u007f é"', "training.clip=1.5", "training.views=4"]),
    ("demo", ['sweep."data.labelled"=[20, 50]', 'sweep."models.alone.network"=["linear", {name="mlp", hidden=[3]}]']),
    ("demo", ['sweep."data.labelled, training.steps"=[[20, 3], [50, 4]]']),
    ("demo", ["models.from-teacher.teacher=[\"teacher\", \"ensemble\"]", "models.from-teacher.known=0.25"]),
    ("demo", ['models.from-teacher.objective=["hinton", "pseudo_labels"]', 'training.augment=["flip"]']),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes"), ROUND)
def test_a_resolved_plan_round_trips(tmp_path: Path, name: str, changes: list[str]) -> None:
    resolved_toml(Plan.load(name).with_settings(changes), tmp_path)


@pytest.mark.parametrize("name", SNIPPETS)
def test_every_key_of_the_plan_language_round_trips(tmp_path: Path, name: str) -> None:
    raw = tomllib.loads(SNIPPETS[name][0])
    for key in SNIPPETS[name][1]:
        taken_out(raw, key)
    resolved_toml(Plan.from_dict(raw), tmp_path)


def test_a_plan_does_not_change_the_tables_it_was_made_from() -> None:
    raw = tomllib.loads(BASE)
    Plan.from_dict(raw)
    assert raw == tomllib.loads(BASE)


# ---------------------------------------------------------------- the text of a plan

SCALARS = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=8)
KEYS = st.text(max_size=5)
NESTED = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS.filter(lambda key: key != "models"), NESTED, max_size=4))
@example({"tune": {}})
@example({"tune": []})
@example({"tune": {"search": {}, "seeds": 2}})
@example({"tune": {"search": {"a": {"b": [1, 2]}, "c": 3}}})
@example({"tune": {"search": {"a": {"b.c": [1, 2]}, "d": {}}, "seeds": 2}})
def test_what_is_written_is_what_is_read(tables: dict[str, Any]) -> None:
    text = plan_text.write(tables, comment="a\nb")
    assert plan_text.parse(text) == tables
    lines, rows = plan_text.positions(text), text.split("\n")
    assert set(lines) == set(paths(tables))  # every key is found, and nothing else
    for path, line in lines.items():
        if isinstance(path[-1], str):
            assert plan_text.dotted(path[-1:]) in rows[line - 1]


def paths(value: Any, above: plan_text.Path = ()) -> list[plan_text.Path]:
    found = [above] if above else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [path for key, below in inner for path in paths(below, (*above, key))]


def test_lines_of_everything_that_toml_can_write() -> None:
    text = '''title = "x" # [not a table]
a.b."c.d" = [1, 2, # two
  { q = 3, r.s = 4 }, "]" ]
[data]
source = { name = "k", t = """
 # no comment ""\\"
""", v = 5 }
day = 1979-05-27 07:32:00
path = 'C:\\'
[models."a b"]
network = 'x'
[[models.x.objective]]
name = "h"
[[models.x.objective]]
[models.x.objective.sub]
z = +1e5
'''
    tomllib.loads(text)
    lines = {plan_text.dotted(path): line for path, line in plan_text.positions(text).items()}
    expected = {
        "title": 1, "a": 2, "a.b": 2, 'a.b."c.d"': 2, 'a.b."c.d"[0]': 2, 'a.b."c.d"[1]': 2, 'a.b."c.d"[2]': 3,
        'a.b."c.d"[2].q': 3, 'a.b."c.d"[2].r': 3, 'a.b."c.d"[2].r.s': 3, 'a.b."c.d"[3]': 3, "data": 4, "data.source": 5,
        "data.source.name": 5, "data.source.t": 5, "data.source.v": 7, "data.day": 8, "data.path": 9, "models": 10,
        'models."a b"': 10, 'models."a b".network': 11, "models.x": 12, "models.x.objective": 12,
        "models.x.objective[0]": 12, "models.x.objective[0].name": 13, "models.x.objective[1]": 14,
        "models.x.objective[1].sub": 15, "models.x.objective[1].sub.z": 16,
    }  # fmt: skip
    assert lines == expected


def test_importing_plans_and_describing_them_does_not_import_torch() -> None:
    code = (
        "import sys; from potstill.study.plan import Plan; [Plan.about(n) for n in Plan.names()]; Plan.source('demo');"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_misspelt_key_is_blamed_and_not_the_one_that_is_suggested() -> None:
    objective = {"name": "hinton", "temperature": 2.0, "temprature": 1.0}
    plan = {
        "data": {"source": "digits"},
        "models": {"teacher": {"network": "mlp:8"}, "student": {"network": "mlp:8", "teacher": "teacher"}},
    }
    plan["models"]["student"]["objective"] = objective  # type: ignore[index]
    with pytest.raises(PlanError) as caught:
        Plan.from_dict(plan)
    assert caught.value.key == "models.student.objective.temprature"


def test_a_step_of_all_rows() -> None:
    plan = plan_of({"s": {"network": "linear"}}, training={"batch_size": "all", "epochs": 7})
    training = plan.resolved("s").training
    assert training is not None
    assert (training.batch_size, training.epochs) == ("all", 7)
    with pytest.raises(PlanError, match=r'training\.batch_size: .*whole number of at least 1, or "all"'):
        plan_of({"s": {"network": "linear"}}, training={"batch_size": "al"})
