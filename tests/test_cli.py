"""The command line: every command on a toy study, exit statuses, messages, interruption, and what stays unimported."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from potstill import storage
from potstill.cli import call, text
from potstill.cli.progress import Meter, Progress, Told, brief
from potstill.study.results import Results

TOY = """
title = "Toy"
seeds = 2

[data]
source = "digits"
test = 300
validation = 100
labelled = 200

[training]
optimizer = { name = "adam", learning_rate = 5e-3 }
batch_size = 32
steps = 20

[models.teacher]
network = "mlp:8"
members = 2

[models.alone]
network = "mlp:4"

[models.taught]
network = "mlp:4"
teacher = "teacher"

[evaluation]
latency = { batch = [1] }

[verdict]
baseline = "alone"
margin = 0.01
"""
PROGRAM = [sys.executable, "-c", "from potstill.cli import main; main()"]
MODELS = ["alone", "taught", "teacher"]


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    status: int
    out: str
    err: str


Ask = Callable[..., Answer]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Run a command in this process, in an empty folder that holds toy.toml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POTSTILL_DATA", raising=False)
    Path("toy.toml").write_text(TOY)

    def run(*arguments: object) -> Answer:
        capsys.readouterr()
        status = call([str(word) for word in arguments])
        captured = capsys.readouterr()
        return Answer(status, captured.out, captured.err)

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy run that is done; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "toy.toml").write_text(TOY)
    assert call(["run", str(folder / "toy.toml"), "--out", str(folder / "run"), "--workers", "1"]) == 0
    return folder / "run"


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


# ---------------------------------------------------------------- what is not imported


@pytest.mark.parametrize("arguments", [None, ["--help"], ["--version"], ["run", "--help"]])
def test_nothing_heavy_is_imported_before_a_command_needs_it(arguments: list[str] | None) -> None:
    heavy = ("torch", "numpy", "scipy", "sklearn", "matplotlib", "joblib")
    code = (
        "import sys, potstill.cli\n"
        f"arguments = {arguments!r}\n"
        "status = potstill.cli.call(arguments) if arguments else 0\n"
        f"sys.exit(status or ', '.join(name for name in {heavy!r} if name in sys.modules) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_python_runs_the_package() -> None:
    for arguments, status, said in ((["--version"], 0, "potstill "), (["show", "dmo"], 2, "Did you mean")):
        done = subprocess.run(
            [sys.executable, "-m", "potstill", *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, said in done.stdout + done.stderr) == (status, True)


# ---------------------------------------------------------------- every command once


def test_run_prints_verdicts_and_models_and_writes_the_page(finished: Path, ask: Ask) -> None:
    shutil.copytree(finished, "runs/toy")
    answer = ask("run", "toy.toml", "--workers", "1")
    assert answer.status == 0
    results = Results.model_validate(storage.read_json(Path("runs/toy/results.json")))
    for verdict in results.verdicts:
        assert f"* {verdict.sentence}\n" in answer.out
    for name in MODELS:
        assert f"{results.models[name].metrics['accuracy'].mean:.4f}" in answer.out
    assert answer.out.rstrip().endswith("Report: runs/toy/report.html")
    assert Path("runs/toy/report.html").is_file()
    assert "0 of 8 nodes to do" not in answer.out
    assert "  test accuracy  sd over seeds  seeds\n" in answer.out
    assert "100%" in answer.err


def test_json_is_the_results_and_nothing_else(finished: Path, ask: Ask) -> None:
    answer = ask("run", "toy.toml", "--out", finished, "--workers", "1", "--json")
    assert answer.status == 0
    assert Results.model_validate(json.loads(answer.out)).title == "Toy"
    assert "report.html" in answer.err


def test_set_and_seeds_change_the_plan(finished: Path, copied: Path, ask: Ask) -> None:
    settings = ("--set", "verdict.margin=0.5", "--set", "title=Other words", "--workers", "1")
    answer = ask("run", "toy.toml", "--out", copied, "--seeds", "3", *settings, "--json")
    found = json.loads(answer.out)
    assert (found["title"], found["margin"], found["seeds"]) == ("Other words", 0.5, [0, 1, 2])
    before = storage.read_json(finished / "results.json")
    for name in MODELS:  # the seeds that were there are not trained again
        assert (
            found["models"][name]["metrics"]["accuracy"]["values"][:2]
            == (before["models"][name]["metrics"]["accuracy"]["values"])
        )


def test_plans_names_every_shipped_plan_with_its_needs(ask: Ask) -> None:
    answer = ask("plans")
    assert answer.status == 0
    assert "demo\n  Digits" in answer.out
    assert "mnist-hard-vs-distilled" in answer.out
    assert answer.out.count("needs: ") == answer.out.count("time: ") >= 2
    assert set(json.loads(ask("plans", "--json").out)["demo"]) == {"title", "needs", "time"}


def test_what_show_prints_is_accepted(ask: Ask) -> None:
    shown = ask("show", "demo")
    assert shown.status == 0
    assert shown.out.startswith("#")
    Path("shown.toml").write_text(shown.out)
    assert ask("show", "shown.toml").out == shown.out
    small = ("--set", "training.steps=2", "--set", "models.teacher.training.steps=2", "--seeds", "1")
    assert ask("check", "shown.toml", *small).status == 0


def test_check_runs_everything_once_and_estimates(ask: Ask) -> None:
    before = sorted(Path().rglob("*"))
    answer = ask("check", "toy.toml", "--workers", "2", "--json")
    assert answer.status == 0
    assert sorted(Path().rglob("*")) == before
    found = json.loads(answer.out)
    assert found["rows"] == {"train": 1397, "validation": 100, "test": 300}
    assert [(m["model"], m["steps"], m["trainings"]) for m in found["models"]] == [
        ("teacher", 20, 4),
        ("alone", 20, 2),
        ("taught", 20, 2),
    ]
    student = 64 * 4 + 4 + 4 * 10 + 10
    teacher = 2 * (64 * 8 + 8 + 8 * 10 + 10)
    assert [m["parameters"] for m in found["models"]] == [teacher, student, student]
    assert all(m["step_ms"] > 0 and m["seconds"] > 0 for m in found["models"])
    recorded = 2 * 2 * 10 * 4 * (1397 + 100)  # seeds, members, classes, float32
    assert found["nodes"] == 4 + 2 + 2 + 2
    assert recorded < found["bytes"] < recorded + 1_000_000
    assert 0 < found["seconds"] < 600
    for word in ("taught", "mlp:4", "2 workers", "1,397 train", "of 1 x 8 x 8; 10 classes (0, 1, 2"):
        assert word in ask("check", "toy.toml", "--workers", "2").out


@pytest.mark.parametrize(
    ("workers", "seconds"),
    [
        # 8 trainings of 0.29 s, 2 recordings of 0.3794 s, predictions 0.56 s, latency 2 s + 5 turns of 3 x 0.07 s
        (1, 8 * 0.29 + 2 * 0.3794 + 0.56 + 3.05),
        # in waves (6 trainings, 2 recordings, 2 trainings), and 4 s until the workers are there
        (2, 3 * 0.29 + 0.3794 + 0.29 + 0.28 + 3.05 + 4),
        # never less than the longest of each wave
        (100, 0.29 + 0.3794 + 0.29 + 0.0056 + 3.05 + 4),
    ],
)
def test_the_estimate_by_hand(ask: Ask, workers: int, seconds: float) -> None:
    from types import SimpleNamespace
    from typing import Any

    from potstill.study.estimate import Speed, estimate
    from potstill.study.job import Facts, file_hash
    from potstill.study.study import Study
    from potstill.study.tree import expand

    job = Study.open("toy.toml").job(workers)
    tree = expand(job.plan, Facts(None), file_hash)
    spec = SimpleNamespace(shape=(1, 8, 8), classes=tuple("0123456789"), targets=(), sees="")
    model: Any = SimpleNamespace(spec=spec, outputs=10)
    speed = Speed(step=0.01, row=1e-4, steps=20, epochs=1, parameters=100, bytes=400, model=model)
    rows = {"train": 1397, "validation": 100, "test": 300}
    found = estimate(job, [(tree, dict.fromkeys(MODELS, speed))], rows)
    assert found.seconds == pytest.approx(seconds)
    assert sum(model.seconds for model in found.models) == pytest.approx(8 * 0.29 + 2 * 0.3794 + 0.56)
    weights, answers, predictions = 8 * 400, 2 * 2 * 10 * 4 * 1497, 6 * 400 * (10 * 4 + 9)
    assert found.bytes == weights + answers + predictions + 10 * 16_384 + workers * 5 * 400


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (["models.taught.answers=live"], "taught"),
        (["training.augment=[{ name = 'shift', fraction = 0.1 }]"], "taught"),
        (["training.augment=['flip']", "training.views=2", "models.taught.answers=stored"], "taught"),
        (["models.taught.known=0.5"], "taught"),
        (["models.taught.generations=2"], "taught#2"),
        (['sweep={ "models.taught.network" = ["mlp:2", "mlp:3"] }'], "mlp:3"),
        (["data.validation=0"], "taught"),
    ],
)
def test_check_covers_every_way_to_learn(ask: Ask, settings: list[str], wanted: str) -> None:
    chosen = [word for setting in settings for word in ("--set", setting)]
    answer = ask("check", "toy.toml", *chosen, "--seeds", "1")
    assert answer.status == 0, answer.err
    assert wanted in answer.out


def test_a_teacher_that_is_only_named_by_its_weights(finished: Path, ask: Ask) -> None:
    given = f"""
        weights = "{finished}/models/teacher/seed-0/member-1"
        training = {{ epochs = 0 }}
    """
    Path("given.toml").write_text(TOY.replace('network = "mlp:8"\nmembers = 2', given))
    assert "mlp:8" in ask("check", "given.toml").out
    assert ask("run", "given.toml", "--workers", "1", "--seeds", "1").status == 0
    found = weights(Path("runs/given/models/teacher"))["shared/model.safetensors"]
    assert found == weights(finished)["models/teacher/seed-0/member-1/model.safetensors"]
    Path("empty").mkdir()
    answer = ask("check", "given.toml", "--set", "models.teacher.weights=empty")
    assert answer.status == 2
    assert "empty does not tell its network" in answer.err


def test_report_writes_the_page_anew(copied: Path, ask: Ask) -> None:
    page = copied / "report.html"
    before = page.read_bytes()
    page.unlink()
    answer = ask("report", copied)
    assert (answer.status, answer.out.strip()) == (0, str(page))
    assert page.read_bytes() == before


def test_report_writes_figures_as_files(copied: Path, ask: Ask, tmp_path: Path) -> None:
    answer = ask("report", copied, "--figures", tmp_path / "drawn")
    names = {path.name for path in (tmp_path / "drawn").iterdir()}
    assert answer.status == 0
    assert f"{len(names) - 1} figures and index.json in {tmp_path / 'drawn'}" in answer.out
    assert {"index.json", "forest-accuracy.svg", "bars-accuracy.svg"} <= names
    (tmp_path / "taken").write_text("")
    answer = ask("report", copied, "--figures", tmp_path / "taken")
    assert (answer.status, "taken" in answer.err) == (1, True)


def test_verify_finds_a_sound_run_sound(finished: Path, ask: Ask) -> None:
    answer = ask("verify", finished)
    assert answer.status == 0
    assert "0 damaged" in answer.out
    found = json.loads(ask("verify", finished, "--json").out)
    assert found["damaged"] == []
    # 8 trainings with weights, network, history and result; 6 evaluations with 2 predictions each; the rest
    assert found["files"] >= 8 * 4 + 6 * 3 + 2 * (1 + 2 * 2) + 3


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_settings(path: Path) -> None:
    found = storage.read_json(path)
    found["settings"]["training"]["batch_size"] = 33
    storage.write_json(path, found)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("models/alone/seed-0/model.safetensors", flip),
        ("models/teacher/seed-1/member-2/model.safetensors", flip),
        ("models/taught/seed-1/predictions/test.safetensors", flip),
        ("models/taught/seed-1/predictions/validation.safetensors", Path.unlink),
        ("models/alone/seed-1/network.json", Path.unlink),
        ("models/alone/seed-0/result.json", change_settings),
        ("models/alone/seed-0/history.jsonl", lambda path: path.write_text('{"step": 1')),
        ("outputs/teacher/plain/seed-0/train/shard-00000.safetensors", flip),
        ("outputs/teacher/plain/seed-0/train/shard-00000.safetensors", Path.unlink),
        ("outputs/teacher/plain/seed-1/validation/manifest.json", lambda path: path.write_text(path.read_text() + " ")),
        ("results.json", lambda path: path.write_text("{}")),
        ("plan.toml", lambda path: path.write_text("seeds = ")),
    ],
)
def test_verify_names_the_damaged_file(copied: Path, ask: Ask, file: str, damage: Callable[[Path], object]) -> None:
    damage(copied / file)
    answer = ask("verify", copied)
    assert answer.status == 1
    assert f"damaged: {file}: " in answer.out
    assert answer.out.count("damaged: ") == 1
    assert [row["file"] for row in json.loads(ask("verify", copied, "--json").out)["damaged"]] == [file]


def test_a_deleted_folder_is_made_again_with_the_same_bytes(finished: Path, copied: Path, ask: Ask) -> None:
    """The advice that `verify` gives."""
    shutil.rmtree(copied / "models/taught/seed-1")
    assert ask("run", "toy.toml", "--out", copied, "--workers", "1").status == 0
    assert weights(copied) == weights(finished)
    assert ask("verify", copied).status == 0


def test_record_keeps_what_the_study_recorded(finished: Path, ask: Ask) -> None:
    arguments = ("record", finished / "models/teacher/seed-0", "digits", "--test", "300", "--validation", "100")
    answer = ask(*arguments, "--out", "kept")
    assert answer.status == 0, answer.err
    assert "1,397 examples, 1 view, 2 members" in answer.out
    own = finished / "outputs/teacher/plain/seed-0/train"
    assert sorted(p.name for p in Path("kept").glob("shard-*")) == sorted(p.name for p in own.glob("shard-*"))
    for shard in own.glob("shard-*"):
        assert (Path("kept") / shard.name).read_bytes() == shard.read_bytes()
    assert ask(*arguments, "--out", "kept").status == 0  # complete: opened, not asked again
    assert ask(*arguments, "--out", "few", "--top-k", "3", "--split", "test").status == 0
    manifest = storage.read_json(Path("few/manifest.json"))["header"]
    assert (manifest["top_k"], manifest["rows"]) == (3, 300)
    assert ask(*arguments, "--out", "views", "--views", "2", "--augment", "flip").status == 0
    assert storage.read_json(Path("views/manifest.json"))["header"]["views"] == [0, 1, 2]


def test_another_split_of_the_model_s_data_is_warned_of(finished: Path, ask: Ask) -> None:
    model, warning = finished / "models/teacher/seed-0", "plan's split: --test 300 --validation 100"
    assert warning in ask("predict", model, "digits").err
    assert warning in ask("predict", model, "digits", "--test", "300", "--split", "validation").err
    assert warning in ask("record", model, "digits", "--out", "kept").err
    answer = ask("predict", model, "digits", "--test", "300")  # test examples are taken before validation
    assert (answer.status, answer.err) == (0, "")


def test_predict_gives_the_accuracy_of_the_results(finished: Path, ask: Ask) -> None:
    expected = storage.read_json(finished / "results.json")["models"]
    for name in ("alone", "teacher"):
        model = finished / "models" / name / "seed-1"
        answer = ask("predict", model, "digits", "--test", "300", "--validation", "100")
        rows = list(csv.DictReader(io.StringIO(answer.out)))
        assert [row["row"] for row in rows] == [str(i) for i in range(300)]
        right = [row["class"] == row["label"] for row in rows]
        assert np.mean(right) == pytest.approx(expected[name]["metrics"]["accuracy"]["values"][1])
        for row in rows[:20]:
            chances = {c: float(row[f"p({c})"]) for c in "0123456789"}
            assert sum(chances.values()) == pytest.approx(1, abs=1e-4)
            assert max(chances, key=lambda c: chances[c]) == row["class"]


def test_predict_takes_raw_arrays_and_writes_files(finished: Path, ask: Ask) -> None:
    from sklearn.datasets import load_digits

    pictures = load_digits().images[:40].astype(np.uint8)
    np.save("pictures.npy", pictures)
    np.savez("pictures.npz", inputs=pictures)
    np.save("floats.npy", load_digits().images[:40])
    model = finished / "models/alone/seed-0"
    answer = ask("predict", model, "floats.npy")
    assert answer.status == 2
    assert "type float64, wanted (1, 8, 8) and uint8" in answer.err
    assert 'array.astype("uint8")' in answer.err
    printed = ask("predict", model, "pictures.npy")
    assert printed.out.startswith("row,class,p(0),")
    assert ask("predict", model, "pictures.npz", "--out", "found.csv").status == 0
    assert Path("found.csv").read_text() == printed.out
    assert ask("predict", model, "pictures.npy", "--out", "found.npz").status == 0
    with np.load("found.npz", allow_pickle=False) as found:
        assert sorted(found.files) == ["classes", "predicted", "probabilities"]
        assert found["probabilities"].shape == (40, 10)
        names = [found["classes"][i] for i in found["predicted"]]
    assert names == [row["class"] for row in csv.DictReader(io.StringIO(printed.out))]


def test_doctor_reports_and_says_what_to_mend(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = ask("doctor")
    assert answer.status == 0
    for word in ("python", "torch", "threads", "matrix products", "cores", "memory", "disk", "cache", "digits"):
        assert word in answer.out
    assert "Nothing to mend." in answer.out
    names = [row["name"] for row in json.loads(ask("doctor", "--json").out)]
    assert len(names) == len(set(names))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "file" / "below"))
    answer = ask("doctor", "--data", "nowhere")
    assert answer.status == 1
    assert "mend: cache: " in answer.out
    assert "$POTSTILL_CACHE" in answer.out
    assert "mend: data folder: nowhere" in answer.out


def test_demo_ends_with_three_commands_that_work(ask: Ask) -> None:
    quick = [
        *("--seeds", "1", "--workers", "1", "--set", "training.steps=5", "--set", "evaluation.latency.batch=[1]"),
        *("--set", "models.teacher.training.steps=2", "--set", "models.ensemble.training.steps=2"),
    ]
    answer = ask("demo", *quick)
    assert answer.status == 0, answer.err
    assert Path("runs/demo/results.json").is_file()
    assert "Undecided" in answer.out
    commands = [line.strip() for line in answer.out.partition("copy one of these")[2].splitlines() if line[:2] == "  "]
    commands = [line for line in commands if not line.startswith("#")]
    assert len(commands) == 3
    opener, seen, own = map(shlex.split, commands)
    assert Path(opener[-1]).is_file()
    assert ask(*seen[1:]).status == 0
    from sklearn.datasets import load_digits

    digits = load_digits()
    np.savez("my-arrays.npz", inputs=digits.images.astype(np.float32), labels=digits.target)
    assert own[:3] == ["potstill", "run", "demo"]
    answer = ask(*own[1:], *quick, "--json")
    assert answer.status == 0, answer.err
    found = json.loads(answer.out)
    assert (found["title"], bool(found["story"])) == ("My pictures", False)
    assert Path(own[own.index("--out") + 1], "report.html").is_file()


def test_commands_to_copy_work_where_the_shell_does_not_find_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    from potstill.cli import text

    monkeypatch.setattr(sys, "argv", ["env/bin/potstill"])
    monkeypatch.setattr(text.shutil, "which", lambda word: f"/bin/{word}")
    assert text.program() == "potstill"
    monkeypatch.setattr(text.shutil, "which", lambda word: None)
    assert text.program() == "env/bin/potstill"
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert text.program() == "potstill"


def test_every_command_has_help_with_an_example(ask: Ask) -> None:
    whole = ask("--help").out
    names = [line.split()[0] for line in whole.partition("Commands:\n")[2].splitlines() if line[:3].strip()]
    wanted = [
        "demo",
        "plans",
        "show",
        "check",
        "run",
        "report",
        "verify",
        "record",
        "predict",
        "explore",
        "networks",
        "doctor",
    ]
    assert [name for name in names if name != "Begin"] == wanted
    for name in wanted:
        assert f"Example:\n    potstill {name}" in ask(name, "--help").out
    assert ask("--version").out == f"potstill {__import__('potstill').__version__}\n"
    assert "--show-completion" in whole


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["run", "dmeo"], 2, ['Unknown plan "dmeo"', 'Did you mean "demo"?']),
        (["run", "missing.toml"], 2, ["missing.toml cannot be read"]),
        (["check", "toy.toml", "--set", "training.epoch=3"], 2, ["training.epoch", "epochs"]),
        (["run", "toy.toml", "--set", "data.source=nowhere.npz"], 2, ["nowhere.npz is not there"]),
        (["check", "mnist-hard-vs-distilled"], 2, ["train-images-idx3-ubyte.gz", "--data"]),
        (["run", "toy.toml", "--wrkers", "2"], 2, ["--wrkers"]),
        (["run", "toy.toml", "--workers", "0"], 2, ["--workers"]),
        (["run"], 2, ["PLAN"]),
        (["rnu"], 2, ["rnu"]),
        (["report", "."], 2, ["not a finished run"]),
        (["verify", "."], 2, ["not a run folder"]),
        (["record", "nowhere", "digits", "--out", "kept"], 2, ["not a model folder"]),
        (["predict", "nowhere", "digits"], 2, ["not a model folder"]),
        (["networks", "resnet81"], 2, ['Unknown network "resnet81". Did you mean "resnet18"?']),
        (["networks", "{ name = 'mlp', hiden = [4] }"], 2, ['Did you mean "hidden"?']),
        (["networks", "{ hidden = [4] }"], 2, ['needs a key "name"']),
        (["networks", "lenet", "--shape", "28by28"], 2, ["--shape 28by28", "such as 3x64x64"]),
        (["networks", "lenet", "--shape", "784"], 2, ["lenet takes pictures", 'take "mlp"']),
        (["networks", "lenet", "--shape", "0x28x28"], 2, ["at least one number"]),
        (["networks", "lenet", "--outputs", "0"], 2, ["--outputs"]),
        (["networks", "--shape", "3x64x64"], 2, ["--shape", "NETWORK"]),
        (["run", "toy.toml", "--out", "toy.toml"], 1, ["toy.toml", "not a folder"]),
        (["run", "toy.toml", "--out", "toy.toml/below"], 1, ["toy.toml/below", "choose another folder"]),
    ],
)
def test_messages_and_exit_statuses(ask: Ask, arguments: list[str], status: int, words: list[str]) -> None:
    answer = ask(*arguments)
    assert answer.status == status
    assert answer.out == ""
    assert "Traceback" not in answer.err
    for word in words:
        assert word in answer.err
    if status == 1 or "Usage" not in answer.err:
        assert answer.err.startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--split", "tset"], ["tset", "test"]),
        (["--out", "found.txt"], [".csv", ".npz"]),
        (["--split", "test", "--set", "1"], ["--set"]),
    ],
)
def test_predict_refuses(finished: Path, ask: Ask, arguments: list[str], words: list[str]) -> None:
    answer = ask("predict", finished / "models/alone/seed-0", "digits", *arguments)
    assert answer.status == 2
    assert all(word in answer.err for word in words)


def test_a_model_and_foreign_data_are_refused(finished: Path, ask: Ask) -> None:
    rng = np.random.default_rng(0)
    np.savez("other.npz", inputs=rng.random((60, 8, 8), np.float32), labels=np.arange(60) % 3)
    answer = ask("record", finished / "models/alone/seed-0", "other.npz", "--out", "kept")
    assert answer.status == 2
    assert "classes" in answer.err
    assert not Path("kept").exists()


def test_a_broken_plan_names_key_and_line(ask: Ask) -> None:
    Path("bad.toml").write_text(TOY.replace('teacher = "teacher"', 'teacher = "teachr"'))
    answer = ask("check", "bad.toml")
    line = next(i for i, row in enumerate(Path("bad.toml").read_text().splitlines(), 1) if "teachr" in row)
    assert answer.status == 2
    assert answer.err.startswith(f"error: line {line}, models.taught.teacher: ")
    assert 'Did you mean "teacher"?' in answer.err


def test_a_folder_that_cannot_be_written(ask: Ask) -> None:
    folder = Path("closed")
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):  # the superuser writes everywhere but in the kernel's own files
        folder = Path("/sys/potstill")
        if not Path("/sys").is_dir():
            pytest.skip("no folder that this user cannot write")
    answer = ask("run", "toy.toml", "--out", folder)
    assert answer.status == 1
    assert str(folder) in answer.err
    assert "choose another folder" in answer.err


def test_two_runs_in_one_folder_at_once_are_refused(finished: Path, ask: Ask) -> None:
    with storage.lock(finished):
        answer = ask("run", "toy.toml", "--out", finished)
    assert answer.status == 2
    assert f"process {os.getpid()}" in answer.err


def test_a_stale_run_is_refused_and_fresh_makes_it_anew(copied: Path, ask: Ask) -> None:
    changed = ("run", "toy.toml", "--out", copied, "--workers", "1", "--set", "training.steps=10")
    answer = ask(*changed)
    assert answer.status == 2
    assert "steps" in answer.err
    assert "--fresh" in answer.err
    assert ask(*changed, "--fresh").status == 0
    assert storage.read_json(copied / "models/alone/seed-0/network.json")["info"]["steps"] == 10


def test_a_failed_model_is_named_after_everything_else_is_written(ask: Ask) -> None:
    Path("bad.toml").write_text(
        TOY + '\n[models.wild]\nnetwork = "mlp:4"\ntraining = { optimizer = { name = "sgd", learning_rate = 1e30 } }\n'
    )
    answer = ask("run", "bad.toml", "--workers", "1", "--seeds", "1")
    assert answer.status == 1
    assert "failed: wild with seed 0 failed: The loss is not finite" in answer.err
    assert "taught" in answer.out
    assert Path("runs/bad/report.html").is_file()
    assert Results.model_validate(storage.read_json(Path("runs/bad/results.json"))).models["taught"].seeds == [0]


def test_what_nobody_expected_is_one_line_and_a_hint(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    from potstill.study.plan import Plan

    def broken() -> list[str]:
        raise RuntimeError("the roof is on fire")

    monkeypatch.setattr(Plan, "names", staticmethod(broken))
    answer = ask("plans", "--json")
    assert answer.status == 1
    assert answer.err.startswith("error: RuntimeError: the roof is on fire\n")
    assert "potstill --debug plans --json" in answer.err
    assert "Traceback" not in answer.err
    for arguments in (["--debug", "plans"], ["plans", "--debug"]):
        assert "Traceback" in ask(*arguments).err


def test_a_reader_who_leaves_is_no_error(tmp_path: Path) -> None:
    program = subprocess.Popen([*PROGRAM, "plans"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert program.stdout is not None
    program.stdout.close()
    _, err = program.communicate(timeout=60) if program.stderr is None else (b"", program.stderr.read())
    program.stderr.close() if program.stderr else None
    assert program.wait(60) == 1
    assert err == b""


# ---------------------------------------------------------------- interruption


def weights(folder: Path) -> dict[str, str]:
    files = sorted(folder.rglob("model.safetensors"))
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def under_way(folder: Path) -> bool:
    """Whether two workers are in the middle of a training."""
    steps = []
    for path in folder.glob(".running/*.json"):
        try:
            steps.append(int(json.loads(path.read_text())["step"]))
        except (OSError, ValueError):
            continue
    return sum(step > 0 for step in steps) == 2


def test_ctrl_c_saves_and_the_printed_command_continues(ask: Ask, tmp_path: Path) -> None:
    """As at a terminal: the signal goes to the workers too."""
    plan = TOY.replace("seeds = 2", "seeds = 1").replace("members = 2\n", "").replace("steps = 20", "steps = 20000")
    plan = plan.replace('teacher = "teacher"', 'teacher = "teacher"\ntraining = { steps = 20 }')
    (tmp_path / "toy.toml").write_text(plan)
    arguments = ["run", "toy.toml", "--workers", "2", "--set", "title=It's a toy", "--fresh", "--out", "with space"]
    program = subprocess.Popen(
        [*PROGRAM, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    folder = tmp_path / "with space"
    try:
        wait_until(lambda: under_way(folder))
        os.killpg(program.pid, signal.SIGINT)
        out, err = program.communicate(timeout=60)
    finally:
        if program.poll() is None:
            os.killpg(program.pid, signal.SIGKILL)
            program.communicate()  # or what it leaves open is a warning, and so an error, of a later test
    assert program.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert list(folder.glob("models/**/checkpoint.json"))
    assert not (folder / "results.json").exists()
    printed = shlex.split(err.rstrip().splitlines()[-1])
    assert printed == ["potstill", *(word for word in arguments if word != "--fresh")]
    continued = ask(*printed[1:])
    assert continued.status == 0, continued.err
    straight = ask("run", "toy.toml", "--workers", "1", "--out", "straight")
    assert straight.status == 0, straight.err
    assert weights(folder) == weights(tmp_path / "straight")
    assert len(weights(folder)) == 3


def test_an_interrupted_recording_continues(finished: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    from potstill.cli import models

    @contextmanager
    def soon() -> Iterator[Callable[[], bool]]:
        answers = iter([False, False])
        yield lambda: next(answers, True)

    arguments = ["record", finished / "models/teacher/seed-0", "digits", "--test", "300", "--validation", "100"]
    with monkeypatch.context() as patch:
        patch.setattr(models, "_stopping", soon)
        answer = ask(*arguments, "--out", "kept")
    assert answer.status == 130
    assert not Path("kept/manifest.json").exists()
    printed = shlex.split(answer.err.rstrip().splitlines()[-1])
    assert printed == ["potstill", *map(str, arguments), "--out", "kept"]
    assert ask(*printed[1:]).status == 0
    for shard in (finished / "outputs/teacher/plain/seed-0/train").glob("shard-*"):
        assert (Path("kept") / shard.name).read_bytes() == shard.read_bytes()


def test_ctrl_c_while_recording_asks_first_and_insists_then() -> None:
    from potstill.cli.models import _stopping

    before = signal.getsignal(signal.SIGINT)
    with _stopping() as should_stop:
        assert not should_stop()
        signal.raise_signal(signal.SIGINT)
        assert should_stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_ctrl_c_that_nobody_takes_ends_with_130(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    from potstill.cli import running

    def interrupted(*request: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "run", interrupted)
    answer = ask("run", "toy.toml", "--fresh")
    assert answer.status == 130
    assert answer.err.endswith("Continue with:\n  potstill run toy.toml\n")
    monkeypatch.setattr(running, "report", interrupted)
    answer = ask("report", "run")
    assert (answer.status, "Continue" in answer.err) == (130, False)


# ---------------------------------------------------------------- progress


def test_time_left_counts_what_is_half_done() -> None:
    meter = Meter()
    now = time.monotonic()
    meter.take(now - 10, Told("begin", "4 of 5 nodes to do", 20, 100, {"a": 20, "b": 20}))
    meter.take(now, Told("done", "models/a/seed-0", 40, 100))
    found = meter.read({})
    assert found.share == pytest.approx(0.4)
    assert found.elapsed == pytest.approx(10, abs=1)
    assert found.left == pytest.approx(60 / (20 / 10), rel=0.1)  # 20 units in 10 s, 60 remain
    found = meter.read({"b": 0.5, "unknown": 0.5})
    assert found.share == pytest.approx(0.5)
    assert found.left is None  # the clock of the speed starts with the first node that is seen to run
    meter.take(now, Told("evaluate", "6 models on validation and test data"))
    assert meter.read({}).stage == "6 models on validation and test data"
    meter.take(now, Told("latency", "6 models with 2 threads"))
    assert meter.quiet
    assert meter.read({}).stage == "latency of 6 models with 2 threads"


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_names_and_troubles(tmp_path: Path, terminal: bool) -> None:
    (tmp_path / ".running").mkdir()
    (tmp_path / ".running/x.json").write_text('{"folder": "models/a/seed-0", "step": 5, "total": 10}')
    (tmp_path / ".running/y.json").write_text('{"folder": "mod')
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=120)
    with Progress(tmp_path, console=console) as progress:
        progress(Told("begin", "2 of 2 nodes to do", 0, 100, {"models/a/seed-0": 50}))
        wait_until(lambda: "a/seed-0" in screen.getvalue(), 5)
        progress(Told("failed", "models/b/seed-0: Traceback\n  File x\nValueError: three", 50, 100))
        progress(Told("done", "models/a/seed-0", 100, 100))
    found = screen.getvalue()
    assert "25%" in found
    assert "failed: models/b/seed-0: ValueError: three" in found
    assert "2 done" in found
    assert ("\x1b[" in found) == terminal


def test_plain_lines_are_few() -> None:
    screen = io.StringIO()
    with Progress(console=Console(file=screen, force_terminal=False, width=120)) as progress:
        progress(Told("begin", "many", 0, 1000))
        for i in range(1000):
            progress(Told("done", f"models/{i}", i + 1, 1000))
        time.sleep(0.6)
    assert 1 <= len(screen.getvalue().splitlines()) <= 2
    assert "1000 done" in screen.getvalue()


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        (0.04, "0.04 s"),
        (9.6, "10 s"),
        (34.2, "34 s"),
        (95, "1 min 35 s"),
        (3599.6, "1 h 0 min"),
        (4000, "1 h 7 min"),
        (200_000, "2 d 8 h"),
    ],
)
def test_durations(seconds: float, wanted: str) -> None:
    assert text.duration(seconds) == wanted


def test_small_texts() -> None:
    assert brief("models/a/seed-0") == "models/a/seed-0"
    assert text.size(592_000) == "592 kB"
    assert text.plural(1, "seed") == "1 seed"
    assert text.table(["a", "bb"], [["ccc", "1"]], right={1}) == "a    bb\nccc   1"
