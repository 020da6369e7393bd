"""The page of the report, which needs no other file: its sections, each with its content or the reason for none."""

from __future__ import annotations

import functools

import jinja2
from bokeh.document import Document
from bokeh.embed import components
from bokeh.models import Select
from bokeh.resources import Resources
from markupsafe import Markup

from prunegen_jax.judging.statistics import shown_statistics
from prunegen_jax.report import (
    colours,
    comparison,
    information,
    lines,
    matrices,
    points,
    ranking,
    sentences,
    views,
    widths,
)
from prunegen_jax.report.colours import Colouring
from prunegen_jax.report.material import Material
from prunegen_jax.report.views import View


def html(material: Material) -> str:
    """The page as HTML. All names that come from files are escaped."""
    targets, colourings = material.verdict.targets, _colourings(material)
    target, colour = views.target_choice(targets), views.colour_choice(colourings)
    shown = _views(material, colourings, target, colour)
    views.follow_target(target, list(shown.values()))
    roots = {name: view.root for name, view in shown.items()} | {"target": target, "colour": colour}
    document = Document()
    with document.models.freeze():  # else every root is searched again for each that is added
        for root in roots.values():
            document.add_root(root)
    script, places = components(roots)
    return _template().render(
        material=material,
        places={name: Markup(place) for name, place in places.items()},
        script=Markup(script),
        library=Markup(_library()),
        summaries=[sentences.summary(material, each) for each in targets],
        rankings=[ranking.ranking(material, each) for each in targets],
        psi=[ranking.psi_table(material, each) for each in targets],
        legends={name: _legend(each) for name, each in colourings.items()},
        families=_families(material),
        first_other=material.measures[comparison.first_other(material)] if comparison.is_there(material) else "",
        palette={"reference": comparison.REFERENCE_COLOUR, "other": comparison.OTHER_COLOUR, "band": information.BAND},
        costs=costs(material),
        by_size=widths.image(material.everyone),
        left_out=_by_reason(material),
        correlations=shown_statistics(signed=True),
    )


def costs(material: Material) -> list[tuple[str, float, float]]:
    """Activity, seconds over all networks, seconds per network that it was done for; most expensive first."""
    activities = dict.fromkeys(name for times in material.times.values() for name in times)
    found = []
    for name in activities:
        seconds = [times[name] for times in material.times.values() if name in times]
        found.append((name, sum(seconds), sum(seconds) / len(seconds)))
    return sorted(found, key=lambda row: -row[1])


def _views(material: Material, colourings: dict[str, Colouring], target: Select, colour: Select) -> dict[str, View]:
    """The interactive parts that have data, by their place on the page."""
    found = points.scatter(material, colourings, target, colour)
    if any("k" in row for row in material.verdict.rows):
        found["information"] = information.information(material)
    if comparison.is_there(material):
        found |= comparison.against(material, target)
    if "shared_symmetric" in material.verdict.matrices:
        found |= matrices.shared(material, target)
    if any(name.startswith("added_") for name in material.verdict.matrices):
        found |= matrices.added(material, target)
    if material.curves:
        found["pruning"] = lines.pruning(material, colourings, colour)
    if material.histories:
        found["training"] = lines.training(material, colourings, colour)
    return found


def _colourings(material: Material) -> dict[str, Colouring]:
    everyone = material.everyone
    found = {name: colours.of_axis(everyone.hyperparameters[name]) for name in material.axes}
    plain = Colouring((colours.OKABE_ITO[1],) * len(everyone), ("every network",) * len(everyone), ("every network",))
    return found or {"nothing: no hyperparameter varies": plain}


def _legend(colouring: Colouring) -> list[tuple[str, str]]:
    """The labels of a colouring with their colours."""
    colour = dict(zip(colouring.labels, colouring.colours, strict=True))
    return [(name, colour[name]) for name in colouring.order if name in colour]


def _families(material: Material) -> list[tuple[str, str]]:
    colour = colours.of_families(row["family"] for row in material.verdict.rows)
    return [(name, colour[name]) for name in colour if name]


def _by_reason(material: Material) -> list[tuple[str, list[tuple[str, str]]]]:
    """The models left out, by status, as (status, [(name, reason)])."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, reason in material.verdict.left_out:
        found.setdefault(reason.partition(":")[0], []).append((name, reason))
    return list(found.items())


@functools.cache
def _library() -> str:
    resources = Resources(mode="inline", components=["bokeh", "bokeh-widgets"], log_level="warn")
    return resources.render()


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("prunegen_jax.report", "."), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("page.html")
