"""The plans on cats and dogs: the paper's numbers, students that differ in method alone, chains in order."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from photo_samples import tree as pictures
from photo_samples import write

import potstill as ps
from potstill.errors import PlanError
from potstill.study import judging
from potstill.study.plan import Plan, differences
from potstill.study.rehearse import rehearse
from potstill.study.study import Study
from potstill.study.tree import Node, Tree, expand

PAPER, SMALL, CHAINS = "dogs-vs-cats", "dogs-vs-cats-64", "dogs-vs-cats-generations-64"
VIEWS = "dogs-vs-cats-views-64"
NAMES = (PAPER, SMALL, CHAINS)


def facts(table: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
    return {"fingerprints": {"train": str(table)}, "rows": 17_500}


def tree_of(plan: Plan) -> Tree:
    return expand(plan, facts, lambda path: f"sha256 of {path}")


# ---------------------------------------------------------------- the paper's numbers

STUDENT = {
    "network": {"name": "resnet18", "width": 64, "stem": "auto", "dropout": 0.0},
    "weights": None,
    "training.epochs": 100,
    "training.batch_size": 32,
    "training.optimizer.variant": "keras",
    "training.optimizer.learning_rate": 1e-4,
    "training.optimizer.eps": 1e-7,
    "training.optimizer.betas": [0.9, 0.999],
    "training.optimizer.decay": 0.0,
    "training.schedule": {"name": "constant"},
    "training.augment": [{"name": "flip"}, {"name": "shift", "fraction": 0.4}],
    "training.views": "fresh",
    "training.select": "accuracy",
    "training.patience": None,
    "training.precision": "float32",
    "training.label_smoothing": 0.0,
}
TEACHER = STUDENT | {
    "network": {"name": "resnet50", "width": 64, "stem": "auto", "dropout": 0.5},
    "weights": "hub:microsoft/resnet-50",
    "training.epochs": 25,
    "training.optimizer.learning_rate": 1e-6,
    "training.optimizer.decay": 0.01,
    "training.augment": [{"name": "flip"}],
}
PRINTED = {"teacher": TEACHER, "classical": STUDENT, "hard": STUDENT, "soft": STUDENT}


@pytest.mark.parametrize("model", PRINTED)
def test_the_paper_s_numbers(model: str) -> None:
    settings = Plan.load(PAPER).resolved(model).to_dict()
    for key, value in PRINTED[model].items():
        found = settings
        for word in key.split("."):
            found = found[word]
        assert found == value, key


def test_the_paper_s_data() -> None:
    data = Plan.load(PAPER).data
    assert {key: data.source[key] for key in ("size", "interpolation")} == {"size": 224, "interpolation": "nearest"}
    assert (data.task, data.validation, data.test) == ("binary", 25_000 * 15 // 100, 25_000 * 15 // 100)


# ---------------------------------------------------------------- what is compared is alike

OBJECTIVES = {"classical": "hard_labels", "hard": "pseudo_labels", "soft": "soft_labels", "teacher": "hard_labels"}


@pytest.mark.parametrize("name", NAMES)
def test_students_differ_in_their_targets_alone(name: str) -> None:
    plan = Plan.load(name)
    assert {model: plan.resolved(model).objective[0]["name"] for model in plan.models} == {  # type: ignore[index]
        model: OBJECTIVES[model] for model in plan.models
    }
    students = [model for model in plan.models if model != "teacher"]
    for model in students:
        assert differences(plan, model, students[0]) == []
    assert plan.data.task == "binary"
    assert plan.verdict.metric == "accuracy"
    for model in plan.models:
        training = plan.resolved(model).training
        assert training is not None
        assert training.select == "accuracy"
        assert any(step["name"] == "flip" for step in training.augment)


@pytest.mark.parametrize("name", NAMES)
def test_students_of_a_seed_see_the_same_batches_and_begin_alike(name: str) -> None:
    """What decides the batches and the first weights is the same in them, apart from the generation's number."""
    trainings = [node for node in tree_of(Plan.load(name)).nodes.values() if node.kind == "train"]
    students = [node for node in trainings if not node.family.startswith("teacher")]
    seeds = sorted({node.seed for node in students})
    assert seeds == list(range(5 if name == PAPER else 3))
    for seed in seeds:
        own = [node.settings for node in students if node.seed == seed]
        for key in ("network", "training", "data", "known", "weights", "answers"):
            values = {str(settings[key]) for settings in own if key != "answers" or settings["teacher"]}
            assert len(values) == 1, key
        assert all(settings["seed"]["seed"] == seed for settings in own)
        assert all(settings["seed"]["member"] == 0 for settings in own)


