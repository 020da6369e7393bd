"""Searches for a scale against known crossings."""

from __future__ import annotations

import math

import pytest

from prunegen_jax.measures import search


@pytest.mark.parametrize(("start", "root"), [(1.0, 3.7), (1e-3, 3.7), (1e4, 3.7e-3)])
def test_search_finds_the_crossing_from_below(start, root):
    found = search.largest_scale(lambda x: x**2, root**2, start=start, scale_tolerance=0.01)
    assert found.low <= root <= found.high <= 1.01 * found.low
    assert found.scale == found.low
    assert found.converged
    assert found.slope() == pytest.approx(2 * root, rel=0.2)
    assert found.evaluations == len(found.history)


def test_search_of_a_step_says_that_it_jumps():
    def step(x):
        return 0.0 if x < 0.3 else 1.0

    jump = search.largest_scale(step, 0.1, start=1.0, scale_tolerance=1e-3, response_tolerance=0.01)
    assert not jump.converged
    assert jump.scale == pytest.approx(0.3, rel=1e-3) and jump.scale < 0.3
    assert search.largest_scale(step, 0.1, start=1.0, scale_tolerance=1e-3).converged
    never_within = search.largest_scale(lambda x: 1.0, 0.1, start=1.0, scale_tolerance=0.01)
    assert (never_within.scale, never_within.converged) == (0.0, False)
    never_beyond = search.largest_scale(lambda x: 0.0, 0.1, start=1.0, scale_tolerance=0.01)
    assert never_beyond.high == math.inf and not never_beyond.converged
    nan = search.largest_scale(lambda x: math.nan if x > 2 else 0.0, 0.1, start=1.0, scale_tolerance=0.01)
    assert nan.scale == pytest.approx(2.0, rel=0.01)
    within = search.largest_scale(lambda x: x, 1.0, start=0.995, scale_tolerance=1e-3, response_tolerance=0.01)
    assert (within.scale, within.evaluations) == (0.995, 1)
    with pytest.raises(ValueError, match="start=0.0 must be positive"):
        search.largest_scale(lambda x: x, 1.0, start=0.0, scale_tolerance=0.1)


def test_bisection_of_rgm():
    tried = []

    def response(x):
        tried.append(x)
        return 0.1 * (x / 0.3)

    found = search.rgm_bisection(response, 0.1)
    assert tried == [1.0, 0.5, 0.25, 0.375, 0.3125]
    assert (found.scale, found.converged) == (0.3125, True)
    missed = search.rgm_bisection(lambda x: 0.0 if x < 1.0 else 0.5, 0.1)
    assert len(missed.history) == 15 and not missed.converged
    assert missed.scale == pytest.approx(1.0, abs=1e-4)


def test_a_perturbation_with_a_constant_part_may_be_beyond_the_limit_at_every_scale():
    """The response 0.05 + x² and its root in closed form; the scale 0 is tried only where the start is beyond."""

    def response(x):
        return 0.05 + x**2

    options = {"scale_tolerance": 0.01, "constant_part": True}
    none = search.largest_scale(response, 0.04, start=1.0, **options)
    assert (none.scale, none.high, none.response, none.evaluations) == (0.0, 0.0, 0.05, 2)
    tiny = search.largest_scale(response, 0.05 + 1e-10, start=1.0, **options)
    assert tiny.low <= 1e-5 <= tiny.high <= 1.01 * tiny.low and tiny.converged
    assert [x for x, _ in tiny.history[:3]] == [1.0, 0.0, 0.5]
    assert tiny.slope() == pytest.approx(2e-5, rel=0.2)
    far = search.largest_scale(response, 1.05, start=0.1, **options)
    assert far.low <= 1.0 <= far.high and 0.0 not in dict(far.history)
    near = search.largest_scale(response, 0.05, start=1.0, response_tolerance=0.01, **options)
    assert near.converged and 0 < near.scale <= 0.1  # not 0, though its response is within the tolerance
