#!/bin/bash
# A sweep on a fleet of TPU VMs, which may be preempted at any moment: docs/jobs/tpu_vms.sh VM...
# VM i gets every n-th group of networks; the workdir is in a bucket. Run it again as often as VMs are lost: what is done
# is skipped, and a shard that still runs somewhere may be started a second time.
set -euo pipefail

CONFIG="${CONFIG:-configs/sweep.py}"
WORKDIR="${WORKDIR:?a bucket that all VMs may write, such as gs://BUCKET/sweep}"
# How a command reaches a VM; each has the repository in ~/prunegen with its requirements and jax[tpu].
REMOTE="${REMOTE:-gcloud compute tpus tpu-vm ssh --command}"

shard=0
for vm in "$@"; do
    work="cd prunegen && python3 run.py --config=$CONFIG --workdir=$WORKDIR --stage=train,measure --shard=$shard/$#"
    $REMOTE "$work" "$vm" &
    shard=$((shard + 1))
done
failed=0
for job in $(jobs -p); do
    wait "$job" || failed=$((failed + 1))
done
if [ "$failed" -gt 0 ]; then
    echo "$failed of $# shards ended early: run this again with the VMs there are" >&2
    exit 1
fi
python3 run.py --config="$CONFIG" --workdir="$WORKDIR" --stage=judge,report