# ---------------------------------------------------------------- chains


def test_a_chain_learns_generation_by_generation() -> None:
    nodes = tree_of(Plan.load(CHAINS)).nodes
    trainings = [node for node in nodes.values() if node.kind == "train"]
    for seed in range(3):
        own = [node for node in trainings if node.seed == seed]
        assert len(own) == 15
        for chain in ("hard", "soft"):
            for generation in range(1, 8):
                node = nodes[f"models/{chain}/generation-{generation}/seed-{seed}"]
                assert node.settings["seed"]["generation"] == generation
                teacher = f"{chain}#{generation - 1}" if generation > 1 else "teacher"
                assert asked(node, nodes) == (teacher, seed)
    assert len(trainings) == 45
    # Every generation is a fresh network: equal first weights in both chains, other ones in each generation.
    assert differences(Plan.load(CHAINS), "hard", "teacher") == ["generations (7 against 1)"]


def asked(node: Node, nodes: Mapping[str, Node]) -> tuple[str, int]:
    """Family and seed of the one model whose recorded answers a node learns from."""
    (record,) = (nodes[need] for need in node.needs)
    (teacher,) = (nodes[need] for need in record.needs)
    assert record.kind == "record"
    assert record.settings["views"] == list(range(1, 1 + node.settings["training"]["views"]))
    assert record.settings["augment"] == node.settings["training"]["augment"]
    return teacher.family, teacher.seed


def compared(plan: Plan) -> list[tuple[str, str]]:
    reader: Any = SimpleNamespace(tree=tree_of(plan))
    return judging.pairs(plan, reader)


def test_chains_are_compared_at_equal_generation() -> None:
    found = compared(Plan.load(CHAINS))
    assert found[:7] == [(f"soft#{g}", f"hard#{g}") for g in range(1, 8)]
    assert sorted(found[7:]) == sorted((f"{chain}#{g}", "teacher") for chain in ("hard", "soft") for g in range(1, 8))


def test_chains_of_different_lengths_are_compared_with_the_last() -> None:
    plan = Plan.load(CHAINS).with_settings(["models.hard.generations=3", "models.soft.generations=2"])
    assert compared(plan)[:2] == [("soft#1", "hard#3"), ("soft#2", "hard#3")]


def test_one_teacher_is_asked_once_about_each_view() -> None:
    for name, views in ((PAPER, 100), (SMALL, 4)):
        nodes = tree_of(Plan.load(name)).nodes.values()
        (record,) = (node for node in nodes if node.kind == "record")
        assert len(record.settings["views"]) == views
        assert [node.folder for node in nodes if node.family == "teacher"] == ["models/teacher/shared", record.folder]


# ---------------------------------------------------------------- published numbers


def test_students_differ_in_their_views_alone() -> None:
    """More views than epochs would be fresh ones; whoever asks live has nothing recorded for it."""
    tree = tree_of(Plan.load(VIEWS))
    views, told = {}, set()
    for node in tree.nodes.values():
        model = tree.families[node.family].model
        if node.kind == "train" and model != "teacher" and node.seed == 0:
            training = dict(node.settings["training"])
            views[model] = training.pop("views")
            told.add(str((training, node.settings["network"], node.settings["objective"])))
            assert views[model] == "fresh" or views[model] < training["epochs"]
    assert views == {"views-1": 1, "views-4": 4, "views-16": 16, "fresh": "fresh", "live": "fresh"}
    assert len(told) == 1
    recorded = {tuple(node.settings["views"]) for node in tree.nodes.values() if node.kind == "record"}
    assert recorded == {(1,), tuple(range(1, 5)), tuple(range(1, 17)), tuple(range(1, 19))}


