"""Several inputs: who sees what, everywhere; small pictures from large ones; rows that are the same for all inputs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from study_samples import run
from torch import Tensor, nn

import potstill as ps
from potstill import evaluation, networks, outputs, storage
from potstill.cli.entry import call
from potstill.data.shrink import shrink
from potstill.errors import DataError, OutputsError, PlanError, TeacherError
from potstill.outputs import Live
from potstill.study.plan import Plan
from potstill.study.study import Study
from potstill.teachers import Ensemble, Function
from potstill.types import Preprocessing

RNG = np.random.default_rng(0)
N = 240
Y = np.arange(N) % 3
STAR = (np.eye(3)[Y] * 8 + RNG.normal(size=(N, 3)) + 1000).astype(np.float32)  # a network that sees it would show it
X = (np.eye(3)[Y][:, :2] + RNG.normal(size=(N, 2))).astype(np.float32)
PAIR = ({"x": X, "x_star": STAR}, Y)
PIXELS = RNG.integers(0, 256, (N, 8, 6)).astype(np.uint8)
QUICK: dict[str, Any] = {"steps": 12, "batch_size": 32}


def two(**options: Any) -> Any:
    return ps.data.open({"train": PAIR}, validation=40, test=60, **options)


def tensors(value: Any, seen: set[int] | None = None) -> Iterator[Tensor]:
    """Every tensor that can be reached from an object."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, (str, int, float, type(None), type)):
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
        return
    inner: list[Any] = list(value.values()) if isinstance(value, Mapping) else []
    inner += list(value) if isinstance(value, (list, tuple)) else []
    inner += list(vars(value).values()) if hasattr(value, "__dict__") else []
    for one in inner:
        yield from tensors(one, seen)


def privileged(value: Any) -> bool:
    """Whether anything of STAR can be reached from an object: its numbers are about 1000."""
    return any(t.is_floating_point() and t.numel() and float(t.detach().abs().max()) > 900 for t in tensors(value))


