"""Evaluation over a data set, many networks in one program, memory of devices, parameter trees."""
