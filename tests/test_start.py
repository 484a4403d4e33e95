"""Starting weights: saved models, transformers' ResNets against transformers itself, names on the hub, refusals."""

from __future__ import annotations

import json
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import potstill as ps
from potstill import networks
from potstill.errors import MissingExtraError, NetworkError, StorageError
from potstill.study.study import Study

TINY: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 16, 32, 64], "depths": [2, 2, 2, 2]}
BASIC = {"layer_type": "basic"}
# Ours, and the configuration there.
PAIRS: dict[str, tuple[Any, dict[str, Any]]] = {
    "tiny": ("resnet18:8", TINY | BASIC),
    "tiny with bottlenecks": (
        "resnet50:8",
        {"embedding_size": 8, "hidden_sizes": [32, 64, 128, 256], "depths": [3, 4, 6, 3]},
    ),
    "ResNet-18": ("resnet18", {"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]} | BASIC),
    "ResNet-34": ("resnet34", {"hidden_sizes": [64, 128, 256, 512], "depths": [3, 4, 6, 3]} | BASIC),
    "ResNet-50": ("resnet50", {}),
}


def large(spec: str) -> dict[str, Any]:
    return networks.REGISTRY.expand(spec) | {"stem": "large"}


@pytest.fixture(scope="module")
def library() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers")


def foreign(library: Any, settings: dict[str, Any], folder: Path, *, labels: int | None = 7, seed: int = 0) -> Any:
    """A ResNet of transformers with random weights and random statistics of its batch norms, saved."""
    config = library.ResNetConfig(**settings, **({} if labels is None else {"num_labels": labels}))
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = (library.ResNetModel if labels is None else library.ResNetForImageClassification)(config).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor, low in ((module.running_mean, -0.5), (module.running_var, 0.5), (module.bias, -0.5)):
                    tensor.data.uniform_(low, low + 1)  # type: ignore[union-attr]
                module.weight.data.uniform_(0.3, 0.8)
        model.save_pretrained(folder)
    return model


def asked(network: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        answer: Tensor = network.eval()(inputs)
    return answer


@pytest.mark.parametrize(("spec", "settings"), PAIRS.values(), ids=PAIRS)
def test_answers_what_transformers_answers(library: Any, tmp_path: Path, spec: str, settings: dict[str, Any]) -> None:
    theirs = foreign(library, settings, tmp_path)
    network = networks.seeded(large(spec), (3, 96, 70), 7, seed=3)
    assert networks.start_from(network, tmp_path).new == ()
    inputs = torch.rand(2, 3, 96, 70, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = theirs(inputs, output_hidden_states=True)
    np.testing.assert_allclose(asked(network, inputs), wanted.logits, rtol=1e-5, atol=1e-5 * wanted.logits.abs().max())
    stages = networks.forward(network, inputs, ["pool", "stage1", "stage4"]).features
    for ours, there in zip(stages.values(), (0, 1, 4), strict=True):
        scale = wanted.hidden_states[there].abs().max()
        np.testing.assert_allclose(ours.detach(), wanted.hidden_states[there], rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("labels", [None, 7], ids=["no head", "another head"])
def test_the_head_is_made_anew(library: Any, tmp_path: Path, labels: int | None) -> None:
    theirs = foreign(library, TINY | BASIC, tmp_path, labels=labels)
    network = networks.seeded(large("resnet18:8"), (3, 64, 64), 1, seed=3)
    before = network.get_submodule("head").state_dict()["weight"].clone()
    start = networks.start_from(network, tmp_path / "model.safetensors")
    assert start.new == ("head.weight", "head.bias")
    assert torch.equal(network.get_submodule("head").state_dict()["weight"], before)
    inputs = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = (theirs if labels is None else theirs.resnet)(inputs).pooler_output.flatten(1)
        found = networks.forward(network.eval(), inputs, ["flatten"]).features["flatten"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * wanted.max())


# ---------------------------------------------------------------- files as transformers writes them, without it


def theirs_of(network: nn.Module) -> dict[str, Tensor]:
    """The weights of a tiny ResNet-18 or ResNet-50 of ours under the names of transformers, put down by hand."""
    found = {}
    for name, tensor in network.state_dict().items():
        part, kind = name.rsplit(".", 1)
        words = part.split(".")
        layer = {"conv": "convolution", "norm": "normalization"}.get(words[-1].rstrip("0123456789"), "")
        if words[0] == "head":
            new = "classifier.1"
        elif words[0] == "stem":
            new = f"resnet.embedder.embedder.{layer}"
        else:
            new = f"resnet.encoder.stages.{int(words[0][-1]) - 1}.layers.{int(words[1][-1]) - 1}."
            new += f"shortcut.{layer}" if words[2] == "shortcut" else f"layer.{int(words[-1][-1]) - 1}.{layer}"
        found[f"{new}.{kind}"] = tensor.clone()
    return found


def written(folder: Path, spec: Any = "resnet18:4", outputs: int = 3, **config: Any) -> nn.Module:
    """The file and config.json of such a network; returns the network."""
    network = networks.seeded(large(spec), (3, 32, 32), outputs, seed=8)
    save_file(theirs_of(network), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "resnet"} | config))
    return network


@pytest.fixture(scope="module")
def photos() -> Any:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 255, (60, 3, 32, 32), np.uint8)
    return ps.data.open((pictures, np.arange(60) % 2), task="binary", validation=20, test=10)


@pytest.mark.parametrize("spec", ["resnet18:4", "resnet50:4"])
def test_every_name_of_the_layout_is_read(tmp_path: Path, spec: str) -> None:
    network = written(tmp_path, spec)
    other = networks.seeded(large(spec), (3, 32, 32), 3, seed=9)
    networks.start_from(other, tmp_path)
    for (name, a), b in zip(network.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_training_tells_where_it_started(photos: Any, tmp_path: Path) -> None:
    network = written(tmp_path, outputs=1000)
    settings: dict[str, Any] = {"batch_size": 8, "weights": tmp_path, "folder": tmp_path / "model"}
    still = {"optimizer": {"name": "sgd", "learning_rate": 0.0}, "steps": 1, "select": "last"}
    model = ps.fit(large("resnet18:4"), photos, **settings, **still)
    digest = ps.storage.sha256_file(tmp_path / "model.safetensors")
    assert model.info["weights"] == {"sha256": digest, "new": ["head.weight", "head.bias"]}
    assert ps.load(tmp_path / "model").info["weights"] == model.info["weights"]
    for name, parameter in network.named_parameters():
        same = torch.equal(parameter, model.network.get_parameter(name)) if not name.startswith("head") else False
        assert same != name.startswith("head"), name
    assert ps.fit("linear", photos, epochs=0).info["weights"] is None
    with pytest.raises(NetworkError, match=r"head\.weight and head\.bias are made anew.* Give it some epochs"):
        ps.fit(large("resnet18:4"), photos, weights=tmp_path, epochs=0)


def without(name: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.__delitem__(name)


BLOCK = "resnet.encoder.stages.1.layers.0"
REFUSED: dict[str, tuple[Any, dict[str, Any], Callable[[dict[str, Tensor]], Any], str]] = {
    "missing": (
        *("resnet18:4", {}, without(f"{BLOCK}.shortcut.normalization.running_var")),
        r"missing: stage2\.block1\.shortcut\.norm\.running_var\.$",
    ),
    "too much": (
        *("resnet18:4", {}, lambda tensors: tensors.update({f"{BLOCK}.attention.weight": torch.ones(1)})),
        r"not in the network: resnet\.encoder\.stages\.1\.layers\.0\.attention\.weight",
    ),
    "deeper": (
        "resnet34:4",
        {},
        lambda tensors: None,
        r"missing: stage1\.block3\.body\.conv1\.weight, .* \d+ more",
    ),
    "wider": ("resnet18:8", {}, lambda tensors: None, r"of another shape: stem\.conv\.weight is \(4, 3, 7, 7\)"),
    "small stem": (
        *({"name": "resnet18", "width": 4, "stem": "small"}, {}, lambda tensors: None),
        r'stem\.conv\.weight is \(4, 3, 7, 7\), wanted \(4, 3, 3, 3\)\. .* stem = "large"',
    ),
    "no resnet": ("mlp:4", {}, lambda tensors: None, r"missing: dense1\.weight"),
    "activation": ("resnet18:4", {"hidden_act": "gelu"}, lambda tensors: None, "hidden_act is 'gelu'.* 'relu'"),
    "first stage": (
        *("resnet18:4", {"downsample_in_first_stage": True}, lambda tensors: None),
        "downsample_in_first_stage is True",
    ),
}


@pytest.mark.parametrize(("spec", "config", "change", "words"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_named(
    tmp_path: Path, spec: Any, config: dict[str, Any], change: Callable[[dict[str, Tensor]], Any], words: str
) -> None:
    written(tmp_path, **config)
    tensors = load_file(tmp_path / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    table = networks.REGISTRY.expand(spec)
    network = networks.build(table if "stem" in table or table["name"] == "mlp" else large(spec), (3, 32, 32), 3)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(NetworkError, match=words):
        networks.start_from(network, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_strides_in_the_first_convolution_of_a_bottleneck_are_refused(tmp_path: Path) -> None:
    written(tmp_path, "resnet50:4", downsample_in_bottleneck=True)
    network = networks.build(large("resnet50:4"), (3, 32, 32), 3)
    with pytest.raises(NetworkError, match="downsample_in_bottleneck is True"):
        networks.start_from(network, tmp_path)
    written(tmp_path, "resnet18:4", downsample_in_bottleneck=True)  # there are none
    networks.start_from(networks.build(large("resnet18:4"), (3, 32, 32), 3), tmp_path)


def test_a_saved_model_starts_another_with_other_classes(tmp_path: Path) -> None:
    data = ps.data.open("digits", test=600, validation=100)
    first = ps.fit("mlp:8", data, folder=tmp_path, epochs=1)
    network = networks.seeded("mlp:8", (1, 8, 8), 3, seed=5)
    assert networks.start_from(network, tmp_path).new == ("head.weight", "head.bias")
    assert torch.equal(network.get_parameter("dense1.weight"), first.network.get_parameter("dense1.weight"))
    # Another width of the layer before is no other number of outputs; and a head must be there.
    for spec, outputs, words in (
        ("linear", 10, r"head\.weight is \(10, 8\), wanted \(10, 64\)"),
        ("linear", 3, r"head\.weight is \(10, 8\), wanted \(3, 64\)"),
        ("mlp:9", 10, r"head\.weight"),
    ):
        with pytest.raises(NetworkError, match=words):
            networks.start_from(networks.build(spec, (1, 8, 8), outputs), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if k != "head.bias"}, tmp_path / "model.safetensors")
    with pytest.raises(NetworkError, match=r"missing: head\.bias"):
        networks.start_from(networks.build("mlp:8", (1, 8, 8), 10), tmp_path)


def test_files_that_are_none(tmp_path: Path) -> None:
    network = networks.build("mlp:8", (4,), 2)
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NetworkError, match=r"holds no model\.safetensors.*hub:microsoft"):
            networks.start_from(network, path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(StorageError, match="not a whole safetensors file"):
        networks.start_from(network, tmp_path / "pytorch_model.bin")


# ---------------------------------------------------------------- the hub


class Hub:
    """Stands in for huggingface_hub: a folder there, a folder here, and what was asked."""

    def __init__(self, there: Path | None, here: Path) -> None:
        self.there, self.here, self.asked = there, here, list[tuple[str, str, bool]]()

    def hf_hub_download(self, name: str, file: str, *, local_files_only: bool) -> str:
        self.asked.append((name, file, local_files_only))
        if not (self.here / file).exists():
            if local_files_only or self.there is None:
                raise FileNotFoundError("Cannot find the file here.\nAnd more lines.")
            if not (self.there / file).exists():
                raise ValueError(f"no {file} there")
            self.here.mkdir(exist_ok=True)
            (self.here / file).write_bytes((self.there / file).read_bytes())
        return str(self.here / file)


def hub(monkeypatch: pytest.MonkeyPatch, there: Path | None, here: Path) -> Hub:
    stand_in, module = Hub(there, here), types.ModuleType("huggingface_hub")
    module.hf_hub_download = stand_in.hf_hub_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return stand_in


def test_a_name_on_the_hub_is_fetched_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written(tmp_path)
    found = hub(monkeypatch, tmp_path, tmp_path / "cache")
    for _ in range(2):
        network = networks.build(large("resnet18:4"), (3, 32, 32), 3)
        networks.start_from(network, "hub:somebody/resnet")
    files = ["config.json", "model.safetensors"]
    assert found.asked[0] == ("somebody/resnet", "config.json", True)
    assert [file for _, file, only_here in found.asked if not only_here] == files
    (tmp_path / "cache" / "config.json").write_text('{"hidden_act": "silu"}')  # the config beside the weights counts
    with pytest.raises(NetworkError, match="hidden_act"):
        networks.start_from(network, "hub:somebody/resnet")


@pytest.mark.parametrize("lacks", ["connection", "config.json", "model.safetensors"])
def test_what_cannot_be_had_from_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lacks: str) -> None:
    written(tmp_path)
    (tmp_path / lacks).unlink(missing_ok=True)
    hub(monkeypatch, None if lacks == "connection" else tmp_path, tmp_path / "cache")
    words = r"Cannot find the file here\." if lacks == "connection" else f"no {lacks} there"
    with pytest.raises(NetworkError, match=rf'"hub:a/b" cannot be had \({words}\)\. Check .* give their folder'):
        networks.locate("hub:a/b")


def test_the_hub_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r'pip install "potstill\[hub\]"'):
        networks.locate("hub:microsoft/resnet-50")


def test_the_library_itself_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is in the library's cache is found without a connection; what is not is refused in our words."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(library.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(library.constants, "HF_HUB_OFFLINE", True)
    for name in ("some/thing", "not a name!"):
        with pytest.raises(NetworkError, match=f'"hub:{name}" cannot be had'):
            networks.locate(f"hub:{name}")
    kept = tmp_path / "hub" / "models--some--thing"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (kept / "snapshots" / commit).mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(commit)
    written(kept / "snapshots" / commit)
    assert networks.locate("hub:some/thing") == kept / "snapshots" / commit / "model.safetensors"
    networks.start_from(networks.build(large("resnet18:4"), (3, 32, 32), 3), "hub:some/thing")


def test_a_study_with_a_teacher_from_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fetched when the study is planned; another version of the weights is another study."""
    written(tmp_path, outputs=5)
    hub(monkeypatch, tmp_path, tmp_path / "cache")
    resnet = {"name": "resnet18", "width": 4, "stem": "large"}
    pictures = np.random.default_rng(0).integers(0, 255, (60, 3, 32, 32), np.uint8)
    np.savez(tmp_path / "photos.npz", inputs=pictures, labels=np.arange(60) % 2)
    plan: dict[str, Any] = {
        "seeds": 1,
        "data": {"source": str(tmp_path / "photos.npz"), "task": "binary", "validation": 12, "test": 12},
        "training": {"steps": 2, "batch_size": 16},
        "models": {
            "teacher": {"network": resnet, "weights": "hub:some/thing", "shared": True},
            "alone": {"network": "linear"},
            "student": {"network": "linear", "teacher": "teacher", "objective": "soft_labels"},
        },
    }
    Study.open(plan, folder=tmp_path / "run").run(workers=1)
    info = ps.load(tmp_path / "run" / "models" / "teacher" / "shared").info
    digest = ps.storage.sha256_file(tmp_path / "model.safetensors")
    assert info["weights"] == {"sha256": digest, "new": ["head.weight", "head.bias"]}
    settings = json.loads((tmp_path / "run" / "models" / "teacher" / "shared" / "result.json").read_text())["settings"]
    assert settings["weights"] == digest
