"""The backend that JAX computes with."""

from __future__ import annotations

import jax


def check_backend() -> None:
    """Starts JAX's backend, so that one that is not there is reported before anything else.

    Raises:
        ValueError: if JAX cannot use the platform that it is told to use.
    """
    try:
        jax.default_backend()
    except RuntimeError as error:
        reason = str(error).partition(" (set JAX_PLATFORMS")[0]
        raise ValueError(
            f"JAX_PLATFORMS={jax.config.jax_platforms} cannot be used here: {reason}. Install JAX for that platform, "
            "or unset JAX_PLATFORMS"
        ) from None
