"""Regressions with variances: models, likelihood, teachers that tell variances, objectives with parameters."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import potstill as ps
from potstill import evaluation, networks, objectives, outputs, teachers, units
from potstill.errors import DataError, Interrupted, OutputsError, RunError, SettingError, TeacherError
from potstill.types import Batch, Outputs, TargetScaling

RNG = np.random.default_rng(1)
X = RNG.uniform(-1, 1, size=(240, 2)).astype(np.float32)
NOISE = np.exp(1.5 * X[:, :1]) * [0.5, 5.0]  # one target is 10 times as noisy, and both the more the larger x is
Y = X @ np.array([[2.0, 0.0], [-1.0, 20.0]]) + [100.0, 0.0] + RNG.normal(size=(240, 2)) * NOISE


@pytest.fixture(scope="module")
def data() -> Any:
    return ps.data.open((X, Y), task="regression")


@pytest.fixture(scope="module")
def gaussian(data: Any) -> Any:
    fast = {"name": "adam", "learning_rate": 0.03}
    return ps.fit("linear", data, "gaussian", epochs=40, batch_size=64, optimizer=fast)


def answered(model: Any, source: Any) -> Any:
    return evaluation.predict(model, source)


# ---------------------------------------------------------------- models


def test_units_of_variances() -> None:
    scaling = TargetScaling((10.0, 0.5), (3.0, 0.0))
    logs = torch.tensor([[0.0, 1.0, 0.2, -0.4]])
    found = units.own(logs, scaling)
    np.testing.assert_allclose(found[0, :2].numpy(), [3.0, 0.5])
    np.testing.assert_allclose(found[0, 2:].exp().numpy(), np.exp([0.2, -0.4]) * np.square([10.0, 0.5]), rtol=1e-6)
    far = torch.tensor([[1e6, 7.0, 500.0, -500.0]])
    assert units.bounded(far, 2).tolist() == [[1e6, 7.0, 30.0, -30.0]]
    assert units.bounded(far, 4) is far


def test_a_network_learns_means_and_variances(data: Any, gaussian: Any) -> None:
    assert gaussian.kind == "gaussian"
    found = answered(gaussian, data.test)
    assert found.answers.shape == (48, 4)
    sigmas, wanted = np.exp(found.log_variances / 2), NOISE[data.test.rows.numpy()]
    for target in (0, 1):
        assert np.corrcoef(np.log(sigmas[:, target]), np.log(wanted[:, target]))[0, 1] > 0.9
        assert np.median(sigmas[:, target] / wanted[:, target]) == pytest.approx(1, abs=0.35)
    told = ps.evaluate(gaussian, data.test)
    assert list(told) == ["squared_error", "absolute_error", "r2", "negative_log_likelihood"]
    density = stats.norm.logpdf(found.labels, found.values, sigmas)
    assert told["negative_log_likelihood"] == pytest.approx(-density.sum(1).mean(), rel=1e-5)


def test_the_objective_is_the_metric_up_to_units(data: Any, gaussian: Any) -> None:
    """Validation data, at the epoch that was kept: nats differ by the logarithms of the scales."""
    step = gaussian.info["best_step"]
    row = next(row for row in gaussian.history if row["step"] == step)
    found = ps.evaluate(gaussian, data.validation)["negative_log_likelihood"]
    assert row["validation_objective"] + np.log(data.spec.scaling.scale).sum() == pytest.approx(found, rel=1e-4)


def test_a_model_folder_keeps_that_there_are_variances(data: Any, gaussian: Any, tmp_path: Path) -> None:
    gaussian.save(tmp_path)
    back = ps.load(tmp_path)
    inputs = data.test.fetch(torch.arange(5)).inputs
    assert back.kind == "gaussian"
    assert torch.equal(back(inputs), gaussian(inputs))
    assert back.fingerprint() == gaussian.fingerprint()
    told = json.loads((tmp_path / "network.json").read_text())
    assert told["variances"] is True
    assert "variances" not in json.dumps(ps.fit("linear", ps.data.open("digits"), epochs=0).fingerprint())
    found = answered(back, data.test)
    found.save(tmp_path / "test.safetensors")
    kept = evaluation.load_predictions(tmp_path / "test.safetensors")
    assert np.array_equal(kept.answers, found.answers)
    assert kept.log_variances is not None


def test_a_model_of_values_has_a_likelihood_by_its_errors_on_validation_data(data: Any) -> None:
    model = ps.fit("linear", data, epochs=2)
    assert answered(model, data.test).log_variances is None
    assert "negative_log_likelihood" not in ps.evaluate(model, data.test)
    with pytest.raises(DataError, match=r"found values alone, of shape .*validation=data\.validation"):
        ps.evaluate(model, data.test, names=["negative_log_likelihood"])
    found = ps.evaluate(model, data.test, validation=data.validation)
    held = answered(model, data.validation)
    sigma = np.sqrt(np.square(held.values - held.labels).mean(0))
    tested = answered(model, data.test)
    wanted = -stats.norm.logpdf(tested.labels, tested.values, sigma).sum(1).mean()
    assert found["negative_log_likelihood"] == pytest.approx(wanted, rel=1e-5)
    assert ps.evaluate(model, data.test)["r2"] == found["r2"]
    hidden = data.validation.with_labelled(torch.zeros(len(data.validation), dtype=torch.bool))
    with pytest.raises(DataError, match="no errors to estimate a variance from"):
        ps.evaluate(model, data.test, validation=hidden)


def test_an_ensembles_variance_is_that_of_the_mixture(data: Any, gaussian: Any) -> None:
    other = ps.fit("mlp:4", data, "gaussian", epochs=1, seed=1)
    pair = teachers.Ensemble([gaussian, other])
    assert pair.kind == "gaussian"
    found = answered(pair, data.test)
    each = [answered(model, data.test) for model in (gaussian, other)]
    means, logs = (np.stack([getattr(one, name) for one in each]).astype(float) for name in ("values", "log_variances"))
    np.testing.assert_allclose(found.values, means.mean(0), rtol=1e-5)
    np.testing.assert_allclose(np.exp(found.log_variances), np.exp(logs).mean(0) + means.var(0), rtol=1e-4)
    plain = [ps.fit("mlp:4", data, epochs=1, seed=seed) for seed in (0, 1)]
    with pytest.raises(TeacherError, match="must be of one kind"):
        teachers.Ensemble([gaussian, plain[0]])
    assert answered(teachers.Ensemble(plain), data.test).log_variances is None  # how far apart they are is no noise


# ---------------------------------------------------------------- teachers


def test_teachers_tell_variances_live_and_recorded(data: Any, gaussian: Any, tmp_path: Path) -> None:
    index = torch.arange(9)
    stored = ps.record(gaussian, data.train, tmp_path / "one")
    assert (stored.kind, stored.outputs, stored.number) == ("gaussian", 4, 2)
    wanted = answered(gaussian, data.train)
    for told in (stored.lookup(index), outputs.Live(gaussian, data.train).lookup(index)):
        np.testing.assert_allclose(told.values().numpy(), wanted.values[:9], rtol=1e-5)
        variance = told.variance()
        assert variance is not None
        np.testing.assert_allclose(variance.numpy(), np.exp(wanted.log_variances[:9]), rtol=1e-4)
    hidden = stored.with_known(torch.arange(len(data.train)) != 3).lookup(index).variance()
    assert hidden is not None
    assert hidden[3].tolist() == [1.0, 1.0]
    assert outputs.open(tmp_path / "one", teacher=gaussian, source=data.train).kind == "gaussian"
    with pytest.raises(SettingError, match="answers gaussian"):
        ps.record(gaussian, data.train, tmp_path / "two", top_k=1)
    with pytest.raises(TeacherError, match="have no probabilities"):
        stored.lookup(index).probs()


def test_the_spread_of_members_is_a_teachers_variance(data: Any, tmp_path: Path) -> None:
    plain = [ps.fit("mlp:4", data, epochs=1, seed=seed) for seed in (0, 1)]
    stored = [ps.record(model, data.train, tmp_path / str(i)) for i, model in enumerate(plain)]
    assert stored[0].lookup(torch.arange(3)).variance() is None
    both = outputs.Stored.combine(stored).lookup(torch.arange(3)).variance()
    asked = outputs.Live(teachers.Ensemble(plain), data.train).lookup(torch.arange(3)).variance()
    wanted = np.stack([answered(model, data.train).values[:3] for model in plain]).astype(float).var(0)
    assert both is not None
    assert asked is not None
    np.testing.assert_allclose(both.numpy(), wanted, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(asked.numpy(), wanted, rtol=1e-3, atol=1e-6)


def test_the_variance_of_a_gaussian_ensemble_as_teacher(data: Any, gaussian: Any, tmp_path: Path) -> None:
    """The law of total variance, live and recorded: the mean of the variances and the variance of the means."""
    members = [gaussian, ps.fit("mlp:4", data, "gaussian", epochs=1, seed=1)]
    each = [answered(model, data.train) for model in members]
    means, logs = (np.stack([getattr(one, name)[:5] for one in each]) for name in ("values", "log_variances"))
    wanted = np.exp(logs.astype(float)).mean(0) + means.astype(float).var(0)
    stored = [ps.record(model, data.train, tmp_path / str(i)) for i, model in enumerate(members)]
    for answers in (outputs.Stored.combine(stored), outputs.Live(teachers.Ensemble(members), data.train)):
        found = answers.lookup(torch.arange(5)).variance()
        assert found is not None
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-3)
        np.testing.assert_allclose(answers.lookup(torch.arange(5)).values().numpy(), means.mean(0), rtol=1e-5)


def test_answers_of_another_form_are_refused(data: Any) -> None:
    odd = teachers.Function(lambda x: torch.zeros(len(x), 3), kind="gaussian", name="odd")
    with pytest.raises(TeacherError, match="means and log variances but answers 3 numbers"):
        outputs.Live(odd, data.train).lookup(torch.arange(2)).values()
    two = teachers.Function(lambda x: torch.zeros(len(x), 2), kind="gaussian", name="one target")
    with pytest.raises(TeacherError, match="answers 1 values; the data has 2"):
        answered(two, data.test)
    with pytest.raises(TeacherError, match="answers for 1 targets"):
        ps.fit("linear", data, teacher=two, epochs=1)


def test_brought_answers_in_another_order_are_refused(data: Any) -> None:
    told = Y[data.train.rows.numpy()] + 1.0
    given: dict[str, Any] = {"kind": "values", "rows": len(told), "labels": data.train.labels}
    assert outputs.from_array(told, **given).kind == "values"
    assert outputs.from_array(np.concatenate([told, told], 1), **given | {"kind": "gaussian"}).number == 2
    with pytest.raises(OutputsError, match="in no target: its rows look shuffled"):
        outputs.from_array(np.random.default_rng(0).permutation(told), **given)
    with pytest.raises(OutputsError, match=r"labels \(173, 2\) for answers \(173, 1\)"):
        outputs.from_array(told[:, :1], **given)
    few = torch.arange(len(told)) < 49  # too few to tell
    assert outputs.from_array(told[::-1].copy(), **given, labelled=few).number == 2


# ---------------------------------------------------------------- objectives with parameters


LEARNED: dict[str, Any] = {"name": "probabilistic_regression", "sigma": "learned", "teacher_sigma": "learned"}


def test_sigmas_are_learnt_beside_the_network(data: Any) -> None:
    """From full batches until nothing moves: the sigma that is best for the errors that are left."""
    plain = {"name": "adam", "learning_rate": 0.05}
    whole = ps.data.open((X, Y), task="regression", validation=0, test=0)
    objective = objectives.gaussian(sigma="learned")
    model = ps.fit("linear", whole, objective, epochs=250, batch_size=240, optimizer=plain)
    found = answered(model, whole.train)
    wanted = np.sqrt(np.square(found.values - found.labels).mean(0)) / whole.spec.scaling.scale
    assert np.exp(model.info["objective"]["learnt"]["log_sigma"]) == pytest.approx(wanted, rel=0.01)
    assert model.kind == "values"
    assert list(model.network.state_dict()) == ["head.weight", "head.bias"]
    assert objective.owned is None  # a value: every training has parameters of its own


def test_parameters_of_an_objective_are_continued(data: Any, tmp_path: Path) -> None:
    """Two epochs and two more are four, bit for bit; the parameters are in the checkpoint and in no model."""
    teacher = ps.fit("linear", data, epochs=1)
    arguments: dict[str, Any] = {"teacher": teacher, "epochs": 4, "clip": 1.0}
    straight = ps.fit("mlp:4", data, LEARNED, folder=tmp_path / "straight", **arguments)
    calls = iter([False, True])
    with pytest.raises(Interrupted):
        ps.fit("mlp:4", data, LEARNED, folder=tmp_path / "broken", should_stop=lambda: next(calls), **arguments)
    continued = ps.fit("mlp:4", data, LEARNED, folder=tmp_path / "broken", **arguments)
    assert straight.history == continued.history
    assert straight.info["objective"]["learnt"] == continued.info["objective"]["learnt"]
    assert set(straight.info["objective"]["learnt"]) == {"log_sigma", "log_teacher_sigma"}
    for name in ("model.safetensors", "history.jsonl"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()
    assert set(ps.load(tmp_path / "broken").network.state_dict()) == set(straight.network.state_dict())


def test_a_training_is_not_continued_with_another_objective(data: Any, tmp_path: Path) -> None:
    teacher = ps.fit("linear", data, epochs=0)
    calls = iter([True])
    with pytest.raises(Interrupted):
        ps.fit("linear", data, LEARNED, teacher=teacher, epochs=4, folder=tmp_path, should_stop=lambda: next(calls))
    with pytest.raises(RunError, match=r"objective\.settings\.sigma"):
        ps.fit("linear", data, LEARNED | {"sigma": 1.0}, teacher=teacher, epochs=4, folder=tmp_path)


def test_initial_parameters_have_a_key(data: Any) -> None:
    """They depend on seed, member and generation, and drawing them moves nobody else's random numbers."""
    made: list[torch.nn.Linear] = []

    def owns(outputs: Outputs, batch: Batch) -> torch.nn.Module:
        assert outputs.logits.shape == (2, 2)
        assert batch.labels.shape == (2, 2)
        made.append(torch.nn.Linear(3, 1))
        return made[-1]

    def terms(outputs: Outputs, batch: Batch, owned: torch.nn.Module) -> dict[str, torch.Tensor]:
        return objectives.squared_error()(outputs, batch) | {"own": owned.weight.sum() + outputs.logits[:, 0] * 0}  # type: ignore[operator]

    def fit(seed: int) -> Any:
        objective = objectives.Objective(
            "mine", {}, terms, needs_labels=True, needs_teacher=False, learns="values", owns=owns
        )
        return ps.fit({"name": "mlp", "hidden": [4], "dropout": 0.5}, data, objective, seed=seed, epochs=0)

    before = torch.random.get_rng_state()
    for seed in (0, 0, 1):
        fit(seed)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(made[0].weight, made[1].weight)
    assert not torch.equal(made[0].weight, made[2].weight)


