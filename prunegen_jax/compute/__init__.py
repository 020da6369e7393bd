"""What all computations share: evaluation, sampling, lockstep, sharding, parameter trees, checks of options."""
