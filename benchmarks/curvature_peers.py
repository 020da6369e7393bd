"""PyHessian and curvlinops, for `curvature.py`: the same network in PyTorch, eigenvalues and traces by each."""

import sys
import time

import numpy as np
import torch
from curvlinops import HessianLinearOperator, hutchinson_trace, hutchpp_trace
from pyhessian import hessian as PyHessian
from scipy.sparse.linalg import eigsh
from torch import nn


def in_torch(model):
    """The folded network in PyTorch, and the same examples."""
    blocks = []
    for name, layer in sorted(model.params.items(), key=lambda item: (item[0] == "head", item[0])):
        kernel = torch.tensor(np.asarray(layer["kernel"]).transpose(3, 2, 0, 1).copy())
        window, stride = kernel.shape[-1], 2 if kernel.shape[-1] == 3 else 1
        conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], window, stride, padding=window // 2)
        conv.weight.data, conv.bias.data = kernel, torch.tensor(np.asarray(layer["bias"]))
        blocks += [nn.AdaptiveAvgPool2d(1), conv, nn.Flatten()] if name == "head" else [conv, nn.ReLU()]
    images = np.asarray(model.train.standardise(model.train.inputs)).transpose(0, 3, 1, 2).copy()
    return nn.Sequential(*blocks), torch.tensor(images), torch.tensor(np.asarray(model.train.labels)).long()


def timed(function):
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def cheapest(candidates, run, reference, error=1e-3):
    """The first of the candidates, loosest first, whose eigenvalue is within the error; the last if none is."""
    for candidate in candidates:
        (value, products), seconds = run(candidate)
        if abs(value - reference) <= error * reference:
            break
    return value, products, seconds


def settle_threads(net, images, labels):
    """Gives PyTorch the number of threads with which it is faster on this machine as it is now."""

    def product():
        losses = nn.CrossEntropyLoss()(net(images), labels)
        gradient = torch.autograd.grad(losses, list(net.parameters()), create_graph=True)
        return torch.autograd.grad(gradient, list(net.parameters()), [torch.ones_like(g) for g in gradient])

    seconds = {}
    for threads in (1, torch.get_num_threads()):
        torch.set_num_threads(threads)
        seconds[threads] = min(timed(product)[1] for _ in range(5))
    torch.set_num_threads(min(seconds, key=seconds.get))
    print(f"PyTorch with {torch.get_num_threads()} threads: a product takes {1e3 * min(seconds.values()):.0f} ms")


def counting(operator):
    """A linear operator that counts its products."""
    count = [0]
    inner = operator._matmat

    def counted(vectors):
        count[0] += vectors[0].shape[-1]
        return inner(vectors)

    operator._matmat = counted
    return operator, count


def pyhessian_eigenvalue(net, images, labels, tolerance):
    torch.manual_seed(0)
    count, module = [0], sys.modules[PyHessian.__module__]
    net.zero_grad(set_to_none=True)  # it takes gradients from where they accumulate

    def run():
        torn = PyHessian(net, nn.CrossEntropyLoss(), data=(images, labels), cuda=False)
        inner = module.hessian_vector_product

        def counted(*arguments):
            count[0] += 1
            return inner(*arguments)

        module.hessian_vector_product = counted
        try:
            return torn.eigenvalues(maxIter=500, tol=tolerance)[0][0]
        finally:
            module.hessian_vector_product = inner

    value, seconds = timed(run)
    return (value, count[0]), seconds


def pyhessian_trace(net, images, labels, products):
    torch.manual_seed(0)
    net.zero_grad(set_to_none=True)

    def run():
        torn = PyHessian(net, nn.CrossEntropyLoss(), data=(images, labels), cuda=False)
        return float(np.mean(torn.trace(maxIter=products, tol=0.0)))

    return timed(run)


def curvlinops_operator(net, images, labels):
    parameters = list(net.parameters())
    return HessianLinearOperator(net, nn.CrossEntropyLoss(), parameters, [(images, labels)], check_deterministic=False)


def curvlinops_eigenvalue(net, images, labels, tolerance):
    def run():
        operator, count = counting(curvlinops_operator(net, images, labels))
        start = np.random.default_rng(0).normal(size=operator.shape[0]).astype(np.float32)
        value = eigsh(operator.to_scipy(np.float32), k=1, which="LA", tol=tolerance, v0=start)[0][0]
        return float(value), count[0]

    return timed(run)


def curvlinops_trace(net, images, labels, method, products):
    torch.manual_seed(0)

    def run():
        return float(method(curvlinops_operator(net, images, labels), products))

    return timed(run)


def compare(net, images, labels, *, top_reference, plain, plus):
    """The rows of the table (name, eigenvalue, products, seconds, trace, products, seconds) of both peers.

    `plain` and `plus` are the products that Hutchinson and Hutch++ need for the error asked for.
    """
    settle_threads(net, images, labels)
    tolerances = (1e-2, 1e-3, 1e-4, 1e-5)
    top = cheapest(tolerances, lambda t: pyhessian_eigenvalue(net, images, labels, t), top_reference)
    trace, seconds = pyhessian_trace(net, images, labels, plain)
    rows = [("PyHessian", *top, trace, plain, seconds)]
    top = cheapest((1e-1, *tolerances), lambda t: curvlinops_eigenvalue(net, images, labels, t), top_reference)
    method, products = (hutchpp_trace, plus) if plus <= plain else (hutchinson_trace, plain)
    trace, seconds = curvlinops_trace(net, images, labels, method, products)
    return [*rows, ("curvlinops", *top, trace, products, seconds)]


def loss(net, images, labels):
    """The mean cross-entropy in PyTorch."""
    return nn.CrossEntropyLoss()(net(images), labels).item()