class Watched(nn.Module):
    """A linear layer that notes the shape and the largest number of what it is handed."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(shape[0], outputs)
        self.noted: list[tuple[tuple[int, ...], float]] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.noted.append((tuple(inputs.shape[1:]), float(inputs.abs().max())))
        return self.head(inputs * (1e-3 if inputs.shape[1] == 3 else 1))


@pytest.fixture(scope="module")
def teacher() -> Any:
    return ps.fit(Watched, two(), sees="x_star", seed=1, steps=60, batch_size=32, optimizer="sgd")


# --- at the source ---------------------------------------------------------------------------------------------------


def test_a_source_hands_out_one_input_and_forgets_the_others() -> None:
    found = two()
    for part in (found.train, found.validation, found.test):
        assert privileged(part)
        index = torch.arange(len(part))
        assert np.array_equal(part.fetch(index).inputs, X[part.rows])
        seen, star = part.seeing("x"), part.seeing("x_star")
        assert not privileged(seen)
        assert np.array_equal(seen.fetch(index).inputs, X[part.rows])
        assert np.array_equal(star.fetch(index).inputs, STAR[part.rows])
        assert torch.equal(star.block(3, 9), star.fetch(torch.arange(3, 9)).inputs)
        assert (seen.spec.sees, seen.spec.shape, star.spec.sees, star.spec.shape) == ("x", (2,), "x_star", (3,))
        assert part.fingerprint() == seen.fingerprint() == star.fingerprint()
        assert seen.seeing("x") is seen
        for other in ("x_star", "z"):
            with pytest.raises(DataError, match=r'no input "(x_star|z)": these examples have the input "x" alone'):
                seen.seeing(other)
        with pytest.raises(DataError, match=r'Unknown input "x_sta"\. Did you mean "x_star"'):
            part.seeing("x_sta")
    with pytest.raises(DataError, match="one input, which has no name"):
        ps.data.open((X, Y)).train.seeing("x")
    assert found.describe()["inputs"] == {"x": [2], "x_star": [3]}


def test_a_fingerprint_is_of_all_inputs() -> None:
    prints = [two().train.fingerprint()]
    for changed in ({"x": X + 1, "x_star": STAR}, {"x": X, "x_star": STAR + 1}, {"x": X, "z": STAR}, {"x": X}):
        prints.append(ps.data.open({"train": (changed, Y)}, validation=40, test=60).train.seeing().fingerprint())
    assert len(set(prints)) == len(prints)
    turned = ps.data.open({"train": ({"x_star": STAR, "x": X}, Y)}, validation=40, test=60)
    assert turned.train.fingerprint() == prints[0]  # the order of the inputs says who is the default, no more
    assert turned.spec.sees == "x_star"


LAYOUTS: dict[str, tuple[dict[str, np.ndarray], Any]] = {
    "named": ({"inputs.x": X, "inputs.x_star": STAR, "labels": Y}, None),
    "named parts": ({"train_inputs.x": X, "train_inputs.x_star": STAR, "train_labels": Y}, None),
    "declared": ({"x": X, "x_star": STAR, "y": Y, "ids": Y}, ["x", "x_star"]),
    "declared parts": ({"train_x": X, "x_star_train": STAR, "y_train": Y}, {"x": {}, "x_star": {}}),
    "other names": ({"a": X, "b": STAR, "labels": Y}, {"x": {"array": "a"}, "x_star": {"array": "b"}}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["npz", "npy", "python"])
def test_layouts_of_several_inputs(tmp_path: Path, layout: str, kind: str) -> None:
    arrays, inputs = LAYOUTS[layout]
    source: Any = arrays
    if kind == "npz":
        source = tmp_path / "set.npz"
        np.savez(source, **arrays)
    elif kind == "npy":
        source = tmp_path / "set"
        source.mkdir()
        for key, array in arrays.items():
            np.save(source / f"{key}.npy", array)
    for _ in range(1 if kind == "python" else 2):  # decoded, then from the cache
        found = ps.data.open(source, inputs=inputs, validation=40, test=60)
        assert [*found.train.several] == ["x", "x_star"]
        star = found.train.seeing("x_star")
        assert np.array_equal(star.fetch(torch.arange(len(star))).inputs, STAR[star.rows])
        if layout != "other names":
            assert found.train.fingerprint() == two().train.fingerprint()


def test_parts_and_unlabelled_rows_have_all_inputs() -> None:
    some = {"x": X[:40], "x_star": STAR[:40]}
    found = ps.data.open({"train": PAIR, "test": (some, Y[:40]), "unlabelled": some}, validation=0)
    assert [len(found.train), len(found.test)] == [N + 40, 40]
    star = found.train.seeing("x_star")
    assert np.array_equal(star.fetch(torch.arange(N, N + 40)).inputs, STAR[:40])
    assert not star.labelled[N:].any()
    assert np.array_equal(found.test.seeing("x_star").block(0, 40), STAR[:40])


FAULTS: list[tuple[Any, Any, str]] = [
    ({"train": ({"x": X, "x_star": STAR[1:]}, Y)}, None, r"found 239 examples and 240 labels"),
    ({"inputs": X, "inputs.x_star": STAR, "labels": Y}, None, "without a name beside the inputs x_star"),
    ({"train": PAIR, "test": ({"x": X}, Y)}, None, r"inputs\.x_star of the test part are missing"),
    ({"train": PAIR, "test": ({"x": X, "x_star": X}, Y)}, None, r"test examples of shape \(2,\)"),
    ({"train": PAIR}, ["x", "z"], r'inputs\.z: .*Unknown array "z"'),
    ((X, Y), {"x": {"array": "z"}}, r'has no array "z"'),
    ((X, Y), {"x": {"arrai": "z"}}, 'no key "arrai". Did you mean "array"'),
    ((X, Y), {"a b": {}}, "no name for an input"),
    ((X, Y), {}, "wanted a table of inputs by name"),
    ((X, Y), {"x": {"resize": 2}}, "resize needs pictures"),
    ((PIXELS, Y), {"x": {"resize": 9}}, "at most the pictures' own 8 x 6"),
    ({"train_x": X, "x_train": X, "y": Y}, ["x"], "mean one array"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "inputs", "message"), FAULTS)
def test_faulty_inputs_are_refused(source: Any, inputs: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ps.data.open(source, inputs=inputs)


# --- small pictures --------------------------------------------------------------------------------------------------


def _shrunk(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area by area, in fractions."""
    out = np.zeros((height, width))
    rows, columns = picture.shape
    for i, j in np.ndindex(height, width):
        total = Fraction(0)
        for r, c in np.ndindex(rows, columns):
            down = min(Fraction(r + 1), Fraction((i + 1) * rows, height)) - max(Fraction(r), Fraction(i * rows, height))
            right = min(Fraction(c + 1), Fraction((j + 1) * columns, width)) - max(
                Fraction(c), Fraction(j * columns, width)
            )
            if down > 0 and right > 0:
                total += down * right * int(picture[r, c])
        out[i, j] = float(total * Fraction(height * width, rows * columns))
    return out


