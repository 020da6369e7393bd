"""Hessian and Fisher measures of a CNN ported from PyTorch against curvlinops on the original.

Skipped without requirements-bench.txt, which `make bench` installs before it runs this file.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from prunegen_jax.measures import MEASURES
from prunegen_jax.types import Dataset, TrainedModel

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's and curvlinops' own
torch = pytest.importorskip("torch")
curvlinops = pytest.importorskip("curvlinops")

ALL = {"sketch": 400, "budget": 1000}  # Hutch++ with a sketch of the whole space: the exact trace


class Ported(linen.Module):
    """The layers of `original`."""

    @linen.compact
    def __call__(self, x):
        x = linen.Conv(4, (3, 3), strides=2, padding=1, use_bias=False, name="conv")(x)
        x = linen.relu(linen.BatchNorm(use_running_average=True, name="norm")(x))
        x = linen.relu(linen.Conv(6, (3, 3), padding=1, feature_group_count=2, name="grouped")(x))
        return linen.Dense(3, name="head")(x.reshape(len(x), -1))


def original():
    """A CNN in double precision with random weights and statistics, in evaluation mode."""
    torch.manual_seed(0)
    layers = [
        torch.nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 6, 3, padding=1, groups=2),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(54, 3),
    ]
    net = torch.nn.Sequential(*layers).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
        net[1].running_mean.normal_()
        net[1].running_var.uniform_(0.5, 2.0)
    return net


def port(net):
    """Its variables in Flax, with the layouts of docs/bring_your_own.md."""
    weights = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    dense = weights["6.weight"].reshape(3, 6, 3, 3).transpose(2, 3, 1, 0).reshape(-1, 3)
    params = {
        "conv": {"kernel": weights["0.weight"].transpose(2, 3, 1, 0)},
        "norm": {"scale": weights["1.weight"], "bias": weights["1.bias"]},
        "grouped": {"kernel": weights["3.weight"].transpose(2, 3, 1, 0), "bias": weights["3.bias"]},
        "head": {"kernel": dense, "bias": weights["6.bias"]},
    }
    statistics = {"norm": {"mean": weights["1.running_mean"], "var": weights["1.running_var"]}}
    return jax.tree.map(jnp.asarray, {"params": params, "batch_stats": statistics})


@pytest.fixture(scope="module", params=[True, False], ids=["folded", "as it is"])
def problem(request):
    """(model, fold, dense Hessian, Gauss–Newton and empirical Fisher matrix, named weights in their order)."""
    net = original()
    images, labels = torch.randn(24, 2, 6, 6).double(), torch.randint(0, 3, (24,))
    with jax.enable_x64():
        inputs = jnp.asarray(images.numpy().transpose(0, 2, 3, 1))
        model = TrainedModel.from_linen(Ported(), port(net), Dataset(inputs, jnp.asarray(labels.numpy(), jnp.int32)))
        np.testing.assert_allclose(model.apply(model.params, inputs), net(images).detach().numpy(), atol=1e-10)
    if request.param:
        net = torch.nn.Sequential(torch.nn.utils.fusion.fuse_conv_bn_eval(net[0], net[1]), *net[2:])
    norm = {id(p) for layer in net if isinstance(layer, torch.nn.BatchNorm2d) for p in layer.parameters()}
    weights = {name: p for name, p in net.named_parameters() if id(p) not in norm}
    for parameter in weights.values():
        parameter.requires_grad_(True)
    arguments = net, torch.nn.CrossEntropyLoss(), list(weights.values()), [(images, labels)]
    matrices = [
        (kind(*arguments, check_deterministic=False) @ torch.eye(sum(p.numel() for p in weights.values())).double())
        for kind in (curvlinops.HessianLinearOperator, curvlinops.GGNLinearOperator, curvlinops.EFLinearOperator)
    ]
    return model, request.param, *(m.detach().numpy() for m in matrices), weights


def flat(weights, chosen=lambda p: True):
    """The weights as one vector, zero for those that are not chosen."""
    parts = [p.detach().numpy().ravel() * float(chosen(p)) for p in weights.values()]
    return np.concatenate(parts)


def measured(problem, name, **options):
    with jax.enable_x64():
        estimate = MEASURES[name](problem[0], jax.random.key(0), fold=problem[1], **options)
    assert estimate.status == "ok", estimate.reason
    return estimate


def test_eigenvalue_and_norm_of_the_hessian(problem):
    hessian = problem[2]
    eigenvalues = np.linalg.eigvalsh(hessian)
    found = measured(problem, "hessian_top_eigenvalue", tolerance=1e-6, budget=200)
    assert found.value == pytest.approx(eigenvalues[-1], rel=1e-4)
    assert found.details["smallest"] == pytest.approx(eigenvalues[0], rel=1e-2)
    assert found.details["parameters"] == len(hessian)
    norm = measured(problem, "hessian_frobenius_norm", relative_error=0.02)
    assert norm.value == pytest.approx(np.linalg.norm(hessian), abs=5 * norm.sem)


def test_traces(problem):
    _, _, hessian, gauss_newton, fisher, weights = problem
    assert measured(problem, "hessian_trace", **ALL).value == pytest.approx(np.trace(hessian), rel=1e-4)
    assert measured(problem, "gauss_newton_trace", **ALL).value == pytest.approx(np.trace(gauss_newton), rel=1e-4)
    assert measured(problem, "empirical_fisher_trace").value == pytest.approx(np.trace(fisher), rel=1e-4)
    kernels = flat(weights, lambda p: p.ndim > 1)
    expected = np.sum(np.diag(hessian) * kernels**2)
    assert measured(problem, "hessian_weighted_trace", **ALL).value == pytest.approx(expected, rel=1e-4)


def test_quadratic_forms(problem):
    _, _, hessian, gauss_newton, fisher, weights = problem
    w = flat(weights)
    assert measured(problem, "fisher_rao_norm").value == pytest.approx(w @ fisher @ w, rel=1e-4)
    assert measured(problem, "fisher_rao_norm", fisher="true").value == pytest.approx(w @ gauss_newton @ w, rel=1e-4)
    kernel = weights[list(weights)[-2]].detach().numpy()  # of the head, [K, inputs]
    start = len(w) - kernel.size - len(kernel)
    block = hessian[start : start + kernel.size, start : start + kernel.size].reshape(*kernel.shape, *kernel.shape)
    expected = np.einsum("si,ti,sjtj->", kernel, kernel, block)
    assert measured(problem, "relative_flatness").value == pytest.approx(expected, rel=1e-4)
