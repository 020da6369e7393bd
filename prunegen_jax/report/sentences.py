"""The verdict in sentences: which measure orders the networks best, as far as ties and intervals allow to say so."""

from __future__ import annotations

import math

from markupsafe import Markup

from prunegen_jax.judging.statistics import RANKED_BY, STATISTICS, best_first, shown_statistics
from prunegen_jax.judging.words import warned
from prunegen_jax.report.labels import target_name
from prunegen_jax.report.material import Material
from prunegen_jax.report.ranking import directed, number, rows_of
from prunegen_jax.runs.schema import Json

_LABEL = STATISTICS[RANKED_BY].label
_FEW = 10  # configurations below which an order says little
_NOISE = {"both": "test set and seeds"}


def summary(material: Material, target: str) -> Markup:
    """The verdict on `target` as HTML; names are escaped."""
    rows = sorted(rows_of(material, target), key=best_first)  # a measure and its negative stand far apart
    judged = [row for row in rows if not math.isnan(row[RANKED_BY])]
    if not judged:
        return Markup("<p>No measure could be judged on {}.</p>").format(target_name(target))
    best = next((row for row in judged if not warned(material.verdict, row, "edge")), None)
    lines = _lead(material, judged, best)
    lines += [Markup("Note that {}.").format(text) for text in warned(material.verdict, best or judged[0], "ceiling")]
    lines += _reference(material, judged, best or judged[0])
    column = f"{STATISTICS[RANKED_BY].p_column}_holm"
    significant = [row["sign"] * row[RANKED_BY] > 0 for row in judged if row.get(column, math.nan) < 0.05]
    if any(not math.isnan(row.get(column, math.nan)) for row in judged):
        words = "{} of {} measures point in the expected direction with a Holm-corrected p below 0.05"
        against = len(significant) - sum(significant)
        end = f", {against} in the opposite direction." if against else "."
        lines.append(Markup(words).format(sum(significant), len(judged)) + end)
    least = ceiling(material, target)
    if least:
        words = "Because of the noise of the target ({}), the expected {} of a perfect measure is only about {}."
        lines.append(Markup(words).format(_NOISE.get(*[least["noise"]] * 2), _LABEL, number(least["tau_b"], 2).text))
    if judged[0]["n"] < _FEW:
        words = "<b>Only {} configurations were judged: rely on the intervals, not on the order.</b>"
        lines.append(Markup(words).format(judged[0]["n"]))
    return Markup("<p>{}</p>").format(Markup(" ").join(lines))


def ceiling(material: Material, target: str) -> Json | None:
    """The lowest of the ceilings that noise sets to tau-b on a target, if any is known."""
    rows = [row for row in material.verdict.ceilings if row["target"] == target and not math.isnan(row["tau_b"])]
    return min(rows, key=lambda row: row["tau_b"], default=None)


def comparison(material: Material, other: str, target: str) -> Markup:
    """The reference and another measure, paired over configurations; without intervals, the values of both."""
    labels = {name: statistic.label for name, statistic in shown_statistics().items() if statistic.shows_interval}
    parts = [(label, _difference(material, other, target, name)) for name, label in labels.items()]
    known = [Markup("<li>{}: {}</li>").format(label, words) for label, words in parts if words]
    if known:
        return Markup("Differences, paired over configurations:<ul>{}</ul>").format(Markup("").join(known))
    rows = (material.verdict.row(name, target) for name in (material.reference, other))
    words = "{} of <b>{}</b> is {}, of <b>{}</b> {}; the verdict has no paired intervals."
    ours, theirs = (number(directed(row, RANKED_BY)[0], 2).text for row in rows)
    return Markup(words).format(_LABEL, material.reference, ours, other, theirs)


def _lead(material: Material, judged: list[Json], best: Json | None) -> list[Markup]:
    """Which measure has the highest tau-b, and which is called the best."""
    first = judged[0]
    target, count = target_name(first["target"]), len(judged)
    if best is not first:
        words = "On <b>{}</b>, <b>{}</b> has the highest {} of {} measures, {}, but is not called the best: {}."
        reasons = Markup("; ").join(warned(material.verdict, first, "edge"))
        lines = [Markup(words).format(target, first["measure"], _LABEL, count, _value(first), reasons)]
        if best is None:
            return [*lines, Markup("The same holds for every other measure, so none is called the best.")]
        if not directed(best, RANKED_BY)[1] <= 0:
            words = "Of the measures without this warning, <b>{}</b> orders the networks best: {}."
            return [*lines, Markup(words).format(best["measure"], _named(best))]
        words = "The highest {} without this warning, that of <b>{}</b>, is {}; its interval contains 0."
        return [*lines, Markup(words).format(_LABEL, best["measure"], _value(best))]
    if directed(best, RANKED_BY)[1] <= 0 or directed(best, RANKED_BY)[0] <= 0:
        words = "On <b>{}</b>, no measure can be told apart from chance: the highest {} of {} is {}, that of <b>{}</b>."
        return [Markup(words).format(target, _LABEL, f"{count} measures", _value(best), best["measure"])]
    words = "On <b>{}</b>, <b>{}</b> orders the networks best of {} measures: {}."
    return [Markup(words).format(target, best["measure"], count, _named(best))]


def _reference(material: Material, judged: list[Json], best: Json) -> list[Markup]:
    """The place of the reference, and how it compares with the best other measure."""
    place = next((i for i, row in enumerate(judged) if row["measure"] == material.reference), None)
    if place is None or len(judged) < 2:
        return []
    row, target = judged[place], best["target"]
    other = best if best is not row else next(each for each in judged if each is not row)
    words = _difference(material, other["measure"], target, RANKED_BY)
    against = Markup(" Compared with <b>{}</b>: {}.").format(other["measure"], words) if words else Markup("")
    if place == 0:
        return [against.strip()] if against else []
    return [Markup("<b>{}</b> ranks {}: {}.").format(row["measure"], ordinal(place + 1), _named(row)) + against]


def _difference(material: Material, other: str, target: str, statistic: str) -> Markup | None:
    """Which of the reference and another measure has the better statistic, by the sign and the interval."""
    for row in material.verdict.differences:
        if (row["measure"], row["target"], row["statistic"]) == (other, target, statistic):
            value, low, high = row["better_by"], row["low"], row["high"]
            if any(map(math.isnan, (value, low, high))):
                return None
            if low <= 0 <= high:
                words = "the two cannot be told apart (difference {} [{}, {}])"
                return Markup(words).format(*(number(x, 2).text for x in (value, low, high)))
            better, ends = (row["reference"], (low, high)) if value > 0 else (other, (-high, -low))
            words = "<b>{}</b> is better by {} [{}, {}]"
            return Markup(words).format(better, *(number(x, 2).text for x in (abs(value), *ends)))
    return None


def _named(row: Json) -> str:
    return f"{_LABEL} {_value(row)}"


def _value(row: Json) -> str:
    value, low, high = (number(x, 2).text for x in directed(row, RANKED_BY))
    return value if low == "–" else f"{value} [{low}, {high}]"


def ordinal(place: int) -> str:
    """1st, 2nd, 3rd, 4th."""
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"
