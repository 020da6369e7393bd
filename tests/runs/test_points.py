"""Sweeps: what becomes of axes, names, groups and shards."""

from __future__ import annotations

import itertools

import pytest

from configs import default, sweep
from prunegen_jax.runs import points as sweeps

AXES = (("model.depth", (1, 2)), ("train.learning_rate", (0.01, 0.1)), ("seed", (0, 1, 2)))


def config_with(**changes):
    config = default.get_config()
    config.sweep.axes = AXES
    config.sweep.update(changes)
    return config


def test_grid_is_every_combination_with_readable_names():
    points = sweeps.points(config_with())
    found = {(p.fields["model.depth"], p.fields["train.learning_rate"], p.fields["seed"]) for p in points}
    assert found == set(itertools.product((1, 2), (0.01, 0.1), (0, 1, 2)))
    assert len(points) == 12
    assert points[0].name == "depth=1,learning_rate=0.01,seed=0"
    assert points[0].axes == ("model.depth", "train.learning_rate", "seed")
    assert points[0].fields["model.width"] == 16
    assert not {"data.dir", "data.cache_dir", "run.group"} & set(points[0].fields)


def test_names_and_hashes_do_not_depend_on_the_order_or_number_of_values():
    full = {p.name: p.hash for p in sweeps.points(config_with())}
    part = {p.name: p.hash for p in sweeps.points(config_with(axes=(("model.depth", (2,)), *AXES[1:])))}
    assert part.items() <= full.items()
    moved = {p.hash for p in sweeps.points(config_with(axes=AXES[::-1]))}
    assert moved == set(full.values())


def test_ambiguous_last_words_are_spelled_out():
    points = sweeps.points(config_with(axes=(("seed", (0,)), ("data.seed", (1,)))))
    assert points[0].name == "seed=0,data.seed=1"


def test_a_sweep_without_axes_is_one_network():
    (point,) = sweeps.points(config_with(axes=()))
    assert point.name == "seed=0"


def test_list():
    given = ((("model.depth", 1), ("seed", 4)), (("model.depth", 3), ("seed", 0)))
    points = sweeps.points(config_with(mode="list", points=given))
    assert [p.name for p in points] == ["depth=1,seed=4", "depth=3,seed=0"]


def test_random_is_a_seeded_sample_of_the_grid():
    grid = {p.name for p in sweeps.points(config_with())}
    one, same, other = ([p.name for p in sweeps.points(config_with(mode="random", count=5, seed=s))] for s in (0, 0, 1))
    assert one == same != other
    assert len(set(one)) == 5
    assert set(one) <= grid
    everything = sweeps.points(config_with(mode="random", count=12))
    assert {p.name for p in everything} == grid


def test_groups_have_one_shape_and_shards_deal_them_out():
    config = config_with(axes=(AXES[1], AXES[2], AXES[0]))
    points = sweeps.points(config)
    assert [p.fields["model.depth"] for p in points] == [1] * 6 + [2] * 6
    groups = sweeps.groups(points, size=4)
    assert [len(g) for g in groups] == [4, 2, 4, 2]
    assert all(len({p.shape for p in g}) == 1 for g in groups)
    shards = [sweeps.shard(groups, f"{i}/3") for i in range(3)]
    dealt = [p.name for s in shards for g in s for p in g]
    assert sorted(dealt) == sorted(p.name for p in points)
    assert sweeps.shard(groups, "") == groups


def test_every_variant_of_the_newcomers_sweep():
    assert len(sweeps.points(sweep.get_config())) >= 24
    assert len(sweep.get_config().sweep.axes) >= 3
    assert len(sweeps.points(sweep.get_config("cifar10"))) >= 8
    assert len(sweeps.points(sweep.get_config("smoke"))) < 24
    with pytest.raises(ValueError, match="choose among digits, smoke, resnet, cifar10"):
        sweep.get_config("imagenet")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": (("model.depth", ()),)}, "the axis 'model.depth' of sweep.axes is empty"),
        ({"axes": (("model.dpth", (1,)),)}, "'model.dpth' is unknown; did you mean 'model.depth'"),
        ({"axes": (("run.group", (1,)),)}, "'run.group' is unknown"),
        ({"axes": (("model.depth", (1, "2")),)}, "has the value '2'; it must be of type int"),
        ({"axes": (("model.batch_norm", (1,)),)}, "has the value 1; it must be of type bool"),
        ({"axes": (("model.depth", 2),)}, "has values 2; they must be a tuple"),
        ({"axes": (("model.depth", (1, 1)),)}, "has the value 1 2 times"),
        (
            {"axes": (("model.depth", (1,)), ("model.depth", (2,)))},
            "the axis 'model.depth' occurs 2 times in sweep.axes",
        ),
        ({"axes": (("model.width", 8, 16),)}, "it must contain pairs of a field and its values"),
        ({"axes": (("seed", (-1,)),)}, "seed=-1 must lie between 0 and"),
        ({"axes": (("data.seed", (2**32,)),)}, "data.seed=4294967296 must lie between 0 and"),
        ({"mode": "all"}, "sweep.mode='all' is unknown; choose among grid, random, list"),
        ({"mode": "list"}, "sweep.points is empty"),
        ({"mode": "list", "points": ((("seed", 1),), (("seed", 1),))}, "has the point 'seed=1' more than once"),
        ({"mode": "list", "points": (("seed", 1),)}, "contains .'seed', 1.; each point must consist of pairs of a"),
        ({"mode": "list", "points": ((("seed", 1, 2),),)}, "each point must consist of pairs of a field and its value"),
        ({"mode": "list", "points": (3,)}, "sweep.points contains 3; each point must consist of pairs"),
        ({"mode": "list", "points": ((("seed", 1), ("seed", 2)),)}, "of sweep.points sets 'seed' 2 times"),
        ({"mode": "random", "count": 13}, "sweep.count=13 must lie between 1 and 12"),
    ],
)
def test_clear_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        sweeps.points(config_with(**changes))


def test_a_name_fits_into_a_file_name_and_stays_unique():
    """250 bytes and a suffix are what a file's name may have; below that, names stay as they are."""
    given = [((("train.optimizer", f"{'m' * 230}{end}"), ("seed", 1)),) for end in ("", "mmm", "x", "y")]
    names = [sweeps.points(config_with(mode="list", points=point))[0].name for point in given]
    assert names[0] == f"optimizer={'m' * 230},seed=1"
    assert names[1] == f"optimizer={'m' * 233},seed=1"
    assert len(names[1]) == 250
    long = sweeps.points(config_with(mode="list", points=tuple(p[0] for p in [
        ((("train.optimizer", f"{'m' * 240}{end}"), ("seed", 1)),) for end in "xy"
    ])))  # fmt: skip
    assert [len(point.name) for point in long] == [250, 250]
    assert len({point.name for point in long}) == 2
    assert all(point.name.startswith(f"optimizer={'m' * 200}") for point in long)


@pytest.mark.parametrize("text", ["3/3", "1", "a/b", "-1/2", "0/0"])
def test_wrong_shards(text):
    with pytest.raises(ValueError, match="must be i/n"):
        sweeps.shard([], text)


def test_whole_numbers_pass_for_floats():
    (point,) = sweeps.points(config_with(axes=(("train.learning_rate", (1,)),)))
    assert point.fields["train.learning_rate"] == 1.0
    assert point.name == "learning_rate=1.0"


def test_text_in_values_stays_inside_the_workdir():
    (point,) = sweeps.points(config_with(axes=(("data.name", ("../../etc/<x>",)),)))
    assert point.name == "name=.._.._etc__x_"
