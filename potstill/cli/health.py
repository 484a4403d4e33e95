"""`doctor`: what this machine has, and what to mend."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import typer

from potstill.cli import text
from potstill.errors import PotstillError

_LITTLE_DISK = 2e9
_LITTLE_MEMORY = 2e9


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `mend` says what to do where it is not as it should be."""

    name: str
    found: str
    mend: str = ""


def doctor(data_folder: Path | None, *, as_json: bool) -> None:
    """Look at everything; exit status 1 if something has to be mended."""
    looks: list[Callable[[], list[Finding]]] = [
        _versions,
        _torch,
        _machine,
        _disk,
        _cache,
        lambda: _data(data_folder),
        _optional,
    ]
    findings = [finding for look in looks for finding in _looked(look)]
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=1, ensure_ascii=False))
    else:
        typer.echo(text.table(["", ""], [[finding.name, finding.found] for finding in findings]).lstrip("\n"))
        for finding in findings:
            if finding.mend:
                typer.echo(f"mend: {finding.name}: {finding.mend}")
    if any(finding.mend for finding in findings):
        raise typer.Exit(1)
    if not as_json:
        typer.echo("\nNothing to mend.")


def _looked(look: Callable[[], list[Finding]]) -> list[Finding]:
    """A doctor does not faint: whatever goes wrong is a finding."""
    try:
        return look()
    except Exception as error:
        name = getattr(look, "__name__", "look").strip("_")
        return [Finding(name, f"{type(error).__name__}: {error}", "install potstill anew")]


def _versions() -> list[Finding]:
    return [Finding("potstill", metadata.version("potstill")), Finding("python", platform.python_version())]


def _torch() -> list[Finding]:
    import torch

    from potstill.engine import Engine

    engine = Engine.pick().describe()
    speed = "twice as fast, at float32-level error" if engine["matmul"] == "medium" else "plain float32"
    return [
        Finding("torch", f"{torch.__version__}, {engine['cpu']}"),
        Finding("device", str(engine["device"])),
        Finding("threads", f"{engine['threads']} (a study uses one per worker)"),
        Finding("matrix products", f"{engine['matmul']}: {speed}"),
    ]


def _machine() -> list[Finding]:
    from joblib import cpu_count

    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    mend = f"{text.size(total)} is little: use --workers 1" if total < _LITTLE_MEMORY else ""
    return [
        Finding("system", f"{platform.system()} {platform.machine()}"),
        Finding("cores", f"{cpu_count()}"),
        Finding("memory", text.size(total), mend),
    ]


def _disk() -> list[Finding]:
    free = shutil.disk_usage(".").free
    mend = "free some space, or run elsewhere: --out" if free < _LITTLE_DISK else ""
    return [Finding("disk", f"{text.size(free)} free here", mend)]


def _cache() -> list[Finding]:
    from potstill import storage

    folder = storage.cache_folder()
    try:
        storage.make_folder(folder)
        with storage.explained(folder), tempfile.TemporaryFile(dir=folder):
            pass
    except PotstillError as error:
        return [Finding("cache", str(folder), f"{error} Or set $POTSTILL_CACHE to a folder that can be written.")]
    return [Finding("cache", f"{folder}, writable")]


def _data(folder: Path | None) -> list[Finding]:
    """The data folder, and which of the known data sets are there."""
    from potstill import data
    from potstill.data.named import locate

    chosen = folder or os.environ.get("POTSTILL_DATA")
    mend = (
        f"{chosen} is no folder; give another --data or $POTSTILL_DATA" if chosen and not Path(chosen).is_dir() else ""
    )
    findings = [Finding("data folder", str(chosen or "none (--data, or $POTSTILL_DATA)"), mend)]
    for name in data.names():
        try:
            locate(name, folder)
            findings.append(Finding(name, "found"))
        except PotstillError:
            findings.append(Finding(name, "not there"))
    return findings


def _optional() -> list[Finding]:
    """The libraries of the extras (`pip install 'potstill[NAME]'`); those for developers are left out."""
    found = []
    for line in metadata.requires("potstill") or ():
        matched = re.match(r"""([\w.-]+).*\bextra\s*==\s*['"]([\w-]+)""", line)
        if matched and matched[2] != "dev":
            there = "installed" if _installed(matched[1]) else f"not installed: pip install 'potstill[{matched[2]}]'"
            found.append(Finding(matched[1], f"optional, {there}"))
    return found or [Finding("optional libraries", "none in this version")]


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
