"""A cohort's page in a real browser."""

import re

import cohort_folders as cohorts
import pytest
from browser import WIDTHS, Page

from deeplift_fast.report import cohort_page, patient_pages
from deeplift_fast.report.grouping import read_grouping

SHOWN = "return [...document.querySelectorAll('.lines tbody tr:not([hidden]) th')].map((each) => each.innerText)"
COLUMN = """
return [...document.querySelector('.lines').tBodies[0].rows].map((row) => Number(row.cells[arguments[0]].dataset.v))
"""
RIGHT = """
return Math.max(...[...document.querySelectorAll('table')].map((each) => each.getBoundingClientRect().right))
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The file of a page of hostile names, with seven groups and links to patients."""
    root = tmp_path_factory.mktemp("pages")
    found, rows = cohorts.draw(samples=150, patients=90)
    odd = {"0040": "<script>alert(1)</script>", "10_E119": '"onload="alert(1)', "4019": "\u202egnisrever" + "x" * 9_000}
    rows = rows.assign(code=rows["code"].replace(odd))
    out = cohorts.add_pairs(cohorts.write(root / "out", found, rows), cohorts.pairs(rows))
    groups = "".join(f"{each},ward {n % 7}\n" for n, each in enumerate(found["patient_id"].unique()))
    (root / "w.csv").write_text("patient_id,ward\n" + groups)
    links = patient_pages(out, root / "page.html", 3)
    text = cohort_page(out, by=[read_grouping(f"{root}/w.csv:ward")], links=links)
    (root / "page.html").write_text(text, encoding="utf-8")
    return root / "page.html"


@pytest.mark.parametrize("width", [*WIDTHS, 640])  # 640: 1280 pixels at a zoom of 200 %
def test_it_opens_without_complaint(chromium, page, width):
    opened = Page(chromium, page, width)
    opened.check()
    assert opened.run("return document.styleSheets.length") == 1
    widths = opened.run("return [...document.querySelectorAll('.dot .dots')].map((each) => each.clientWidth)")
    assert min(widths) > 200
    assert opened.find("#search input")[0].is_displayed()


def test_rows_are_searched_by_title_and_code(chromium, page):
    opened = Page(chromium, page)
    (field,) = opened.find("#search input")
    field.send_keys("HYPERTENSION i10")
    assert [name.split("\n")[0] for name in opened.run(SHOWN)] == ["Essential (primary) hypertension"]
    assert re.fullmatch(r"\d+ of \d+ rows", opened.find("#search output")[0].text)
    field.clear()
    field.send_keys("nothing has this")
    assert opened.run(SHOWN) == []
    field.clear()
    field.send_keys(" ")
    assert len(opened.run(SHOWN)) >= 7
    opened.check()


def test_rows_are_sorted_by_each_column(chromium, page):
    opened = Page(chromium, page)
    buttons = opened.find(".lines:first-of-type thead th button")
    first = [each for each in buttons if each.find_element("xpath", "./ancestor::section").text.startswith("Codes")]
    assert [each.text for each in first] == ["Code", "samples", "mean", "mean size", "median"]
    for button, column in zip(first[1:], (1, 2, 3, 5), strict=True):
        button.click()
        falling = opened.run(COLUMN, column)
        button.click()
        rising = opened.run(COLUMN, column)
        assert falling == sorted(falling, reverse=True)
        assert rising == sorted(rising)
        assert len(set(rising)) > 2
    first[0].click()
    names = [name.split("\n")[0].lower() for name in opened.run(SHOWN)[: len(falling)]]
    assert opened.find("th[aria-sort=ascending]")[0].text.startswith("Code")
    assert names.index('"onload="alert(1)') < names.index("essential (primary) hypertension")
    opened.check()


def test_links_lead_to_patients_pages(chromium, page):
    opened = Page(chromium, page)
    opened.find(".patients a")[0].click()
    assert "page-patients/sample-" in chromium.current_url
    assert opened.find("h1")[0].text.startswith("Patient ")


def test_it_prints_on_a4_without_its_controls(chromium, page):
    opened = Page(chromium, page)
    content = opened.pdf()
    sizes = {
        tuple(round(float(each)) for each in box)
        for box in re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", content)
    }
    assert sizes == {(595, 842)}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        size = {"width": 703, "height": 980, "deviceScaleFactor": 1, "mobile": False}  # A4 within its margins
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        right = opened.run(RIGHT)
        assert right <= 704
        assert not opened.find("#search input")[0].is_displayed()
    finally:
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_without_scripts_it_is_plain_tables(chromium, page):
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        Page(chromium, page)
        assert chromium.find_elements("css selector", "button, input") == []
        assert len(chromium.find_elements("css selector", ".lines tbody tr")) >= 7
    finally:
        chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
