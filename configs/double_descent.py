"""Double descent: does a measure follow the test loss as networks grow through the interpolation threshold?

    python run.py --config=configs/double_descent.py --workdir=runs/double_descent
    python run.py --config=configs/double_descent.py:smoke --workdir=runs/double_descent_smoke
    python run.py --config=configs/double_descent.py:laptop --config.data.dir=DIR --workdir=runs/double_descent_laptop
    python run.py --config=configs/double_descent.py:paper --config.data.dir=DIR --workdir=runs/double_descent_paper

The protocol of Nakkiran et al. (2020): networks of growing width, noisy training labels, a fixed number of epochs with
Adam and no target, so that networks which do not interpolate are data points as well. Without a target the training
loss differs by orders of magnitude between widths, and prunability with a relative tolerance depends on it: it is
measured with a relative and with an absolute tolerance, and by the training error. DIR is the folder where TFDS keeps
its prepared sets (leave it out to have TFDS download CIFAR-10).

`digits`, the default: the 5-layer CNN at 12 widths, two seeds each, on 1,000 digits, a fifth of them relabelled; six
to eleven minutes on two cores, depending on the processor. `smoke`: 2 small networks, in seconds.
`laptop`: the same network at 12 widths, two seeds each, on 2,500 CIFAR-10 images; hours on two cores.
`paper`: ResNet-18 at 20 widths on all of CIFAR-10 for 4,000 epochs with augmentation; for a cluster of GPUs.
"""

from ml_collections import ConfigDict

from configs import default

MEASURES = (
    "training_cross_entropy",
    "prunability",
    "prunability:absolute",
    "prunability_error",
    "prunability_prefix",
    "num_parameters",
    "parameter_norm",
    "inverse_margin",
    "average_sharpness",
    "hessian_top_eigenvalue",
)
WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24)
VARIANTS = ("digits", "laptop", "paper", "smoke")


def get_config(variant: str = "digits") -> ConfigDict:
    """The config of a variant.

    Args:
        variant: "digits", "laptop", "paper" or "smoke".

    Raises:
        ValueError: for another variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"double_descent.py:{variant} is unknown; choose among {', '.join(VARIANTS)}")
    config = default.get_config()
    config.model = ConfigDict({"name": "cnn", "width": 8})
    config.data.label_noise = 0.2
    config.train.optimizer = "adam"
    config.train.target = 0.0
    config.measures.names = MEASURES
    config.measures.options["prunability:absolute"] = {"tolerance": "absolute", "delta": 0.01}
    if variant in ("laptop", "paper"):
        _cifar10(config, variant)
    else:
        _digits(config, variant)
    return config


def _digits(config: ConfigDict, variant: str) -> None:
    config.train.learning_rate = 1e-3
    config.train.batch_size = 50
    config.train.max_epochs = 100
    config.measures.names = (*MEASURES[:-1], "sam_sharpness")  # the eigenvalue takes longest to compile
    config.sweep.axes = (("model.width", WIDTHS), ("seed", (0, 1)))
    if variant == "smoke":
        config.data.train_size = 60
        config.train.max_epochs = 3
        config.judge.draws = 50
        config.measures.names = ("prunability_prefix", "prunability_prefix:absolute", "parameter_norm")
        config.measures.options = {"prunability_prefix:absolute": {"tolerance": "absolute", "delta": 0.01}}
        config.sweep.axes = (("model.width", (1, 2)),)


def _cifar10(config: ConfigDict, variant: str) -> None:
    config.data.name = "cifar10"
    config.train.learning_rate = 1e-4
    config.train.batch_size = 128
    if variant == "laptop":
        config.data.train_size = 2500
        config.train.learning_rate = 1e-3
        config.train.batch_size = 64
        config.train.max_epochs = 200
        config.sweep.axes = (("model.width", WIDTHS), ("seed", (0, 1)))
        return
    config.model = ConfigDict({"name": "resnet", "width": 64, "preactivation": True})
    config.data.label_noise = 0.15
    config.train.augment = True
    config.train.max_epochs = 4000
    widths = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 20, 24, 32, 40, 48, 64)
    config.sweep.axes = (("model.width", widths), ("seed", (0, 1)))
