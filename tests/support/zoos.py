"""A small zoo of made-up networks in the format of the Small CNN Zoo."""

import gzip

import numpy as np

WIDTH, CLASSES = 4, 3


def write_zoo(folder, *, networks, width=WIDTH, seed=0):
    """Writes weights.npy, layout.csv and metrics.csv.gz, two steps of every network; returns images and labels."""
    rng = np.random.default_rng(seed)
    shapes = {
        "conv2d": (3, 3, 1, width), "conv2d_1": (3, 3, width, width), "conv2d_2": (3, 3, width, width),
        "dense": (width, CLASSES),
    }  # fmt: skip
    lines, start = ["varname,start_idx,end_idx,size,shape"], 0
    for layer, shape in shapes.items():
        for name, own in (("bias", shape[-1:]), ("kernel", shape)):
            size = int(np.prod(own))
            shown = f'"{own}"'
            lines.append(f"sequential/{layer}/{name}:0,{start},{start + size},{size},{shown}")
            start += size
    (folder / "layout.csv").write_text("\n".join(lines) + "\n")
    np.save(folder / "weights.npy", rng.normal(scale=0.5, size=(2 * networks, start)).astype(np.float32))
    rows = ["config.activation,config.learning_rate,modeldir,step,train_accuracy,train_loss,test_accuracy,test_loss"]
    for i in range(networks):
        for step in (0, 86):
            values = f"{0.5 + i / 50},{1 - i / 20},{0.4 + i / 60},{1.1 - i / 30}"
            rows.append(f"{('relu', 'tanh')[i % 2]},{0.1 * (1 + i % 3)},/zoo/{i},{step},{values}")
    (folder / "metrics.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    return rng.integers(0, 256, (80, 16, 16)).astype(np.uint8), (np.arange(80) % CLASSES).astype(np.int32)
