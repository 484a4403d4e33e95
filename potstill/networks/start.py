"""Starting weights: of a saved model, or of a ResNet in the layout of the Hugging Face library transformers.

Only safetensors files are read: a pickle can run code (decision 8).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from potstill import storage
from potstill.errors import MissingExtraError, NetworkError

HUB = "hub:"
_FILE = "model.safetensors"
_SHOWN = 4  # names in a message

# Names of transformers' `ResNetModel` and `ResNetForImageClassification`, and ours. They count from 0.
_NAMES = (
    (r"embedder\.embedder\.(convolution|normalization)", "stem.{0}"),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.(convolution|normalization)", "stage{0}.block{1}.shortcut.{2}"),
    (
        r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.(convolution|normalization)",
        "stage{0}.block{1}.body.{3}{2}",
    ),
    (r"classifier\.1", "head"),
)
_PARTS = {"convolution": "conv", "normalization": "norm"}
# What a config.json there may say that cannot be seen in the weights, and what our networks compute.
_COMPUTED = {"hidden_act": "relu", "downsample_in_first_stage": False, "downsample_in_bottleneck": False}


class Start(NamedTuple):
    """Where a training starts: sha256 of the file (or of the tensors given), and the parameters that keep their own
    initial weights."""

    sha256: str
    new: tuple[str, ...]


def start_from(network: nn.Module, weights: str | Path | Mapping[str, Tensor]) -> Start:
    """Fill a network with weights (`weights` in a plan): a folder with model.safetensors, such a file, or "hub:NAME".

    Tensors by name are taken as those of a saved model.
    The head keeps its initial weights where the file has one for another number of outputs, or, in the layout of
    transformers, none. Everything else must be there, with the same name and shape. Raises `NetworkError` otherwise,
    `MissingExtraError` for a hub's name without huggingface_hub.
    """
    if isinstance(weights, Mapping):
        path, tensors = Path("tensors"), dict(weights)
    else:
        path = locate(weights)
        tensors = storage.read_tensors(path)
    foreign = any(name.startswith(("embedder.", "resnet.embedder.")) for name in tensors)
    if foreign:
        _check_config(path.parent / "config.json", network)
        tensors = {_ours(name): tensor for name, tensor in tensors.items()}
    wanted = network.state_dict()
    new = [name for name in wanted if _is_new(name, wanted, tensors, foreign=foreign)]
    tensors = {name: tensor for name, tensor in tensors.items() if name not in new}
    kept = {name: tensor for name, tensor in wanted.items() if name not in new}
    _refuse(kept, tensors, path)
    network.load_state_dict(tensors, strict=False)
    return Start(_sha256(weights) if isinstance(weights, Mapping) else storage.sha256_file(path), tuple(new))


def _sha256(tensors: Mapping[str, Tensor]) -> str:
    return storage.fingerprint({name: storage.tensor_sha256(tensor) for name, tensor in tensors.items()})


def locate(weights: str | Path) -> Path:
    """The safetensors file of starting weights; those of a hub are fetched unless they have been before."""
    if str(weights).startswith(HUB):
        return _from_hub(str(weights).removeprefix(HUB))
    path = Path(weights)
    file = path / _FILE if path.is_dir() else path
    if not file.is_file():
        raise NetworkError(
            f"weights: {weights} holds no {_FILE}. Give the folder of a saved model, a safetensors file, "
            f'or a name on the Hugging Face hub such as "{HUB}microsoft/resnet-50".'
        )
    return file


def _from_hub(name: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise MissingExtraError(
            f'"{HUB}{name}" needs huggingface_hub: pip install "potstill[hub]", or give a folder with {_FILE}.'
        ) from error
    found: Exception | None = None
    for only_here in (True, False):  # one study, one version: what is here already is not looked up anew
        try:
            hf_hub_download(name, "config.json", local_files_only=only_here)
            return Path(hf_hub_download(name, _FILE, local_files_only=only_here))
        except (OSError, ValueError) as error:
            found = error
    raise NetworkError(
        f'"{HUB}{name}" cannot be had ({str(found).strip().splitlines()[0]}). Check the name and the connection, or '
        f"download its config.json and {_FILE} elsewhere and give their folder. Other files are not read."
    ) from found


def _ours(name: str) -> str:
    """Our name of a parameter of transformers' ResNet; the same name where there is none.

    >>> _ours("resnet.encoder.stages.0.layers.1.layer.2.normalization.weight")
    'stage1.block2.body.norm3.weight'
    """
    stem, _, last = name.removeprefix("resnet.").rpartition(".")
    for pattern, ours in _NAMES:
        found = re.fullmatch(pattern, stem)
        if found:
            parts = [_PARTS.get(part) or str(int(part) + 1) for part in found.groups()]
            return f"{ours.format(*parts)}.{last}"
    return name


def _check_config(path: Path, network: nn.Module) -> None:
    described: Any = storage.read_json(path) if path.is_file() else {}
    for key, ours in _COMPUTED.items():
        found = described.get(key, ours) if isinstance(described, dict) else None
        if key == "downsample_in_bottleneck" and "stage1.block1.body.conv3.weight" not in network.state_dict():
            continue  # of no meaning without bottlenecks
        if found != ours:
            raise NetworkError(f"{path}: {key} is {found!r}; ours is computed with {ours!r}. Take other weights.")


def _is_new(name: str, wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], *, foreign: bool) -> bool:
    """Whether a parameter is the head's, and the file has none, or one that differs in the number of outputs alone."""
    if not name.startswith("head."):
        return False
    found = tensors.get(name)
    if found is None:
        return foreign
    return found.shape[:1] != wanted[name].shape[:1] and found.shape[1:] == wanted[name].shape[1:]


def _refuse(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Names what is missing, what is too much, and what has another shape, the first few of each."""
    both = [name for name in wanted if name in tensors and wanted[name].shape != tensors[name].shape]
    shapes = [f"{name} is {tuple(tensors[name].shape)}, wanted {tuple(wanted[name].shape)}" for name in both]
    lists = {
        "missing": [name for name in wanted if name not in tensors],
        "not in the network": [name for name in tensors if name not in wanted],
        "of another shape": shapes,
    }
    faults = [f"{what}: {_some(names)}" for what, names in lists.items() if names]
    if faults:
        hint = ' Weights for large pictures need stem = "large".' if "stem.conv.weight" in both else ""
        raise NetworkError(f"The weights in {path} do not fit the network. {'; '.join(faults)}.{hint}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
