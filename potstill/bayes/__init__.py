"""Bayesian distillation: posteriors over weights, reduced to a student's shape, are priors (Grabovoy and Strijov)."""

from potstill.bayes.align import Reduction, reduce_to
from potstill.bayes.curvature import Curvature, diagonal_ggn
from potstill.bayes.fold import fold
from potstill.bayes.grow import add_layer, add_neurons
from potstill.bayes.laplace import from_laplace, laplace
from potstill.bayes.layout import Layer, Layout
from potstill.bayes.order import REGISTRY as ORDERS
from potstill.bayes.order import Order, Removal, keep_neurons
from potstill.bayes.posterior import Blocks, Diagonal, Full, GaussianPosterior, from_means, load
from potstill.bayes.reduce import remove_layer, remove_neurons

__all__ = [
    "ORDERS",
    "Blocks",
    "Curvature",
    "Diagonal",
    "Full",
    "GaussianPosterior",
    "Layer",
    "Layout",
    "Order",
    "Reduction",
    "Removal",
    "add_layer",
    "add_neurons",
    "diagonal_ggn",
    "fold",
    "from_laplace",
    "from_means",
    "keep_neurons",
    "laplace",
    "load",
    "reduce_to",
    "remove_layer",
    "remove_neurons",
]