def test_a_student_learns_from_a_teacher_that_tells_variances(data: Any, gaussian: Any) -> None:
    """Values of a teacher that is sure in one half and does not know in the other; no label is seen."""
    truth = X @ np.array([[2.0, 0.0], [-1.0, 20.0]]) + [100.0, 0.0]
    right = X[:, :1] < 0
    told = np.where(right, truth, truth + 50.0)
    rows = data.train.rows.numpy()
    stored = outputs.from_array(
        np.concatenate([told, np.where(right, -4.0, 16.0) * np.ones((1, 2))], 1)[rows], kind="gaussian", rows=len(rows)
    )
    fast = {"name": "adam", "learning_rate": 0.03}
    common: dict[str, Any] = {"teacher": stored, "epochs": 40, "batch_size": 64, "optimizer": fast, "select": "last"}
    errors = {}
    for sigma in ("teacher", 1.0):
        goal = objectives.probabilistic_regression(lam=1.0, teacher_sigma=sigma)  # type: ignore[arg-type]
        model = ps.fit("linear", data, goal, **common)
        errors[sigma] = np.abs(answered(model, data.test).values - truth[data.test.rows.numpy()]).mean()
    assert errors["teacher"] < 0.5
    assert errors[1.0] > 5


def test_the_default_with_a_teacher(data: Any) -> None:
    model = ps.fit("linear", data, teacher=ps.fit("linear", data, epochs=0), epochs=1)
    told = model.info["objective"]
    assert told == {
        "name": "probabilistic_regression",
        "settings": {"lam": 0.5, "sigma": 1.0, "teacher_sigma": 1.0},
    }
    assert set(model.history[0]) >= {"train_hard", "train_soft"}


def test_a_users_network_answers_both(data: Any) -> None:
    built: list[int] = []

    def mine(shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
        built.append(outputs)
        return torch.nn.Linear(shape[0], outputs)

    model = ps.fit(mine, data, "gaussian", epochs=1)
    assert built == [4]
    assert model.kind == "gaussian"
    assert networks.Model(model.network, model.spec, variances=True).kind == "gaussian"


def test_the_pages_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "regression.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)  # noqa: S102
    assert "r2" in capsys.readouterr().out
    assert ps.evaluate(names["student"], names["data"].test)["r2"] > 0
