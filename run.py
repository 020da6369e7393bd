"""Trains a sweep of networks, measures each, and judges which measure tells how well they generalize.

python run.py --config=configs/sweep.py --workdir=runs/sweep
"""

from prunegen_jax.cli.run import main

if __name__ == "__main__":
    main()
