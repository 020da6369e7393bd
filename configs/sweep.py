"""The newcomer's sweep: which measure tells how well small networks generalize on handwritten digits?

    python run.py --config=configs/sweep.py --workdir=runs/sweep
    python run.py --config=configs/sweep.py:smoke --workdir=runs/smoke
    python run.py --config=configs/sweep.py:cifar10 --config.data.dir=... --workdir=runs/cifar10

36 networks on 500 real digits.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "digits") -> ConfigDict:
    """The sweep called `variant`: digits, smoke or cifar10."""
    config = default.get_config()
    config.data.train_size = 500
    config.sweep.axes = (
        ("model.width", (8, 16)),
        ("train.learning_rate", (0.01, 0.03, 0.1)),
        ("train.dropout", (0.0, 0.3)),
        ("train.weight_decay", (0.0, 3e-4)),
        ("seed", (0, 1)),
    )
    return config
