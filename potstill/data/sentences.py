"""Frozen sentence embeddings: what a pre-trained transformer makes of a text, once, kept in the cache (extra `hub`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray

from potstill import storage
from potstill.data import text
from potstill.data.fitted import Fitted
from potstill.data.parts import Part
from potstill.errors import DataError, MissingExtraError

_FILES: Final = ("*.json", "*.txt", "*.model", "model.safetensors")
_BATCH: Final = 64


@dataclass(frozen=True)
class Embedding:
    """The mean of a transformer's last hidden states over a text's tokens, of which `length` at most are read.

    `model`: a folder in the layout of transformers, or a name on the Hugging Face hub. Only safetensors are read.
    """

    kind: ClassVar[str] = "embedding"
    column: str
    model: str
    length: int
    mask: bool

    def fit(self, part: Part, rows: NDArray[np.int64]) -> Fitted:  # noqa: ARG002 - it is frozen
        """Nothing is fitted; the files of the model are part of the recipe by their hash."""
        text.at_least(self.kind, length=self.length)
        folder = _folder(self.model)
        width = int(_library().AutoConfig.from_pretrained(folder).hidden_size)
        recipe = {"kind": self.kind, **asdict(self), "width": width, "sha256": _hash(folder)}
        return embedded({**recipe, **text.layout_of(part, self.column)})


def embedded(recipe: Mapping[str, Any]) -> Fitted:
    """By its recipe. Pooled as in Reimers and Gurevych 2019, "Sentence-BERT", section 3: the mean strategy."""

    def make(texts: Sequence[str]) -> text.Arrays:
        folder = _folder(recipe["model"])
        if _hash(folder) != recipe["sha256"]:
            raise DataError(
                f"{folder} holds another model than the one by which the training texts were embedded. Give that one."
            )
        masked = [text.masked(one) if recipe["mask"] else one for one in texts]
        return {"rows": _embed(masked, folder, recipe["length"], recipe["width"])}

    return text.fitted(recipe, (recipe["width"],), make)


def _embed(texts: Sequence[str], folder: Path, length: int, width: int) -> NDArray[np.float32]:
    """(n, width), texts of like length together."""
    library = _library()
    tokenizer = library.AutoTokenizer.from_pretrained(folder)
    model = library.AutoModel.from_pretrained(folder, use_safetensors=True).eval()
    out = np.zeros((len(texts), width), np.float32)
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    with torch.inference_mode():
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            told = tokenizer(
                [texts[row] for row in rows], padding=True, truncation=True, max_length=length, return_tensors="pt"
            )
            states = model(**told).last_hidden_state.float()
            real = told["attention_mask"].unsqueeze(2).float()
            out[rows] = ((states * real).sum(1) / real.sum(1).clamp_min(1)).numpy()
    return out


def _library() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("Sentence embeddings need transformers: pip install 'potstill[hub]'.") from error
    return transformers


def _folder(model: str) -> Path:
    """Where the model's files are; those of a hub are fetched unless they have been before."""
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    _library()
    from huggingface_hub import snapshot_download

    found: Exception | None = None
    for only_here in (True, False):  # one study, one version: what is here already is not looked up anew
        try:
            return Path(snapshot_download(model, allow_patterns=list(_FILES), local_files_only=only_here))
        except (OSError, ValueError) as error:
            found = error
    told = str(found).strip().splitlines()[0]
    raise DataError(
        f'model = "{model}" is neither a folder nor to be had on the Hugging Face hub ({told}). Check the name and the '
        "connection, or give a folder with config.json, model.safetensors and the tokenizer's files."
    ) from found


def _hash(folder: Path) -> str:
    """Of the files that decide the embeddings."""
    files = sorted({path for pattern in _FILES for path in folder.glob(pattern)})
    if folder / "model.safetensors" not in files:
        raise DataError(f"{folder} holds no model.safetensors; other files of weights are not read.")
    return storage.fingerprint({path.name: storage.sha256_file(path) for path in files})
