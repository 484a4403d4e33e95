"""Regression from data to predictions: targets, splits, scaling, training against closed forms, teachers of values."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import StandardScaler

import potstill as ps
from potstill import evaluation, objectives, outputs, storage, teachers, units
from potstill.errors import DataError, Interrupted, ObjectiveError, SettingError, TeacherError
from potstill.types import DataSpec, Outputs, TargetScaling

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 4)).astype(np.float32)
W = np.array([[2.0, 0.0], [-1.0, 30.0], [0.5, 0.0], [0.0, -10.0]])
Y = X @ W + [500.0, -3.0] + RNG.normal(size=(80, 2)) * [0.3, 4.0]


@pytest.fixture(scope="module")
def diabetes() -> Any:
    return ps.data.open("diabetes", task="regression", validation=0.2)


@pytest.fixture(scope="module")
def linear(diabetes: Any) -> Any:
    return ps.fit("linear", diabetes, epochs=5, optimizer={"name": "adam", "learning_rate": 0.1})


def two(**options: Any) -> Any:
    return ps.data.open((X, Y), task="regression", **options)


def rows(source: Any) -> tuple[Any, Any]:
    """Inputs and labels of the labelled rows of a source."""
    batch = source.fetch(torch.arange(len(source)))
    return batch.inputs[batch.labelled].numpy(), batch.labels[batch.labelled].numpy()


# ---------------------------------------------------------------- data


def test_targets_are_float32_with_two_axes() -> None:
    data = two()
    assert data.spec == replace(
        DataSpec((4,), (), "regression", targets=("target1", "target2")), scaling=data.spec.scaling
    )
    assert data.spec.outputs == 2
    assert data.spec.names == ("target1", "target2")
    for source in (data.train, data.validation, data.test):
        assert source.spec == data.spec
        assert (source.labels.dtype, source.labels.shape) == (torch.float32, (len(source), 2))
        np.testing.assert_array_equal(source.labels.numpy(), Y.astype(np.float32)[source.rows.numpy()])
    one = ps.data.open((X, Y[:, 0]), task="regression", validation=0, test=0)
    assert one.spec.targets == ("target",)
    np.testing.assert_array_equal(one.train.labels.numpy(), Y[:, :1].astype(np.float32))


def test_diabetes_are_scikit_learns(diabetes: Any) -> None:
    found = load_diabetes()
    both = np.concatenate([source.rows.numpy() for source in (diabetes.train, diabetes.validation, diabetes.test)])
    assert sorted(both) == list(range(442))
    np.testing.assert_array_equal(diabetes.test.labels.numpy()[:, 0], found.target[diabetes.test.rows.numpy()])
    wanted = StandardScaler().fit_transform(load_diabetes(scaled=False).data)
    np.testing.assert_allclose(diabetes.train.raw.numpy(), wanted, atol=1e-5)
    assert diabetes.spec.targets == ("disease progression",)


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_files_hold_targets(tmp_path: Path, kind: str) -> None:
    arrays = {"x_train": X[:60], "y_train": Y[:60], "x_test": X[60:], "y_test": Y[60:], "unlabelled": X[:5]}
    path = tmp_path / "set.npz"
    if kind == "npz":
        np.savez(path, **arrays, target_names=["weight", "height"])  # type: ignore[arg-type]
    else:
        path = tmp_path
        for name, array in arrays.items():
            np.save(tmp_path / f"{name}.npy", array)
        np.save(tmp_path / "target_names.npy", ["weight", "height"])
    for _ in range(2):  # the second time from the cache
        data = ps.data.open(path, task="regression", validation=0)
        assert data.spec.targets == ("weight", "height")
        assert (len(data.train), int(data.train.labelled.sum()), len(data.test)) == (65, 60, 20)  # type: ignore[arg-type]
        np.testing.assert_array_equal(data.train.labels[:60].numpy(), Y[:60].astype(np.float32))
        assert not data.train.labels[60:].any()
    renamed = ps.data.open({"name": str(path), "target_names": ["a", "b"]}, task="regression")
    assert renamed.spec.targets == ("a", "b")


def test_classes_and_targets_of_one_file_do_not_meet_in_the_cache(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=X, y=np.arange(80) % 3)
    for task in ("multiclass", "regression", "multiclass"):
        data = ps.data.open(tmp_path / "set.npz", task=task)
        assert data.spec.outputs == (1 if task == "regression" else 3)
        assert data.train.labels.dtype == (torch.float32 if task == "regression" else torch.int64)


def test_splits_are_keyed_and_not_stratified() -> None:
    data, again = two(seed=0), two(seed=1, labelled=10)
    sizes = {"test": 16, "validation": 6, "train": 58}
    for name, size in sizes.items():
        source, other = getattr(data, name), getattr(again, name)
        assert len(source) == size
        assert torch.equal(source.rows, other.rows)  # splits are the same for all seeds, also with fewer labels
    every = torch.cat([getattr(data, name).rows for name in sizes])
    assert torch.equal(every.sort().values, torch.arange(80))
    assert int(again.train.labelled.sum()) == 10
    assert not torch.equal(again.train.labelled, two(seed=0, labelled=10).train.labelled)
    assert torch.equal(again.train.labelled, two(seed=1, labelled=10).train.labelled)
    assert not again.train.labels[~again.train.labelled].any()
    assert int(two(labelled=3).validation.labelled.sum()) == 3


def test_scaling_is_of_the_labelled_training_rows() -> None:
    data = two(labelled=10)
    _, labels = rows(data.train)
    wanted = StandardScaler().fit(labels.astype(float))
    np.testing.assert_allclose(data.spec.scaling.scale, wanted.scale_, rtol=1e-12)
    np.testing.assert_allclose(data.spec.scaling.offset, wanted.mean_, rtol=1e-12)
    assert two(scale_targets=False).spec.scaling is None
    alone = two(labelled=1)
    assert alone.spec.scaling.scale == (1.0, 1.0)
    np.testing.assert_array_equal(np.float32(alone.spec.scaling.offset), rows(alone.train)[1][0])


def test_describe_tells_of_targets() -> None:
    found = two(labelled=10).describe()
    assert json.loads(json.dumps(found)) == found
    assert found["targets"] == ["target1", "target2"]
    assert found["task"] == "regression"
    assert found["splits"]["train"]["labelled"] == 10
    labels = rows(two().test)[1].astype(float)
    told = found["splits"]["test"]["per_target"][1]
    assert told == pytest.approx(
        {
            "mean": labels[:, 1].mean(),
            "std": labels[:, 1].std(),
            "least": labels[:, 1].min(),
            "greatest": labels[:, 1].max(),
        }
    )
    assert "per_class" not in found["splits"]["test"]
    hidden = found["splits"]["train"]["labels_fingerprint"]
    assert hidden != two(labelled=10, seed=1).describe()["splits"]["train"]["labels_fingerprint"]


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    ((X, Y[:, 0]), {"task": "multiclass"}, 'has the label .*, wanted a whole number or text.*task = "regression"'),
    ("diabetes", {"task": "multiclass"}, r'diabetes: found measured numbers .*; say task = "regression"'),
    ("digits", {}, 'digits: found classes, and task = "regression" wants measured numbers'),
    ((X, Y.astype(str)), {}, r"source\[labels\]: found labels of type <U.*wants numbers"),
    ((X, Y[:, :, None]), {}, r"found labels of shape \(80, 2, 1\), wanted \(n,\) or \(n, targets\)"),
    ((X, np.where(np.arange(160).reshape(80, 2) == 35, np.nan, Y)), {}, r"source\[labels\]: row 17 .* holds nan"),
    ((X, Y * 1e38), {}, "holds .*inf in float32"),
    ((X[:70], Y), {}, "found 70 examples and 80 labels"),
    ({"x": X, "y": Y, "target_names": ["a"]}, {}, r"found the target names \['a'\], wanted 2 different ones"),
    ({"x": X, "y": Y, "target_names": ["a", "a"]}, {}, "wanted 2 different ones"),
    ({"x": X, "y": Y, "classes": ["a", "b"]}, {}, 'found the key "classes"'),
    ({"train": (X, Y), "test": (X, Y[:, :1])}, {}, r"found test labels of shape \(80, 1\), wanted 2 targets"),
    ((X, Y), {"test": 80}, "found 80 labelled training examples, and one must stay for training; at most 79"),
    ((X, Y), {"labelled": 0}, "labelled = 0: wanted a whole number from 1 to 58"),
    ((X[:0], Y[:0]), {}, "is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "options", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_used_is_refused(source: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ps.data.open(source, **{"task": "regression"} | options)


def test_names_are_called_what_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=X, y=Y)
    with pytest.raises(
        DataError, match='found "classes" with task = "regression", whose names are called "target_names"'
    ):
        ps.data.open({"name": str(tmp_path / "set.npz"), "classes": ["a", "b"]}, task="regression")


# ---------------------------------------------------------------- units


def test_units_go_there_and_back() -> None:
    scaling = TargetScaling((75.0, 2.0), (150.0, -3.0))
    values = torch.tensor(RNG.normal(size=(5, 2)) * 100, dtype=torch.float32)
    np.testing.assert_allclose(units.learnt(values, scaling).numpy(), (values.numpy() - [150, -3]) / [75, 2], rtol=1e-5)
    torch.testing.assert_close(units.own(units.learnt(values, scaling), scaling), values)


@pytest.mark.parametrize("scaled", [True, False])
def test_an_objective_sees_everything_in_the_units_of_its_network(scaled: bool) -> None:
    data = two(scale_targets=scaled, labelled=20, validation=0)
    seen: list[Any] = []

    def spy(outputs: Outputs, batch: Any) -> dict[str, torch.Tensor]:
        seen.append((batch, batch.teacher.values()))
        return objectives.squared_error()(outputs, batch)

    told = outputs.from_array(Y[data.train.rows.numpy()], kind="values", rows=len(data.train))
    ps.fit("linear", data, spy, teacher=told, epochs=1, batch_size=len(data.train))
    batch, values = seen[-1]
    mean, scale = ([0, 0], [1, 1]) if not scaled else (data.spec.scaling.offset, data.spec.scaling.scale)
    wanted = (Y[data.train.rows.numpy()][batch.index.numpy()] - mean) / scale
    np.testing.assert_allclose(values.numpy(), wanted, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        batch.labels[batch.labelled].numpy(), wanted[batch.labelled.numpy()], rtol=1e-3, atol=1e-3
    )
    assert not batch.labels[~batch.labelled].any()


# ---------------------------------------------------------------- training


def test_a_linear_network_is_linear_regression() -> None:
    """The closed form in float64, of two targets of other sizes than 1: one near 500, one as large as 30."""
    data = two(validation=0)
    plain = {"name": "sgd", "learning_rate": 0.5, "momentum": 0.0}
    model = ps.fit("linear", data, epochs=40, batch_size=64, optimizer=plain)
    inputs, labels = rows(data.train)
    best = LinearRegression().fit(inputs.astype(float), labels.astype(float))
    held = rows(data.test)[0]
    np.testing.assert_allclose(evaluation.predict(model, data.test).values, best.predict(held), rtol=1e-4, atol=1e-3)
    assert ps.evaluate(model, data.test)["r2"] > 0.95


def test_validation_metrics_are_in_own_units_and_select(diabetes: Any) -> None:
    model = ps.fit("linear", diabetes, epochs=3, seed=1)
    assert model.info["select"] == "squared_error"
    assert model.info["monitor"] == "objective"
    last = model.history[-1]
    found = ps.evaluate(model, diabetes.validation)
    assert last["validation_squared_error"] == pytest.approx(found["squared_error"], rel=1e-5)
    scale = diabetes.spec.scaling.scale[0]
    assert last["validation_objective"] == pytest.approx(found["squared_error"] / scale**2, rel=1e-5)


@pytest.mark.parametrize("metric", ["r2", "absolute_error", "squared_error"])
def test_early_stopping_and_selection_by_metrics_of_values(diabetes: Any, metric: str) -> None:
    best = {"name": "sgd", "learning_rate": 0.3, "momentum": 0.9}
    model = ps.fit(
        "mlp:30", diabetes, epochs=40, patience=2, batch_size=283, monitor=metric, select=metric, optimizer=best
    )
    values = [row[f"validation_{metric}"] for row in model.history]
    number = int(np.argmax(values) if metric == "r2" else np.argmin(values))
    assert model.info["best_step"] == model.history[number]["step"]
    assert model.info["stopped_early"]
    assert ps.evaluate(model, diabetes.validation)[metric] == pytest.approx(values[number], rel=1e-5)


def test_two_epochs_and_two_more_are_four(diabetes: Any, tmp_path: Path) -> None:
    calls = iter([False, True])
    straight = ps.fit("mlp:8", diabetes, epochs=4, folder=tmp_path / "straight")
    with pytest.raises(Interrupted):
        ps.fit("mlp:8", diabetes, epochs=4, folder=tmp_path / "broken", should_stop=lambda: next(calls))
    continued = ps.fit("mlp:8", diabetes, epochs=4, folder=tmp_path / "broken")
    assert straight.history == continued.history
    for name in ("model.safetensors", "history.jsonl"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()


def test_a_training_is_not_continued_in_other_units(diabetes: Any, tmp_path: Path) -> None:
    calls = iter([True])
    with pytest.raises(Interrupted):
        ps.fit("mlp:8", diabetes, epochs=4, folder=tmp_path, should_stop=lambda: next(calls))
    plain = ps.data.open("diabetes", task="regression", validation=0.2, scale_targets=False)
    with pytest.raises(ps.errors.RunError, match="target_scaling"):
        ps.fit("mlp:8", plain, epochs=4, folder=tmp_path)


def test_what_does_not_fit_a_regression_is_refused(diabetes: Any) -> None:
    with pytest.raises(ObjectiveError, match='"hinton" learns classes; the data\'s task is "regression"'):
        ps.fit("linear", diabetes, "hinton", epochs=1)
    with pytest.raises(ObjectiveError, match='"squared_error" learns values; the data\'s task is "multiclass"'):
        ps.fit("linear", ps.data.open("digits"), "squared_error", epochs=1)
    with pytest.raises(SettingError, match=r"label_smoothing is 0\.1; a regression has none"):
        ps.fit("linear", diabetes, epochs=1, label_smoothing=0.1)
    with pytest.raises(SettingError, match='"macro_f1" is one of classes, and here are values'):
        ps.fit("linear", diabetes, epochs=1, select="macro_f1")
    with pytest.raises(ps.errors.NetworkError, match="wanted are logits"):
        ps.fit(lambda shape, outputs: torch.nn.Linear(10, 2), diabetes, epochs=1)


# ---------------------------------------------------------------- models and teachers


def test_a_model_folder_keeps_targets_and_scaling(diabetes: Any, linear: Any, tmp_path: Path) -> None:
    assert linear.kind == "values"
    assert linear.classes == ("disease progression",)
    linear.save(tmp_path)
    back = ps.load(tmp_path)
    assert back.spec == linear.spec == diabetes.spec
    assert back.fingerprint() == linear.fingerprint()
    inputs = diabetes.test.fetch(torch.arange(5)).inputs
    assert torch.equal(back(inputs), linear(inputs))
    told = json.loads((tmp_path / "network.json").read_text())["target_scaling"]
    plain = linear.network(inputs).detach().numpy() * told["scale"] + told["offset"]
    np.testing.assert_allclose(linear(inputs).numpy(), plain, rtol=1e-5)


def test_a_model_of_classes_is_described_as_ever(tmp_path: Path) -> None:
    """Its fingerprint is in the manifests of old recordings, its network.json in old folders."""
    data = ps.data.open("digits")
    model = ps.fit("linear", data, epochs=0)
    model.save(tmp_path)
    described = json.loads((tmp_path / "network.json").read_text())
    assert not {"targets", "target_scaling"} & set(described)
    parts = {
        name: ps.outputs.record.__globals__["storage"].tensor_sha256(t)
        for name, t in model.network.state_dict().items()
    }
    data_then = {"shape": (1, 8, 8), "classes": tuple("0123456789"), "task": "multiclass"}
    data_then["preprocessing"] = {"scale": 1 / 16, "offset": 0.0}  # type: ignore[assignment]
    assert model.fingerprint() == storage.fingerprint([parts, {"network": model.specification, "data": data_then}])


def test_a_teacher_of_another_scaling_speaks_the_same_units(diabetes: Any, linear: Any, tmp_path: Path) -> None:
    few = ps.data.open("diabetes", task="regression", validation=0.2, labelled=30)
    assert few.spec.scaling != linear.spec.scaling
    stored = ps.record(linear, few.train, tmp_path / "outputs")
    assert stored.kind == "values"
    assert stored.classes == ("disease progression",)
    index = torch.arange(7)
    asked = outputs.Live(linear, few.train).lookup(index)
    wanted = linear(few.train.fetch(index).inputs)
    torch.testing.assert_close(stored.lookup(index).values(), wanted)
    torch.testing.assert_close(asked.values(), wanted)
    assert outputs.open(tmp_path / "outputs", teacher=linear, source=few.train).kind == "values"
    hidden = stored.with_known(torch.arange(len(few.train)) != 3).lookup(index)
    assert float(hidden.values()[3]) == 0.0


def test_an_ensemble_answers_the_mean(diabetes: Any, linear: Any) -> None:
    other = ps.fit("mlp:8", diabetes, epochs=1)
    pair = teachers.Ensemble([linear, other])
    found = evaluation.predict(pair, diabetes.test).values
    each = [evaluation.predict(model, diabetes.test).values.astype(float) for model in (linear, other)]
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-6)
    torch.testing.assert_close(
        outputs.Live(pair, diabetes.test).lookup(torch.arange(len(diabetes.test))).values().numpy(), found
    )


def test_predictions_are_kept(diabetes: Any, linear: Any, tmp_path: Path) -> None:
    found = evaluation.predict(linear, diabetes.test)
    found.save(tmp_path / "test.safetensors")
    back = evaluation.load_predictions(tmp_path / "test.safetensors")
    assert back.regression
    assert np.array_equal(back.values, found.values)
    assert np.array_equal(back.labels, found.labels)
    with pytest.raises(DataError, match="have no probabilities"):
        _ = back.log_probs
    numbers = evaluation.measure(back)
    assert list(numbers) == ["squared_error", "absolute_error", "r2"]
    assert "teacher_squared_error" in ps.evaluate(linear, diabetes.test, teacher=linear)
    assert ps.evaluate(linear, diabetes.test, teacher=linear)["teacher_squared_error"] == 0.0


def test_models_and_teachers_of_another_task_are_refused(diabetes: Any, linear: Any, tmp_path: Path) -> None:
    digits = ps.data.open("digits")
    with pytest.raises(TeacherError, match='answers values; the data\'s task is "multiclass"'):
        ps.evaluate(linear, digits.test)
    classifier = teachers.Function(lambda x: x[:, :3], kind="logits", name="three")
    with pytest.raises(TeacherError, match='answers logits of classes; the data\'s task is "regression"'):
        ps.evaluate(classifier, diabetes.test)
    wide = teachers.Function(lambda x: x[:, :3], kind="values", name="three")
    with pytest.raises(TeacherError, match="answers 3 values; the data has 1: disease progression"):
        ps.evaluate(wide, diabetes.test)

    def mine(outputs: Outputs, batch: Any) -> dict[str, torch.Tensor]:
        return {"soft": (outputs.logits - batch.teacher.values()).square().mean(1)}

    stored = outputs.from_array(np.zeros((len(diabetes.train), 3)), kind="values", rows=len(diabetes.train))
    with pytest.raises(TeacherError, match="answers for 3 targets; the student's data has 1"):
        ps.fit("linear", diabetes, mine, teacher=stored, epochs=1)
    with pytest.raises(TeacherError, match="logits of classes; a regression wants values"):
        ps.fit("linear", diabetes, mine, teacher=classifier, epochs=1)
    other = ps.data.open((X, Y), task="regression", validation=0, test=0)
    two_targets = ps.fit("linear", other, epochs=0)
    named = ps.data.open({"x": X, "y": Y, "target_names": ["a", "b"]}, task="regression", validation=0, test=0)
    with pytest.raises(TeacherError, match="targets are target1, target2; the data's are a, b"):
        ps.record(two_targets, named.train, tmp_path / "outputs")
