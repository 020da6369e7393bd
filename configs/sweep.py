"""The example sweep: which measure predicts how well a small network generalizes on handwritten digits?

    python run.py --config=configs/sweep.py --workdir=runs/sweep
    python run.py --config=configs/sweep.py:smoke --workdir=runs/smoke
    python run.py --config=configs/sweep.py:resnet --workdir=runs/resnet
    python run.py --config=configs/sweep.py:cifar10 --config.data.dir=DIR --workdir=runs/cifar10

`digits`, the default: 48 networks on 500 real digits, over width, learning rate, dropout and weight decay, two seeds
each; about three minutes on two cores. The gap between training and test accuracy is between about 3 and 11 points.
`smoke`: the same stages with 8 networks, under a minute.
`resnet`: 8 residual networks (ResNet-18 with few channels) on the same digits, a few minutes.
`cifar10`: 8 wider networks on 2,500 CIFAR-10 images, most of an hour on two cores; DIR is the folder where TFDS keeps
its prepared sets (leave it out to have TFDS download CIFAR-10). The gap is about 50 points for all of them: 2,500
images are too few for a smaller gap, and eight networks are too few for a conclusion.
"""

from ml_collections import ConfigDict

from configs import default

MEASURES = (
    "prunability",
    "prunability_prefix",
    "prunability_random",
    "kept_parameters",
    "num_parameters",
    "parameter_norm",
    "distance_from_initialization",
    "inverse_margin",
    "sum_of_training_losses",
    "updates_to_target",
    "training_cross_entropy",
)


def get_config(variant: str = "digits") -> ConfigDict:
    """The config of a sweep.

    Args:
        variant: "digits", "smoke", "resnet" or "cifar10".

    Raises:
        ValueError: for another variant.
    """
    if variant not in {"digits", "smoke", "resnet", "cifar10"}:
        raise ValueError(f"sweep.py:{variant} is unknown; choose among digits, smoke, resnet, cifar10")
    config = default.get_config()
    config.measures.names = MEASURES
    if variant == "cifar10":
        return _cifar10(config)
    config.data.train_size = 500
    config.train.max_epochs = 150
    config.sweep.axes = (
        ("model.width", (8, 16)),
        ("train.learning_rate", (0.02, 0.05, 0.1)),
        ("train.dropout", (0.0, 0.2)),
        ("train.weight_decay", (0.0, 1e-4)),
        ("seed", (0, 1)),
    )
    if variant == "smoke":
        config.sweep.axes = (("train.learning_rate", (0.05, 0.1)), ("train.dropout", (0.0, 0.2)), ("seed", (0, 1)))
    if variant == "resnet":
        config.model = ConfigDict({"name": "resnet", "width": 4, "preactivation": True})
        config.sweep.axes = (("model.width", (4, 8)), ("train.learning_rate", (0.02, 0.05)), ("seed", (0, 1)))
    return config


def _cifar10(config: ConfigDict) -> ConfigDict:
    config.data.name = "cifar10"
    config.data.train_size = 2500
    config.train.max_epochs = 120
    config.measures.names = tuple(name for name in MEASURES if name != "prunability_random")  # the most expensive
    config.sweep.axes = (
        ("model.width", (64, 80)),
        ("train.batch_size", (64, 128)),
        ("train.learning_rate", (0.05, 0.1)),
    )
    return config
