"""The page of `dvc plots show`: our order of charts and pictures, bars from zero, words offline."""

import json
from pathlib import Path

from dvc_render.html import HTML
from dvc_render.vega import VegaRenderer
from ruamel.yaml import YAML

from tests.helpers.browser import browse, needs_browser
from tests.helpers.import_closure import ROOT

PLOTS = YAML(typ="safe").load(ROOT / "dvc.yaml")["plots"]
PAGE = (ROOT / ".dvc/plots/page.html").read_text("utf-8")
CHART = '<div id="IoU_by_class"><script>vegaEmbed("#IoU_by_class", {});</script></div>'


def page() -> str:
    """The page as DVC fills it."""
    return HTML(PAGE).with_scripts(VegaRenderer.SCRIPTS).with_element(CHART).embed()


def test_dvc_fills_the_page_and_its_scripts_come_last() -> None:
    text = page()
    assert text.count(CHART) == 1
    assert text.index(CHART) < text.index("https://cdn.jsdelivr.net")
    assert "{" + "scripts}" not in text
    assert "{" + "plot_divs}" not in text
    assert "html_template = plots/page.html" in (ROOT / ".dvc/config").read_text("utf-8")


def test_every_picture_has_a_place_in_the_order_of_the_page() -> None:
    pictures = [Path(plot) for plot in PLOTS if isinstance(plot, str)]
    assert pictures
    for picture in pictures:
        assert f'[id^="results_{picture.parts[1]}' in PAGE


def test_templates_of_the_charts_are_there_and_bars_start_at_zero() -> None:
    charts = [chart for plot in PLOTS if not isinstance(plot, str) for chart in plot.values()]
    assert {chart["template"] for chart in charts} == {"linear", "bars"}
    bars = json.loads((ROOT / ".dvc/plots/bars.json").read_text("utf-8"))
    assert bars["encoding"]["x"]["scale"]["domain"][0] == 0


@needs_browser
def test_offline_the_page_says_where_the_curves_are(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(page(), "utf-8")
    assert 'id="offline" class=""' in browse(tmp_path / "index.html", 1000, "--dump-dom")
