"""The command lines: `prunegen` and `run.py`."""
