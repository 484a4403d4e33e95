"""What a folder of recorded outputs holds. Written last: a folder with a manifest is complete.

`Header` is all that decides the bytes of the shards; it is known before the first of them, and `Shard` lists follow
from it. An interrupted recording leaves its header and the shards finished so far in `recording.jsonl`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from potstill import storage
from potstill.errors import OutputsError
from potstill.outputs.soften import number
from potstill.types import DataSpec, Kind, Source, Teacher

FORMAT = 1
MANIFEST = "manifest.json"
JOURNAL = "recording.jsonl"

Dtype = Literal["float32", "float16"]
_Model = TypeVar("_Model", bound=BaseModel)


class Header(BaseModel):
    """Everything that decides the bytes of a recording, and so the fields that are compared before it is used.

    The answers are (rows, members, outputs) per view, in shards of `shard_batches` batches of `batch_size` rows.
    `teacher`, `source` are fingerprints; `preprocessing`, `augmentation` canonical texts (the latter is empty when only
    the plain view 0 is recorded). `sees`: the name of the input that the teacher was given, empty where it has none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    kind: Kind
    rows: int = Field(ge=1)
    members: int = Field(ge=1)
    outputs: int = Field(ge=1)
    dtype: Dtype
    views: tuple[int, ...] = Field(min_length=1)
    top_k: int | None = Field(ge=1)
    classes: tuple[str, ...] | None
    teacher: str
    source: str
    preprocessing: str
    augmentation: str
    batch_size: int = Field(ge=1)
    shard_batches: int = Field(ge=1)
    sees: str = ""

    @model_serializer(mode="wrap")
    def _short(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Nothing is told of an input without a name."""
        told: dict[str, Any] = whole(self)
        return {key: value for key, value in told.items() if value or key != "sees"}

    @property
    def number(self) -> int:
        """Number of classes K: two where one output stands for a binary task; or of targets D."""
        return number(self.outputs, self.kind)

    @property
    def kept(self) -> int | None:
        """How many classes per row are kept, None for all of them as they are."""
        return None if self.top_k is None else min(self.top_k, self.number)

    @property
    def shard_rows(self) -> int:
        """Rows of a full shard."""
        return self.batch_size * self.shard_batches

    def pieces(self) -> Iterator[tuple[str, int, int, int]]:
        """File, view, first row and rows of every shard, in order."""
        number = 0
        for view in self.views:
            for start in range(0, self.rows, self.shard_rows):
                yield f"shard-{number:05d}.safetensors", view, start, min(self.shard_rows, self.rows - start)
                number += 1


class Shard(BaseModel):
    """One file: the answers of view `view` for the rows start .. start + rows - 1; its size in bytes and its hash."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(pattern=r"^(shard-\d+|partial-\d+-\d+-\d+)\.safetensors$")  # never a path out of the folder
    view: int
    start: int
    rows: int
    bytes: int
    sha256: str


class Manifest(BaseModel):
    """The whole of manifest.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    header: Header
    shards: tuple[Shard, ...]

    def fingerprint(self) -> str:
        """Hash of the manifest, and through it of every answer."""
        return storage.fingerprint(self.model_dump(mode="json"))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder. Raises `OutputsError`: none there, of another format, or damaged."""
    path = folder / MANIFEST
    if not path.is_file():
        if (folder / JOURNAL).is_file():
            raise OutputsError(f"The recording in {folder} was interrupted. Record again into it: it continues.")
        raise OutputsError(f"{folder} holds no recorded outputs: there is no {MANIFEST}. Record them first.")
    manifest = parse(Manifest, storage.read_json(path), path)
    found = [(s.file, s.view, s.start, s.rows) for s in manifest.shards]
    if found != list(manifest.header.pieces()):
        raise OutputsError(f"{path} is damaged: its shards are not those of its header. Delete {folder}, record again.")
    return manifest


def parse(model: type[_Model], value: Any, path: Path) -> _Model:
    """A pydantic model from JSON. Raises `OutputsError` for another format version or a damaged file."""
    header = value.get("header", value) if isinstance(value, dict) else None
    version = header.get("format", FORMAT) if isinstance(header, dict) else FORMAT
    if version != FORMAT:
        raise OutputsError(
            f"{path} has format = {version}; this version of potstill reads format {FORMAT}. "
            "Install the version that wrote it, or record again into another folder.",
            field="format",
        )
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise OutputsError(f"{path} is damaged: {where}: {first['msg']}. Delete the folder and record again.") from None


def compare(header: Header, wanted: Mapping[str, Any], folder: Path) -> None:
    """Raises `OutputsError` naming the first field of `wanted` that differs from the header, and both values."""
    for name, value in wanted.items():
        found = getattr(header, name)
        if found != value:
            raise OutputsError(
                f"{folder} holds other recorded outputs: {name} is {_text(found)} there, {_text(value)} is wanted. "
                "Choose another folder, or delete this one and record again.",
                field=name,
            )


def _text(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def of_teacher(teacher: Teacher) -> dict[str, Any]:
    """The header's fields that a teacher decides."""
    classes = teacher.classes
    return {
        "teacher": teacher.fingerprint(),
        "kind": teacher.kind,
        "classes": None if classes is None else tuple(classes),
    }


def prepared(spec: DataSpec) -> dict[str, Any]:
    """What happens to raw material before a network sees it, as JSON; a recipe by its hash."""
    found: dict[str, Any] = storage.plain(spec.preprocessing)
    return found | ({"recipe": storage.fingerprint(storage.plain(spec.recipe))} if spec.recipe else {})


def of_source(source: Source, views: tuple[int, ...]) -> dict[str, Any]:
    """The header's fields that a source decides, when these views of it are recorded."""
    return {
        "rows": len(source),
        "source": source.fingerprint(),
        "preprocessing": storage.canonical(prepared(source.spec)),
        "augmentation": source.augmentation if any(views) else "",
        "sees": source.spec.sees,
    }
