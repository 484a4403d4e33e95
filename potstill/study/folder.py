"""The folder of a run: what is complete, what is stale, how often the test set was read."""

from __future__ import annotations

import json
import platform
import re
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from potstill import storage
from potstill.data.parts import TEST
from potstill.errors import RunError
from potstill.study.answers import manifests_of
from potstill.study.plan import Plan
from potstill.study.results import TestReads
from potstill.study.tree import Family, Node, Tree, data_table
from potstill.study.worker import RUNNING, STOP, evaluated_models
from potstill.training.checkpoint import first_difference

PLAN = "plan.toml"
READS = "test_reads.jsonl"
FREQUENCIES = "prediction_frequencies.csv"
UNCERTAINTY = "uncertainty.csv"
ERRORS = "errors.csv"
_HASH = re.compile(r"[0-9a-f]{64}")
_MADE = ("models", "outputs", "tune")


def prepare(root: Path, plan: Plan, *, fresh: bool) -> None:
    """Make the folder, or check that it is this plan's. `fresh` deletes what was made before - not its test reads.

    Nothing is deleted from a folder that is not known to be a run's: `--out .` may name a user's project.
    """
    storage.make_folder(root)
    path = root / PLAN
    if not path.is_file():
        foreign = next((found for name in _MADE for found in (root / name).glob("*")), None)
        if foreign is not None:
            raise RunError(f"{root} holds {foreign} but no {PLAN}: it is not a run folder. Choose another --out.")
    elif fresh:
        _forget(root, plan)
    else:
        before = Plan.load(path)
        if not set(before.order()) & set(plan.order()):
            raise RunError(
                f'{root} is the run folder of another plan, "{before.title}": no model has the same name. '
                "Choose another --out, or start anew with --fresh."
            )
    (root / STOP).unlink(missing_ok=True)
    shutil.rmtree(root / RUNNING, ignore_errors=True)
    with storage.explained(root):
        probe = root / ".probe"
        probe.write_text("")
        probe.unlink()


def keep_plan(root: Path, plan: Plan) -> None:
    """The plan, for whoever runs or reads this folder next; written once nothing in the folder contradicts it."""
    storage.write_text(root / PLAN, plan.to_toml())


def _forget(root: Path, plan: Plan) -> None:
    """Delete what runs made in a folder, but not the arrays that this plan reads, nor the test reads."""
    for name in _MADE:
        shutil.rmtree(root / name, ignore_errors=True)
    for name in (PLAN, "results.json", "figures.json", "report.html", FREQUENCIES, UNCERTAINTY, ERRORS):
        (root / name).unlink(missing_ok=True)
    named = storage.canonical(data_table(plan))
    for saved in (root / "data").glob("arrays-*.npz"):
        if saved.name not in named:
            saved.unlink()


def is_complete(root: Path, node: Node) -> bool:
    """Whether a node is done. Raises `RunError` if it was done with other settings, naming the key and both values."""
    path = root / node.folder / "result.json"
    if not path.is_file():
        return False
    found = storage.read_json(path)
    difference = first_difference(found["settings"], storage.plain(node.settings))
    if difference:
        key, before, now = difference
        what = f"settings: {key} was {_short(before)} and is now {_short(now)}"
        if all(isinstance(value, str) and _HASH.fullmatch(value) for value in (before, now)):
            what = f"content of {key} (fingerprint {before[:12]}, now {now[:12]})"
        raise RunError(
            f"{root / node.folder} was made with other {what}. Run with --fresh to start anew, or choose another --out."
        )
    if node.kind == "train" and found["manifests"] != manifests_of(root, node) and _recorded(root, node):
        raise RunError(
            f"{root / node.folder} learned from recorded outputs that have changed since (their manifest differs). "
            "Run with --fresh to start anew, or choose another --out."
        )
    if node.kind == "record" and _differ(root, found.get("models"), list(node.work["models"])):
        raise RunError(
            f"{root / node.folder} was recorded from other weights than its teacher has now. "
            "Delete that folder and the students' that learned from it, or run with --fresh to start anew."
        )
    return True


def _differ(root: Path, before: list[str] | None, folders: list[str]) -> bool:
    """Whether the teachers of a recording were trained anew since; one that is gone is no difference."""
    there = all((root / folder / "network.json").is_file() for folder in folders)
    return there and before != evaluated_models(root, folders)


