"""The large study: which measure predicts how well convolutional networks generalize on CIFAR-10?

    python run.py --config=configs/cifar10.py:smoke --config.data.dir=DIR --workdir=runs/cifar10_smoke
    python run.py --config=configs/cifar10.py:laptop --config.data.dir=DIR --workdir=runs/cifar10_laptop
    python run.py --config=configs/cifar10.py:paper --config.data.dir=DIR --workdir=runs/cifar10_paper

DIR is the folder where TFDS keeps its prepared sets (leave it out to have TFDS download CIFAR-10). The axes are those
of Jiang et al. (2020) over which networks in network reach a cross-entropy of 0.01.

`laptop`, the default: 96 networks on 2,500 images, two seeds each of 48 configurations; about five hours on two cores.
The measures that take several passes over the training set take its first 250 images, the same for all networks (the
option "subset"); `prunability:double` takes twice as many, to compare with. `paper`: 384 networks on all 50,000 images,
for one GPU or a cluster; their subset has 5,000.
`smoke`: 2 small networks on 100 images with a few of the measures, in seconds.

Some measures vary what prunability leaves open: the criterion, which weights are prunable, folding, the order.
"""

from ml_collections import ConfigDict

from configs import default

MEASURES = (
    "training_cross_entropy",
    # pruning
    "prunability",
    "prunability:double",
    "prunability:all_parameters",
    "prunability_prefix",
    "prunability_random",
    "prunability_error",
    "prunability_folded",
    "prunability_layerwise",
    "kept_parameters",
    # size and norms
    "num_parameters",
    "parameter_norm",
    "distance_from_initialization",
    "product_of_frobenius_norms",
    "product_of_spectral_norms",
    "sum_of_spectral_norms",
    "path_norm",
    "path_norm_over_margin",
    # margins
    "inverse_margin",
    "normalized_margins",
    "constrained_margin",
    # flatness
    "pac_bayes_flatness",
    "perturbation_robustness",
    "average_sharpness",
    "sam_sharpness",
    "hessian_top_eigenvalue",
    "hessian_trace",
    "empirical_fisher_trace",
    "relative_flatness",
    # noise and speed
    "gradient_noise",
    "sum_of_training_losses",
    "sum_of_first_training_losses",
    "sum_of_last_training_losses",
    "sum_of_update_losses",
    "averaged_training_loss",
    "updates_to_target",
    "updates_to_loss",
    "updates_between_losses",
    # other
    "davies_bouldin_mixup",
)
EXPENSIVE = (
    "prunability",
    "prunability:double",
    "prunability:all_parameters",
    "prunability_prefix",
    "prunability_random",
    "prunability_error",
    "prunability_folded",
    "prunability_layerwise",
    "kept_parameters",
    "pac_bayes_flatness",
    "perturbation_robustness",
    "average_sharpness",
    "sam_sharpness",
    "hessian_top_eigenvalue",
    "hessian_trace",
)
VARIANTS = ("laptop", "paper", "smoke")


def get_config(variant: str = "laptop") -> ConfigDict:
    """The config of a variant.

    Args:
        variant: "laptop", "paper" or "smoke".

    Raises:
        ValueError: for another variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"cifar10.py:{variant} is unknown; choose among {', '.join(VARIANTS)}")
    config = default.get_config()
    config.data.name = "cifar10"
    config.measures.names = MEASURES
    if variant == "smoke":
        return _smoke(config)
    subset = 250 if variant == "laptop" else 5000
    options = {name: {"subset": subset} for name in EXPENSIVE}
    options["prunability:double"] = {"subset": 2 * subset}
    options["prunability:all_parameters"]["prunable"] = "all"
    options["prunability_random"]["drops"] = 100  # the standard errors that these leave are in the table
    options["hessian_trace"]["budget"] = 40
    options |= {name: {"examples": subset} for name in ("gradient_noise", "constrained_margin")}
    config.measures.options = options
    if variant == "laptop":
        config.data.train_size = 2500
        config.train.max_epochs = 200
        config.sweep.axes = (
            ("seed", (0, 1)),
            ("model.width", (40, 64)),
            ("model.depth", (2, 3, 4)),
            ("train.batch_size", (64, 128)),
            ("train.learning_rate", (0.05, 0.1)),
            ("train.weight_decay", (0.0, 2e-4)),
        )
        return config
    config.train.max_epochs = 300
    config.sweep.axes = (
        ("seed", (0, 1)),
        ("model.width", (96, 192)),
        ("model.depth", (2, 3, 4)),
        ("train.batch_size", (32, 128)),
        ("train.learning_rate", (0.05, 0.1)),
        ("train.dropout", (0.0, 0.25)),
        ("train.weight_decay", (0.0, 1e-4)),
        ("train.augment", (False, True)),
    )
    return config


def _smoke(config: ConfigDict) -> ConfigDict:
    config.data.train_size = 100
    config.model.depth, config.model.width = 1, 4
    config.train.target = 2.25  # of ln 10 = 2.30 before training
    config.train.max_epochs = 20
    config.judge.draws = 50
    config.measures.names = ("prunability_prefix", "prunability_prefix:subset", "parameter_norm", "updates_to_target")
    config.measures.options["prunability_prefix:subset"] = {"subset": 50}
    config.sweep.axes = (("train.learning_rate", (0.05, 0.1)),)
    return config
