"""Bayesian distillation: posteriors over weights, reduced to a student's shape, are priors (Grabovoy and Strijov)."""

from potstill.bayes.align import Reduction, reduce_to
from potstill.bayes.curvature import Curvature, diagonal_ggn
from potstill.bayes.elbo import Divergence, elbo, log_predictive, predictive_moments
from potstill.bayes.fold import fold
from potstill.bayes.grow import add_layer, add_neurons
from potstill.bayes.inference import Inference, Teacher, teacher_of
from potstill.bayes.kinds import REGISTRY, build
from potstill.bayes.laplace import from_laplace, laplace
from potstill.bayes.layers import from_variational, set_posterior
from potstill.bayes.layout import Layer, Layout
from potstill.bayes.order import REGISTRY as ORDERS
from potstill.bayes.order import Order, Removal, keep_neurons
from potstill.bayes.posterior import Blocks, Diagonal, Full, GaussianPosterior, from_means, load
from potstill.bayes.prior import Prior
from potstill.bayes.reduce import remove_layer, remove_neurons

__all__ = [
    "ORDERS",
    "REGISTRY",
    "Blocks",
    "Curvature",
    "Diagonal",
    "Divergence",
    "Full",
    "GaussianPosterior",
    "Inference",
    "Layer",
    "Layout",
    "Order",
    "Prior",
    "Reduction",
    "Removal",
    "Teacher",
    "add_layer",
    "add_neurons",
    "build",
    "diagonal_ggn",
    "elbo",
    "fold",
    "from_laplace",
    "from_means",
    "from_variational",
    "keep_neurons",
    "laplace",
    "load",
    "log_predictive",
    "predictive_moments",
    "reduce_to",
    "remove_layer",
    "remove_neurons",
    "set_posterior",
    "teacher_of",
]
