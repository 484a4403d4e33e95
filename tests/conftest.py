"""Shared fixtures: a cache of the tests' own, and real data sets where a machine has them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tests (and the processes they start) neither read nor fill the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("POTSTILL_CACHE")
    os.environ["POTSTILL_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["POTSTILL_CACHE"]
    else:
        os.environ["POTSTILL_CACHE"] = before


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with mnist/ and fashion-mnist/, whole or cut to a few pictures."""
    named = os.environ.get("POTSTILL_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data" / "small"
    if (folder / "mnist").is_dir() and (folder / "fashion-mnist").is_dir():
        return folder
    pytest.skip("no data sets: set POTSTILL_DATA to a folder that holds mnist/ and fashion-mnist/")
