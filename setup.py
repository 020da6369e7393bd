"""Which packages are installed: all of `prunegen_jax`, and `configs` as its subpackage. The rest is in setup.cfg."""

from setuptools import find_packages, setup

CONFIGS = "prunegen_jax.experiments.configs"

setup(packages=[*find_packages(include=["prunegen_jax", "prunegen_jax.*"]), CONFIGS], package_dir={CONFIGS: "configs"})
