"""Heatmaps show every patch once, in its colour and at its place, and say what they leave out."""

import itertools
import re
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from circuitfind.patching.result import PatchResult
from circuitfind.reports.canvas import colour_of
from circuitfind.reports.heatmap import draw_heatmap
from circuitfind.reports.panels import MOST_COLUMNS, MOST_PANELS
from circuitfind.reports.patching import patch_report

SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"


def result_of(axes, sizes, *, n_prompts=2, labels=None):
    generator = torch.Generator().manual_seed(0)
    effects = torch.rand(*sizes, generator=generator).double() - 0.5
    values = effects[..., None].expand(*sizes, n_prompts).clone()
    numbered = {axis: tuple(map(str, range(n))) for axis, n in zip(axes, sizes, strict=True)}
    ends = torch.zeros(n_prompts).double(), torch.ones(n_prompts).double()
    return PatchResult(
        {"site": values},
        {"site": axes},
        {**numbered, **(labels or {})},
        *ends,
        "denoising",
        "logit-difference",
        "logits",
    )


def squares(heatmap):
    """Return the outlines of a heatmap's squares by their tooltips."""
    root = ElementTree.fromstring(heatmap.svg())
    links = [link for link in root.iter(f"{SVG}a") if link.get(f"{XLINK}title")]
    return {link.get(f"{XLINK}title"): link.find(f"{SVG}polygon") for link in links}


def corner(square):
    """Return the smallest coordinates of an outline."""
    points = [tuple(map(float, point.split(","))) for point in square.get("points").split()]
    return min(x for x, _ in points), min(y for _, y in points)


AXES = (
    (("layer", "position"), (3, 4)),
    (("layer", "position", "head"), (3, 2, 4)),
    (("layer", "head", "position", "source_position"), (2, 2, 3, 3)),
    (("sender", "receiver"), (4, 5)),
)


@pytest.mark.parametrize(("axes", "sizes"), AXES)
def test_every_patch_is_a_square_in_its_colour(axes, sizes):
    result = result_of(axes, sizes)
    found = squares(draw_heatmap(result, "site"))
    rows = list(result.rows())
    assert len(found) == len(rows)
    largest = max(abs(row.effect) for row in rows)
    for row in rows:
        where = ", ".join(f"{axis} {label}" for axis, label in row.place.items())
        assert found[f"{where}: {row.effect:.3f}"].get("fill") == colour_of(row.effect / largest)


def test_a_patch_that_does_more_than_the_source_run_does_not_fade_the_others():
    result = result_of(("layer", "position"), (1, 2))
    result.values["site"][0] = torch.tensor([[4.0, 4.0], [0.5, 0.5]])
    drawn = draw_heatmap(result, "site")
    fills = {name[-5:]: square.get("fill") for name, square in squares(drawn).items()}
    assert fills == {"4.000": colour_of(1.0), "0.500": colour_of(0.5)}
    assert "effect, up to 4" in drawn.svg()


def test_effects_are_written_into_squares_on_demand():
    result = result_of(("layer", "position"), (1, 4))
    result.values["site"][0, :, :] = torch.tensor([0.873, -0.05, 1.44, 0.001]).double()[:, None]
    plain, figures = (draw_heatmap(result, "site", annotate=on) for on in (False, True))
    assert small_texts(plain) == []
    assert small_texts(figures) == [".87", "-.05", "1.4", "0"]
    assert figures.png() != plain.png()


def small_texts(heatmap):
    root = ElementTree.fromstring(heatmap.svg())
    return [text.text for text in root.iter(f"{SVG}text") if text.get("font-size") == "8.00"]


def test_layers_run_upwards_and_positions_to_the_right():
    found = squares(draw_heatmap(result_of(("layer", "position"), (2, 2)), "site"))
    at = {text.partition(":")[0]: rect for text, rect in found.items()}
    low, high = at["layer 0, position 0"], at["layer 1, position 0"]
    assert corner(high)[1] < corner(low)[1]
    assert corner(at["layer 0, position 1"])[0] > corner(low)[0]


