"""How many networks of a zoo are measured in a second: trains a zoo in the format of the Small CNN Zoo first.

    python benchmarks/zoo.py          # 1,000 networks are trained, 64 of them are measured by the fast set
    python benchmarks/zoo.py --smoke  # few networks: that it runs, not how fast

The last line is one JSON object: {"zoo_networks_per_second": r}. Compilation is not counted: the first group is
measured before the clock starts.
"""

import argparse
import gzip
import json
import pathlib
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax import data
from prunegen_jax.compute.planes import with_convolutions
from prunegen_jax.measures import select
from prunegen_jax.runs import zoo as zoos
from prunegen_jax.types import Dataset

WIDTH = 16
EXAMPLES = 20  # of the short form
MEASURED = 2 * zoos.GROUP
LAYERS = ("conv2d", "conv2d_1", "conv2d_2", "dense")


def images_and_labels(count=None):
    """The first `count` digits, or all, enlarged to 32 x 32."""
    raw = data.load("digits")
    images = np.kron(raw.train_images[:count, ..., 0], np.ones((1, 4, 4), np.uint8))
    return images, raw.train_labels[:count]


def train(networks, steps, images, labels, seed=0):
    """Parameters of networks trained by SGD at several learning rates, all in one program: `[networks, parameters]`."""
    x, y = zoos.images_of(images), jnp.asarray(labels)
    shapes = [(3, 3, 1, WIDTH), (3, 3, WIDTH, WIDTH), (3, 3, WIDTH, WIDTH), (WIDTH, 10)]
    apply = with_convolutions(zoos.network(LAYERS, "relu"))

    def initial(key):
        keys = jax.random.split(key, len(shapes))
        return {
            layer: {"bias": jnp.zeros(s[-1]), "kernel": jax.random.normal(k, s) * (2 / np.prod(s[:-1])) ** 0.5}
            for layer, k, s in zip(LAYERS, keys, shapes, strict=True)
        }

    def loss(params, rows):
        logits = jax.nn.log_softmax(apply(params, x[rows]))
        return -jnp.take_along_axis(logits, y[rows][:, None], axis=1).mean()

    def one(key, rate):
        def step(params, i):
            rows = jax.random.randint(jax.random.fold_in(key, i), (32,), 0, len(y))
            return jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params, rows)), None

        return jax.lax.scan(step, initial(key), jnp.arange(steps))[0]

    rates = jnp.asarray([0.02, 0.05, 0.1, 0.2])[jnp.arange(networks) % 4]
    keys = jax.random.split(jax.random.key(seed), networks)
    trained = jax.jit(lambda k, r: jax.lax.map(lambda kr: one(*kr), (k, r)))(keys, rates)
    flat = [np.asarray(trained[layer][name]).reshape(networks, -1) for layer in LAYERS for name in ("bias", "kernel")]
    return np.concatenate(flat, axis=1), [(layer, name) for layer in LAYERS for name in ("bias", "kernel")], shapes


def write(folder, weights, names, shapes):
    """Writes the files of a zoo."""
    lines, start = ["varname,start_idx,end_idx,size,shape"], 0
    for layer, name in names:
        shape = shapes[LAYERS.index(layer)]
        shape = shape if name == "kernel" else shape[-1:]
        size = int(np.prod(shape))
        lines.append(f'sequential/{layer}/{name}:0,{start},{start + size},{size},"{shape}"')
        start += size
    (folder / "layout.csv").write_text("\n".join(lines) + "\n")
    np.save(folder / "weights.npy", weights)
    rows = ["config.activation,config.learning_rate,modeldir,step,train_accuracy,test_accuracy"]
    rows += [f"relu,{(0.02, 0.05, 0.1, 0.2)[i % 4]},/zoo/{i},86,0.9,0.8" for i in range(len(weights))]
    (folder / "metrics.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--smoke", action="store_true", help="few networks: that it runs, not how fast")
    smoke = options.parse_args().smoke
    networks, steps = (zoos.GROUP + 1, 5) if smoke else (1000, 150)
    names = ["parameter_norm", "prunability_prefix"] if smoke else select("fast")
    begin = time.perf_counter()
    images, labels = images_and_labels(EXAMPLES if smoke else None)
    weights, parameters, shapes = train(networks, steps, images, labels)
    print(f"{networks} networks of {weights.shape[1]} parameters trained in {time.perf_counter() - begin:.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        write(pathlib.Path(folder), weights, parameters, shapes)
        zoo = zoos.read_zoo(folder)
        dataset = Dataset(zoos.images_of(images), labels)
        ok = 0
        for i, (group, found) in enumerate(zoos.measure_zoo(zoo, range(min(networks, MEASURED)), dataset, names)):
            ok += sum(estimate.status == "ok" for row in found for estimate in row.values())
            if i == 0:  # the programs are compiled now
                print(f"first {len(group)} networks, with compilation: {time.perf_counter() - begin:.1f} s", flush=True)
                begin, cpu = time.perf_counter(), time.process_time()
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    count = len(group)
    print(
        f"{count} networks, {len(names)} measures, {len(labels)} images: {seconds:.1f} s, {cpu:.1f} CPU s; {ok} values"
    )
    print(json.dumps({"zoo_networks_per_second": count / seconds}))


if __name__ == "__main__":
    main()