@pytest.mark.parametrize("size", [(4, 3), (8, 6), (1, 1), (5, 4), (3, 6), (7, 5)])
def test_small_pictures_are_means_of_areas(size: tuple[int, int]) -> None:
    found = shrink(torch.from_numpy(PIXELS[:5, None]), size)
    wanted = np.stack([_shrunk(picture, *size) for picture in PIXELS[:5]])[:, None]
    assert np.allclose(found, wanted, rtol=1e-6)
    assert torch.equal(shrink(torch.from_numpy(PIXELS[3:4, None]), size)[0], found[3])


def test_a_small_input_is_made_from_the_first(tmp_path: Path) -> None:
    options: dict[str, Any] = {"validation": 40, "test": 60}
    plain = ps.data.open((PIXELS, Y), **options)
    found = ps.data.open((PIXELS, Y), inputs={"large": {}, "small": {"resize": [4, 3]}}, **options)
    large, small = found.train.seeing("large"), found.train.seeing("small")
    index = torch.arange(len(plain.train))
    assert torch.equal(large.fetch(index).inputs, plain.train.fetch(index).inputs)
    assert small.spec.preprocessing == large.spec.preprocessing == Preprocessing(1 / 255)
    assert torch.allclose(
        small.fetch(index).inputs, torch.nn.functional.avg_pool2d(large.fetch(index).inputs, 2), rtol=1e-6
    )
    assert plain.train.fingerprint() == large.fingerprint() == small.fingerprint()  # the rows are the same
    both = found.train.with_augment(["flip", {"name": "shift", "fraction": 0.3}])
    for view in (1, 5):  # the same view of the same picture
        of_large = both.seeing("large").fetch(index, view).inputs
        seen = both.seeing("small").fetch(index, view).inputs
        assert torch.allclose(seen, torch.nn.functional.avg_pool2d(of_large, 2), rtol=1e-6)
        assert not torch.allclose(seen, small.fetch(index).inputs)


def test_augmentation_is_for_pictures_alone() -> None:
    found = ps.data.open({"train": ({"x": X, "picture": PIXELS}, Y)}, validation=40, test=60, augment="flip")
    index = torch.arange(9)
    assert not torch.equal(
        found.train.seeing("picture").fetch(index, 2).inputs, found.train.seeing("picture").fetch(index).inputs
    )
    for rows in (found.train, found.train.seeing("x")):
        assert rows.augmentation == ""
        assert torch.equal(rows.fetch(index, 2).inputs, rows.fetch(index).inputs)
    with pytest.raises(DataError, match="needs pictures"):
        ps.fit("linear", found, sees="x", augment=("flip",), **QUICK)
    with pytest.raises(DataError, match="needs pictures"):
        two(augment="flip")


# --- training, recording, asking -------------------------------------------------------------------------------------


