"""Posteriors over weights: layouts, files, Laplace's approximation against numpy and laplace-torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from bayes_samples import KINDS, cnn, made_up, mlp
from scipy.special import softmax
from torch import Tensor, nn

import potstill as ps
from potstill import bayes, networks
from potstill.bayes.laplace import tuned_precision
from potstill.bayes.layout import Layout
from potstill.bayes.posterior import Diagonal, GaussianPosterior, cholesky
from potstill.errors import DataError, MissingExtraError, PosteriorError, StorageError
from potstill.types import Source


def small(outputs: int = 3) -> nn.Sequential:
    """4 - 5 - 2 - outputs, with sizes that all differ."""
    return mlp(4, 5, 2, outputs, activation=nn.Tanh)


def digits(task: str = "multiclass", rows: int = 60) -> Source:
    whole = ps.data.open("digits", test=0.2, validation=0, labelled=rows if task == "multiclass" else None).train
    if task == "multiclass":
        return whole
    batch = whole.fetch(torch.arange(400))  # type: ignore[arg-type]
    arrays = ((batch.inputs.numpy() * 16).round().astype(np.uint8), (batch.labels >= 5).long().numpy())
    return ps.data.open(arrays, task="binary", test=50, validation=50, labelled=rows).train


# Layout


def test_a_layout_is_the_order_of_named_parameters() -> None:
    for network in (small(), cnn(), networks.build("lenet", (1, 28, 28), 10)):
        layout = Layout.of(network)
        flat = torch.cat([p.detach().double().flatten() for p in network.parameters()])
        assert layout.size == len(flat)
        assert torch.equal(layout.flat(dict(network.named_parameters())), flat)
        back = layout.tensors(flat)
        assert list(back) == [name for name, _ in network.named_parameters()]
        assert all(torch.equal(back[name], p.double()) for name, p in network.named_parameters())


def test_every_number_has_its_index() -> None:
    network = cnn()
    layout = Layout.of(network)
    flat = layout.flat(dict(network.named_parameters()))
    tensors = dict(network.named_parameters())
    assert flat[layout.index("conv2", "weight", 2, (1, 0, 2))] == tensors["conv2.weight"][2, 1, 0, 2].double()
    assert flat[layout.index("dense", "weight", 3, 17)] == tensors["dense.weight"][3, 17].double()
    assert flat[layout.index("head", "bias", 2)] == tensors["head.bias"][2].double()
    with pytest.raises(PosteriorError, match=r"head\.bias has shape \(3,\); there is no \[3\]"):
        layout.index("head", "bias", 3)
    with pytest.raises(PosteriorError, match=r'Unknown layer "hed". Did you mean "head"'):
        layout.index("hed", "bias", 0)


def test_what_follows_a_layer() -> None:
    layers = Layout.of(cnn()).layers
    assert [layer.name for layer in layers] == ["conv1", "conv2", "dense", "head"]
    assert layers[0].after == ("ReLU()",)
    assert layers[1].after[0] == "ReLU()"
    assert layers[1].after[1].startswith("MaxPool2d(kernel_size=2")
    assert [layer.spread for layer in layers] == [1, 2 * 3, 1, 1]
    assert [layer.kernel for layer in layers] == [(3, 3), (3, 3), (), ()]


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


SHARED = nn.Linear(4, 4)
# a network, and words of why its layers are no chain
NO_CHAINS: dict[str, tuple[nn.Module, str]] = {
    "residual": (networks.build("resnet18:2", (3, 8, 8), 2), "stem.norm is a BatchNorm2d, to be folded"),
    "residual, folded": (
        bayes.fold(networks.build("resnet18:2", (3, 8, 8), 2)),
        "stage1.block1 is a Residual",
    ),
    "shared": (nn.Sequential(SHARED, nn.ReLU(), SHARED), "2 occurs twice"),
    "groups": (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(4, 2)), "convolution in 2 groups"),
    "unknown": (nn.Sequential(nn.Linear(4, 4), Twice(), nn.Linear(4, 2)), "1 is a Twice"),
    "softmax": (nn.Sequential(nn.Linear(4, 4), nn.Softmax(-1)), "1 is a Softmax"),
}


@pytest.mark.parametrize(("network", "words"), NO_CHAINS.values(), ids=NO_CHAINS)
def test_what_is_no_chain_says_why_and_is_refused_by_name(network: nn.Module, words: str) -> None:
    posterior = bayes.from_means(network)
    assert words in posterior.layout.obstacle
    with pytest.raises(PosteriorError, match=words):
        bayes.remove_neurons(posterior, 0, [0])


def test_a_network_without_layers_has_no_posterior() -> None:
    with pytest.raises(PosteriorError, match="no linear or convolution layer"):
        Layout.of(nn.Sequential(nn.ReLU()))


# The posterior


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    posterior = made_up(cnn() if kind == "diagonal" else small(), kind)
    posterior.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"posterior.json", "posterior.safetensors"}
    back = bayes.load(tmp_path)
    assert back.layout == posterior.layout
    assert back.info == {"made": "up"}
    assert back.kind == kind
    assert torch.equal(back.mean, posterior.mean)
    every = torch.arange(posterior.layout.size)
    assert torch.equal(back.covariance_of(every), posterior.covariance_of(every))
    assert back.fingerprint() == posterior.fingerprint()
    file = tmp_path / "posterior.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(StorageError, match="damaged"):
        bayes.load(tmp_path)
    with pytest.raises(PosteriorError, match="holds no posterior"):
        bayes.load(tmp_path / "elsewhere")


def test_a_posterior_does_not_share_memory() -> None:
    network = small(1)
    posterior = bayes.from_means(network, 2.0)
    before = posterior.mean.clone()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
        for tensor in posterior.means().values():
            tensor.add_(1.0)
        for tensor in posterior.variances().values():
            tensor.add_(1.0)
    assert torch.equal(posterior.mean, before)
    assert torch.equal(posterior.variance, torch.full_like(before, 2.0))
    own = before.clone()
    held = GaussianPosterior(posterior.layout, own, Diagonal(own.abs() + 1))
    own.zero_()
    assert torch.equal(held.mean, before)


def test_refused_numbers() -> None:
    layout = Layout.of(small())
    mean, one = torch.zeros(layout.size), torch.ones(layout.size)
    with pytest.raises(PosteriorError, match=r"has a mean of shape \(46,\)"):
        GaussianPosterior(layout, mean[1:], Diagonal(one))
    with pytest.raises(PosteriorError, match="NaN or infinity"):
        GaussianPosterior(layout, mean / 0, Diagonal(one))
    with pytest.raises(PosteriorError, match="variances are positive; found 0 at 3"):
        GaussianPosterior(layout, mean, Diagonal(one.index_fill(0, torch.tensor([3]), 0.0)))
    names = [name for name, _ in small().named_parameters()][:-1]
    with pytest.raises(PosteriorError, match=r"missing \['head.bias'\], not there \['heat.bias'\]"):
        bayes.from_means(small(), dict.fromkeys(names, 1.0) | {"heat.bias": 1.0})


def test_from_means_with_a_variance_for_each_parameter() -> None:
    network = small()
    names = [name for name, _ in network.named_parameters()]
    posterior = bayes.from_means(network, {name: float(i + 1) for i, name in enumerate(names)})
    for i, (name, parameter) in enumerate(network.named_parameters()):
        assert torch.equal(posterior.variances()[name], torch.full_like(parameter, i + 1.0))
        assert torch.equal(posterior.means()[name], parameter)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_moments(kind: str) -> None:
    posterior = made_up(nn.Sequential(nn.Linear(2, 2)), kind)
    draws = torch.stack([posterior.sample(seed) for seed in range(2000)])
    every = torch.arange(posterior.layout.size)
    scale = float(posterior.variance.max())
    assert float((draws.mean(0) - posterior.mean).abs().max()) < 5 * (scale / 2000) ** 0.5
    assert float((draws.T.cov() - posterior.covariance_of(every)).abs().max()) < 8 * scale / 2000**0.5
    assert torch.equal(posterior.sample(7), posterior.sample(7))
    assert not torch.equal(posterior.sample(7), posterior.sample(8))


def test_what_is_left_of_a_full_covariance() -> None:
    posterior = made_up(small(), "full")
    every = torch.arange(posterior.layout.size)
    full, blocks, diagonal = (p.covariance_of(every) for p in (posterior, posterior.blocks(), posterior.diagonal()))
    for layer in posterior.layout.layers:
        assert torch.equal(blocks[layer.block, layer.block], full[layer.block, layer.block])
    assert int((blocks != 0).sum()) == sum(layer.size**2 for layer in posterior.layout.layers)
    assert torch.equal(diagonal, torch.diag(full.diagonal()))
    assert torch.equal(posterior.diagonal().blocks().covariance_of(every), diagonal)
    some = torch.tensor([30, 2, 40, 3])
    assert torch.equal(posterior.blocks().covariance_of(some), blocks[some][:, some])


def test_no_covariance_is_said_to_be_none() -> None:
    with pytest.raises(PosteriorError, match="not positive definite"):
        cholesky(torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64))
    flat = torch.ones(3, 3, dtype=torch.float64)
    assert torch.allclose(cholesky(flat) @ cholesky(flat).T, flat, atol=1e-7)


# Folding


def test_folded_batch_norms_answer_alike() -> None:
    network = networks.seeded("resnet18:4", (3, 12, 12), 5, seed=1)
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded, inputs = bayes.fold(network), torch.rand(4, 3, 12, 12, generator=generator)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(folded(inputs), network(inputs), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_batch_norm_after_the_activation_cannot_be_folded() -> None:
    with pytest.raises(PosteriorError, match="2 cannot be folded: it does not stand right after"):
        bayes.fold(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.BatchNorm1d(3)))
    with pytest.raises(PosteriorError, match="1 keeps no running statistics"):
        bayes.fold(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False)))


# Curvature


def jacobian(network: nn.Module, inputs: Tensor) -> np.ndarray:
    """(n, K, P) float64 by autograd, one output at a time."""
    network = network.double()
    rows = []
    for row in inputs.double():
        outputs = network(row[None])[0]
        grads = [torch.autograd.grad(z, list(network.parameters()), retain_graph=True) for z in outputs]
        rows.append(torch.stack([torch.cat([g.flatten() for g in one]) for one in grads]))
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("network", ["mlp:6-5", "small_cnn", "strides"])
@pytest.mark.parametrize("task", ["multiclass", "binary"])
def test_the_diagonal_against_jacobians(network: str, task: str) -> None:
    source = digits(task, rows=10 if task == "multiclass" else 9)
    spec = {"name": "small_cnn", "channels": (2, 3), "dense": 4} if network == "small_cnn" else network
    if network == "strides":
        spec = lambda shape, outputs: nn.Sequential(  # noqa: E731
            nn.Conv2d(1, 2, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), nn.ReLU(inplace=True),
            nn.Conv2d(2, 3, 3, padding="same", bias=False), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
            nn.Linear(3 * 2 * 3, outputs),
        )  # fmt: skip
    module = networks.seeded(spec, source.spec.shape, source.spec.outputs, seed=3)
    found = bayes.diagonal_ggn(module, source, batch_size=4)
    rows = source.labelled.nonzero().flatten()
    batch = source.fetch(rows)  # type: ignore[arg-type]
    module.eval()
    J = jacobian(module, batch.inputs)
    with torch.no_grad():
        z = module(batch.inputs.double()).numpy()
    labels = batch.labels.numpy()
    if task == "binary":
        p = 1 / (1 + np.exp(-z[:, 0]))
        wanted = np.einsum("n,np->p", p * (1 - p), J[:, 0] ** 2)
        loss = -np.log(np.where(labels == 1, p, 1 - p)).sum()
    else:
        p = softmax(z, axis=1)
        L = np.stack([np.diag(row) - np.outer(row, row) for row in p])
        wanted = np.einsum("nkp,nkl,nlp->p", J, L, J)
        loss = -np.log(p[np.arange(len(p)), labels]).sum()
    np.testing.assert_allclose(found.diagonal.numpy(), wanted, rtol=2e-4, atol=1e-6 * wanted.max())
    assert found.loss == pytest.approx(loss, rel=1e-5)
    assert found.rows == len(rows)


def test_curvature_refusals() -> None:
    source = digits()
    with pytest.raises(PosteriorError, match=r"1\.weight belongs to no linear or convolution layer \(batch norms"):
        bayes.diagonal_ggn(nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 10)), source)
    grouped = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1, groups=2), nn.Flatten(), nn.Linear(128, 10))
    with pytest.raises(PosteriorError, match="1 is a convolution in groups"):
        bayes.diagonal_ggn(grouped, source)
    bare = type(source)(
        **{**{f: getattr(source, f) for f in source.__dataclass_fields__}, "labelled": source.labelled & False}
    )  # type: ignore[attr-defined,call-arg]
    with pytest.raises(DataError, match="No row carries a label"):
        bayes.diagonal_ggn(networks.build("linear", (1, 8, 8), 10), bare)


def test_the_network_is_left_as_it_was() -> None:
    source, network = digits(rows=20), networks.seeded("mlp:4", (1, 8, 8), 10, seed=0).train()
    bayes.diagonal_ggn(network, source)
    assert network.training
    assert all(p.grad is None for p in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


# Laplace


def test_laplace_with_a_given_precision_is_one_over_curvature_plus_precision() -> None:
    source, network = digits(), networks.seeded("mlp:4", (1, 8, 8), 10, seed=0)
    bends = bayes.diagonal_ggn(network, source).diagonal
    posterior = bayes.laplace(network, source, prior_precision=3.0)
    torch.testing.assert_close(posterior.variance, 1 / (bends + 3.0))
    assert torch.equal(posterior.mean, posterior.layout.flat(dict(network.named_parameters())))
    assert posterior.info["prior_precision"] == 3.0
    assert posterior.info["rows"] == 60


def test_the_tuned_precision_has_the_largest_evidence() -> None:
    """Against a grid over the evidence itself, in numpy."""
    rng = np.random.default_rng(0)
    bends, mean = rng.gamma(0.3, 5.0, 50), rng.normal(0, 0.4, 50)
    found = tuned_precision(torch.tensor(bends), torch.tensor(mean))
    grid = found * np.exp(np.linspace(-3, 3, 6001))
    evidence = [0.5 * (50 * np.log(t) - np.log(bends + t).sum() - t * (mean**2).sum()) for t in grid]
    assert grid[int(np.argmax(evidence))] == pytest.approx(found, rel=2e-3)
    with pytest.raises(PosteriorError, match="Give prior_precision"):
        tuned_precision(torch.zeros(3), torch.ones(3))


def test_laplace_folds_and_refuses() -> None:
    source = digits(rows=20)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 5, bias=False), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 10))
    posterior = bayes.laplace(network, source, prior_precision=1.0)
    assert [layer.bias for layer in posterior.layout.layers] == [True, True]
    with pytest.raises(PosteriorError, match=r"prior_precision is 0\.0; wanted is a finite number above 0"):
        bayes.laplace(network, source, prior_precision=0.0)
    with pytest.raises(PosteriorError, match='structure is "diag"'):
        bayes.laplace(network, source, structure="diag")  # type: ignore[arg-type]


def outside(structure: str, network: nn.Module, source: Source) -> GaussianPosterior:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bayes.laplace(network, source, structure=structure, prior_precision=2.0)  # type: ignore[arg-type]
    except MissingExtraError:
        pytest.skip("laplace-torch is not installed")


def test_laplace_of_a_linear_regression_is_its_exact_posterior() -> None:
    """Of one target and one layer: (X^T X / s + t I)^-1, in the units in which the network answers, by numpy."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3)).astype(np.float32)
    Y = X @ np.array([[20.0], [-10.0], [5.0]]) + 300 + rng.normal(size=(60, 1))
    train = ps.data.open((X, Y), task="regression", test=0.2, validation=0).train
    network = networks.seeded("linear", (3,), 1, seed=0)
    batch = train.fetch(torch.arange(len(train)))  # type: ignore[arg-type]
    inputs = np.concatenate([batch.inputs.double().numpy(), np.ones((len(train), 1))], 1)
    H = inputs.T @ inputs
    posterior = bayes.laplace(network, train, prior_precision=2.0, noise_variance=0.5)
    np.testing.assert_allclose(posterior.variance.numpy(), 1 / (np.diag(H) / 0.5 + 2.0), rtol=1e-5)
    assert train.spec.scaling is not None
    labels = (batch.labels.double().numpy() - train.spec.scaling.offset) / train.spec.scaling.scale
    with torch.no_grad():
        residual = network(batch.inputs).double().numpy() - labels
    tuned = bayes.laplace(network, train)
    assert tuned.info["noise_variance"] == pytest.approx((residual**2).mean(), rel=1e-5)
    full = outside("full", network, train)
    wanted = np.linalg.inv(H / (residual**2).mean() + 2.0 * np.eye(4))
    np.testing.assert_allclose(full.covariance_of(torch.arange(4)).numpy(), wanted, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("task", ["multiclass", "binary"])
def test_structures_of_laplace_torch_against_numpy(task: str) -> None:
    source = digits(task, rows=12)
    network = networks.seeded("mlp:3", source.spec.shape, source.spec.outputs, seed=0)
    full = outside("full", network, source)
    batch = source.fetch(source.labelled.nonzero().flatten())  # type: ignore[arg-type]
    J = jacobian(network, batch.inputs)
    with torch.no_grad():
        z = network(batch.inputs.double()).numpy()
    if task == "binary":
        p = 1 / (1 + np.exp(-z))
        L = (p * (1 - p))[:, :, None]
    else:
        p = softmax(z, axis=1)
        L = np.stack([np.diag(row) - np.outer(row, row) for row in p])
    network.float()
    H = np.einsum("nkp,nkl,nlq->pq", J, L, J)
    wanted = np.linalg.inv(H + 2.0 * np.eye(len(H)))
    every = torch.arange(full.layout.size)
    np.testing.assert_allclose(full.covariance_of(every).numpy(), wanted, atol=1e-6)
    block = outside("block", network, source)
    for layer in full.layout.layers:
        part = np.arange(layer.block.start, layer.block.stop)
        inverse = np.linalg.inv(H[np.ix_(part, part)] + 2.0 * np.eye(len(part)))
        np.testing.assert_allclose(block.covariance_of(torch.tensor(part)).numpy(), inverse, atol=1e-6)
    kron = outside("kronecker", network, source)
    assert kron.kind == "block"
    diagonal = bayes.laplace(network, source, prior_precision=2.0)
    ratio = (kron.variance / diagonal.variance).log().abs().mean()
    assert float(ratio) < 0.3  # another approximation of the same


class Held:
    """Like a trained model: it holds a network and is none."""

    network = nn.Linear(2, 3)


@pytest.mark.parametrize(
    "call",
    [
        lambda: bayes.laplace(Held(), digits(rows=10)),  # type: ignore[arg-type]
        lambda: bayes.from_means(Held()),  # type: ignore[arg-type]
        lambda: bayes.from_variational(Held()),  # type: ignore[arg-type]
        lambda: bayes.fold(Held()),  # type: ignore[arg-type]
    ],
)
def test_a_model_in_the_place_of_its_network_is_told_apart(call: Callable[[], object]) -> None:
    with pytest.raises(PosteriorError, match=r"Found a Held; wanted is a network, an nn.Module. Take model.network."):
        call()


def test_other_mistakes_of_arguments_are_told() -> None:
    network = networks.seeded("mlp:3", (1, 8, 8), 10, seed=0)
    with pytest.raises(PosteriorError, match=r"Found a tuple; wanted is one of its parts, such as data\.train"):
        bayes.laplace(network, ())  # type: ignore[arg-type]
    with pytest.raises(
        PosteriorError, match=r'has no distributions for weights\. Train it with inference = "variational"'
    ):
        bayes.from_variational(network)  # type: ignore[arg-type]
    with pytest.raises(PosteriorError, match=r"Found a Held; wanted is a posterior: bayes\.from_variational"):
        bayes.build("distil-student").of(Held())  # type: ignore[arg-type]


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "laplace", None)
    spec, inference = digits(rows=10).spec, bayes.build({"name": "laplace", "structure": "block"})
    with pytest.raises(MissingExtraError, match=r'structure = "block" needs laplace-torch'):  # before it is trained
        inference.prepare(nn.Linear(64, 10), spec, rows=10, batch_size=5, seed=0)
    with pytest.raises(MissingExtraError, match=r'structure = "full" needs laplace-torch'):
        bayes.laplace(networks.seeded("mlp:3", (1, 8, 8), 10, seed=0), digits(rows=10), structure="full")


def test_a_fitted_object_of_laplace_torch() -> None:
    source, network = digits(rows=30), networks.seeded("mlp:3", (1, 8, 8), 10, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        laplace = pytest.importorskip("laplace")
        batch = source.fetch(source.labelled.nonzero().flatten())  # type: ignore[arg-type]
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(batch.inputs, batch.labels), batch_size=10)
        la = laplace.Laplace(network, "classification", subset_of_weights="all", hessian_structure="diag")
        la.fit(loader)
        wrong = laplace.Laplace(network, "classification", subset_of_weights="last_layer", hessian_structure="diag")
        wrong.fit(loader)
    posterior = bayes.from_laplace(la, network)
    torch.testing.assert_close(
        posterior.variance, bayes.laplace(network, source, prior_precision=1.0).variance, rtol=1e-4, atol=1e-7
    )
    with pytest.raises(PosteriorError, match="wanted is a DiagLaplace"):
        bayes.from_laplace(wrong, network)
