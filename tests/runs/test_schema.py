"""The schema validator: the first field that does not fit is named, whatever its depth."""

from __future__ import annotations

import math

import pytest

from prunegen_jax.runs import files, schema
from prunegen_jax.types import History

SCHEMA = {
    "name": schema.is_text,
    "count": schema.is_count,
    "loss": schema.is_number,
    "kind": schema.one_of("a", "b"),
    "inner": {"flag": schema.is_flag, "values": schema.list_of(schema.is_finite)},
    "rows": schema.map_of({"value": schema.optional(schema.is_number), "note?": schema.is_text}),
}
WHOLE = {
    "name": "x", "count": 0, "loss": "nan", "kind": "a", "inner": {"flag": True, "values": [1, 2.5]},
    "rows": {"r": {"value": None}, "s": {"value": "inf", "note": ""}}, "more": [],
}  # fmt: skip


def test_what_fits_is_returned():
    assert schema.check(WHOLE, SCHEMA, "x.json") is WHOLE


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": 1}, "'name' is 1"),
        ({"count": -1}, "'count' is -1"),
        ({"count": True}, "'count' is True"),
        ({"count": 1.0}, "'count' is 1.0"),
        ({"loss": "x"}, "'loss' is 'x'"),
        ({"loss": None}, "'loss' is None"),
        ({"kind": ["a"]}, r"'kind' is \['a'\]"),
        ({"inner": []}, r"'inner' is \[\]"),
        ({"inner": {"flag": 1, "values": []}}, "'inner.flag' is 1"),
        ({"inner": {"flag": True}}, "'inner.values' is None"),
        ({"inner": {"flag": True, "values": ["nan"]}}, r"'inner.values' is \['nan'\]"),
        ({"inner": {"flag": True, "values": {"a": 1}}}, "'inner.values' is"),
        ({"rows": {"r": {}}}, "'rows' is"),
        ({"rows": {"r": {"value": 1, "note": 2}}}, "'rows' is"),
        ({"rows": {"r": None}}, "'rows' is"),
    ],
)
def test_what_does_not_fit_is_named(change, named):
    with pytest.raises(files.DamagedError, match=f"x.json is damaged: its {named}"):
        schema.check(WHOLE | change, SCHEMA, "x.json")


@pytest.mark.parametrize("key", SCHEMA)
def test_what_is_missing_is_named(key):
    with pytest.raises(files.DamagedError, match=f"its '{key}' is None"):
        schema.check({k: v for k, v in WHOLE.items() if k != key}, SCHEMA, "x.json")


@pytest.mark.parametrize("content", [[], "x", None, 1])
def test_what_is_no_object_is_refused(content):
    with pytest.raises(files.DamagedError, match="not a JSON object"):
        schema.check(content, SCHEMA, "x.json")


def test_numbers_are_restored():
    restored = schema.restore_numbers({"a": "inf", "b": "infinite", "c": 1, "d": "nan"})
    assert math.isnan(restored.pop("d"))
    assert restored == {"a": math.inf, "b": "infinite", "c": 1}


def test_a_history_comes_back_from_its_file(tmp_path):
    history = History((2.5, math.inf), (3, 7), (1.0, 0.5), 7, 4, 0.2)
    files.write_json(tmp_path / "h.json", history.to_json())
    assert History.from_json(files.read_json(tmp_path / "h.json")) == history
