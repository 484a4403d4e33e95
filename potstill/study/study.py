"""A study: a plan, the folder of its run, and the data it reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill import storage
from potstill.errors import RunError, SettingError
from potstill.study.plan import Plan
from potstill.study.results import Results


def _silent(event: object) -> None:
    """The listener of who does not listen."""


@dataclass(frozen=True)
class Study:
    """What `potstill run` runs. `folder` holds everything it makes; `data` is the user's data folder (`--data`)."""

    plan: Plan
    folder: Path
    data: str | None = None

    @staticmethod
    def open(
        plan: str | Path | Plan | Mapping[str, Any],
        *,
        folder: str | Path | None = None,
        data: str | Path | None = None,
        seeds: int | None = None,
        settings: Iterable[str] = (),
    ) -> Study:
        """A study from a plan's name, a .toml file, a plan, or the tables of one.

        `folder` defaults to `runs/NAME`. `seeds` and `settings` ("training.epochs=3") change the plan. A plan made in
        Python may hold arrays as `data.source` or as a named test set: (inputs, labels), or what `data.open` takes;
        they are saved in the folder, from where the workers read them.
        """
        arrays: dict[str, Any] = {}
        if isinstance(plan, Mapping):
            plan, arrays = _without_arrays(plan)
        found = (
            plan if isinstance(plan, Plan) else Plan.from_dict(plan) if isinstance(plan, Mapping) else Plan.load(plan)
        )
        where = Path(folder) if folder is not None else Path("runs") / found.name
        saved = {key: _save_arrays(one, where) for key, one in arrays.items()}
        found = found.with_settings([f"{key}={str(path)!r}" for key, path in saved.items()])
        found = found.with_settings(list(settings))
        if seeds is not None:
            found = found.with_seeds(seeds)
        return Study(found, where, str(data) if data is not None else None)

    def run(self, *, workers: int | None = None, fresh: bool = False, listener: Any = _silent) -> Results:
        """Run what is missing; see `study.run.run` for what it raises. `workers` defaults to the number of cores."""
        from potstill.study import run

        return run.run(self.job(workers, listener), fresh=fresh)

    def job(self, workers: int | None = None, listener: Any = _silent) -> Any:
        """What `study.run` and `study.rehearse` take."""
        from joblib import cpu_count

        from potstill.study.job import Job

        if workers is not None and workers < 1:
            raise SettingError(f"workers is {workers}; wanted is a whole number of at least 1.")
        return Job(self.plan, self.folder, self.data, workers or int(cpu_count()), listener)

    def results(self) -> Results:
        """What an earlier run found."""
        path = self.folder / "results.json"
        if not path.is_file():
            raise RunError(f"{self.folder} has no results.json: run the study first (potstill run).")
        return Results.model_validate(storage.read_json(path))


def _without_arrays(plan: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """A plan's tables with arrays in `data.source` and in test sets put aside, by their keys."""
    data = plan.get("data", {})
    if not isinstance(data, Mapping):
        return plan, {}
    whole, found, source, sets = dict(data), dict[str, Any](), data.get("source"), data.get("test")
    if not (source is None or isinstance(source, str) or (isinstance(source, Mapping) and "name" in source)):
        whole["source"], found["data.source"] = "digits", source
    if isinstance(sets, Mapping):
        whole["test"] = {name: _file(value, f"data.test.{name}", found) for name, value in sets.items()}
    return {**plan, "data": whole}, found


def _file(value: Any, key: str, found: dict[str, Any]) -> Any:
    """A test set with its arrays, if it holds any, put into `found`."""
    table = value if isinstance(value, Mapping) and {"file", "own", "drop"} & set(value) else {"file": value}
    if value is True or isinstance(table.get("file"), str | None):
        return value
    found[f"{key}.file"] = table["file"]
    return {**table, "file": "arrays.npz"}


def _save_arrays(arrays: Any, folder: Path) -> Path:
    """Arrays from Python as one .npz in the run folder, named by its content."""
    import hashlib
    import io

    import numpy as np

    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **_named(arrays))
    path = folder / "data" / f"arrays-{hashlib.sha256(content.getvalue()).hexdigest()[:12]}.npz"
    if not path.is_file():
        storage.write_bytes(path, content.getvalue())
    return path.resolve()


def _named(arrays: Any) -> dict[str, Any]:
    """(inputs, labels), or a mapping of split to that, as the names that `data.open` reads in an .npz file."""
    import numpy as np

    from potstill.data.arrays import flat

    return {
        key: np.asarray(value) for key, value in flat(arrays if isinstance(arrays, Mapping) else tuple(arrays)).items()
    }