def test_the_student_is_handed_what_it_sees(teacher: Any, tmp_path: Path) -> None:
    found, noted = two(), []

    def builder(shape: tuple[int, ...], count: int) -> nn.Module:
        noted.append(Watched(shape, count))
        return noted[-1]

    recorded = ps.record(teacher, found.train, tmp_path / "stored")
    for asked in (recorded, teacher):
        student = ps.fit(builder, found, teacher=asked, seed=0, **QUICK)
        assert student.spec.sees == "x"
        assert {shape for shape, _ in noted[-1].noted} == {(2,)}
        assert max(largest for _, largest in noted[-1].noted) < 10
    assert {shape for shape, _ in teacher.network.noted} == {(3,)}
    from potstill.training.fit import prepare

    task = prepare("linear", found, teacher=recorded, **QUICK)
    assert not privileged(task)
    with pytest.raises(DataError, match="Unknown input"):
        ps.fit("linear", found, sees="z", **QUICK)


def test_several_inputs_train_as_one_does(tmp_path: Path) -> None:
    """Hinton is the case x* = x: the same weights through the same batches, bit for bit."""
    alone = ps.data.open((X, Y), validation=40, test=60)
    both = ps.data.open({"train": ({"x": X, "x_star": X}, Y)}, validation=40, test=60)
    networks_of: list[dict[str, Tensor]] = []
    for name, found, sees in (("alone", alone, ""), ("both", both, "x_star")):
        above = ps.fit("mlp:8", found, sees=sees, seed=3, **QUICK)
        told = ps.record(above, found.train, tmp_path / name)
        below = ps.fit("mlp:4", found, teacher=told, seed=0, **QUICK)
        networks_of.append(
            {**above.network.state_dict(), **{f"s.{k}": v for k, v in below.network.state_dict().items()}}
        )
    for key, value in networks_of[0].items():
        assert torch.equal(value, networks_of[1][key])


def test_answers_are_for_the_rows_whatever_a_student_sees(teacher: Any, tmp_path: Path) -> None:
    found = two()
    told = ps.record(teacher, found.train, tmp_path / "stored")
    index = torch.arange(len(found.train))
    wanted = teacher(torch.from_numpy(STAR[found.train.rows]))
    assert torch.allclose(told.lookup(index).logits(), wanted, atol=1e-5)
    assert told.manifests[0].header.sees == "x_star"
    live = Live(teacher, found.train)
    assert torch.allclose(live.lookup(index, 0).logits(), wanted, atol=1e-5)
    assert not any(t.shape == X.shape for t in tensors(live.source))
    for source in (found.train, found.train.seeing("x"), found.train.seeing("x_star")):
        assert len(outputs.open(tmp_path / "stored", source=source, teacher=teacher)) == len(found.train)
    foreign = ps.data.open({"train": ({"x": X, "x_star": STAR + 1}, Y)}, validation=40, test=60)
    for source in (foreign.train, foreign.train.seeing("x"), found.validation, ps.data.open((X, Y)).train):
        with pytest.raises(OutputsError) as caught:
            outputs.open(tmp_path / "stored", source=source)
        assert caught.value.field in ("source", "rows")
    with pytest.raises(OutputsError) as caught:
        ps.record(teacher, foreign.train, tmp_path / "stored")
    assert caught.value.field == "source"


def test_a_recording_without_names_has_the_manifest_that_it_had(tmp_path: Path) -> None:
    found = ps.data.open((X, Y), validation=40, test=60)
    ps.record(ps.fit("linear", found, steps=1), found.train, tmp_path / "plain")
    header = json.loads((tmp_path / "plain" / "manifest.json").read_text())["header"]
    assert "sees" not in header


def test_members_that_see_different_inputs_are_not_asked_at_once(teacher: Any) -> None:
    other = ps.fit("linear", two(), steps=1)
    with pytest.raises(TeacherError, match=r'sees the input "x", Member 0 .* sees "x_star"'):
        Ensemble([teacher, other])
    assert Ensemble([teacher, teacher]).sees == "x_star"


def test_evaluation_and_latency_use_a_models_own_input(teacher: Any, tmp_path: Path) -> None:
    found = two()
    logits = teacher(torch.from_numpy(STAR[found.test.rows]))
    right = float((logits.argmax(1) == found.test.labels).double().mean())
    assert ps.evaluate(teacher, found.test)["accuracy"] == pytest.approx(right)
    function = Function(lambda x: x, kind="logits", name="sees the first")
    assert evaluation.predict(function, ps.data.open({"train": ({"x_star": STAR}, Y)}).test).log_probs.shape[1] == 3
    teacher.network.noted.clear()
    evaluation.call_times([teacher], 4, seconds=0.0)
    evaluation.cost([teacher])
    assert {shape for shape, _ in teacher.network.noted} == {(3,)}


