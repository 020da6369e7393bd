"""Strict modes for every test: no silent promotion of dtypes or ranks, warnings are errors, one compilation cache."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

# As `processes.environment(1)` has it for a worker, so that a test may be one; JAX and NumPy read it once, at first.
for _name in ("PJRT_NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
if "--xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=2".strip()
# The tests compile far more than they compute. So do the processes that they start.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"

import jax  # noqa: E402
import pytest  # noqa: E402

from tests.support.compilations import drop_many_programs  # noqa: E402

ROOT = pathlib.Path(__file__).parent.parent

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update(
    "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)  # as above, if JAX was imported before
jax.config.update("jax_disable_most_optimizations", True)


def pytest_configure(config: pytest.Config) -> None:
    """`pytest -m devices` runs on eight devices of the host, which JAX has to know before it computes anything."""
    if config.option.markexpr == "devices":
        jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(autouse=True, scope="module")
def few_programs_in_memory() -> Iterator[None]:
    """XLA's compiler crashes where there are too many."""
    yield
    drop_many_programs()


@pytest.fixture(scope="session")
def devices() -> list[jax.Device]:
    """Eight devices, in the process of `pytest -m devices`; any other process has one."""
    if len(jax.devices()) != 8:
        pytest.fail("tests marked `devices` need a process of their own: pytest -m devices")
    return jax.devices()


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of external fixtures; tests that need it say so when it is not there."""
    folder = os.environ.get("PRUNEGEN_SHARED")
    if not folder:
        pytest.skip("PRUNEGEN_SHARED does not name the folder of external fixtures")
    return pathlib.Path(folder)
