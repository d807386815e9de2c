"""The look: colours that can be told apart, a renderer without network, badges of status."""

import io
import json
import re
from urllib.parse import unquote

import altair as alt
import numpy as np
import pandas as pd
import pytest

from footprint.charts import theme

GROUNDS = {"light": "#ffffff", "dark": "#15191e"}


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("name", theme.COLOURS)
def test_every_colour_can_be_seen_on_both_grounds(name, ground):
    light, dark = sorted([luminance(theme.COLOURS[name]), luminance(GROUNDS[ground])], reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 3, "WCAG asks for 3:1 of graphical objects"


def test_colours_of_one_field_differ():
    for names in theme.DOMAINS.values():
        assert len({theme.COLOURS[name] for name in names}) == len(names)
    for field in ("evidence", "weights"):
        assert len({theme.SHAPES[name] for name in theme.DOMAINS[field]}) == len(
            theme.DOMAINS[field]
        )


def test_a_chart_becomes_page_source_that_asks_for_nothing():
    theme.enable()
    chart = (
        alt.Chart(pd.DataFrame({"x": ["</script><b>"], "y": [1]})).mark_bar().encode(x="x", y="y")
    )
    source = chart._repr_mimebundle_()["text/html"]
    spec = re.search(r'<script type="application/json">(.*?)</script>', source, re.DOTALL)[1]
    assert json.loads(spec)["config"]["axis"]["labelColor"] == "currentColor"
    assert not re.search(r'(src|href)="?http', source)


def test_the_bundle_keeps_to_its_own_scope():
    script = theme.bundle()
    assert script.startswith("(function(){") and script.rstrip().endswith("})();")
    assert "vegaEmbed" in script


@pytest.mark.parametrize("status", theme.STATUSES)
def test_a_badge_says_its_status(status):
    assert f">{status}<" in theme.badge(status)


def test_an_unknown_status_has_no_badge():
    with pytest.raises(ValueError, match="'guessed' is unknown; allowed are measured"):
        theme.badge("guessed")


def test_a_table_escapes_aligns_and_leaves_gaps_visible():
    frame = pd.DataFrame(
        {
            "name": ["<b>", "x"],
            "n": [12345, 2],
            "v": [0.00123456, np.nan],
            "status": ["measured", "derived"],
        }
    )
    page = theme.table(frame)
    assert "&lt;b&gt;" in page and "<b>" not in page
    assert '<td class="number">12,345</td>' in page and '<td class="number">0.00123</td>' in page
    assert '<td class="number">–</td>' in page and 'class="status measured"' in page
    assert page._repr_html_() == page and len(repr(page)) < 60


def test_only_whole_columns_of_numbers_stand_to_the_right():
    page = theme.table(
        pd.DataFrame({"what": ["threads", "model"], "value": [2, "x"], "share": ["12.5 %", "–"]})
    )
    assert page.count('class="number"') == 3 and '<td class="">2</td>' in page
    assert '<th scope="col" class="number">share</th>' in page


def test_significant_digits_are_kept_and_groups_separated():
    page = theme.table(pd.DataFrame({"v": [17.0, 0.96, 105.2, 1234.4, 1.0]}))
    assert [cell in page for cell in (">17.0<", ">0.960<", ">105<", ">1,234<", ">1.00<")] == [
        True
    ] * 5


def test_a_download_is_the_table_itself():
    table = pd.DataFrame({"a": ["x, y", "ü & <b>"], "b": [0.123456, np.nan]})
    link = theme.download(table, "some.csv", "All < 3 rows")
    address = re.search('href="data:text/csv;charset=utf-8,([^"]*)" download="some.csv"', link)[1]
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(unquote(address))), table.round(4))
    assert "All &lt; 3 rows" in link and "<b>" not in link


def test_a_note_is_escaped():
    assert theme.note("a < b") == '<p class="nothing">a &lt; b</p>'


def test_kinds_are_badges_once_each():
    assert theme.kinds(["modelled", "measured", "modelled"]).count("<span") == 2
    assert "mixed" in theme.kinds(["mixed"])


def test_a_table_that_sorts_says_so_and_holds_links():
    frame = pd.DataFrame({"run": [theme.link("a & b", 'x.html?"')]}, dtype=object)
    page = theme.table(frame, sorts=True)
    assert (
        '<div class="table-box sorts">' in page and '<a href="x.html?&quot;">a &amp; b</a>' in page
    )
    assert "sorts" not in theme.table(frame)
