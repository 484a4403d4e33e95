"""For which rows a teacher answers: fractions, files, rows without a label; the truth of a source as a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special
from study_samples import changed, run
from torch import Tensor

import potstill as ps
from potstill import networks, objectives, outputs, storage
from potstill.data import Truth
from potstill.errors import DataError, NetworkError, PlanError
from potstill.evaluation import load_predictions
from potstill.study.plan import Plan
from potstill.study.results import Results
from potstill.types import Batch, Outputs, Teacher

ROWS, CLASSES = 60, 3
NUMBERS = np.random.default_rng(0)
X = NUMBERS.normal(size=(ROWS, 5)).astype(np.float32)
Y = np.arange(ROWS) % CLASSES
ANSWERS = (3 * NUMBERS.normal(size=(ROWS, CLASSES)) + 4 * np.eye(CLASSES)[Y]).astype(np.float32)
ANSWERED = [
    name for name in objectives.REGISTRY if "student" not in objectives.REGISTRY.parameters(name)
]  # no features
TAUGHT = [name for name in ANSWERED if objectives.build(name).needs_teacher]


def values(objective: objectives.Objective) -> bool:
    """Whether an objective is one of a regression."""
    return objective.learns == "values"


def data_for(objective: objectives.Objective, **options: Any) -> ps.data.Data:
    """Classes, or three targets."""
    if values(objective):
        return ps.data.open((X, ANSWERS + X[:, :1]), test=0, validation=0, task="regression", **options)
    return ps.data.open((X, Y), test=0, validation=0, **options)


def answers(objective: objectives.Objective, known: Tensor, *, wrong: bool = False) -> outputs.Stored:
    """Recorded answers, known for some rows; `wrong` says something else about the others."""
    array = np.where(known.numpy()[:, None] | (not wrong), ANSWERS, 5 * ANSWERS[::-1] + 1).astype(np.float32)
    kind = "values" if values(objective) else "logits"
    return outputs.from_array(array, kind=kind, rows=ROWS).with_known(known)


def weights(model: Any) -> list[Tensor]:
    return list(model.network.state_dict().values())


@pytest.mark.parametrize("name", TAUGHT)
def test_what_is_not_known_teaches_nothing(name: str) -> None:
    """20 rows carry a label, 15 others are known to the teacher, 5 are both."""
    objective = objectives.build(name)
    data = data_for(objective, labelled=20, seed=1)
    labelled = data.train.labelled
    known = torch.zeros(ROWS, dtype=torch.bool)
    known[(~labelled).nonzero()[:15, 0]] = True
    known[labelled.nonzero()[:5, 0]] = True

    def train(teacher: outputs.Stored) -> Any:
        return ps.fit("mlp:4", data, objective, teacher=teacher, seed=0, steps=9, batch_size=16)

    model = train(answers(objective, known))
    assert all(map(torch.equal, weights(model), weights(train(answers(objective, known, wrong=True)))))
    everything = train(answers(objective, torch.ones(ROWS, dtype=torch.bool)))
    assert not all(map(torch.equal, weights(model), weights(everything)))
    used = known | labelled if objective.needs_labels else known
    assert model.info["rows"] == int(used.sum())


@pytest.mark.parametrize("name", TAUGHT)
def test_rows_without_label_and_answer_have_terms_of_zero(name: str) -> None:
    index = torch.arange(6)
    known = torch.tensor([True, True, False, False, True, False])
    labelled = torch.tensor([True, False, True, False, True, False])
    every = torch.zeros(ROWS, dtype=torch.bool)
    every[:6] = known
    objective = objectives.build(name)
    teacher = answers(objective, every).lookup(index, 0)  # type: ignore[arg-type]
    logits = torch.randn(6, CLASSES, generator=torch.Generator().manual_seed(2)).requires_grad_()
    mask = labelled[:, None] if values(objective) else labelled
    labels = torch.where(mask, data_for(objective).train.labels[:6], 0)
    terms = objective(Outputs(logits), Batch(torch.from_numpy(X[:6]), labels, labelled, index, teacher))
    total = torch.stack(list(terms.values())).sum(0)
    total.sum().backward()
    assert logits.grad is not None
    neither = ~known & ~labelled
    assert not total[neither].any()
    assert not logits.grad[neither].any()
    assert logits.grad[known].abs().sum(1).gt(0).all()


# ---------------------------------------------------------------- in a study

BASE: dict[str, Any] = {
    "seeds": 3,
    "data": {"source": {"name": "softmax-linear", "train": 200, "test": 100}, "validation": 0, "labelled": 50},
    "training": {"steps": 30, "batch_size": 32},
    "models": {
        "alone": {"network": "linear"},
        "taught": {
            "network": "linear",
            "teacher": "truth",
            "objective": {"name": "hinton", "alpha": 0.5},
            "known": 0.3,
        },
        "only": {"network": "linear", "teacher": "truth", "objective": "soft_labels", "known": 0.3},
        "filed": {"network": "linear", "teacher": "truth", "objective": "soft_labels"},
    },
    "evaluation": {"latency": {"batch": []}},
    "verdict": {"metric": "cross_entropy", "compare": [["taught", "alone"], ["only", "alone"], ["filed", "alone"]]},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    folder = tmp_path_factory.mktemp("known")
    np.save(folder / "rows.npy", np.array([3, 5, 7, 11, 150, 3]))
    return folder / "run", run(changed(BASE, models__filed__known=str(folder / "rows.npy")), folder / "run")


def rows_of(folder: Path, model: str, seed: int) -> int:
    return int(storage.read_json(folder / f"models/{model}/seed-{seed}/result.json")["info"]["rows"])


def test_known_rows_are_counted_and_drawn_by_seed(done: tuple[Path, Results]) -> None:
    from potstill.seeding import permutation

    folder, _ = done
    for seed in range(3):
        labelled = ps.data.open(**BASE["data"], seed=seed).train.labelled
        known = torch.zeros(200, dtype=torch.bool)
        known[permutation(200, "known", seed)[:60]] = True
        assert rows_of(folder, "alone", seed) == 50
        assert rows_of(folder, "only", seed) == 60
        assert rows_of(folder, "filed", seed) == 5
        assert rows_of(folder, "taught", seed) == int((labelled | known).sum())
    assert len({rows_of(folder, "taught", seed) for seed in range(3)}) > 1


def test_the_sentence_names_the_known_rows(done: tuple[Path, Results]) -> None:
    folder, results = done
    told = {verdict.model: verdict.differs_in for verdict in results.verdicts}
    assert told["taught"] == [
        "training rows (the labelled ones and those that the teacher answers for against the labelled ones)",
        "rows that the teacher answers for (30 % against none)",
    ]
    assert told["only"][1] == "rows that the teacher answers for (30 % against none)"
    assert told["filed"][1] == f"rows that the teacher answers for (those in {folder.parent / 'rows.npy'} against none)"
    assert all("rows that the teacher answers for (" in verdict.sentence for verdict in results.verdicts)
    assert results.models["only"].objective == "soft_labels, rows that the teacher answers for: 30 %"


@pytest.mark.parametrize("rows", [[], [0, 200], [-1]])
def test_row_numbers_that_are_none_of_the_data(tmp_path: Path, rows: list[int]) -> None:
    np.save(tmp_path / "rows.npy", np.array(rows, np.int64))
    plan = changed(BASE, models__filed__known=str(tmp_path / "rows.npy"), seeds=1)
    with pytest.raises(DataError, match=r"rows.npy must hold row numbers from 0 to 199 of the training rows"):
        run(plan, tmp_path / "run")


def test_data_with_rows_that_have_no_label(tmp_path: Path) -> None:
    """What no plan says shows in the numbers of rows: 60 with a label, 30 without."""
    more = X[:30] + 1
    plan = changed(
        BASE,
        data={"source": {"train": (X, Y), "test": (X, Y), "unlabelled": more}, "validation": 0},
        models={
            "teacher": {"network": "linear"},
            "alone": {"network": "linear"},
            "taught": {"network": "linear", "teacher": "teacher"},
            "some": {"network": "linear", "teacher": "teacher", "known": 0.5},
        },
        verdict={"baseline": "alone"},
    )
    results = run(plan, tmp_path / "run")
    told = {(verdict.model, verdict.baseline): verdict.differs_in for verdict in results.verdicts}
    assert told["taught", "alone"] == ["training rows (90 against 60)"]
    known = rows_of(tmp_path / "run", "some", 0)
    assert 60 < known < 90
    assert "rows that the teacher answers for (50 % against none)" in told["some", "alone"]
    assert any(one.startswith("training rows (") and one.endswith(" against 60)") for one in told["some", "alone"])


# ---------------------------------------------------------------- the truth


@pytest.mark.parametrize("task", ["multiclass", "binary"])
def test_the_truth_is_a_teacher(tmp_path: Path, task: Any) -> None:
    classes = 2 if task == "binary" else 3
    table = {"name": "softmax-linear", "classes": classes, "temperature": 2.0, "train": 20_000}
    data = ps.data.open(table, validation=0, task=task, redraw="seed", seed=4)
    truth = data.truth
    assert truth is not None
    assert isinstance(truth, Teacher)
    x, y = data.train.raw.numpy(), data.train.labels.numpy()
    logits = truth(data.train.raw).numpy().astype(np.float64)
    p = special.softmax(np.concatenate([0 * logits, logits], 1) if task == "binary" else logits, axis=1)
    one_hot = np.eye(classes)[y]
    for part in (np.ones(len(y), bool), x[:, 0] > 0, p.max(1) > 0.8):  # labels are drawn with these probabilities
        spread = np.sqrt((p * (1 - p))[part].sum(0))
        assert (np.abs((one_hot - p)[part].sum(0)) < 4 * spread).all()
    assert (
        truth.fingerprint() == ps.data.open(table, validation=0, task=task, redraw="seed", seed=4).truth.fingerprint()
    )
    assert truth.fingerprint() != ps.data.open(table, validation=0, task=task).truth.fingerprint()
    recorded = ps.record(truth, data.train, tmp_path / "outputs").lookup(torch.arange(9), 0)
    assert recorded.probs(1.0).numpy() == pytest.approx(p[:9], abs=1e-6)
    model = ps.fit(truth.network(), data, weights=truth.weights(), epochs=0)
    assert torch.equal(model(data.test.raw), truth(data.test.raw))
    assert model.info["weights"]["new"] == []


def test_where_there_is_no_truth() -> None:
    assert ps.data.open("digits").truth is None
    assert ps.data.open({"name": "softmax-linear", "labels": "likeliest"}).truth is None
    models = {"taught": {"network": "linear", "teacher": "truth"}}
    for source in ("digits", "privileged", {"name": "softmax-linear", "labels": "likeliest"}):
        for found, key in ((models, "models.taught.teacher"), ({"a": {"weights": "truth"}}, "models.a.weights")):
            with pytest.raises(PlanError, match='"truth" is the law by which the program drew the data') as caught:
                Plan.from_dict({"data": {"source": source}, "models": found})
            assert caught.value.key == key
    with pytest.raises(PlanError, match='"truth" is reserved for the law'):
        Plan.from_dict({"data": {"source": "softmax-linear"}, "models": {"truth": {"network": "linear"}}})


def test_plans_with_a_truth_can_be_written_and_read() -> None:
    plan = Plan.from_dict(BASE)
    assert list(plan.models) == ["truth", *BASE["models"]]
    assert Plan.from_dict(plan.to_dict()) == plan
    assert plan.resolved("truth").shared
    assert not Plan.from_dict(changed(BASE, data__redraw="seed")).resolved("truth").shared
    assert plan.baseline == "alone"


def test_a_student_of_the_truth(tmp_path: Path) -> None:
    """Recorded like any other teacher; with all of it and many rows the student finds the law."""
    plan = changed(
        BASE,
        data={"source": {"name": "softmax-linear", "train": 400}, "redraw": "seed", "validation": 0},
        training={"steps": 600, "batch_size": 100, "optimizer": {"name": "adam", "learning_rate": 0.03}},
        models={
            "alone": {"network": "linear"},
            "taught": {"network": "linear", "teacher": "truth", "objective": "soft_labels"},
            "live": {"network": "linear", "teacher": "truth", "objective": "soft_labels", "answers": "live"},
        },
        verdict={"metric": "cross_entropy"},
        seeds=2,
    )
    results = run(plan, tmp_path / "run")
    assert results.models["truth"].objective == "the law by which the data were drawn"
    assert (results.models["truth"].network, results.models["truth"].shared) == ("linear", False)
    for seed in range(2):
        data = ps.data.open(**plan["data"], seed=seed)
        told = ps.load(tmp_path / f"run/models/truth/seed-{seed}")
        assert torch.equal(told(data.test.raw), data.truth(data.test.raw))
        predicted = load_predictions(tmp_path / f"run/models/truth/seed-{seed}/predictions/test.safetensors")
        np.testing.assert_allclose(predicted.log_probs, data.truth(data.test.raw).log_softmax(-1), atol=1e-6)
        for name in ("taught", "live"):
            student = ps.load(tmp_path / f"run/models/{name}/seed-{seed}")
            gap = student(data.test.raw).log_softmax(-1) - data.truth(data.test.raw).log_softmax(-1)
            assert gap.abs().mean() < 0.02
        assert (tmp_path / f"run/outputs/truth/plain/seed-{seed}/train/manifest.json").is_file()
    against = next(one for one in results.verdicts if (one.model, one.baseline) == ("taught", "truth"))
    assert against.differs_in == []
    assert results.models["taught"].metrics["teacher_kl"].mean < 1e-3
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("run/**/result.json")}
    assert run(plan, tmp_path / "run").verdicts == results.verdicts
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_weights_as_tensors() -> None:
    network = networks.build("linear", (4,), 3)
    tensors = {"head.weight": torch.ones(3, 4), "head.bias": torch.zeros(3)}
    start = networks.start_from(network, tensors)
    assert torch.equal(network.state_dict()["head.weight"], torch.ones(3, 4))
    assert start.sha256 == networks.start_from(networks.build("linear", (4,), 3), dict(tensors)).sha256
    other = networks.start_from(network, tensors | {"head.bias": torch.ones(3)})
    assert other.sha256 != start.sha256
    with pytest.raises(NetworkError, match="do not fit the network"):
        networks.start_from(network, {"body.weight": torch.ones(3, 4)})
    assert isinstance(Truth(torch.ones(3, 4), ("a", "b", "c")), Teacher)
