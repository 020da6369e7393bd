"""What computing needs whatever is computed: evaluation, sampling, lockstep, sharding, parameter trees, option checks."""
