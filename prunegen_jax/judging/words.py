"""A verdict in words: one paragraph, with the conditions under which it holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from prunegen_jax.judging.statistics import RANKED_BY, best_first
from prunegen_jax.judging.verdict import Row, Verdict

_CLEAR = 0.2  # a Psi along an axis that is called agreement


def describe(verdict: Verdict, *, target: str | None = None) -> str:
    """One paragraph about a target: which measure orders the networks best, how certain that is, and where it holds.

    A measure that is tied at an edge of its range for many networks is named, but not called the best.

    Args:
        verdict: the verdict.
        target: the target; None for the first.

    Raises:
        ValueError: if the target was not judged.
    """
    target = verdict.targets[0] if target is None else target
    rows = sorted((row for row in verdict.rows if row["target"] == target), key=best_first)
    if not rows:
        raise ValueError(f"target {target!r} was not judged; the targets are {', '.join(verdict.targets)}")
    judged = [row for row in rows if not math.isnan(row[RANKED_BY])]
    if not judged:
        return f"No measure could be judged on {target}."
    first, best = judged[0], next((row for row in judged if not warned(verdict, row, "edge")), None)
    sentences = []
    if best is not first:
        reasons = "; ".join(warned(verdict, first, "edge"))
        sentences.append(f"{first['measure']} has the largest tau-b ({_tau(first)}), but {reasons}.")
    if best is None:
        return " ".join([*sentences, "The same holds for every other measure, so none is called the best."])
    others = " of the others" if sentences else ""
    sentences.append(
        f"On {target}, {best['measure']} orders the {best['n']} {unit_of(verdict)} best{others}: tau-b {_tau(best)}"
        f"{_p_value(best, 'tau_p_holm')}."
    )
    sentences += _rivals(verdict, best, judged) + _along_axes(verdict, best) + _beyond_axes(verdict, best)
    sentences += [f"Note that {text}." for text in warned(verdict, best, "ceiling")]
    return " ".join([*sentences, _conditions(verdict, best)])


def unit_of(verdict: Verdict) -> str:
    """What n counts: networks, or configurations if the repeats of some were averaged."""
    return "networks" if verdict.settings["judged"] == verdict.settings["models"] else "configurations"


def warned(verdict: Verdict, row: Row, kind: str) -> list[str]:
    """The texts of the warnings of one kind about a measure.

    A measure with a warning "edge" is not called the best though its tau-b may be the largest: it cannot tell the
    networks at the edge of its range apart. One with a tau above the ceiling ("ceiling") may be, with the warning.
    """
    about = (row["measure"], row["target"], kind)
    return [w["text"] for w in verdict.warnings if (w["measure"], w["target"], w["kind"]) == about]


def _rivals(verdict: Verdict, best: Row, judged: Sequence[Row]) -> list[str]:
    """Which measures cannot be told apart from the best, by their intervals or by the paired differences."""
    level = verdict.settings.get("level", 0.95)
    low = _turned(best)[1]
    if math.isnan(low):
        return ["No interval was computed, so its uncertainty cannot be stated."]
    if low <= 0:
        return [f"Its {level:.0%} interval contains 0: it may not predict {best['target']} at all."]
    about = (best["target"], RANKED_BY, best["measure"])
    worse = {
        d["measure"]
        for d in verdict.differences
        if (d["target"], d["statistic"], d["reference"]) == about and d["better_by"] > 0 and d["p_holm"] < 1 - level
    }
    own = best.get("same_as") or best["measure"]
    rest = [row for row in judged if (row.get("same_as") or row["measure"]) != own]
    near = [row for row in rest if _turned(row)[2] >= low and row["measure"] not in worse]
    if not near:
        return ["Every other measure is significantly worse."] if rest else []
    names = ", ".join(row["measure"] for row in near[:3]) + (f" and {len(near) - 3} more" if len(near) > 3 else "")
    return [f"It cannot be told apart from {names}."]


def _along_axes(verdict: Verdict, best: Row) -> list[str]:
    """Along which hyperparameters it follows the target when the others are fixed."""
    axes = {axis: best["sign"] * best.get(f"psi.{axis}", math.nan) for axis in verdict.settings.get("axes", ())}
    follows = [f"{axis} ({value:.2f})" for axis, value in axes.items() if value >= _CLEAR]
    fails = [f"{axis} ({value:.2f})" for axis, value in axes.items() if value < _CLEAR]
    if not follows and not fails:
        return []
    said = f"it follows {best['target']} along {', '.join(follows)}"
    if fails:
        said = f"{said}, but not" if follows else f"it does not follow {best['target']}"
        said += f" along {', '.join(fails)}"
    return [f"With the other hyperparameters fixed (Psi), {said}."]


def _beyond_axes(verdict: Verdict, best: Row) -> list[str]:
    p = best.get("k_p_holm", math.nan)
    if math.isnan(p):
        return []
    if p < 0.05:
        axes = verdict.settings.get("axes", ())
        beyond = " beyond any two hyperparameters" if len(axes) > 1 else f" beyond {axes[0]}" if axes else ""
        return [f"It has information about the order{beyond} (K, p = {p:.2g})."]
    which = best["k_set"].replace(" x ", " and ") if best["k_set"] not in ("", "none") else ""
    known = f"Given {which}, " if which else ""
    rest = f"it is not shown to have more information about the order than a random measure (K, p = {p:.2g})."
    return [known + rest if known else rest[0].upper() + rest[1:]]


def _conditions(verdict: Verdict, best: Row) -> str:
    """What the verdict is about: it holds for networks like these."""
    axes = ", ".join(map(str, verdict.settings.get("axes", ())))
    varied = f", which differ in {axes}" if axes else " (the table has no hyperparameters)"
    sentence = f"This holds for {unit_of(verdict)} like these {verdict.settings['judged']}{varied}"
    if verdict.left_out:
        count = len(verdict.left_out)
        sentence += f", without the {f'{count} networks that were' if count > 1 else 'network that was'} left out"
        pair = next(
            (r for r in verdict.sensitivity if (r["measure"], r["target"]) == (best["measure"], best["target"])), None
        )
        known = 0 if pair is None else pair.get("left_out_known", count)  # a verdict of an older version does not say
        if known and not math.isnan(pair["tau_b_with_left_out"]):
            tau = best["sign"] * pair["tau_b_with_left_out"]
            some = f"the {known} that {'has' if known == 1 else 'have'} values"
            those = some if known < count else "them" if count > 1 else "it"
            sentence += f" (with {those}, its tau-b is {tau:.2f})"
    few = "; they are few: rely on the intervals, not on the order" if best["n"] < 10 else ""
    return f"{sentence}{few}. It does not say whether changing the measure would change {best['target']}."


def _turned(row: Row) -> tuple[float, float, float]:
    """tau-b and its interval, multiplied by the expected sign."""
    value, low, high = (row.get(name, math.nan) for name in (RANKED_BY, f"{RANKED_BY}_low", f"{RANKED_BY}_high"))
    return (value, low, high) if row["sign"] > 0 else (-value, -high, -low)


def _tau(row: Row) -> str:
    value, low, high = _turned(row)
    return f"{value:.2f}" + ("" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]")


def _p_value(row: Row, column: str) -> str:
    p: Any = row.get(column, math.nan)
    return "" if math.isnan(p) else f", p = {p:.2g} corrected for the number of measures"
