"""A model: a network, what it knows of its data, and where it came from. Its folder is what one ships (decision 11).

model.safetensors   the weights, under the network's own names
network.json        the network's specification, input shape, preprocessing, class names or targets and their scaling
recipe.json         how its input is made from raw material, where that is not stored as the network sees it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from potstill import storage, units
from potstill.errors import NetworkError, StorageError
from potstill.networks.build import build, forward
from potstill.networks.variational import Variational, rebuilt
from potstill.types import DataSpec, Kind, Outputs, Preprocessing, TargetScaling

FORMAT = 1
RECIPE = "recipe.json"
_LATER = ("sees", "recipe", "vocabulary")  # what is told of data only where it is something


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network. It is a teacher too: for preprocessed inputs it answers logits, or values in own units.

    `variances`: a regression's network answers a log variance for each target too, after the values.

    `specification` is what `networks.build` takes, None for a user's own network; `inference` what `Variational` takes
    beside it, None for a plain network; `info` is JSON-able (seed, objective, best step, ...); `history` has one row
    per epoch, `curve` one for every so many steps, if the training was asked for it.
    """

    network: nn.Module
    spec: DataSpec
    specification: Mapping[str, Any] | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()
    variances: bool = False
    inference: Mapping[str, Any] | None = None
    curve: Sequence[Mapping[str, float]] = ()

    @property
    def kind(self) -> Kind:
        """`"logits"`, or of a regression `"values"`, or `"gaussian"` with variances or a noise."""
        if self.spec.task != "regression":
            return "logits"
        noisy = self.inference is not None and bool(self.inference.get("noise_variance"))
        return "gaussian" if self.variances or noisy else "values"

    @property
    def sees(self) -> str:
        """The name of its input; empty where the data have one without a name."""
        return self.spec.sees

    @property
    def recipe(self) -> Mapping[str, Any]:
        """How its input is made from raw material; empty where that is what is stored."""
        return self.spec.recipe

    @property
    def outputs(self) -> int:
        """Numbers that it answers for an example."""
        return self.spec.outputs * (2 if self.variances else 1)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, or of the targets, in the order of the outputs."""
        return self.spec.names

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits (B, K), or (B, 1) for a binary task, for preprocessed inputs (B, *shape); no gradient, eval mode.

        Of a regression values (B, D) float32 in the targets' own units; with variances (B, 2 D), their logarithms last.
        A network whose weights are distributions is an ensemble of those that are drawn: (B, samples, K).
        """
        return self.features(inputs, ()).logits

    def features(self, inputs: Tensor, names: Sequence[str]) -> Outputs:
        """What a call answers, and the hidden features `names` of its network, (B, ...) each (`networks.forward`)."""
        if self.network.training:
            self.network.eval()
        parameter = next(self.network.parameters(), None)
        with torch.no_grad():
            # A user's own network may write into its inputs, which may be the data itself.
            own = inputs if self.specification is not None else inputs.clone()
            place = own if parameter is None else own.to(parameter.device)
            if isinstance(self.network, Variational) and not names:
                found = Outputs(self.network.members(place))
            else:
                found = forward(self.network, place, names)
        if self.spec.task != "regression":
            return found
        return replace(found, logits=units.own(units.bounded(found.logits, self.spec.outputs), self.spec.scaling))

    def on(self, device: str) -> Model:
        """This model, its network moved to a device of torch; inputs of calls are moved there, answers stay there."""
        self.network.to(device)
        return self

    def fingerprint(self) -> str:
        """sha256 over the weights, the specification and the class names."""
        parts = {name: storage.tensor_sha256(tensor) for name, tensor in self.network.state_dict().items()}
        return storage.fingerprint([parts, self._description()])

    def _description(self) -> dict[str, Any]:
        specification = None if self.specification is None else dict(self.specification)
        told = asdict(self.spec)
        if self.spec.task != "regression":  # as it was before there were others, so that old recordings fit
            del told["targets"], told["scaling"]
        found = {"network": specification, "data": {key: told[key] for key in told if told[key] or key not in _LATER}}
        found |= {} if self.inference is None else {"inference": dict(self.inference)}
        return found | ({"variances": True} if self.variances else {})

    def save(self, folder: str | Path) -> Path:
        """Write `model.safetensors` and `network.json` (last) into a folder; returns it."""
        folder = Path(folder)
        weights = storage.write_tensors(folder / "model.safetensors", self.network.state_dict())
        described = self._description()
        told = {
            "format": FORMAT,
            "network": described["network"],
            "input_shape": list(self.spec.shape),
            "task": self.spec.task,
            "classes": list(self.spec.classes),
            "preprocessing": described["data"]["preprocessing"],
            "info": dict(self.info),
            "weights_sha256": weights,
        }
        if self.spec.task == "regression":
            told |= {"targets": list(self.spec.targets), "target_scaling": described["data"]["scaling"]}
            told["variances"] = self.variances
        if self.inference is not None:
            told["inference"] = described["inference"]
        if self.spec.vocabulary:
            told["vocabulary"] = self.spec.vocabulary
        if self.spec.sees:
            told["sees"] = self.spec.sees
        if self.spec.recipe:
            storage.write_json(folder / RECIPE, storage.plain(self.spec.recipe))
            told["recipe_sha256"] = storage.sha256_file(folder / RECIPE)
        storage.write_json(folder / "network.json", told)
        return folder


