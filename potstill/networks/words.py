"""Networks of word ids: inputs (B, L) int64, where 0 pads. What is padding changes no answer."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from potstill.errors import NetworkError
from potstill.networks.mlp import check_dropout

Pooling: TypeAlias = Literal["max", "mean"]
PADDING = 0


@final
class BiLSTM(nn.Module):
    """Word ids (B, L) to (B, 2 hidden): embedding, an LSTM in both directions, pooling over the real tokens alone.

    A text without any token is one padding token.
    """

    def __init__(self, vocabulary: int, width: int, hidden: int, *, pooling: Pooling, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=PADDING)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)
        self.pooling = pooling

    def forward(self, ids: Tensor) -> Tensor:
        lengths = lengths_of(ids)
        words = self.dropout(self.embedding(ids[:, : int(lengths.max())]))
        packed = pack_padded_sequence(words, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        real = torch.arange(states.shape[1], device=ids.device) < lengths[:, None]
        if self.pooling == "max":
            return states.masked_fill(~real.unsqueeze(2), -torch.inf).amax(dim=1)
        return states.sum(dim=1) / lengths[:, None]  # states of padding are zeros


def lengths_of(ids: Tensor) -> Tensor:
    """(B,) int64: tokens up to the last one that is no padding, at least 1."""
    places = torch.arange(1, ids.shape[1] + 1, device=ids.device)
    return torch.where(ids != PADDING, places, 1).amax(dim=1)


def bilstm(
    shape: tuple[int, ...],
    outputs: int,
    vocabulary: int,
    *,
    hidden: int = 128,
    width: int = 100,
    pooling: Pooling = "max",
    dropout: float = 0.0,
) -> nn.Sequential:
    """Words as vectors of `width`, an LSTM of `hidden` units in each direction, pooled over the words (of word ids).

    Graves and Schmidhuber 2005, "Framewise phoneme classification with bidirectional LSTM"; pooled as in Conneau et al.
    2017, section 3.2. Dropout acts on the words' vectors and before the head. The embedding has `vocabulary` rows.
    """
    _check("bilstm", shape, hidden=hidden, width=width)
    check_dropout("bilstm", dropout)
    encoder = BiLSTM(vocabulary, width, hidden, pooling=pooling, dropout=dropout)
    return _with_head(encoder, 2 * hidden, outputs, dropout)


def embedding_bag(
    shape: tuple[int, ...], outputs: int, vocabulary: int, *, width: int = 100, dropout: float = 0.0
) -> nn.Sequential:
    """The mean of the words' vectors of `width`, and a linear layer (of word ids): fastText (Joulin et al. 2017)."""
    _check("embedding_bag", shape, width=width)
    check_dropout("embedding_bag", dropout)
    return _with_head(nn.EmbeddingBag(vocabulary, width, mode="mean", padding_idx=PADDING), width, outputs, dropout)


def _with_head(encoder: nn.Module, width: int, outputs: int, dropout: float) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(encoder=encoder)
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    layers["head"] = nn.Linear(width, outputs)
    return nn.Sequential(layers)


def _check(name: str, shape: tuple[int, ...], **sizes: int) -> None:
    if len(shape) != 1:
        raise NetworkError(f"{name} takes word ids (length,); this data has examples of shape {shape}.")
    for word, size in sizes.items():
        if size < 1:
            raise NetworkError(f"{name}: {word} is {size}; wanted is a whole number of at least 1.")
