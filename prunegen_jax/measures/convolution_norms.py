"""Spectral norms of kernels: of the reshaped matrix, by Fourier transform, and of the convolution that is computed."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunegen_jax.compute import lockstep
from prunegen_jax.types import Layer

METHODS = ("exact", "reshaped", "fft_layer", "fft_rgm")
RGM_SIZE = (32, 32)  # the input size that the code of Dziugaite et al. (2020) gives to the transform of every layer
STEPS = 32  # Lanczos steps between restarts
RESTARTS = 50
TOLERANCE = 1e-6  # relative change of the norm from one restart to the next


def channels_last(path: tuple[str, ...], kernel: np.ndarray) -> np.ndarray:
    """A kernel [kh, kw, in, out]; one of a convolution that is named `weight` is [out, in, kh, kw], as in Equinox."""
    kernel = np.asarray(kernel, np.float64)
    if kernel.ndim > 2 and path and path[-1] == "weight":
        return np.moveaxis(kernel, (1, 0), (-2, -1))
    return kernel


def spectral_norm(kernel: np.ndarray, layer: Layer | None, method: str) -> float:
    """‖W‖₂ of a dense kernel [in, out] or a convolution kernel [kh, kw, in, out], by one of `METHODS`.

    "reshaped": the largest singular value of the matrix (out, in·kh·kw); neither the norm of the convolution nor a
    bound on it, which √(kh·kw) times it is. "fft_layer" (Sedghi et al. 2018): exact for stride 1 and circular padding,
    at the layer's own input size; "fft_rgm": the same at 32 × 32 for every layer. "exact": of the linear map that the
    layer computes, with its stride and padding. For dense and 1×1 kernels all four are one number.

    Raises:
        ValueError: if there is a reason in `why_not_applicable`.
    """
    if reason := why_not_applicable(kernel, layer, method):
        raise ValueError(reason)
    if _is_a_matrix(kernel) or method == "reshaped":
        return float(np.linalg.norm(np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1]), 2))
    if method == "fft_rgm":
        return fourier_norm(kernel, RGM_SIZE)
    assert layer is not None  # or it would not be applicable
    if method == "fft_layer":
        return fourier_norm(kernel, layer.input_shape[:2])
    return operator_norm(kernel, layer.input_shape, stride=layer.stride, padding=layer.padding)


def why_not_applicable(kernel: np.ndarray, layer: Layer | None, method: str) -> str:
    """Why `method` cannot be applied to a kernel of that geometry; "" if it can."""
    if _is_a_matrix(kernel) or method == "reshaped":
        return ""
    if kernel.ndim != 4:
        return f"spectral={method!r} is for kernels of 2 or 4 axes; got shape {kernel.shape}"
    if method != "fft_rgm" and (layer is None or len(layer.input_shape) != 3):
        return f"spectral={method!r} needs the geometry of the layers: TrainedModel(layers=...)"
    return ""


def _is_a_matrix(kernel: np.ndarray) -> bool:
    return all(size == 1 for size in kernel.shape[:-2])


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


def operator_norm(
    kernel: np.ndarray,
    input_shape: tuple[int, ...],
    *,
    stride: int = 1,
    padding: int | str = 0,
) -> float:
    """The largest singular value of x [H, W, C] → conv(x), of any stride.

    Power iteration on the convolution A and its transpose (its VJP), accelerated: each round takes the best vector of
    the Krylov space of AᵀA of 32 dimensions (Lanczos, full reorthogonalization) and starts from it, until the norm
    changes by less than 1e-6 of itself. Float32. The start is the same Gaussian vector for all kernels, so that the
    same kernel gives the same bits in every measure.

    Args:
        kernel: [kh, kw, in, out].
        input_shape: (H, W, C).
        stride: of the convolution.
        padding: pixels on each side, "SAME", "VALID" or "CIRCULAR".
    """
    scale = float(np.abs(kernel).max())
    if scale == 0.0:
        return 0.0
    array = jnp.asarray(kernel / scale, jnp.float32)
    vector = jax.random.normal(jax.random.key(0), input_shape, jnp.float32)
    norm = 0.0
    for _ in range(RESTARTS):
        before = norm
        eigenvalue, vector = _lanczos(array, vector, stride, padding)
        norm = float(np.sqrt(max(float(eigenvalue), 0.0)))
        if abs(norm - before) <= TOLERANCE * norm:
            break
    return scale * norm


def convolve(kernel: jax.Array, inputs: jax.Array, stride: int, padding: int | str) -> jax.Array:
    """The convolution of one input `[H, W, C]`, without bias."""
    pads: str | list[tuple[int, int]] = padding if isinstance(padding, str) else [(padding, padding)] * 2
    if padding == "CIRCULAR":
        windows = kernel.shape[:2]
        inputs = jnp.pad(inputs, [*(((n - 1) // 2, n // 2) for n in windows), (0, 0)], mode="wrap")
        pads = "VALID"
    return lax.conv_general_dilated(
        inputs[None],
        kernel,
        (stride, stride),
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )[0]


@functools.partial(lockstep.jit, static_argnames=("stride", "padding"))
def _lanczos(kernel: jax.Array, start: jax.Array, stride: int, padding: int | str) -> tuple[jax.Array, jax.Array]:
    """The largest eigenvalue of AᵀA on the Krylov space of `start [H, W, C]`, and its vector."""
    forward = functools.partial(convolve, kernel, stride=stride, padding=padding)
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
