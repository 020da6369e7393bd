"""Spectral norms of kernels against explicit matrices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import signal

from prunegen_jax.measures import convolution_norms
from prunegen_jax.networks.reading import read
from prunegen_jax.types import NotApplicableError
from tests.support.convolution_cases import explicit, random_kernel

KEY = jax.random.key(0)


def layer_of(kernel, input_shape, *, stride=1, padding=1):
    """The layer of a convolution, or of a dense kernel, read from a program that computes it."""

    def apply(params, inputs):
        if params["kernel"].ndim == 2:
            return inputs @ params["kernel"]
        padded = padding if isinstance(padding, str) else ((padding, padding),) * 2
        if padding == "CIRCULAR":
            padded, wrap = "VALID", [(0, 0), *((n // 2, (n - 1) // 2) for n in params["kernel"].shape[:2]), (0, 0)]
            inputs = jnp.pad(inputs, wrap, mode="wrap")
        return lax.conv_general_dilated(
            inputs, params["kernel"], (stride, stride), padded, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    params = {"kernel": jnp.asarray(kernel, jnp.float32)}
    (layer,) = read(apply, params, jnp.zeros((2, *input_shape))).layers
    return layer


def operator_norm(kernel, input_shape, **options):
    return convolution_norms.operator_norm(kernel, layer_of(kernel, input_shape, **options))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8, 3), (6, 10, 3)])
def test_exact_norm_is_that_of_the_matrix(stride, size):
    kernel = random_kernel()
    expected = np.linalg.norm(explicit(kernel, size, stride=stride, padding=1, circular=False), 2)
    assert operator_norm(kernel, size, stride=stride) == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("stride", [1, 2])
def test_circular_padding_is_apart_from_the_convolution(stride):
    """The layer is what follows the padding: a convolution without padding of a larger input."""
    kernel = random_kernel()
    layer = layer_of(kernel, (6, 10, 3), stride=stride, padding="CIRCULAR")
    assert layer.input_shape == (8, 12, 3) and layer.padding == ((0, 0), (0, 0))
    expected = np.linalg.norm(explicit(kernel, (8, 12, 3), stride=stride, padding=0, circular=False), 2)
    assert convolution_norms.operator_norm(kernel, layer) == pytest.approx(expected, rel=2e-6)


def test_exact_norm_with_groups_and_dilation():
    """Against the matrix that the convolution makes of unit vectors, in SciPy."""
    kernel = random_kernel((3, 3, 2, 4))

    def apply(params, inputs):
        return lax.conv_general_dilated(
            inputs, params["kernel"], (1, 2), ((2, 1), (0, 2)), rhs_dilation=(2, 1), feature_group_count=2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    (layer,) = read(apply, {"kernel": jnp.asarray(kernel, jnp.float32)}, jnp.zeros((2, 6, 5, 4))).layers
    columns = []
    for unit in np.eye(6 * 5 * 4).reshape(-1, 6, 5, 4):
        padded = np.pad(unit, ((2, 1), (0, 2), (0, 0)))
        dilated = np.zeros((5, 3, 2, 4))
        dilated[::2] = kernel
        outputs = [
            sum(signal.correlate2d(padded[..., 2 * (o // 2) + i], dilated[..., i, o], "valid") for i in range(2))
            for o in range(4)
        ]
        columns.append(np.stack(outputs)[:, :, ::2].ravel())
    expected = np.linalg.norm(np.array(columns), 2)
    assert convolution_norms.operator_norm(kernel, layer) == pytest.approx(expected, rel=2e-6)
    assert convolution_norms.spectral_norm(kernel, layer, "exact", image=(8, 8, 3)) == pytest.approx(expected, rel=2e-6)
    with pytest.raises(NotApplicableError, match="kernel is not one: use spectral='exact'"):
        convolution_norms.spectral_norm(kernel, layer, "fft_layer", image=(8, 8, 3))


@pytest.mark.parametrize(
    ("shape", "padding", "pixels"), [((5, 5, 2, 3), 2, 2), ((3, 3, 2, 3), "VALID", 0), ((3, 3, 2, 3), "SAME", 1)]
)
def test_exact_norm_with_other_paddings(shape, padding, pixels):
    kernel = random_kernel(shape)
    expected = np.linalg.norm(explicit(kernel, (7, 7, 2), stride=1, padding=pixels, circular=False), 2)
    found = operator_norm(kernel, (7, 7, 2), padding=padding)
    assert found == pytest.approx(expected, rel=2e-6)


def test_exact_norm_of_degenerate_kernels():
    assert operator_norm(np.zeros((3, 3, 2, 2)), (4, 4, 2)) == 0.0
    delta = np.zeros((3, 3, 2, 2))
    delta[1, 1] = 3e-30 * np.eye(2)  # the identity: every vector is an eigenvector
    assert operator_norm(delta, (4, 4, 2)) == pytest.approx(3e-30, rel=1e-6)
    one = random_kernel((3, 3, 1, 1))
    expected = np.linalg.norm(explicit(one, (1, 1, 1), stride=1, padding=1, circular=False), 2)
    assert operator_norm(one, (1, 1, 1)) == pytest.approx(expected, rel=1e-6)


def test_fourier_norm_is_exact_for_circular_padding_and_stride_one_alone():
    kernel = random_kernel()
    norms = {
        (stride, circular): np.linalg.norm(explicit(kernel, (8, 8, 3), stride=stride, padding=1, circular=circular), 2)
        for stride in (1, 2)
        for circular in (False, True)
    }
    found = convolution_norms.fourier_norm(kernel, (8, 8))
    assert found == pytest.approx(norms[1, True], rel=1e-12)
    assert norms[1, False] < found
    assert norms[2, True] < 0.9 * found
    # against the transform as published: fft2 over the kernel's axes, all frequencies
    singular = np.linalg.svd(np.fft.fft2(kernel, (32, 32), axes=(0, 1)), compute_uv=False)
    assert convolution_norms.fourier_norm(kernel, (32, 32)) == pytest.approx(singular.max(), rel=1e-12)
    # a kernel larger than its input wraps around
    small = np.linalg.norm(explicit(kernel, (2, 2, 3), stride=1, padding=1, circular=True), 2)
    assert convolution_norms.fourier_norm(kernel, (2, 2)) == pytest.approx(small, rel=1e-12)


def test_known_norms():
    """Numbers worked out elsewhere for this kernel on 8 × 8 pixels."""
    kernel = random_kernel()
    for stride, norm in {1: 11.6001, 2: 7.5904}.items():
        assert operator_norm(kernel, (8, 8, 3), stride=stride) == pytest.approx(norm, abs=1e-4)
    assert convolution_norms.fourier_norm(kernel, (8, 8)) == pytest.approx(12.0437, abs=1e-4)
    assert convolution_norms.spectral_norm(
        kernel, layer_of(kernel, (8, 8, 3)), "reshaped", image=(8, 8, 3)
    ) == pytest.approx(6.4106, abs=1e-4)


def test_a_spectrum_that_one_round_does_not_resolve():
    kernel = random_kernel((3, 3, 1, 1), seed=5)
    expected = np.linalg.norm(explicit(kernel, (20, 20, 1), stride=1, padding=1, circular=False), 2)
    assert operator_norm(kernel, (20, 20, 1)) == pytest.approx(expected, rel=2e-6)


def test_the_four_methods():
    kernel = random_kernel(seed=5)  # one whose largest frequency is not on the grid of 8 × 8
    layer = layer_of(kernel, (8, 8, 3), stride=2)
    image = (28, 24, 1)  # of the data set, not of the layer
    found = {
        method: convolution_norms.spectral_norm(kernel, layer, method, image=image)
        for method in convolution_norms.METHODS
    }
    matrix = kernel.transpose(3, 2, 0, 1).reshape(4, -1)  # (out, in·kh·kw)
    assert found["reshaped"] == pytest.approx(np.linalg.svd(matrix, compute_uv=False)[0], rel=1e-12)
    assert found["fft_layer"] == pytest.approx(convolution_norms.fourier_norm(kernel, (8, 8)))
    # as published: fft2 over the kernel's axes at the size of the images, all frequencies
    published = np.linalg.svd(np.fft.fft2(kernel, (28, 24), axes=(0, 1)), compute_uv=False).max()
    assert found["fft_rgm"] == pytest.approx(published, rel=1e-12)
    with pytest.raises(NotApplicableError, match=r"needs images \[H, W, C\]; inputs have the shape \(64,\)"):
        convolution_norms.spectral_norm(kernel, layer, "fft_rgm", image=(64,))
    expected = np.linalg.norm(explicit(kernel, (8, 8, 3), stride=2, padding=1, circular=False), 2)
    assert found["exact"] == pytest.approx(expected, rel=2e-6)
    assert found["exact"] <= 3 * found["reshaped"]  # √(kh·kw) times the reshaped norm is a bound
    pointwise, dense = random_kernel((1, 1, 3, 4)), random_kernel((3, 4))
    for method in convolution_norms.METHODS:
        for array, size, matrix in ((dense, (3,), dense), (pointwise, (8, 8, 3), pointwise[0, 0])):
            found = convolution_norms.spectral_norm(array, layer_of(array, size, padding=0), method, image=image)
            assert found == pytest.approx(np.linalg.norm(matrix, 2))
