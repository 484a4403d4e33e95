"""Pictures as PNG in the page itself: rows of small pictures with gaps between them."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

GAP = 2  # pixels between pictures
_SHARP_UP_TO = 64  # pixels a side, up to which a picture is shown in whole pixels


def strip(pictures: NDArray[Any], span: tuple[float, float]) -> str:
    """Pictures (m, C, H, W) side by side, as a data URI; `span` are the numbers that are black and white.

    One channel is grey, three are red, green and blue; of other numbers of channels the mean is shown. Gaps are
    transparent.
    """
    from PIL import Image

    low, high = span
    scaled = (pictures.astype(np.float64) - low) * (255 / (high - low) if high > low else 1.0)
    bytes_ = np.clip(np.round(scaled), 0, 255).astype(np.uint8)
    if bytes_.shape[1] not in (1, 3):
        bytes_ = np.clip(np.round(scaled.mean(1, keepdims=True)), 0, 255).astype(np.uint8)
    number, channels, height, width = bytes_.shape
    whole = np.zeros((height, number * (width + GAP) - GAP, 4), np.uint8)
    for i, picture in enumerate(bytes_):
        at = i * (width + GAP)
        whole[:, at : at + width, :3] = (
            np.broadcast_to(picture.transpose(1, 2, 0), (height, width, 3))
            if (channels == 3)
            else picture.transpose(1, 2, 0)
        )
        whole[:, at : at + width, 3] = 255
    buffer = io.BytesIO()
    Image.fromarray(whole).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def scale(height: int) -> int:
    """How many times as large as it is a picture of so many pixels is shown."""
    return max(1, round(_SHARP_UP_TO / height)) if height < _SHARP_UP_TO else 1
