"""Networks in the sizes that papers print, and in small ones: what `potstill networks` and the documentation list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from potstill.registry import Spec

_SMALL: Final = (1, 28, 28)  # MNIST, Fashion-MNIST
_TINY: Final = (3, 32, 32)  # CIFAR, for which many papers give their numbers
_PHOTO: Final = (3, 64, 64)
_LARGE: Final = (3, 224, 224)  # ImageNet


@dataclass(frozen=True)
class Example:
    """A network for pictures of one size. `published` is what its source prints, where it does."""

    title: str
    network: Spec
    shape: tuple[int, ...]
    outputs: int
    published: str = ""

    @property
    def name(self) -> str:
        """The network's name in plans."""
        spec = self.network
        return spec.partition(":")[0] if isinstance(spec, str) else str(spec["name"])


def _table(name: str, **keys: Any) -> Mapping[str, Any]:
    return {"name": name, **keys}


EXAMPLES: Final = (
    Example("Softmax regression", "linear", _SMALL, 10),
    Example("One hidden layer", "mlp:100", _SMALL, 10),
    Example("LeNet-5", "lenet", _SMALL, 10, "about 60 thousand (LeCun et al. 1998)"),
    Example("PyTorch's tutorial", "tutorial_cnn", _TINY, 10),
    Example("The teacher of paper 2", "tutorial_cnn:3-9", _SMALL, 10, "29,176 (Grabovoy and Strijov 2022)"),
    Example("Keras' example", "keras_cnn", _SMALL, 10),
    Example("Keras' example with Inception", "inception_cnn", _SMALL, 10),
    Example("Small CNN", "small_cnn", _SMALL, 10),
    Example("AlexNet", "alexnet", _LARGE, 1000, "60 million (Krizhevsky et al. 2012)"),
    Example("AlexNet, narrow", _table("alexnet", width=8, dense=512), _SMALL, 10),
    Example("ResNet-18", "resnet18", _LARGE, 1000, "11.69 million (torchvision)"),
    Example("ResNet-18, quarter width", "resnet18:16", _PHOTO, 2),
    Example("ResNet-34", "resnet34", _LARGE, 1000, "21.80 million (torchvision)"),
    Example("ResNet-50", "resnet50", _LARGE, 1000, "25.56 million (torchvision)"),
    Example("PreAct-ResNet-18", "preact_resnet", _LARGE, 1000),
    Example("PreAct-ResNet-50", _table("preact_resnet", depths=[3, 4, 6, 3], bottleneck=True), _LARGE, 1000),
    Example("PreAct-ResNet-20", _table("preact_resnet", depths=[3, 3, 3], width=16), _TINY, 10),
    Example(
        "PreAct-ResNet-110",
        _table("preact_resnet", depths=[18, 18, 18], width=16),
        *(_TINY, 10, "1.7 million (He et al. 2016)"),
    ),
    Example("ResNet in ResNet", "resnet_in_resnet", _TINY, 10),
    Example("ResNet in ResNet, narrow", _table("resnet_in_resnet", depths=[1, 1, 1], width=12), _SMALL, 10),
    Example("RoR-3-56", "multilevel_resnet", _TINY, 10),
    Example("RoR-3-18", _table("multilevel_resnet", depths=[2, 2, 2, 2], width=64), _LARGE, 1000),
    Example("DenseNet-BC-100", "densenet", _TINY, 10, "0.8 million (Huang et al. 2017)"),
    Example("DenseNet-BC-40", _table("densenet", depths=[6, 6, 6]), _SMALL, 10),
    Example(
        "DenseNet-121",
        _table("densenet", depths=[6, 12, 24, 16], growth=32),
        _LARGE,
        1000,
        "7.98 million (torchvision)",
    ),
    Example("FractalNet-20", "fractalnet", _TINY, 10),
    Example(
        "FractalNet-20, narrow",
        _table("fractalnet", channels=[16, 32, 64, 128, 128]),
        *(_TINY, 100, "2.1 million (Larsson et al. 2017)"),
    ),
    Example("PolyNet", "polynet", (3, 331, 331), 1000, "34.7 billion multiply-adds (Zhang et al. 2017)"),
    Example("PolyNet, small", _table("polynet", depths=[2, 2, 1], width=48), _TINY, 10),
    Example("MobileNet", "mobile", _LARGE, 1000, "4.2 million, 569 million multiply-adds (Howard et al. 2017)"),
    Example("MobileNet, 1/4", "mobile:8", _LARGE, 1000, "0.5 million, 41 million multiply-adds (the same)"),
    Example("airbench94", "airbench", _TINY, 10, "1.97 million (Jordan 2024)"),
    Example("airbench94, half width", "airbench:32", _SMALL, 10),
    Example("Mobile student, 200 thousand", _table("mobile", width=32, depths=[1, 2, 3]), _SMALL, 10),
    Example("Mobile student, 50 thousand", _table("mobile", width=14, depths=[2, 3, 3]), _SMALL, 10),
    Example("Mobile student, 10 thousand", _table("mobile", width=8, depths=[1, 2, 2]), _SMALL, 10),
)