def test_published_numbers_stand_beside_every_model() -> None:
    for name in NAMES:
        plan = Plan.load(name)
        assert plan.published is not None
        for metric, numbers in plan.published.metrics.items():
            assert metric == "best_epoch" or set(numbers) == set(tree_of(plan).families)
            assert all(0 < value < (100 if metric == "best_epoch" else 1) for value in numbers.values())


@pytest.mark.parametrize("wrong", ["hard#0", "hard#x", "hard#", "teacher#1", "hrd#1"])
def test_published_numbers_of_no_generation_are_refused(wrong: str) -> None:
    raw = Plan.load(CHAINS).to_dict()
    raw["published"]["accuracy"] = {wrong: 0.9}
    with pytest.raises(PlanError) as caught:
        Plan.from_dict(raw)
    assert caught.value.key == f'published.accuracy."{wrong}"'


# ---------------------------------------------------------------- in miniature


def narrow(plan: Plan) -> list[str]:
    """Settings that leave of every network four channels in its first stage."""
    networks = {model: plan.resolved(model).network or {} for model in plan.models}
    return [
        f'models.{model}.network={{ name = "{one["name"]}", width = 4, stem = "large", dropout = {one["dropout"]} }}'
        for model, one in networks.items()
    ]


def test_the_paper_s_plan_is_rehearsed(tmp_path: Path) -> None:
    """`potstill check` of it with fewer and smaller photos where it looks for them, and weights from a folder."""
    photos = write(tmp_path / "dogs-vs-cats" / "train", pictures({"": 40}))
    plan = Plan.load(PAPER)
    start = plan.with_settings(narrow(plan)).resolved("teacher").network
    ps.fit(start, ps.data.open({"name": str(photos), "size": 32}, task="binary"), steps=1).save(tmp_path / "start")  # type: ignore[arg-type]
    small = ["data.source.size=32", "data.validation=10", "data.test=10", f'models.teacher.weights="{tmp_path}/start"']
    study = Study.open(plan, folder=tmp_path / "run", data=tmp_path, settings=[*small, *narrow(plan)])
    found = rehearse(study.job(1))
    assert found.rows == {"train": 60, "validation": 10, "test": 10}
    assert found.classes == ("cats", "dogs")
    assert [(one.model, one.steps, one.trainings) for one in found.models] == [
        ("teacher", 25 * 2, 1),
        *((model, 100 * 2, 5) for model in ("classical", "hard", "soft")),
    ]


@pytest.mark.parametrize(("name", "trainings"), [(SMALL, 1 + 3 * 3), (CHAINS, 15 * 3), (VIEWS, 1 + 5 * 3)])
def test_the_reduced_plans_are_rehearsed(tmp_path: Path, real_data: Path, name: str, trainings: int) -> None:
    if not (real_data / "cats-dogs-64").is_dir():
        pytest.skip("no cats and dogs in the data folder")
    plan = Plan.load(name)
    small = ["data.train=60"] if plan.data.train else []
    found = rehearse(Study.open(plan, folder=tmp_path, data=real_data, settings=[*small, *narrow(plan)]).job(1))
    assert found.shape == (3, 64, 64)
    assert found.rows["train"] == (60 if small else 170)
    assert found.rows["validation"] == 200 * plan.data.validation
    assert sum(one.trainings for one in found.models) == trainings


@pytest.mark.parametrize(
    ("pair", "said"), [(("classical", "teacher"), "teacher"), (("soft", "classical"), None), (("teacher",) * 2, None)]
)
def test_who_is_held_against_one_teacher_is_told_so(pair: tuple[str, str], said: str | None) -> None:
    """A model that is no student of it too: fresh training runs are its own alone."""
    plan = Plan.load(SMALL)
    families = tree_of(plan).families
    ours, theirs = (SimpleNamespace(family=families[name]) for name in pair)
    assert judging._once(plan, ours, theirs) == said  # type: ignore[arg-type]