def test_what_is_significant_has_a_frame():
    result = result_of(("layer", "position"), (3, 4))
    drawn = draw_heatmap(result, "site", threshold=0.2).dot
    assert drawn.count('color="#000000"') == len(result.significant(0.2)) > 0


def test_a_pair_without_a_path_has_no_square():
    result = result_of(("sender", "receiver"), (2, 2))
    result.values["site"][1, 0] = torch.nan
    assert len(squares(draw_heatmap(result, "site"))) == 3


def test_the_same_result_gives_the_same_bytes():
    assert all(
        draw_heatmap(result_of(axes, sizes), "site").dot
        == draw_heatmap(result_of(axes, sizes), "site").dot
        for axes, sizes in AXES
    )


def test_what_is_too_large_for_a_page_is_cut_to_the_largest_effects():
    wide = result_of(("sender", "receiver"), (2, MOST_COLUMNS + 5))
    drawn = draw_heatmap(wide, "site")
    assert len(squares(drawn)) == 2 * MOST_COLUMNS
    assert (
        f"the {MOST_COLUMNS} of {MOST_COLUMNS + 5} receivers with the largest effects"
        in drawn.svg()
    )
    many = result_of(("layer", "position", "head"), (2, MOST_PANELS + 1, 2))
    assert f"{MOST_PANELS} of {MOST_PANELS + 1} panels" in draw_heatmap(many, "site").dot


def test_labels_are_text_and_no_markup():
    result = result_of(("layer", "position"), (1, 1), labels={"position": ("3 <b>&",)})
    assert "3 &lt;b&gt;&amp;" in draw_heatmap(result, "site").svg()
    assert squares(draw_heatmap(result, "site"))


def test_no_effect_is_white_and_ends_are_full():
    assert (colour_of(0.0), colour_of(1.0), colour_of(-1.0)) == ("#ffffff", "#d55e00", "#0072b2")


@pytest.mark.parametrize(("axes", "sizes"), AXES)
def test_a_heatmap_is_drawn_as_png_too(axes, sizes, tmp_path):
    heatmap = draw_heatmap(result_of(axes, sizes), "site")
    image = heatmap.save(tmp_path / "map.png").read_bytes()
    assert image.startswith(b"\x89PNG") and image == heatmap.png()
    width, height = (int.from_bytes(image[at : at + 4]) for at in (16, 20))
    root = ElementTree.fromstring(heatmap.svg())
    box = [float(number) for number in root.get("viewBox").split()]
    # 144 dots to the inch, 72 points to the inch.
    assert (width / 2, height / 2) == pytest.approx((box[2], box[3]), abs=2)


def test_long_labels_of_columns_do_not_meet():
    labels = tuple(f"a{number}.h2.v" for number in range(6))
    result = result_of(("sender", "receiver"), (2, 6), labels={"receiver": labels})
    drawn = re.findall(
        r'label="(a\d.h2.v)".* pos="([\d.]+),(-?[\d.]+)" .*width=([\d.]+)',
        (draw_heatmap(result, "site").dot),
    )
    assert [label for label, *_ in drawn] == list(labels)
    by_level = {}
    for _, x, y, width in drawn:
        by_level.setdefault(y, []).append((float(x), 72 * float(width)))
    assert len(by_level) > 1
    for row in by_level.values():
        for (left, one), (right, other) in itertools.pairwise(row):
            assert right - left >= (one + other) / 2 - 8


def test_a_report_counts_and_ranks():
    result = result_of(("layer", "position"), (3, 4))
    found = patch_report(result, 0.2)
    (site,) = found.sites
    assert (site.n_significant, site.n) == (len(result.significant(0.2)), 12)
    sums = [
        sum(abs(row.effect) for row in result.significant(0.2) if row.place["layer"] == layer)
        for layer in site.layers
    ]
    assert sums == sorted(sums, reverse=True)
    assert found.as_json()["significant"][0]["effect"] == result.significant(0.2)[0].effect
    assert found.markdown().count("| site | layer") == len(found.rows)
