"""Randomness has keys, not history (design, decision 1).

A key is a 63-bit number made from words and numbers. The same key gives the same stream on every machine,
whatever ran before. `uniform` and `normal` give counter-based numbers: element (i, j) depends on key, i and j alone.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def key(*parts: str | int) -> int:
    """A key in [0, 2**63) from words and numbers; the order of the parts matters, and so does their type.

    >>> key("order", 3, 0) == key("order", 3, 0), key("order", 3, 0) == key("order", 30)
    (True, False)
    """
    text = "\x1f".join(f"{type(part).__name__[0]}{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def permutation(n: int, *parts: str | int) -> Tensor:
    """(n,) int64: a permutation of 0 .. n-1 that depends on the key alone."""
    import torch

    return torch.randperm(n, generator=torch.Generator().manual_seed(key(*parts)))


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection with full avalanche.
    x = (x ^ (x >> np.uint64(30))) * _MIX1
    x = (x ^ (x >> np.uint64(27))) * _MIX2
    return x ^ (x >> np.uint64(31))


def uniform(seed_key: int, counters: NDArray[np.int64], draws: int) -> NDArray[np.float64]:
    """(B, draws) float64 in [0, 1): element (i, j) depends on `seed_key`, counters[i] and j alone.

    A batch in another order, or cut elsewhere, gets the same numbers for the same counters.
    """
    with np.errstate(over="ignore"):
        stream = _mix(np.asarray(counters, np.int64).astype(np.uint64) * _GOLDEN + np.uint64(seed_key))
        steps = (np.arange(1, draws + 1, dtype=np.uint64) * _GOLDEN)[None, :]
        bits = _mix(stream[:, None] + steps)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(seed_key: int, counters: NDArray[np.int64], draws: int) -> NDArray[np.float64]:
    """(B, draws) float64, standard normal: element (i, j) depends on `seed_key`, counters[i] and j alone.

    Two uniform numbers make two normal ones (Box and Muller 1958).
    """
    uniforms = uniform(seed_key, counters, draws + draws % 2)
    radius, angle = np.sqrt(-2.0 * np.log1p(-uniforms[:, ::2])), 2.0 * np.pi * uniforms[:, 1::2]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2)
    return pairs.reshape(len(uniforms), -1)[:, :draws]


def reseed_step(seed: int, step: int) -> None:
    """Re-seed torch's default CPU generator for one optimiser step (dropout, variational noise): about 1 us.

    On another device its own generator is seeded too.
    """
    import torch

    torch.default_generator.manual_seed(_step_key(seed, step))
    if torch.cuda.is_available():  # pragma: no cover - no such device in CI
        torch.cuda.manual_seed(_step_key(seed, step))


def _step_key(seed: int, step: int) -> int:
    # `key` hashes (2 us); a step needs less: two rounds of the mixer on plain integers.
    x = (seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (x ^ (x >> 31)) >> 1
