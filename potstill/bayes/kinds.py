"""Ways to infer weights, by name: their settings are keyword-only arguments, which are the keys of a plan.

The presets `student`, `distil-student` and `distil-student-all` are those of the paper (Grabovoy and Strijov 2021);
`published` is what its original code optimised, for studies of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from potstill.bayes.inference import Inference, Start
from potstill.bayes.laplace import Structure, positive
from potstill.bayes.prior import Prior
from potstill.errors import PosteriorError
from potstill.registry import Registry, Spec

PriorTable: TypeAlias = Mapping[str, Any]


def variational(
    *,
    beta: float = 1.0,
    start: Start = "random",
    std: float = 0.02,
    samples: int = 32,
    prior: PriorTable | None = None,
    empirical_bayes: bool = False,
) -> Inference:
    """Distributions for weights: independent normals, trained on the evidence lower bound by local reparameterisation.

    `beta` weights the divergence from the prior: 1 is the bound, 0 has no prior. `prior`: keys of `bayes.Prior`.
    `start`: the means' initial values, `"random"` (the network's own), `"teacher"` (the teacher's in the student's
    shape) or `"prior"` (those of the prior; where it has the teacher's variances, these too). Else standard deviations
    begin at `std`. `samples` networks make a prediction. `empirical_bayes`: the prior is trained too, and is none any
    more. The objective is the likelihood: `hard_labels`, and of a regression `gaussian`, whose sigma is the noise.

    Reference: Graves 2011; Kingma, Salimans and Welling 2015; Grabovoy and Strijov 2021, with an honest bound.
    """
    if start not in ("random", "teacher", "prior"):
        raise PosteriorError(f'start is "{start}"; wanted is "random", "teacher" or "prior".')
    if not (beta >= 0 and math.isfinite(beta)):
        raise PosteriorError(f"beta is {beta}; wanted is a finite number of at least 0.")
    positive(std=std)
    if samples < 0:
        raise PosteriorError(f"samples is {samples}; wanted is a whole number of at least 0: 0 answers with the means.")
    settings = {
        "beta": beta,
        "start": start,
        "std": std,
        "samples": samples,
        "noise": "local",
        "learn_prior": 1.0 if empirical_bayes else 0.0,
        "prior": Prior.of(prior or {}),
    }
    return Inference("variational", settings)


def student(*, beta: float = 1.0, std: float = 0.02, samples: int = 32) -> Inference:
    """The paper's baseline: `variational` with the prior N(0, 1), from the network's own initial weights."""
    return variational(beta=beta, std=std, samples=samples)


def distil_student(
    *,
    beta: float = 1.0,
    std: float = 0.02,
    samples: int = 32,
    prior: PriorTable | None = None,
) -> Inference:
    """The paper's first student: `variational` with the prior N(m', 1), from m', the teacher's means in its shape.

    `prior`: other keys of `bayes.Prior`, such as the order of neurons.
    """
    believed = {"variance": False} | dict(prior or {})
    return variational(beta=beta, start="prior", std=std, samples=samples, prior=believed)


def distil_student_all(
    *,
    beta: float = 1.0,
    std: float = 0.02,
    samples: int = 32,
    prior: PriorTable | None = None,
) -> Inference:
    """The paper's second student: `variational` with the prior N(m', S') of the teacher, from m' and S'.

    `prior`: other keys of `bayes.Prior`, such as the order of neurons, or the scale of S'.
    """
    return variational(beta=beta, start="prior", std=std, samples=samples, prior=prior)


def published(
    *, alpha: float = 1.0, start: Start = "random", prior: PriorTable | None = None, prior_rate: float = 0.01
) -> Inference:
    """What the paper's original code optimised, for studies of it and not for use.

    It minimised alpha KL + loss / B, loss the mean of a batch of B: with N rows, N B times as much divergence as the
    evidence lower bound has (of a regression beside the squared error without a noise). Means alone answered, in
    training and after. The prior was trained too, at `prior_rate` times the learning rate; without a teacher it was
    centred on initial weights. All standard deviations began at about 1, so that those of teacher and prior are alike.
    Not repeated: masks of the wrong orientation, and memory shared between prior and posterior.

    Reference: the code and logs beside Grabovoy and Strijov 2021.
    """
    own = variational(beta=alpha, start=start, std=1.0, samples=0, prior=prior)
    if not prior_rate > 0:
        raise PosteriorError(f"prior_rate is {prior_rate}; wanted is a number above 0.")
    return Inference("published", {**own.settings} | {"noise": "none", "learn_prior": prior_rate})


def laplace(
    *,
    structure: Structure = "diagonal",
    prior_precision: float | None = None,
    noise_variance: float | None = None,
) -> Inference:
    """Plain training, then Laplace's approximation around what it found (`bayes.laplace`); answers stay the network's.

    `structure` "block", "kronecker" or "full" needs laplace-torch.
    """
    if structure not in ("diagonal", "block", "kronecker", "full"):
        raise PosteriorError(f'structure is "{structure}"; wanted is diagonal, block, kronecker or full.')
    positive(prior_precision=prior_precision, noise_variance=noise_variance)
    return Inference(
        "laplace",
        {"structure": structure, "prior_precision": prior_precision, "noise_variance": noise_variance},
    )


REGISTRY = Registry(
    "inference",
    {
        "variational": variational,
        "student": student,
        "distil-student": distil_student,
        "distil-student-all": distil_student_all,
        "published": published,
        "laplace": laplace,
    },
    PosteriorError,
)


def build(spec: Spec | Inference) -> Inference:
    """An inference from its name, a table, or itself."""
    if isinstance(spec, Inference):
        return spec
    found: Inference = REGISTRY.call(spec)
    return found
