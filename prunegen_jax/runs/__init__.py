"""Sweeps: configs, files, workers. Calls the numerics, and is never called by them."""
