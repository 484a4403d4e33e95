"""Whether what a run has on disk is what it wrote: every hash that a run folder holds, checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from potstill import storage
from potstill.errors import OutputsError, PlanError, RunError, StorageError
from potstill.outputs.manifest import JOURNAL, MANIFEST, read_manifest
from potstill.study.folder import PLAN
from potstill.study.plan import Plan
from potstill.study.plotted import Figures
from potstill.study.results import Results


@dataclass(frozen=True, slots=True)
class Damage:
    """One file that is not what was written, and how to mend it."""

    file: str
    fault: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What was checked: how many files have their recorded hash, and which do not."""

    folder: str
    files: int
    damaged: tuple[Damage, ...]
    unfinished: int


def verify(root: Path) -> Verified:
    """Check a run folder: weights, checkpoints, predictions, recorded outputs, settings, saved data, results.

    What was never finished (no result.json) is counted, not blamed. Raises `RunError` if `root` is not a run folder.
    """
    if not (root / PLAN).is_file():
        raise RunError(f"{root} is not a run folder: it has no {PLAN}. Wanted is a folder such as runs/demo.")
    found = _Findings(root)
    for check in (_plan, _models, _recorded, _arrays, _results):
        check(found)
    return Verified(str(root), found.files, tuple(found.damaged), found.unfinished)


class _Findings:
    """Counts files, collects damage; a file is blamed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = 0
        self.unfinished = 0
        self.damaged: list[Damage] = []

    def blame(self, path: Path, fault: str) -> None:
        name = str(path.relative_to(self.root))
        if name not in {damage.file for damage in self.damaged}:
            self.damaged.append(Damage(name, fault))

    def json(self, path: Path, keys: Mapping[str, type]) -> dict[str, Any] | None:
        """A JSON table with these keys; None if it is damaged (and blamed)."""
        self.files += 1
        try:
            value = storage.read_json(path)
        except StorageError:
            self.blame(path, "not valid JSON")
            return None
        except UnicodeDecodeError:
            self.blame(path, "not a text")
            return None
        for key, kind in keys.items():
            if not isinstance(value, dict) or not isinstance(value.get(key), kind):
                self.blame(path, f'has no "{key}"')
                return None
        return dict(value)

    def hashed(self, path: Path, wanted: str) -> None:
        """A file with its recorded sha256 (or the beginning of it)."""
        self.files += 1
        if not path.is_file():
            self.blame(path, "missing")
        elif not storage.sha256_file(path).startswith(wanted):
            self.blame(path, "its sha256 is not the recorded one")

    def below(self, folder: str, name: str) -> Iterator[Path]:
        yield from sorted((self.root / folder).rglob(name))


def _plan(found: _Findings) -> None:
    found.files += 1
    try:
        Plan.load(found.root / PLAN)
    except PlanError as error:
        found.blame(found.root / PLAN, str(error))


def _models(found: _Findings) -> None:
    for path in _in_models(found, "result.json"):
        _fingerprint(found, path)
        for name in ("network.json", "history.jsonl"):
            if not (path.parent / name).is_file():
                found.blame(path.parent / name, "missing")
    for path in _in_models(found, "network.json"):
        described = found.json(path, {"network": object, "weights_sha256": str})
        if described:
            found.hashed(path.parent / "model.safetensors", described["weights_sha256"])
            if "recipe_sha256" in described:
                found.hashed(path.parent / "recipe.json", described["recipe_sha256"])
    for path in _in_models(found, "posterior.json"):
        described = found.json(path, {"layout": dict, "sha256": str})
        if described:
            found.hashed(path.parent / "posterior.safetensors", described["sha256"])
    for path in _in_models(found, "history.jsonl"):
        found.files += 1
        try:
            for line in path.read_text(encoding="utf-8").splitlines():
                json.loads(line)
        except ValueError:
            found.blame(path, "not valid JSON lines")
    for path in _in_models(found, "evaluation.json"):
        evaluation = found.json(path, {"sha256": dict, "models": list})
        for name, wanted in (evaluation or {"sha256": {}})["sha256"].items():
            found.hashed(path.parent / "predictions" / f"{name}.safetensors", wanted)
    for path in _in_models(found, "checkpoint.json"):
        found.unfinished += 1
        kept = found.json(path, {"tensors": str, "sha256": str})
        if kept:
            found.hashed(path.parent / kept["tensors"], kept["sha256"])


def _in_models(found: _Findings, name: str) -> Iterator[Path]:
    """Files of the report's models and of the trials'."""
    yield from found.below("models", name)
    yield from found.below("tune", name)


def _fingerprint(found: _Findings, path: Path) -> dict[str, Any] | None:
    """A node's result.json: its fingerprint is that of the settings it carries."""
    result = found.json(path, {"settings": dict, "fingerprint": str, "manifests": list})
    if result and storage.fingerprint(result["settings"]) != result["fingerprint"]:
        found.blame(path, "its fingerprint is not that of its settings")
    return result


def _recorded(found: _Findings) -> None:
    for path in found.below("outputs", "result.json"):
        result = _fingerprint(found, path)
        manifests = sorted(path.parent.glob(f"*/{MANIFEST}"))
        if result and len(result["manifests"]) != len(manifests):
            found.blame(path, f"tells of {len(result['manifests'])} recordings, there are {len(manifests)}")
        elif result:
            for manifest, wanted in zip(manifests, result["manifests"], strict=True):
                found.hashed(manifest, wanted)
    for path in found.below("outputs", MANIFEST):
        _shards(found, path.parent)
    found.unfinished += sum(not (path.parent / MANIFEST).exists() for path in found.below("outputs", JOURNAL))


def _shards(found: _Findings, folder: Path) -> None:
    """Every shard of one recording, so that all damaged ones are named."""
    found.files += 1
    try:
        shards = read_manifest(folder).shards
    except (OutputsError, StorageError, UnicodeDecodeError) as error:
        found.blame(folder / MANIFEST, str(error))
        return
    for shard in shards:
        found.hashed(folder / shard.file, shard.sha256)


def _arrays(found: _Findings) -> None:
    for path in found.below("data", "arrays-*.npz"):
        found.hashed(path, path.stem.removeprefix("arrays-"))


def _results(found: _Findings) -> None:
    models: tuple[tuple[str, type[BaseModel]], ...] = (("results.json", Results), ("figures.json", Figures))
    for name, model in models:
        path = found.root / name
        if path.is_file():
            _parsed(found, path, model.model_validate)


def _parsed(found: _Findings, path: Path, parse: Callable[[Any], object]) -> None:
    value = found.json(path, {"format": int})
    if value is not None:
        try:
            parse(value)
        except ValidationError as error:
            first = error.errors()[0]
            found.blame(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
