"""Training compiled for TPUs that this machine need not have: memory and work by program, and a roofline estimate.

    python benchmarks/tpu.py                                            # one to two minutes of CPU for each program
    python benchmarks/tpu.py --kinds v5e --networks nin:48 --slots 1 8  # these alone
    python benchmarks/tpu.py --smoke                                    # seconds: that it compiles something small

An epoch of training on 50,000 uint8 images of 32×32×3 in batches of 128 is compiled ahead of time by libtpu, for NiN
of depth 2 and the pre-activation ResNet-18, each as NAME:WIDTH, at several numbers of slots, for one chip and for four
chips that share the slots. Nothing runs: the numbers are the compiler's own. By program: MiB of arguments and of
temporaries on a chip; GFLOP and MiB moved per image and network; and the images per second that the chips would train
if they did nothing but compute at their peak (bfloat16) or read and write at the peak of their memory, whichever takes
longer. That bounds the rate from above. A step of the loop is counted once, and what is done once per call, drawing
the order of the epoch, is counted with it. Needs requirements-bench.txt. The last line is one JSON object.
"""

import argparse
import json
import os
import time

os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # else libtpu looks for the machine that a TPU is attached to
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import peers

from prunegen_jax import networks, training
from prunegen_jax.compute import planes
from prunegen_jax.training.rows import in_rows
from prunegen_jax.types import Dataset

PEAKS = {"v5e": (197e12, 819e9), "v6e": (918e12, 1640e9)}  # of a chip: FLOP/s in bfloat16, bytes/s of its memory
FULL = {"images": 50_000, "side": 32, "batch": 128}
SMOKE = {"images": 64, "side": 8, "batch": 8}


def training_program(label, slots, devices, *, images, side, batch):
    """The traced program of an epoch, whose arguments lie on `devices`."""
    name, _, width = label.partition(":")
    fields = {"depth": 2} if name == "nin" else {}
    form = planes.choose_form(vmapped=slots > 1, backend="tpu")
    network = networks.build(
        name, input_shape=(side, side, 3), classes=10, width=int(width), convolutions=form, **fields
    )
    program = training.compile_for(network, training.Recipe(batch_size=batch), slots=slots, devices=devices)
    h = training.hyper(learning_rate=0.01, weight_decay=1e-4, dropout=0.0, seed=0)
    one = (jax.eval_shape(program.init, h.key), h, *[jnp.int32(0)] * 3)
    split, whole = placements(devices)
    state, h, *numbers = jax.tree.map(lambda x: jax.ShapeDtypeStruct((slots, *x.shape), x.dtype, sharding=split), one)

    def data():
        pixels, channels = jnp.zeros((images, side, side, 3), jnp.uint8), jnp.ones(3)
        return in_rows(Dataset(pixels, jnp.zeros(images, jnp.int32), channels, channels))

    stored = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), jax.eval_shape(data))
    return program.run.trace(state, h, stored, *numbers)


def placements(devices):
    """Where arrays with a leading axis of slots lie, and where the others do."""
    if not devices:
        return None, None
    if len(devices) == 1:
        return (jax.sharding.SingleDeviceSharding(devices[0]),) * 2
    mesh = jax.sharding.Mesh(devices, ("slots",))
    return jax.NamedSharding(mesh, jax.P("slots")), jax.NamedSharding(mesh, jax.P())


def compiled(kind, chips, label, slots, sizes):
    """What the compiler says of a program; memory is that of one chip."""
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(platform="tpu", topology_name=f"{kind}:2x2x1").devices[:chips]
    begin = time.perf_counter()
    program = training_program(label, slots, tuple(devices), **sizes).lower().compile()
    memory, cost = program.memory_analysis(), program.cost_analysis()
    flops, moved = cost["flops"], cost["bytes accessed"]
    images, (peak_flops, peak_bytes) = sizes["batch"] * slots / chips, PEAKS[kind]
    return {
        "arguments_mib": round(memory.argument_size_in_bytes / 2**20, 1),
        "temporaries_mib": round(memory.temp_size_in_bytes / 2**20, 1),
        "gflop_per_image": round(flops / images / 1e9, 4),
        "mib_per_image": round(moved / images / 2**20, 3),
        "roofline_images_per_s": round(chips * images / max(flops / peak_flops, moved / peak_bytes)),
        "bound_by": "compute" if flops / peak_flops > moved / peak_bytes else "memory",
        "compile_s": round(time.perf_counter() - begin, 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=list(PEAKS), choices=PEAKS)
    parser.add_argument("--networks", nargs="+", default=["nin:48", "nin:200", "resnet:16"])
    parser.add_argument("--slots", nargs="+", type=int, default=[1, 8, 64, 256])
    parser.add_argument("--chips", nargs="+", type=int, default=[1, 4], choices=[1, 4])
    parser.add_argument("--smoke", action="store_true", help="one small program, only lowered without libtpu")
    arguments = parser.parse_args()
    left_out = peers.missing("libtpu", smoke=arguments.smoke)
    sizes = SMOKE if arguments.smoke else FULL
    if arguments.smoke:
        arguments.kinds, arguments.networks, arguments.slots, arguments.chips = ["v5e"], ["nin:4"], [1], [1]
    if left_out:
        print("libtpu is not installed (requirements-bench.txt): programs are lowered for TPU, and not compiled")
        for label in arguments.networks:
            text = training_program(label, 1, (), **sizes).lower(lowering_platforms=("tpu",)).as_text()
            print(f"{label}: {text.count('stablehlo.convolution')} convolutions")
        print(json.dumps({"left_out": left_out}))
        return
    found, too_large = {}, {}
    for kind in arguments.kinds:
        for label in arguments.networks:
            for chips in arguments.chips:
                for slots in [count for count in arguments.slots if count % chips == 0]:
                    name = f"{kind} {label} slots {slots} chips {chips}"
                    try:
                        found[name] = compiled(kind, chips, label, slots, sizes)
                    except jax.errors.JaxRuntimeError as error:  # it takes more memory than a chip has
                        too_large[name] = str(error).splitlines()[0]
                        print(name, too_large[name], sep=": ", flush=True)
                        continue
                    print(name, *(f"{key} {value}" for key, value in found[name].items()), sep=", ", flush=True)
    short = {key: [row["temporaries_mib"], row["gflop_per_image"]] for key, row in found.items()}
    print(json.dumps({"temporaries_mib_and_gflop_per_image": short, "too_large": too_large, "left_out": left_out}))


if __name__ == "__main__":
    main()
