"""Which packages are installed: all of `prunegen_jax`, with `configs` and `studies` in it. The rest is in setup.cfg."""

from setuptools import find_packages, setup

CONFIGS, STUDIES = (f"prunegen_jax.experiments.{name}" for name in ("configs", "studies"))

setup(
    packages=[*find_packages(include=["prunegen_jax", "prunegen_jax.*"]), CONFIGS, STUDIES],
    package_dir={CONFIGS: "configs", STUDIES: "studies"},
    package_data={STUDIES: ["*/*.csv", "*/*.json"], "prunegen_jax.report": ["*.html"]},
)
