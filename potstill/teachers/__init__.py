"""Teachers: adapters that make anything that answers satisfy `types.Teacher`."""

from potstill.teachers.ensemble import Ensemble
from potstill.teachers.function import Function
from potstill.teachers.torch import Torch

__all__ = ["Ensemble", "Function", "Torch"]
