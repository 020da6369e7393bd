"""`python -m prunegen_jax.judging`, the same as `prunegen judge`."""

import sys

from prunegen_jax.cli.judge import main

if __name__ == "__main__":
    sys.exit(main())
