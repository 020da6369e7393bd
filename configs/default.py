"""All fields of a config, with their units or choices. An experiment imports this file and overrides some fields.

    python run.py --config=configs/default.py --workdir=runs/one

trains and measures one small network on digits, in seconds. Override fields on the command line:
`--config.model.width=32`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """The config that every experiment starts from."""
    config = ConfigDict()
    config.seed = 0  # initialization, batch order, dropout, and the measures that sample

    config.data = ConfigDict()
    config.data.name = "digits"  # digits, breast_cancer, or an image-classification set of TFDS: cifar10, ...
    config.data.dir = placeholder(str)  # where TFDS finds its prepared sets; unset: TFDS's own default
    config.data.cache_dir = placeholder(str)  # where decoded images are kept; unset: the user's cache folder
    config.data.train_size = placeholder(int)  # examples to train on; unset: all
    config.data.label_noise = 0.0  # fraction of training labels drawn again, uniformly over the classes
    config.data.seed = 0  # of the subset and the label noise
    config.data.shifts = ()  # further test sets: "blur_3", "gaussian_noise_5_seed1", "cifar10_corrupted/fog_2", ...

    config.model = ConfigDict()
    config.model.name = "nin"  # nin, resnet, cnn, mlp; its other fields go to its constructor, which checks them
    config.model.depth = 2  # blocks of three convolutions
    config.model.width = 16  # channels
    config.model.batch_norm = True
    config.model.head = "gap"  # gap, or rgm: batch norm and ReLU on the logits before pooling

    config.train = ConfigDict()
    config.train.optimizer = "momentum"  # momentum (0.9), adam, rmsprop
    config.train.learning_rate = 0.03
    config.train.weight_decay = 0.0  # L2: lambda of (lambda / 2) times the sum of squared kernels
    config.train.dropout = 0.0  # probability of dropping an activation after each block
    config.train.batch_size = 32
    config.train.augment = False  # mirror and shift the training images
    config.train.target = 0.01  # nats: training-set cross-entropy below which training stops; 0: run to max_epochs
    config.train.max_epochs = 300
    config.train.max_updates = 1_000_000_000

    config.sweep = ConfigDict()
    config.sweep.mode = "grid"  # grid: every combination of axes; random: `count` of them; list: `points`
    config.sweep.axes = ()  # (("model.depth", (2, 3)), ("train.learning_rate", (0.01, 0.03)), ...)
    config.sweep.points = ()  # list: ((("model.depth", 2), ("seed", 1)), ...), one tuple of fields per point
    config.sweep.count = 0  # random: how many points
    config.sweep.seed = 0  # random: seed of the choice of points

    config.measures = ConfigDict()
    config.measures.names = ("fast",)  # names, "fast" (low cost) or "all"; "NAME:LABEL": NAME with options of its own
    config.measures.options = (
        ConfigDict()
    )  # measure -> its options: config.measures.options.prunability = {"beta": 0.2}

    config.judge = ConfigDict()
    config.judge.draws = 1000  # bootstrap draws
    config.judge.level = 0.95  # of the intervals
    config.judge.seed = 0

    config.run = ConfigDict()
    config.run.group = (
        0  # networks of equal shape in one unit of work, as distributed by --shard; 0: 4 on a CPU, else 256
    )
    config.run.slots = 0  # networks trained (and measured, up to 16) at once; 0: one on a CPU, else as memory allows
    config.run.convolutions = "auto"  # how they are computed: auto (see docs/accelerators.md), planes, patches, xla
    config.run.compilation_cache = "auto"  # folder of compiled programs; auto: the user's cache folder; off: none
    config.run.checkpoint_seconds = 60.0  # between checkpoints of a network in training
    config.run.workers = 0  # processes on a CPU; 0: one for every `threads` cores
    config.run.threads = 1  # of a process on a CPU; another number may change the last bits of the numbers
    config.run.retries = 2  # of a unit of work whose process died or could not reach its files
    config.run.ray_resources = ""  # of a unit of work on Ray: "GPU=1", "TPU=4", "CPU=2,GPU=0.5"; "": CPU=threads
    return config