def load(folder: str | Path, *, network: nn.Module | None = None) -> Model:
    """Open a model folder. A user's own network must be given as `network`, with the same parameter names.

    Raises `NetworkError` if the folder is none, or the weights do not fit; `StorageError` if a file is damaged.
    """
    folder = Path(folder)
    path = folder / "network.json"
    if not path.is_file():
        raise NetworkError(
            f"{folder} is not a model folder: it has no network.json. Wanted is a folder such as "
            "runs/NAME/models/MODEL/seed-0."
        )
    found = storage.read_json(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise NetworkError(
            f"{path} is not of format {FORMAT}, the only one this version of potstill reads. Write it again."
        )
    try:
        spec = DataSpec(
            tuple(found["input_shape"]),
            tuple(found["classes"]),
            found["task"],
            Preprocessing(**found["preprocessing"]),
            tuple(found.get("targets", ())),
            _scaling(found.get("target_scaling")),
            sees=found.get("sees", ""),
            vocabulary=found.get("vocabulary", 0),
            recipe=_recipe(folder, found.get("recipe_sha256")),
        )
        specification, info, expected = found["network"], found["info"], found["weights_sha256"]
        variances = bool(found.get("variances"))
    except (KeyError, TypeError) as error:
        raise NetworkError(f"{path} is damaged: {error}. Train or copy the model again.") from error
    if specification is None and network is None:
        raise NetworkError(
            f"{folder} holds a user's own network, which cannot be rebuilt from its name. "
            "Build it and pass it: ps.load(folder, network=my_network)."
        )
    weights = folder / "model.safetensors"
    if storage.sha256_file(weights) != expected:
        raise StorageError(f"{weights} is damaged: its sha256 differs from network.json. Train or copy it again.")
    if network is None:
        network = build(specification, spec.shape, spec.outputs * (1 + variances), vocabulary=spec.vocabulary)
    inference = found.get("inference")
    module = network if inference is None else rebuilt(network, spec, inference)
    _fill(module, storage.read_tensors(weights), weights)
    module.eval()
    return Model(module, spec, specification, info, variances=variances, inference=inference)


def _scaling(found: Mapping[str, Sequence[float]] | None) -> TargetScaling | None:
    return None if found is None else TargetScaling(tuple(found["scale"]), tuple(found["offset"]))


def _recipe(folder: Path, expected: str | None) -> dict[str, Any]:
    """What is in the model's recipe.json, if it has one."""
    if expected is None:
        return {}
    path = folder / RECIPE
    if storage.sha256_file(path) != expected:
        raise StorageError(f"{path} is damaged: its sha256 differs from network.json. Train or copy it again.")
    found: dict[str, Any] = storage.read_json(path)
    return found


def _fill(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """`load_state_dict`, with a message that names the first difference."""
    wanted = module.state_dict()
    for name in [*wanted, *tensors]:
        a, b = wanted.get(name), tensors.get(name)
        if a is None or b is None or a.shape != b.shape:
            raise NetworkError(
                f"The weights in {path} do not fit the network: {name} is "
                f"{'missing' if b is None else tuple(b.shape)} in the file and "
                f"{'missing' if a is None else tuple(a.shape)} in the network."
            )
    module.load_state_dict(tensors)
