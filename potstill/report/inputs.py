"""Read what the page is about: results.json and figures.json of a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from potstill.errors import RunError, StorageError
from potstill.storage import read_json
from potstill.study.plotted import Figures
from potstill.study.results import FORMAT, Results

M = TypeVar("M", bound=BaseModel)


def load(folder: Path) -> tuple[Results, Figures | None]:
    """The results of a run, and the arrays of its figures (None where figures.json does not exist).

    Raises `RunError` where the folder holds no results, or results of another format, and `StorageError` where a
    file is damaged.
    """
    path = folder / "results.json"
    if not path.is_file():
        found = "a folder without results.json" if folder.is_dir() else "no such folder"
        raise RunError(
            f"{folder} is not a finished run: found {found}, wanted the results.json that a run writes at its end. "
            "Name the folder of a run, or run the plan first."
        )
    results = _parse(path, Results)
    arrays = folder / "figures.json"
    return results, _parse(arrays, Figures) if arrays.is_file() else None


def _parse(path: Path, model: type[M]) -> M:
    value = read_json(path)
    found = value.get("format") if isinstance(value, dict) else None
    if isinstance(found, int) and found != FORMAT:
        raise RunError(
            f"{path} has format {found}; this version of potstill reads format {FORMAT}. "
            "Write the report with the version that made the run, or run the plan again."
        )
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "top level"
        more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise StorageError(
            f"{path} does not hold what a run writes: at {where}: {first['msg']}{more}. "
            "The file is damaged or was edited: run the same plan again, which writes it anew from what is complete."
        ) from error