def _recorded(root: Path, node: Node) -> bool:
    """Whether all recordings that a student needs are there; a deleted one is no mismatch."""
    return all((root / need / "result.json").is_file() for need in node.needs)


def _short(value: Any) -> str:
    text = "not set" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def missing(root: Path, tree: Tree) -> list[Node]:
    """Nodes still to do. A recording that nothing missing needs is not made again."""
    undone = {folder: node for folder, node in tree.nodes.items() if not is_complete(root, node)}
    wanted = {need for node in undone.values() for need in node.needs}
    return [node for folder, node in undone.items() if node.kind == "train" or folder in wanted]


def units(root: Path, tree: Tree) -> dict[str, tuple[Family, int, list[str]]]:
    """Units whose trainings are all complete: folder -> (family, seed, folders of the members)."""
    found = {}
    for family in tree.families.values():
        for seed, unit in family.units.items():
            folders = list(family.trainings[seed])
            if folders and unit not in found and all((root / f / "result.json").is_file() for f in folders):
                found[unit] = (family, seed, folders)
    return found


def check_test_examples(root: Path, tree: Tree) -> None:
    """Raises `RunError` where models were evaluated on different test examples: the test data changed in between."""
    first: dict[str, tuple[str, str]] = {}  # data and draw -> (unit, fingerprint of its test examples)
    for unit, (family, seed, _) in units(root, tree).items():
        found = storage.read_json(root / unit / "evaluation.json").get("test")
        table = {**data_table(family.plan), "labelled": None}
        data = storage.canonical(storage.plain([table, seed if table.get("redraw") else None]))
        if found is None:
            continue  # written before this was noted
        before, wanted = first.setdefault(data, (unit, found))
        if found != wanted:
            raise RunError(
                f"{root / unit} was evaluated on other test examples than {root / before}: the test data has changed "
                "since. Run with --fresh to start anew, or choose another --out."
            )


def note_read(root: Path, plan: Plan, seeds: list[int], units_read: Mapping[str, int]) -> None:
    """One line in `test_reads.jsonl`, before test sets are opened: on each so many models and seeds are evaluated."""
    line = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "plan": plan_fingerprint(plan),
        "seeds": seeds,
        "models": max(units_read.values()),
        "tests": dict(units_read),
    }
    storage.append_line(root / READS, storage.canonical(line))


def plan_fingerprint(plan: Plan) -> str:
    """Hash of all that decides the models (not of seeds, verdict, title)."""
    decides: list[Any] = [data_table(plan), {m: plan.resolved(m).to_dict() for m in plan.order()}]
    sweep = [point.settings for point in plan.points() if point.settings]
    return storage.fingerprint(storage.plain([*decides, sweep] if sweep else decides))


def test_reads(root: Path, plan: Plan) -> TestReads:
    """How often test sets were read in this folder, by how many plans, and how many looks that makes.

    A look is a plan with its seeds: reading again for the same ones (after an interruption) shows nothing new. `plan`
    is the present one: some of the seeds or models that were read before, chosen afterwards, are another look.
    """
    path = root / READS
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    lines = []
    for line in text.splitlines():
        with suppress(ValueError):  # a line that a crash tore
            lines.append(json.loads(line))
    looks = {(line["plan"], tuple(line["seeds"])) for line in lines}
    if looks:
        looks.add((plan_fingerprint(plan), tuple(plan.seed_list)))
    each = Counter(name for line in lines for name in line.get("tests", (TEST,)))
    sets = {name: each[name] for name in dict.fromkeys((*plan.data.test_names, *each)) if name in each}
    return TestReads(count=len(lines), plans=len({line["plan"] for line in lines}), looks=len(looks), sets=sets)


def environment(workers: int, engine: Mapping[str, Any]) -> dict[str, Any]:
    """Versions and machine, without its name."""
    names = ("torch", "numpy", "scipy", "scikit-learn", "safetensors", "joblib")
    return {
        "potstill": metadata.version("potstill"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": _cores(),
        "workers": workers,
        "libraries": {name: metadata.version(name) for name in names},
        "engine": dict(engine),
    }


def machine() -> str:
    """What times depend on, in words."""
    return f"{_cpu()}, {_cores()} core{'s' if _cores() > 1 else ''}, torch {metadata.version('torch')}"


def _cpu() -> str:
    """The processor's name where the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")


def _cores() -> int:
    from joblib import cpu_count

    return int(cpu_count())
