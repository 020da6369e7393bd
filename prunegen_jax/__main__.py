"""`python -m prunegen_jax`: the command `prunegen`."""

import sys

from prunegen_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
