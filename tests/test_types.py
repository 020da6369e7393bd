"""Fields of older versions: each is refused with what replaces it, and no other habit of a dataclass is lost."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax import Dataset, TrainedModel

PARAMS = {"w": jnp.ones((4, 3))}
TRAIN = Dataset(jnp.ones((6, 4)), jnp.zeros(6, jnp.int32), jnp.zeros(4), jnp.ones(4))


def linear(params, inputs):
    return inputs @ params["w"]


@pytest.mark.parametrize("field", ["layers", "features", "folded"])
def test_what_is_read_from_the_program_is_no_field(field):
    with pytest.raises(ValueError, match=rf"TrainedModel\({field}=...\) is no longer accepted: .*read from"):
        TrainedModel(linear, PARAMS, TRAIN, **{field: None})
    with pytest.raises(AttributeError, match=f"TrainedModel has no attribute '{field}': .*read from the program"):
        getattr(TrainedModel(linear, PARAMS, TRAIN), field)


def test_images_are_inputs():
    with pytest.raises(ValueError, match=r"Dataset\(images=...\) is no longer accepted: renamed to inputs"):
        Dataset(images=TRAIN.inputs, labels=TRAIN.labels)
    with pytest.raises(AttributeError, match="Dataset has no attribute 'images': renamed to inputs"):
        _ = TRAIN.images
    with pytest.raises(AttributeError, match="Dataset has no attribute 'nothing'$"):
        _ = TRAIN.nothing
    assert not hasattr(TRAIN, "images")


def test_copies_signatures_and_pytrees():
    shorter = dataclasses.replace(TRAIN, labels=TRAIN.labels[:2])
    assert len(shorter) == 2 and shorter.inputs is TRAIN.inputs
    model = TrainedModel(linear, PARAMS, TRAIN)
    assert dataclasses.replace(model, name="another").name == "another"
    assert list(inspect.signature(Dataset).parameters) == ["inputs", "labels", "mean", "std", "loss"]
    assert len(jax.tree.leaves(TRAIN)) == 4 and jax.jit(lambda data: data)(TRAIN).loss is None
    for same in (copy.deepcopy(TRAIN), pickle.loads(pickle.dumps(TRAIN))):
        np.testing.assert_array_equal(same.inputs, TRAIN.inputs)
