"""Tables: how they are read, what becomes of their columns, and that training rows alone decide that."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from study_samples import run

import potstill as ps
from potstill import networks, storage
from potstill.cli.entry import call
from potstill.data import columns, table, tabular
from potstill.data.named import locate
from potstill.errors import DataError, PlanError, TeacherError
from potstill.study.plan import Plan
from potstill.teachers import Ensemble

RNG = np.random.default_rng(0)
N = 120
AGE = RNG.integers(18, 80, N)
WAGE = np.round(RNG.normal(1000, 200, N), 2)
JOB = RNG.choice(["baker", "clerk", "miner"], N)
RICH = np.where(WAGE + 20 * (JOB == "clerk") + RNG.normal(size=N) > 1000, "yes", "no")
CELLS: dict[str, list[str]] = {
    "age": [str(x) for x in AGE],
    "job": list(JOB),
    "wage": [f"{x:.2f}" for x in WAGE],
    "rich": list(RICH),
}


def changed(**cells: dict[int, str]) -> dict[str, list[str]]:
    """The cells, some rows of some columns replaced."""
    return {name: [cells.get(name, {}).get(i, cell) for i, cell in enumerate(col)] for name, col in CELLS.items()}


def text(cells: dict[str, list[str]] = CELLS, separator: str = ",", header: bool = True, end: str = "\n") -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator=end)
    if header:
        writer.writerow(cells)
    writer.writerows(zip(*cells.values(), strict=True))
    return out.getvalue()


def written(folder: Path, content: str, name: str = "people.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    return path


def every(source: Any) -> np.ndarray:
    found: np.ndarray = source.fetch(torch.arange(len(source))).inputs.numpy()
    return found


# --- reading ---------------------------------------------------------------------------------------------------------

SPACED = "  1.5e+00   2   \n\n -3   4.25\t\n"
READ: list[tuple[str, str, dict[str, Any], dict[str, list[str]]]] = [
    ("a.csv", "x,y\n1,2\n3,4\n", {}, {"x": ["1", "3"], "y": ["2", "4"]}),
    ("a.csv", "x,y\r\n1,2\r\n", {}, {"x": ["1"], "y": ["2"]}),
    ("a.csv.gz", "x; y\n 1 ; a b \n", {}, {"x": ["1"], "y": ["a b"]}),
    ("a.tsv", "x\ty\n1\t\n2\tq\n", {}, {"x": ["1", "2"], "y": ["", "q"]}),
    ("a.txt", SPACED, {}, {"1": ["1.5e+00", "-3"], "2": ["2", "4.25"]}),
    ("a.data", "1,red\n2,blue\n", {}, {"1": ["1", "2"], "2": ["red", "blue"]}),
    ("a.csv", "a,a,b\nc,d,e\n", {}, {"1": ["a", "c"], "2": ["a", "d"], "3": ["b", "e"]}),
    ("a.csv", "a,b\nc,d\n", {"header": False}, {"1": ["a", "c"], "2": ["b", "d"]}),
    ("a.csv", "1,2\n3,4\n", {"columns": ("x", "y")}, {"x": ["1", "3"], "y": ["2", "4"]}),
    ("a.csv", "1,2\n3,4\n", {"header": True}, {"1": ["3"], "2": ["4"]}),
    ("a.csv", 'x,y\n1,"a, ""b""\nc"\n', {}, {"x": ["1"], "y": ['a, "b"\nc']}),
    ("a.csv", "\ufeffx|y\n1|2\n", {}, {"x": ["1"], "y": ["2"]}),
    ("a.csv", "x;y\n1,5;2\n", {"separator": ";"}, {"x": ["1,5"], "y": ["2"]}),
    ("a.csv", "words\nyes\nno\n", {}, {"words": ["yes", "no"]}),
    ("a.csv", 'words\nyes it is\n"no, never"\n', {}, {"words": ["yes it is", "no, never"]}),
    ("a.csv", "x,\n1,2\n", {"header": True}, {"x": ["1"], "column2": ["2"]}),
]


@pytest.mark.parametrize(("name", "content", "form", "wanted"), READ)
def test_texts_are_cut_into_columns(
    tmp_path: Path, name: str, content: str, form: dict[str, Any], wanted: dict[str, list[str]]
) -> None:
    found = table.read(written(tmp_path, content, name), table.Format(**form))
    assert dict(found.columns) == wanted
    assert len(found) == len(next(iter(wanted.values())))


UNREAD: list[tuple[str, str, dict[str, Any], str]] = [
    ("a.csv", "x,y\n1,2\n3\n4,5\n", {"separator": ","}, "row 3 has 1 cells, wanted 2 as in row 1: 3"),
    ("a.csv", "", {}, "is empty"),
    ("a.csv", "x,y\n", {}, "no row below"),
    ("a.csv", "x,y\n1,2\n", {"columns": ("a", "b")}, "found names of columns in its first row"),
    ("a.csv", "1,2,3\n4,5\n6;7\n", {}, "not cut into equally many cells"),
    ("a.csv", 'x,y\n1,"2\n', {"separator": ","}, "cannot be cut into cells"),
    ("a.csv", "1,2\n3,4\n", {"columns": ("a", "a")}, 'two columns with the name "a"'),
]


@pytest.mark.parametrize(("name", "content", "form", "message"), UNREAD)
def test_what_is_no_table_is_refused(
    tmp_path: Path, name: str, content: str, form: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        table.read(written(tmp_path, content, name), table.Format(**form))
    assert str(tmp_path) in str(caught.value)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes(b"x,y\n1,\xe9\n")
    with pytest.raises(DataError, match="not a text in UTF-8"):
        table.read(tmp_path / "latin.csv")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(text().encode())[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        table.read(tmp_path / "cut.csv.gz")


def test_arrays_are_tables(tmp_path: Path) -> None:
    array = np.array([[1.5, 2], [np.nan, 4]], np.float32)
    np.savez(tmp_path / "a.npz", data=array)
    found = table.read(tmp_path / "a.npz", table.Format(columns=("x", "y")))
    assert found.texts("x") == ["1.5", ""]
    assert found.texts("y") == ["2", "4"]
    np.savez(tmp_path / "b.npz", data=array, more=array)
    with pytest.raises(DataError, match="wanted one of rows and columns"):
        table.read(tmp_path / "b.npz")


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(
        pyarrow.table({"x": [1, None, 3], "f": [0.5, 1.0, None], "b": [True, False, None], "w": ["a", None, " c"]}),
        tmp_path / "a.parquet",
    )
    found = table.read(tmp_path / "a.parquet")
    assert {name: found.texts(name) for name in found.names} == {
        "x": ["1", "", "3"], "f": ["0.5", "1", ""], "b": ["1", "0", ""], "w": ["a", "", "c"],
    }  # fmt: skip
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="not a whole Parquet file"):
        table.read(tmp_path / "b.parquet")


# --- columns as numbers ----------------------------------------------------------------------------------------------


def test_columns_are_scaled_and_spread(tmp_path: Path) -> None:
    """Against numpy on the rows that are left for training."""
    found = ps.data.open(written(tmp_path, text()), validation=20, test=30)
    rows = found.train.rows.numpy()
    assert sorted([*rows, *found.validation.rows, *found.test.rows]) == list(range(N))
    assert found.spec.classes == ("no", "yes")
    assert found.spec.shape == (5,)
    for source in (found.train, found.validation, found.test):
        own = source.rows.numpy()
        wanted = np.stack(
            [
                (AGE[own] - AGE[rows].mean()) / AGE[rows].std(),
                *(JOB[own] == word for word in ("baker", "clerk", "miner")),
                (WAGE[own] - WAGE[rows].mean()) / WAGE[rows].std(),
            ],
            axis=1,
        )
        assert np.allclose(every(source), wanted, atol=1e-6)
        assert [found.spec.classes[i] for i in source.labels] == list(RICH[own])
    assert not found.notes


def test_training_rows_alone_decide(tmp_path: Path) -> None:
    """Whatever the other rows hold, training rows are encoded alike."""
    first = ps.data.open(written(tmp_path, text()), validation=20, test=30)
    held = [int(first.validation.rows[0]), int(first.test.rows[0])]
    odd = changed(
        age={held[0]: "1000000", held[1]: "?"}, job={held[0]: "astronaut", held[1]: ""}, wage={held[1]: "-5e9"}
    )
    second = ps.data.open(written(tmp_path, text(odd), "odd.csv"), validation=20, test=30)
    assert torch.equal(first.train.rows, second.train.rows)
    assert np.array_equal(every(first.train), every(second.train))
    assert second.spec.recipe == first.spec.recipe
    assert not second.notes
    unknown = every(second.validation)[0]
    assert unknown[1:4].tolist() == [0, 0, 0]  # a category that training rows do not have is none of them
    assert unknown[0] > 1e4
    lacking = every(second.test)[0]
    assert lacking[:4].tolist() == [0, 0, 0, 0]  # a missing number is the mean


def test_missing_values_are_filled_flagged_and_told(tmp_path: Path) -> None:
    whole = ps.data.open(written(tmp_path, text()), validation=0, test=0)
    cells = changed(age={3: "?", 5: " NA "}, job={3: "", 7: "?"})
    found = ps.data.open(written(tmp_path, text(cells), "gaps.csv"), validation=0, test=0)
    inputs = every(found.train)
    known = np.delete(AGE, [3, 5])
    assert found.spec.shape == (7,)  # age, its flag, no job, three jobs, wage
    wanted = (AGE - known.mean()) / known.std()
    wanted[[3, 5]] = 0
    assert np.allclose(inputs[:, 0], wanted, atol=1e-6)
    assert np.flatnonzero(inputs[:, 1]).tolist() == [3, 5]
    assert np.flatnonzero(inputs[:, 2]).tolist() == [3, 7]
    assert np.allclose(np.delete(inputs[:, 3:6], [3, 7], 0), np.delete(every(whole.train)[:, 1:4], [3, 7], 0))
    (note,) = found.notes
    assert "3 of 120 training rows lack a value, in age, job" in note
    assert "flagged" in note
    own = ps.data.open(
        {"name": str(written(tmp_path, text(changed(age={3: "-1"})), "own.csv")), "missing": ["-1"]},
        validation=0,
        test=0,
    )
    assert np.flatnonzero(every(own.train)[:, 1]).tolist() == [3]


def test_what_is_said_of_columns(tmp_path: Path) -> None:
    cells = {**CELLS, "zip": [str(10 + i % 3) for i in range(N)], "id": [f"p{i}" for i in range(N)]}
    path = str(written(tmp_path, text({key: cells[key] for key in ("id", "zip", *CELLS)})))
    options: dict[str, Any] = {"validation": 0, "test": 0}
    told = ps.data.open({"name": path, "categorical": ["zip"], "drop": ["id"]}, **options)
    assert told.spec.shape == (3 + 5,)
    assert every(told.train)[:4, :3].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]
    every_column = ps.data.open({"name": path, "drop": ["id"]}, inputs={"x": {"columns": ["*"]}}, **options)
    assert "id" not in [one["name"] for one in every_column.spec.recipe["columns"]]
    several = ps.data.open(
        path, inputs={"work": {"columns": ["job", "wage"]}, "rest": {"columns": ["a*", "zip"]}}, **options
    )
    assert {name: one.spec.shape for name, one in several.train.several.items()} == {"work": (4,), "rest": (2,)}
    assert several.train.seeing("work").fingerprint() == told.train.fingerprint()  # rows are rows
    for source, inputs, message in (
        ({"name": path, "categorical": ["zipp"]}, None, 'Unknown column "zipp"'),
        ({"name": path, "catgorical": ["zip"]}, None, 'Did you mean "categorical"'),
        ({"name": path, "numeric": ["job"]}, None, 'row 0 .from 0. of column "job" holds'),
        (path, {"x": {"columns": ["b*"]}}, r'Unknown column "b\*"'),
        (path, {"x": {"columns": ["rich"]}}, '"rich" is a target'),
        (path, {"x": {"columns": ["age", "ric*"]}}, r'all columns that match "ric\*" are targets \(rich\)'),
        ({"name": path, "drop": ["id"]}, {"x": {"columns": ["id"]}}, 'Unknown column "id"'),
        (path, {"x": {"array": "age"}}, r'inputs\.x: .*has no key "array"'),
    ):
        with pytest.raises(DataError, match=message):
            ps.data.open(source, inputs=inputs, **options)


def test_a_column_of_keys_is_told(tmp_path: Path) -> None:
    rows = "".join(f"p{i},{'ab'[i % 2]}{i % 40},{i % 2}\n" for i in range(100))
    notes = ps.data.open(written(tmp_path, "id,word,y\n" + rows), validation=0, test=20).notes
    assert len(notes) == 1
    assert 'the column "id" holds 80 different words in 80 training rows' in notes[0]
    assert 'drop = ["id"]' in notes[0]


def test_a_column_of_many_words_is_no_category(tmp_path: Path) -> None:
    path = written(tmp_path, "x,y\n" + "".join(f"word{i},{i % 2}\n" for i in range(1300)))
    with pytest.raises(DataError, match=r'the column "x" holds 1,\d+ different words.*as = "hashing"'):
        ps.data.open(path, validation=0, test=200)


def test_numbers_where_training_rows_hold_numbers(tmp_path: Path) -> None:
    first = ps.data.open(written(tmp_path, text()), validation=0, test=30)
    row = int(first.test.rows[2])
    for cell, message in (("many", f'row {row} .* "age" holds "many"'), ("inf", "is infinite")):
        path = written(tmp_path, text(changed(age={row: cell})), "bad.csv")
        with pytest.raises(DataError, match=message):
            ps.data.open(path, validation=0, test=30)
    constant = ps.data.open(written(tmp_path, text({**CELLS, "age": ["7"] * N}), "same.csv"), validation=0, test=30)
    assert not every(constant.train)[:, 0].any()
    empty = ps.data.open(written(tmp_path, text({**CELLS, "age": [""] * N}), "empty.csv"), validation=0, test=30)
    assert empty.spec.shape == (4,)
    assert "1 columns hold no value" in empty.notes[0]


# --- targets ---------------------------------------------------------------------------------------------------------


def test_targets_are_columns(tmp_path: Path) -> None:
    path = written(tmp_path, text())
    options: dict[str, Any] = {"validation": 0, "test": 20}
    jobs = ps.data.open(path, target="job", **options)
    assert jobs.spec.classes == ("baker", "clerk", "miner")
    assert [jobs.spec.classes[i] for i in jobs.train.labels] == list(JOB[jobs.train.rows])
    wages = ps.data.open(path, target=["wage", "age"], task="regression", **options)
    assert wages.spec.targets == ("wage", "age")
    assert wages.spec.shape == (5,)  # three jobs, rich or not
    assert np.allclose(wages.test.labels, np.stack([WAGE, AGE], 1)[wages.test.rows])
    assert wages.spec.scaling is not None
    np.savez(tmp_path / "a.npz", data=np.stack([WAGE, AGE, AGE > 40], 1))
    plain = ps.data.open(tmp_path / "a.npz", target=2, task="regression", **options)
    assert plain.spec.targets == ("2", "3")
    old = ps.data.open(tmp_path / "a.npz", target="3", **options)
    assert old.spec.classes == ("0", "1")
    assert jobs.train.fingerprint() != wages.train.fingerprint()
    numbers = written(tmp_path, "x,y\n" + "".join(f"{i},{(10, 9, 100)[i % 3]}\n" for i in range(60)), "n.csv")
    assert ps.data.open(numbers).spec.classes == ("9", "10", "100")
    renamed = {"name": str(numbers), "classes": ["100", "10", "9"]}
    assert ps.data.open(renamed).spec.classes == ("100", "10", "9")


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"target": "jobb"}, 'Unknown column "jobb". Did you mean "job"'),
    ({"target": []}, "wanted different columns"),
    ({"target": ["age", "age"], "task": "regression"}, "wanted different columns"),
    ({"target": 4}, "how many of the 4 columns at the end"),
    ({"target": ["age", "wage"]}, "found 2 targets .age, wage. with task"),
    ({"target": "wage"}, r'measured numbers, such as [\d.]+; say task = "regression"'),
    ({"target": "job", "task": "regression"}, 'row 0 .* "job" holds'),
    ({"target": "rich", "source": {"classes": ["yes", "no", "no"]}}, "two or more different"),
    ({"target": "rich", "source": {"classes": ["yes", "maybe"]}}, 'has the label "no"'),
]


@pytest.mark.parametrize(("told", "message"), FAULTS)
def test_faulty_targets_are_refused(tmp_path: Path, told: dict[str, Any], message: str) -> None:
    source = {"name": str(written(tmp_path, text())), **told.pop("source", {})}
    with pytest.raises(DataError, match=message):
        ps.data.open(source, **told)


def test_target_is_for_tables() -> None:
    with pytest.raises(DataError, match="is no table"):
        ps.data.open("digits", target="x")


def test_rows_without_a_target_carry_no_label(tmp_path: Path) -> None:
    cells = changed(rich={4: "", 9: "?"})
    found = ps.data.open(written(tmp_path, text(cells)), validation=0, test=20)
    assert len(found.train) == N - 20
    assert found.train.labelled.tolist() == [True] * (N - 22) + [False] * 2
    assert "2 rows without rich carry no label" in found.notes[0]
    ages = (AGE - AGE[np.r_[0:N]].mean())[[4, 9]]  # the two rows come last, in order
    assert np.sign(every(found.train)[-2:, 0] - every(found.train)[-1, 0])[0] == np.sign(ages[0] - ages[1])


def test_further_files_are_encoded_as_training_rows_were(tmp_path: Path) -> None:
    found = locate(str(written(tmp_path, text())), None)
    other = changed(rich={0: "maybe", 1: "maybe"}, job={5: "astronaut"})
    path = written(tmp_path, text(other), "other.csv")
    assert found.further is not None
    part = found.further(path, {"rich": ["maybe"]})
    assert len(part.inputs) == N - 2
    assert part.table is not None
    assert part.table.table.texts("age") == CELLS["age"][2:]
    assert len(tabular.without(table.read(path), {"age": [int(AGE[0])]})) == int((AGE[0] != AGE).sum())


# --- identity, models, plans -----------------------------------------------------------------------------------------


def test_a_fingerprint_is_of_the_cells_that_are_no_targets(tmp_path: Path) -> None:
    def fingerprint(cells: dict[str, list[str]], **told: Any) -> str:
        path = written(tmp_path, text(cells))
        found: str = ps.data.open(path, **({"validation": 0, "test": 0} | told)).train.fingerprint()
        return found

    first = fingerprint(CELLS)
    assert fingerprint(changed(rich={0: "yes", 1: "no"})) == first
    assert fingerprint(CELLS, inputs={"x": {"columns": ["age"]}}) == first
    assert fingerprint(changed(job={0: "miner" if JOB[0] != "miner" else "baker"})) != first
    assert fingerprint(CELLS, target="job") != first


def test_a_model_takes_its_encoders_along(tmp_path: Path) -> None:
    path = written(tmp_path, text())
    found = ps.data.open(path, validation=20, test=30)
    model = ps.fit("mlp:4", found, steps=5)
    model.save(tmp_path / "m")
    loaded = ps.load(tmp_path / "m")
    assert loaded.spec == model.spec
    assert storage.read_json(tmp_path / "m" / "recipe.json")["columns"][1]["values"] == ["baker", "clerk", "miner"]
    other = ps.data.open(path, validation=10, test=30)
    with pytest.raises(DataError, match=r"like=model\.spec"):
        ps.evaluate(loaded, other.test)
    alike = ps.data.open(path, validation=10, test=30, like=loaded.spec)
    assert ps.evaluate(loaded, alike.test).values_by_name == ps.evaluate(model, found.test).values_by_name
    with pytest.raises(TeacherError, match="prepared otherwise"):
        Ensemble([model, ps.fit("mlp:4", other, steps=1)])
    with pytest.raises(DataError, match=r"like=model\.spec"):
        ps.record(loaded, other.train, tmp_path / "outputs")


@pytest.mark.parametrize("task", ["multiclass", "regression"])
@pytest.mark.parametrize("header", [True, False])
def test_predict_takes_rows_as_they_are_written(tmp_path: Path, capsys: Any, task: str, header: bool) -> None:
    target = ("rich" if header else "4") if task == "multiclass" else ("wage" if header else "3")
    path = written(tmp_path, text(header=header))
    found = ps.data.open(path, target=target, task=task, validation=20, test=30)
    model = ps.fit("mlp:4", found, steps=3)
    model.save(tmp_path / "m")
    cells = changed(job={0: "astronaut"}, age={1: "?"})
    held = {name: [col[i] for i in found.test.rows.tolist()] for name, col in cells.items()}
    drop = ("rich", "wage")[task == "regression"]
    bare = {name: held[name] for name in CELLS if name != drop}
    wanted = ps.data.inputs(str(written(tmp_path, text(held, header=header), "whole.csv")), model.spec)
    assert wanted.labelled.all()
    if task == "multiclass":
        assert torch.equal(wanted.labels, found.test.labels)
    assert not ps.data.inputs(str(written(tmp_path, text(bare, ";", header), "bare.csv")), model.spec).labelled.any()
    if task == "regression":
        bare_rows = ps.data.inputs(str(tmp_path / "bare.csv"), model.spec)
        assert torch.equal(bare_rows.block(0, 30), wanted.block(0, 30))
        assert np.allclose(wanted.labels[:, 0], WAGE[found.test.rows])
        return
    asked = [row.split(",") for row in _predicted(tmp_path / "m", tmp_path / "bare.csv", capsys)]
    whole = [row.split(",") for row in _predicted(tmp_path / "m", tmp_path / "whole.csv", capsys)]
    assert len(asked) == len(whole) == 30
    assert [row[-1] for row in asked] == [row[-1] for row in whole]
    if header:
        shuffled = {name: bare[name] for name in reversed(bare)}
        assert _predicted(tmp_path / "m", written(tmp_path, text(shuffled), "turned.csv"), capsys) == [
            ",".join(row) for row in asked
        ]
        fewer = {name: bare[name] for name in bare if name != "age"}
        assert call(["predict", str(tmp_path / "m"), str(written(tmp_path, text(fewer), "fewer.csv"))]) == 2
        assert 'Unknown column "age"' in capsys.readouterr().err


def _predicted(model: Path, path: Path, capsys: Any) -> list[str]:
    capsys.readouterr()
    assert call(["predict", str(model), str(path)]) == 0
    return list(capsys.readouterr().out.splitlines()[1:])


def test_a_study_on_a_table(tmp_path: Path, capsys: Any) -> None:
    """The teacher sees the wage, the student does not; the student then predicts from a file of new rows."""
    path = written(tmp_path, text(), "people.csv.gz")
    plan = {
        "seeds": 2,
        "data": {
            "source": {"name": str(path), "drop": ["age"]},
            "target": "rich",
            "task": "binary",
            "validation": 20,
            "test": 30,
            "inputs": {"known": {"columns": ["job"]}, "all": {"columns": ["job", "wage"]}},
        },
        "training": {"steps": 12, "batch_size": 32},
        "models": {
            "teacher": {"network": "mlp:4", "sees": "all"},
            "alone": {"network": "linear"},
            "student": {"network": "linear", "teacher": "teacher"},
        },
        "evaluation": {"latency": {"batch": []}},
    }
    results = run(plan, tmp_path / "run")
    assert results.models["teacher"].network == "mlp:4 on all"
    assert results.models["student"].cost.parameters == 4  # type: ignore[union-attr]
    student = tmp_path / "run/models/student/seed-1"
    new = written(tmp_path, "wage,job\n1,clerk\n2,baker\n", "new.csv")
    rows = [line.split(",") for line in _predicted(student, new, capsys)]
    raw = torch.tensor([[0.0, 1, 0], [1, 0, 0]])
    wanted = networks.load(student)(raw).sigmoid()[:, 0]
    assert np.allclose([float(row[-1]) for row in rows], wanted, atol=1e-5)
    assert call(["predict", str(student), str(path), "--split", "test", "--test", "30", "--validation", "20"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 31


def test_plans_know_tables() -> None:
    def plan(**data: Any) -> Plan:
        return Plan.from_dict({"data": data, "models": {"alone": {"network": "linear"}}})

    whole = plan(source={"name": "a.csv", "separator": ";"}, target=["x", "y"], inputs={"a": {"columns": ["z*"]}})
    assert whole.data.target == ("x", "y")
    assert Plan.from_dict(whole.to_dict()) == whole
    assert plan(source="a.csv", target=2).data.target == 2
    for data, key in (
        ({"source": {"name": "a.csv", "seperator": ";"}}, "data.source.seperator"),
        ({"source": {"name": "a.csv", "header": "maybe"}}, "data.source.header"),
        ({"source": {"name": "adult", "header": True}}, "data.source.header"),
        ({"source": "a.csv", "target": 0}, "data.target"),
        ({"source": "a.csv", "inputs": {"a": {"as": "tabel"}}}, "data.inputs.a"),
        ({"source": "a.csv", "inputs": {"a": {"columns": 3}}}, "data.inputs.a"),
    ):
        with pytest.raises(PlanError) as caught:
            plan(**data)
        assert caught.value.key == key


# --- published sets --------------------------------------------------------------------------------------------------

TABLES = ROOT.parent / "shared" / "data" / "tables"
PUBLISHED: list[tuple[str, str, int, int, int]] = [  # name, task, rows, test rows, width
    ("concrete", "regression", 1030, 206, 8),
    ("naval-propulsion-plant", "regression", 11934, 2387, 16),
    ("power-plant", "regression", 9568, 1914, 4),
    ("sarcos", "regression", 4449, 890, 21),
    ("wine-quality-red", "multiclass", 1599, 320, 11),
    ("wine-quality-red", "regression", 1599, 320, 11),
    ("yacht", "regression", 308, 62, 6),
]


@pytest.mark.parametrize(("name", "task", "rows", "test", "width"), PUBLISHED)
def test_published_tables(name: str, task: Any, rows: int, test: int, width: int) -> None:
    if not TABLES.is_dir():
        pytest.skip("no published tables")
    found = ps.data.open(name, folder=TABLES.parent, task=task, validation=0)
    assert [len(found.train) + len(found.test), len(found.test)] == [rows, test]
    assert found.spec.shape == (width,)
    assert not found.notes
    inputs = every(found.train)
    assert np.allclose(inputs.mean(0), 0, atol=1e-5)
    assert set(np.round(inputs.std(0), 4)) <= {0, 1}  # two columns of the ships never change


def test_hand_values_of_published_tables() -> None:
    if not TABLES.is_dir():
        pytest.skip("no published tables")
    sarcos = ps.data.open("sarcos", folder=TABLES, task="regression", target="torque1", validation=0, test=0)
    raw = np.load(TABLES / "sarcos_inv_test.npz")["data"]
    assert np.allclose(sarcos.train.labels[:, 0], raw[:, 21])
    assert np.allclose(every(sarcos.train)[:, 3], (raw[:, 3] - raw[:, 3].mean()) / raw[:, 3].std(), atol=1e-5)
    torques = ps.data.open(
        "sarcos", folder=TABLES, task="regression", target="torque1",
        inputs={"x": {"columns": ["position*", "velocity*", "acceleration*"]}, "x_star": {"columns": ["torque*"]}},
    )  # fmt: skip
    assert torques.train.several["x_star"].spec.shape == (6,)
    boat = ps.data.open("yacht", folder=TABLES, task="regression", validation=0, test=0)
    assert boat.train.labels[:2, 0].tolist() == pytest.approx([0.11, 0.27])


def test_adult_of_its_own_files(tmp_path: Path) -> None:
    """Its form, with few rows: a header, blanks around cells, "?" for what is missing, a test part."""
    head = ("age, workclass, fnlwgt, education, education-num, marital-status, occupation, relationship, race, sex, "
            "capital-gain, capital-loss, hours-per-week, native-country, classification\n")  # fmt: skip
    row = (
        "{}, {}, 77516, Bachelors, 13, Never-married, {}, Not-in-family, White, Male, 2174, 0, 40, United-States, {}\n"
    )
    rows = [row.format(20 + i, "?" if i == 3 else "Private", "Sales", "<=50K" if i % 2 else ">50K") for i in range(20)]
    (tmp_path / "tables").mkdir()
    for name, some in (("adult.data", rows), ("adult.test", [*rows[:4], row.format(50, "State-gov", "Tax", ">50K")])):
        written(tmp_path / "tables", head + "".join(some), f"{name}.gz")
    found = ps.data.open("adult", folder=tmp_path, validation=4)
    assert found.spec.classes == ("<=50K", ">50K")
    assert [len(found.train), len(found.validation), len(found.test)] == [16, 4, 5]
    assert found.test.labels.tolist() == [1, 0, 1, 0, 1]
    with pytest.raises(DataError, match="--data FOLDER"):
        ps.data.open("yacht", folder=tmp_path)


def test_encoders_survive_json() -> None:
    made = [columns.Number("x", 0.1, 3.0, True), columns.Category("w", ("", "a"))]
    assert columns.from_recipe(storage.plain(columns.recipe_of(made))) == made
