"""Spectral norms of kernels: of the reshaped matrix, by Fourier transform, and of the convolution that is computed."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunegen_jax.compute import lockstep
from prunegen_jax.networks.reading.layers import Layer, linear_map
from prunegen_jax.types import NotApplicableError

METHODS = ("exact", "reshaped", "fft_layer", "fft_rgm")
STEPS = 32  # Lanczos steps between restarts
RESTARTS = 50
TOLERANCE = 1e-6  # relative change of the norm from one restart to the next


def spectral_norm(kernel: np.ndarray, layer: Layer, method: str, *, image: tuple[int, ...]) -> float:
    """‖W‖₂ of a dense kernel [in, out] or a convolution kernel [*window, in / groups, out], by one of `METHODS`.

    "reshaped": the largest singular value of the matrix (out, in·window); neither the norm of the convolution nor a
    bound on it, which √(kh·kw) times it is. "fft_layer" (Sedghi et al. 2018): exact for stride 1 and circular padding,
    at the layer's own input size; "fft_rgm": the same for every layer at the size of the data set's images, `image` =
    (H, W, C), as in the code of Dziugaite et al. (2020). "exact": of the linear map that the layer computes, with its
    strides, padding, dilation and groups. For dense and 1×1 kernels all four are one number.

    Raises:
        NotApplicableError: for a Fourier transform of a convolution with groups, dilation or not two spatial axes, and
            for "fft_rgm" if the data set holds no images.
    """
    kernel = np.asarray(kernel, np.float64)
    matrix = all(size == 1 for size in kernel.shape[:-2]) and layer.groups == 1
    if matrix or method == "reshaped":
        return float(np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2))
    if method == "exact":
        return operator_norm(kernel, layer)
    dilated = any(size != 1 for size in (*layer.input_dilation, *layer.kernel_dilation))
    if layer.groups != 1 or dilated or len(layer.window) != 2:
        raise NotApplicableError(
            f"spectral={method!r} is for plain two-dimensional convolutions; {layer.name} is not one: use "
            "spectral='exact'"
        )
    if method == "fft_rgm" and len(image) != 3:
        raise NotApplicableError(f"spectral='fft_rgm' needs images [H, W, C]; inputs have the shape {image}")
    return fourier_norm(kernel, image[:2] if method == "fft_rgm" else layer.input_shape[:2])


def fourier_norm(kernel: np.ndarray, size: tuple[int, ...]) -> float:
    """The largest singular value of the circular convolution of stride 1 on inputs of `size` = (H, W).

    The operator's singular values are those of the H·W matrices [in, out] of the kernel's Fourier transform. A
    kernel larger than the input wraps around. Half the frequencies do, the others being complex conjugates.
    """
    wrapped = np.zeros((*size, *kernel.shape[2:]), np.float64)
    for row in range(kernel.shape[0]):
        for column in range(kernel.shape[1]):
            wrapped[row % size[0], column % size[1]] += kernel[row, column]
    transform = np.fft.fft(np.fft.rfft(wrapped, axis=1), axis=0)
    return float(np.linalg.svd(transform, compute_uv=False).max())


def operator_norm(kernel: np.ndarray, layer: Layer) -> float:
    """The largest singular value of x [*spatial, C] → conv(x), of any geometry.

    Power iteration on the convolution A and its transpose (its VJP), accelerated: each round takes the best vector of
    the Krylov space of AᵀA of 32 dimensions (Lanczos, full reorthogonalization) and starts from it, until the norm
    changes by less than 1e-6 of itself. Float32. The start is the same Gaussian vector for all kernels, so that the
    same kernel gives the same bits in every measure.

    Args:
        kernel: [*window, in / groups, out].
        layer: its geometry.
    """
    scale = float(np.abs(kernel).max())
    if scale == 0.0:
        return 0.0
    geometry = plain_geometry(layer)
    array = jnp.asarray(kernel / scale, jnp.float32)
    vector = jax.random.normal(jax.random.key(0), layer.input_shape, jnp.float32)
    norm = 0.0
    for _ in range(RESTARTS):
        before = norm
        eigenvalue, vector = _lanczos(array, vector, geometry)
        norm = float(np.sqrt(max(float(eigenvalue), 0.0)))
        if abs(norm - before) <= TOLERANCE * norm:
            break
    return scale * norm


def plain_geometry(layer: Layer) -> Layer:
    """The layer without its name and without how its parameter is laid out, so that equal geometries share programs."""
    shape = (*layer.window, layer.input_shape[-1] // layer.groups, layer.output_shape[-1])
    axes = (tuple(range(len(shape))), 1)
    return dataclasses.replace(
        layer, path=(), kernel_shape=shape, output_shape=layer.output_shape[-1:], bias=None, view=(), operand_axes=axes
    )


@functools.partial(lockstep.jit, static_argnames="layer")
def _lanczos(kernel: jax.Array, start: jax.Array, layer: Layer) -> tuple[jax.Array, jax.Array]:
    """The largest eigenvalue of AᵀA on the Krylov space of `start [*spatial, C]`, and its vector."""
    forward = functools.partial(linear_map, layer, kernel)
    steps = min(STEPS, start.size)

    def step(i: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        basis, image, vector = carry
        basis = basis.at[i].set(vector)
        outputs, transpose = jax.vjp(forward, vector.reshape(start.shape))
        image_row = transpose(outputs)[0].reshape(-1)
        image = image.at[i].set(image_row)
        rest = image_row
        for _ in range(2):
            rest = rest - jnp.dot(jnp.dot(basis, rest), basis)
        length = jnp.linalg.norm(rest)
        # once the Krylov space is exhausted zeros follow, which add the eigenvalue 0 and change nothing
        nonzero = length > 1e-6 * jnp.linalg.norm(image_row)
        return basis, image, jnp.where(nonzero, rest / jnp.where(nonzero, length, 1.0), jnp.zeros_like(rest))

    with jax.default_matmul_precision("highest"):
        first = start.reshape(-1) / jnp.linalg.norm(start)
        empty = jnp.zeros((steps, start.size), start.dtype)
        basis, image, _ = lax.fori_loop(0, steps, step, (empty, empty, first))
        projected = jnp.dot(basis, image.T)
        values, vectors = jnp.linalg.eigh(0.5 * (projected + projected.T))
        return values[-1], jnp.dot(vectors[:, -1], basis).reshape(start.shape)
