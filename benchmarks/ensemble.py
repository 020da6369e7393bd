"""What an ensemble of slots gains on an accelerator over one network at a time; `sweep.py` runs it if there is one."""

import time


def run_here(config, workdir, stage="train"):
    from prunegen_jax.runs import pipeline

    pipeline.run(config, workdir, stages=(stage,))


def single(
    folder, networks=64, width=48, slots=0, epochs=20, measures=(), compile_before=True, stages=("train", "measure")
):
    """Seconds to train networks of one shape one at a time over those in an ensemble; prints the utilisation too.

    `measures` are those of the default sweep if none are given.
    """
    from prunegen_jax import get_config

    seconds = {}
    for count in (1, slots):
        config = get_config("sweep")
        config.model.width, config.run.slots, config.run.group = width, count, networks
        config.train.max_epochs = epochs
        config.measures.names = measures or config.measures.names
        before = [4 if count == 1 else networks] * compile_before  # with one slot, few networks compile all programs
        for stage in stages:
            for attempt, amount in enumerate((*before, networks)):
                seeds = tuple(range(amount // 4))
                config.sweep.axes = (("train.learning_rate", (0.02, 0.05, 0.1, 0.2)), ("seed", seeds))
                workdir = folder / f"single-{count}-{attempt}"
                begin = time.perf_counter()
                run_here(config, workdir, stage)
                seconds[stage, count] = time.perf_counter() - begin
        images, flops, gemm = utilisation(workdir, config)
        told = f"{images:.0f} images/s in the updates, {flops * images / gemm:.3f} of {gemm / 1e9:.0f} GFLOP/s"
        print(f"slots={count}: training {seconds['train', count]:.1f} s, {told}", flush=True)
        if "measure" in stages:
            print(f"slots={count}: measuring {seconds['measure', count]:.1f} s", flush=True)
    return seconds["train", 1] / seconds["train", slots]


def utilisation(workdir, config):
    """Images per second in the updates of a workdir, FLOP per image of them, and FLOP/s of a large matrix product."""
    import jax
    import jax.numpy as jnp

    from prunegen_jax import networks
    from prunegen_jax.compute.evaluation import cross_entropy
    from prunegen_jax.runs import costs, record

    known = record.read_all(workdir)
    times = [costs.read(workdir, each.name) for each in known]
    batch = config.train.batch_size
    images = sum(each.updates for each in known) * batch / sum(one["update"] for one in times)

    network = networks.build("nin", input_shape=(8, 8, 1), classes=10, width=config.model.width, convolutions="xla")
    params, stats = network.init(jax.random.key(0))

    def loss(params, images):
        logits, _ = network.train_apply(params, stats, images, jnp.float32(0), jax.random.key(0))
        return cross_entropy(logits, jnp.zeros(batch, jnp.int32)).mean()

    gradient = jax.jit(jax.grad(loss)).lower(params, jnp.zeros((batch, 8, 8, 1))).compile()
    square = jnp.ones((4096, 4096)) if jax.default_backend() != "cpu" else jnp.ones((1024, 1024))
    product = jax.jit(jnp.dot)
    rates = []
    for _ in range(5):
        begin = time.perf_counter()
        product(square, square).block_until_ready()
        rates.append(2 * len(square) ** 3 / (time.perf_counter() - begin))
    return images, gradient.cost_analysis()["flops"] / batch, max(rates)
