#!/bin/bash
# A sweep on the Ray cluster this machine belongs to: ray job submit --working-dir . -- bash docs/jobs/ray.sh
# Ray gives every group of networks to a node with RESOURCES, and to another when that one dies. All nodes see WORKDIR and
# have the requirements and ray installed.
set -euo pipefail

CONFIG="${CONFIG:-configs/sweep.py}"
WORKDIR="${WORKDIR:-runs/sweep}"
RESOURCES="${RESOURCES:-}" # of a group: "", GPU=1, TPU=4
PYTHON="${PYTHON:-python}"

exec "$PYTHON" run.py --config="$CONFIG" --workdir="$WORKDIR" --executor=ray --ray_address="${ADDRESS-auto}" \
    --config.run.ray_resources="$RESOURCES" "$@"