def test_a_saved_model_knows_what_it_sees(tmp_path: Path) -> None:
    model = ps.fit("mlp:4", two(), sees="x_star", steps=2)
    model.save(tmp_path / "m")
    loaded = ps.load(tmp_path / "m")
    assert loaded.spec == model.spec
    assert loaded.spec.sees == "x_star"
    assert loaded.fingerprint() == model.fingerprint()
    plain = ps.fit("mlp:4", ps.data.open((X, Y)), steps=2)
    plain.save(tmp_path / "p")
    assert not {"sees", "recipe_sha256"} & set(storage.read_json(tmp_path / "p" / "network.json"))


# --- plans -----------------------------------------------------------------------------------------------------------

PRIVILEGED: dict[str, Any] = {
    "seeds": 2,
    "data": {"source": {"train": PAIR}, "validation": 40, "test": 60, "inputs": {"x": {}, "x_star": {}}},
    "training": {"steps": 12, "batch_size": 32},
    "models": {
        "teacher": {"network": "linear", "sees": "x_star"},
        "alone": {"network": "mlp:4"},
        "student": {"network": "mlp:4", "teacher": "teacher"},
        "asked": {"network": "mlp:4", "teacher": "teacher", "answers": "live"},
    },
    "evaluation": {"splits": ["train", "validation", "test"], "latency": {"batch": []}},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("privileged") / "run"
    run(PRIVILEGED, folder)
    return folder


def test_a_study_whose_teacher_sees_more(finished: Path) -> None:
    results = Study.open(PRIVILEGED, folder=finished).results()
    assert {key: model.sees for key, model in results.models.items()} == {
        "teacher": "x_star", "alone": "x", "student": "x", "asked": "x",
    }  # fmt: skip
    assert results.models["teacher"].network == "linear on x_star"
    assert results.models["teacher"].cost.parameters == 3 * 3 + 3  # type: ignore[union-attr]
    assert results.models["student"].cost.parameters == 2 * 4 + 4 + 4 * 3 + 3  # type: ignore[union-attr]
    header = outputs.open(next(finished.glob("outputs/teacher/plain/seed-0/train"))).manifests[0].header
    assert header.sees == "x_star"
    found = two()
    for name, raw in (("teacher", STAR), ("student", X)):
        folder = finished / "models" / name / "seed-1"
        model = networks.load(folder)
        stored = evaluation.load_predictions(folder / "predictions" / "test.safetensors")
        wanted = model(torch.from_numpy(raw[found.test.rows])).log_softmax(1)
        assert np.allclose(stored.log_probs, wanted, atol=1e-5)
    sentence = next(v.sentence for v in results.verdicts if (v.model, v.baseline) == ("student", "teacher"))
    assert "input (x against x_star)" in sentence


def test_predict_and_record_on_the_command_line(finished: Path, tmp_path: Path, capsys: Any) -> None:
    source = str(next(finished.glob("data/*.npz")))
    np.savez(tmp_path / "new.npz", x=X[:3], x_star=STAR[:3])
    np.save(tmp_path / "star.npy", STAR[:3])
    for name, raw in (("teacher", STAR), ("student", X)):
        model = finished / "models" / name / "seed-0"
        wanted = networks.load(model)(torch.from_numpy(raw[:3])).softmax(1)
        for given in ("new.npz", "star.npy")[: 2 if name == "teacher" else 1]:
            assert call(["predict", str(model), str(tmp_path / given)]) == 0
            rows = [line.split(",") for line in capsys.readouterr().out.splitlines()[1:]]
            assert np.allclose(np.array(rows)[:, 2:].astype(float), wanted, atol=1e-5)
        split = ["--test", "60", "--validation", "40"]
        assert call(["predict", str(model), source, *split]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 61
    out = tmp_path / "answers"
    assert call(["record", str(model), source, *split, "--out", str(out)]) == 0
    assert len(outputs.open(out, source=two().train)) == len(two().train)
    assert call(["predict", str(finished / "models" / "student" / "seed-0"), str(tmp_path / "star.npy")]) == 2
    assert "(3,)" in capsys.readouterr().err


def test_a_model_of_small_pictures_predicts_from_large_ones(tmp_path: Path, capsys: Any) -> None:
    plan = {
        "seeds": 1,
        "data": {"source": "digits", "test": 300, "validation": 100,
                 "inputs": {"large": {}, "small": {"resize": 4}}},
        "training": {"steps": 8, "augment": ["flip"], "views": 2},
        "models": {
            "teacher": {"network": "small_cnn:4"},
            "student": {"network": "linear", "sees": "small", "teacher": "teacher"},
        },
        "evaluation": {"views": [0, 2], "latency": {"batch": []}},
    }  # fmt: skip
    run(plan, tmp_path / "run")
    student = tmp_path / "run" / "models" / "student" / "seed-0"
    assert (student / "recipe.json").is_file()
    assert networks.load(student).spec.shape == (1, 4, 4)
    large = RNG.integers(0, 17, (5, 8, 8)).astype(np.uint8)
    small = shrink(torch.from_numpy(large[:, None]), (4, 4))
    wanted = networks.load(student)(small / 16).softmax(1)
    for name, array in (("large", large), ("small", small.numpy())):
        np.save(tmp_path / f"{name}.npy", array)
        assert call(["predict", str(student), str(tmp_path / f"{name}.npy")]) == 0
        rows = [line.split(",") for line in capsys.readouterr().out.splitlines()[1:]]
        assert np.allclose(np.array(rows)[:, 2:].astype(float), wanted, atol=1e-5)
    assert call(["predict", str(student), "digits", "--test", "300", "--validation", "100"]) == 0
    assert call(["verify", str(tmp_path / "run")]) == 0
    (student / "recipe.json").write_text("{}")
    assert call(["verify", str(tmp_path / "run")]) == 1


def test_plans_check_what_is_seen() -> None:
    def plan(inputs: Any, **model: Any) -> Plan:
        data = {"source": "digits"} | ({"inputs": inputs} if inputs is not None else {})
        return Plan.from_dict({"data": data, "models": {"alone": {"network": "linear", **model}}})

    two_inputs = {"large": {}, "small": {"resize": 4}}
    assert plan(two_inputs).resolved("alone").sees == "large"
    assert plan(two_inputs, sees="small").resolved("alone").sees == "small"
    assert plan(None).resolved("alone").sees is None
    assert plan(None, sees="anything").resolved("alone").sees == "anything"  # a file may have named inputs
    assert Plan.from_dict(plan(two_inputs).to_dict()) == plan(two_inputs)
    for inputs, model, key, message in (
        (two_inputs, {"sees": "smal"}, "models.alone.sees", 'Did you mean "small"'),
        ({"small": {"rezise": 4}}, {}, "data.inputs.small", 'Did you mean "resize"'),
        ({}, {}, "data.inputs", "wanted a table of inputs"),
    ):
        with pytest.raises(PlanError, match=message) as caught:
            plan(inputs, **model)
        assert caught.value.key == key


def test_a_plan_without_inputs_has_the_nodes_that_it_had(tmp_path: Path) -> None:
    from potstill.study.tree import data_table

    plan = Plan.from_dict({"data": {"source": "digits"}, "models": {"alone": {"network": "linear"}}})
    assert not {"inputs", "redraw"} & set(data_table(plan))
    results = run(
        {**PRIVILEGED, "seeds": 1, "data": {"source": (X, Y)}, "models": {"alone": {"network": "linear"}}},
        tmp_path / "run",
    )
    assert results.models["alone"].sees is None
    settings = storage.read_json(tmp_path / "run/models/alone/seed-0/result.json")["settings"]
    assert "sees" not in settings
    assert dataclasses.asdict(networks.load(tmp_path / "run/models/alone/seed-0").spec)["sees"] == ""
