"""Small convolutional networks. All take pictures (C, H, W) and answer (B, outputs) logits."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from potstill.errors import NetworkError
from potstill.networks.blocks import inception
from potstill.networks.mlp import check_dropout
from potstill.networks.stems import check_picture, check_sizes


def lenet(shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """LeNet-5 (LeCun, Bottou, Bengio and Haffner 1998): 61,706 parameters for 1x28x28 and 10 classes.

    Unlike 1998: ReLU for tanh, max pooling without weights, every channel of the second convolution sees all of the
    first, and a linear layer for the radial basis functions. As in 1998, pictures of 28 px are padded by 2 to 32;
    pictures of less than 12 px are padded to 16, the smallest that both convolutions and poolings leave a pixel of.
    """
    channels, height, width = check_picture("lenet", shape, least=1)
    padding = (_lenet_padding(height), _lenet_padding(width))
    rows, columns = (
        _halved(_halved(size + 2 * pad - 4) - 4) for size, pad in zip((height, width), padding, strict=True)
    )
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 6, 5, padding=padding),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            dense1=nn.Linear(16 * rows * columns, 120),
            relu3=nn.ReLU(),
            dense2=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            head=nn.Linear(84, outputs),
        )
    )


def tutorial_cnn(shape: tuple[int, ...], outputs: int, *, channels: tuple[int, int] = (6, 16)) -> nn.Sequential:
    """The network of PyTorch's tutorial on a classifier of pictures: 62,006 parameters for 3x32x32 and 10 classes.

    LeNet-5 without padding: two 5x5 convolutions, each followed by ReLU and pooling, dense 120 and 84. The teacher of
    paper 2 on Fashion-MNIST has `channels = [3, 9]`: 29,176 parameters for 1x28x28.
    """
    depth, height, width = check_picture("tutorial_cnn", shape, least=16)
    check_sizes("tutorial_cnn", channels=channels)
    first, second = channels
    rows, columns = (_halved(_halved(size - 4) - 4) for size in (height, width))
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(depth, first, 5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(first, second, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            dense1=nn.Linear(second * rows * columns, 120),
            relu3=nn.ReLU(),
            dense2=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            head=nn.Linear(84, outputs),
        )
    )


def keras_cnn(shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """The example of Keras that paper 4 prints: two 3x3 convolutions without padding, pooling, dropout, dense 128."""
    channels, height, width = check_picture("keras_cnn", shape, least=6)
    rows, columns = (_halved(size - 4) for size in (height, width))
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 32, 3),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(32, 64, 3),
            relu2=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            dropout1=nn.Dropout(0.25),
            flatten=nn.Flatten(),
            dense=nn.Linear(64 * rows * columns, 128),
            relu3=nn.ReLU(),
            dropout2=nn.Dropout(0.5),
            head=nn.Linear(128, outputs),
        )
    )


def inception_cnn(shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """`keras_cnn` with an Inception module (Szegedy et al. 2015) and a second pooling before the dense layer.

    637,490 parameters for 1x28x28 and 10 classes, 53 % of the example's; the module's branches have 32, 64, 16 and 16
    channels. The assignment of paper 4.
    """
    channels, height, width = check_picture("inception_cnn", shape, least=8)
    rows, columns = (_halved(_halved(size - 4)) for size in (height, width))
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 32, 3),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(32, 64, 3),
            relu2=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            inception=inception(64, one=32, three=(32, 64), five=(8, 16), pool=16),
            pool2=nn.MaxPool2d(2),
            dropout1=nn.Dropout(0.25),
            flatten=nn.Flatten(),
            dense=nn.Linear(128 * rows * columns, 128),
            relu3=nn.ReLU(),
            dropout2=nn.Dropout(0.5),
            head=nn.Linear(128, outputs),
        )
    )


def small_cnn(
    shape: tuple[int, ...],
    outputs: int,
    *,
    channels: tuple[int, ...] = (32, 64),
    dense: int = 128,
    dropout: float = 0.25,
) -> nn.Sequential:
    """3x3 convolutions that keep the size, one pooling, one dense layer: 151,306 parameters for 1x8x8 and 10 classes.

    Dropout acts before and, with twice its part (at most 0.5), after the dense layer.
    """
    width, height, breadth = check_picture("small_cnn", shape, least=2)
    if not channels or min(channels) < 1 or dense < 1:
        raise NetworkError(f"small_cnn: channels {list(channels)}, dense {dense}; wanted are numbers of at least 1.")
    check_dropout("small_cnn", dropout)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, size in enumerate(channels, 1):
        layers[f"conv{i}"] = nn.Conv2d(width, size, 3, padding=1)
        layers[f"relu{i}"] = nn.ReLU()
        width = size
    layers["pool"] = nn.MaxPool2d(2)
    layers["dropout1"] = nn.Dropout(dropout)
    layers["flatten"] = nn.Flatten()
    layers["dense"] = nn.Linear(width * _halved(height) * _halved(breadth), dense)
    layers["relu"] = nn.ReLU()
    layers["dropout2"] = nn.Dropout(min(2 * dropout, 0.5))
    layers["head"] = nn.Linear(dense, outputs)
    return nn.Sequential(layers)


def _lenet_padding(size: int) -> int:
    return max(2, (17 - size) // 2) if size <= 28 else 0


def _halved(size: int) -> int:
    return size // 2
