"""The drawings: readable, small, harmless, and the same in both media."""

import io
import math
import re
import xml.etree.ElementTree as ET

import msgspec
import pytest

from mlguard.reports.charts import draw
from mlguard.reports.view import DriftChart, GroupChart, GroupFigure, Point, TimeChart


@pytest.fixture
def charts(sample):
    """One of each kind."""
    category = DriftChart(
        title="purpose",
        alt="purpose",
        feature="purpose",
        labels=tuple(f"purpose {place}" for place in range(14)),
        reference=(1 / 14,) * 14,
        current=(1 / 14,) * 14,
    )
    return [
        sample.performance[0],
        sample.drift[0].chart,
        category,
        sample.groups[0],
        sample.calibration,
    ]


def test_a_mail_gets_pictures_that_programs_show(charts):
    """PNG, twice as sharp as its place, below 100 kB, opaque."""
    from PIL import Image

    for chart in charts:
        png = draw(chart, medium="mail", width=400)
        assert len(png) < 100_000
        with Image.open(io.BytesIO(png)) as image:
            assert image.format == "PNG"
            assert image.width in (680, 800)
            assert "transparency" not in image.info


def test_a_page_gets_drawings_that_follow_its_theme(charts):
    """Text is text, colours are the page's variables, and it says what it shows."""
    for chart in charts:
        svg = draw(chart, medium="page", width=340).decode()
        root = ET.fromstring(svg)
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-label"] == chart.alt
        assert "var(--" in svg
        assert "#1b1f24" not in svg.lower()
        assert "<text" in svg
        assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", svg)


def test_two_drawings_in_one_page_do_not_share_names(charts):
    """Clip paths are found by id, so every id of a page is its own."""
    pages = [draw(chart, medium="page", width=340).decode() for chart in (charts[0], charts[0])]
    first, second = (set(re.findall(r'\bid="([^"]+)"', page)) for page in pages)
    assert first
    assert not first & second


def test_strange_names_are_drawn_as_they_are(charts):
    """No formula is set, no markup gets in, and no length breaks the frame."""
    strange = "<script>$\\frac{1}{2}$</script>\n" + "x" * 5000
    chart = GroupChart(
        title=strange,
        alt=strange,
        metric=strange,
        attribute=strange,
        groups=(
            GroupFigure(group=strange, value=0.2, low=0.1, high=0.3, n=10),
            GroupFigure(group="y", value=0.3, low=0.2, high=0.4, n=10),
        ),
    )
    svg = draw(chart, medium="page", width=340).decode()
    ET.fromstring(svg)
    assert "<script" not in svg
    assert draw(chart, medium="mail", width=400)


@pytest.mark.parametrize(
    "points",
    [
        (),
        (Point(at=0.0, value=None),),
        (Point(at=0.0, value=0.0),),
        (Point(at=0.0, value=0.5, low=0.5, high=0.5), Point(at=0.0, value=0.5)),
        tuple(Point(at=float(at), value=1e9 * at, low=-1.0, high=1e12) for at in range(3)),
    ],
)
def test_few_and_strange_points_are_drawn(points):
    """Nothing, one point, one moment, huge values: a picture all the same."""
    chart = TimeChart(title="t", alt="a", metric="error", points=points)
    assert draw(chart, medium="page", width=340)


def test_groups_without_figures_are_drawn():
    """Where every group is too small there is an empty frame, not an error."""
    chart = GroupChart(
        title="t",
        alt="a",
        metric="m",
        attribute="s",
        groups=(GroupFigure(group="x", value=None),),
    )
    assert draw(chart, medium="mail", width=400)


def test_a_picture_is_the_same_every_time(charts):
    """Nothing in it depends on when or where it was drawn."""
    for chart in charts:
        assert draw(chart, medium="mail", width=400) == draw(chart, medium="mail", width=400)


def test_one_cell_and_no_rows_are_drawn(sample):
    """A constant feature has one cell; a window may have none of it."""
    chart = msgspec.structs.replace(
        sample.drift[0].chart, edges=(0.0, 1.0), reference=(1.0,), current=(0.0,)
    )
    assert draw(chart, medium="page", width=320)
    assert not math.isnan(chart.reference[0])
