"""A sweep small enough to be run many times: 4 networks on 200 digits."""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.data.train_size = 200
    config.model.depth = 2
    config.model.width = 8
    config.train.batch_size = 20
    config.train.target = 0.05
    config.train.max_epochs = 60
    config.run.checkpoint_seconds = 0.2
    config.run.workers = 1  # which with one thread is the process of the test itself
    config.judge.draws = 50
    config.measures.names = ("prunability_prefix", "parameter_norm", "prunability_random", "sum_of_training_losses")
    config.measures.options = {"prunability_random": {"masks": 3, "drops": 30}}
    config.sweep.axes = (("train.learning_rate", (0.05, 0.1)), ("seed", (0, 1)))
    return config
