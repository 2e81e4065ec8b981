"""Pages in a real browser."""

import re

import patient_cases as cases
import pytest
from browser import WIDTHS, Page
from cohort_folders import add_pairs

from deeplift_fast.report.patient import page
from deeplift_fast.support.colours import contrast

EXPAND = "for (const each of document.querySelectorAll('details')) each.open = true"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Files of patients' pages, by name."""
    root = tmp_path_factory.mktemp("pages")
    rows, _ = cases.record(1, 6, 5, seed=5)
    hostile, stays = cases.record()
    hostile["code"] = hostile["code"].replace({"Sodium": "<script>alert(1)</script>", "Calcium": '"onload="alert(1)'})
    hostile["code"] = hostile["code"].replace({"Glucose": "x" * 10_000, "Chloride": "\u202egnisrever\u202c"})
    cohorts = {
        "five": cases.folder(root / "of-five", cases.record()),
        "fifty": cases.folder(root / "of-fifty", cases.record(50, 10, 12, seed=3)),
        "one": cases.folder(root / "of-one", (cases.plain(rows), None)),
        "hostile": cases.folder(root / "of-hostile", (hostile, stays)),
    }
    add_pairs(cohorts["five"], cases.pairs({("Z515", "J9601"): 0.2, ("A419", "Z515"): 0.1}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "_titles", lambda root: cases.Named())
        said = page.Without("Acute respiratory failure with hypoxia", "31 %", "▲ +0.29", "▲ +0.34")
        patch.setattr(page, "_without", lambda *given: (said, said, said))
        for name, out in cohorts.items():
            (root / f"{name}.html").write_text(
                page.patient_page(out, sample=0, model_run=name == "five" or None), encoding="utf-8"
            )
    return {name: root / f"{name}.html" for name in cohorts}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["five", "fifty", "one", "hostile"])
def test_a_patients_page_opens_without_complaint(chromium, pages, name, width):
    opened = Page(chromium, pages[name], width)
    opened.check()
    opened.run(EXPAND)
    opened.check()
    assert opened.run("return document.styleSheets.length") == 1
    assert opened.run("return getComputedStyle(document.querySelector('h1')).fontWeight") == "600"


def test_what_acts_together_is_a_list_under_its_reason(chromium, pages):
    opened = Page(chromium, pages["five"], width=390)
    (reasons, *_) = opened.find("ol.reasons")
    listed = reasons.find_elements("css selector", ":scope > li > ul > li")
    assert [each.aria_role for each in listed] == ["listitem"] * 4
    assert all(each.is_displayed() and each.text.startswith("It acts together with ") for each in listed)
    right = opened.run("return Math.max(...arguments[0].map((each) => each.getBoundingClientRect().right))", listed)
    assert right <= 390


def test_a_timeline_that_is_wider_than_the_page_says_where_older_stays_are(chromium, pages):
    shown = "return !document.querySelector('#older').hidden"
    assert Page(chromium, pages["fifty"]).run(shown)
    assert not Page(chromium, pages["five"]).run(shown)
    corner = "return getComputedStyle(document.querySelector('.timeline thead td')).position"
    assert Page(chromium, pages["fifty"]).run(corner) == "sticky"


def test_at_200_percent_zoom_nothing_lies_beyond_the_edge(chromium, pages):
    Page(chromium, pages["five"], width=640).check()  # 1280 pixels at 200 %


def test_links_of_days_open_their_steps(chromium, pages):
    opened = Page(chromium, pages["five"])
    (link, *_) = opened.find('a[href^="#f"]')
    assert not opened.run("return document.querySelector('details').open")
    link.click()
    assert opened.run("return document.querySelector('details').open")
    assert opened.find("#f0")[0].is_displayed()
    opened.check()


def test_arrows_lead_from_cell_to_cell_and_cells_tell_what_they_are(chromium, pages):
    from selenium.webdriver.common.keys import Keys  # where there is a browser

    opened = Page(chromium, pages["five"])
    first = opened.find('td[tabindex="0"]')[0]
    opened.run("arguments[0].focus()", first)
    names = [chromium.switch_to.active_element.accessible_name]
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_LEFT, Keys.ARROW_UP):
        chromium.switch_to.active_element.send_keys(key)
        names.append(chromium.switch_to.active_element.accessible_name)
        assert len(opened.find('td[tabindex="0"]')) == 1
    assert names[0].startswith("Encounter for palliative care Z515 day 102")
    assert all(" day " in name and ("+" in name or "−" in name or "0.00" in name) for name in names)
    assert len(set(names)) > 3
    opened.check()


def test_without_scripts_every_labelled_cell_takes_the_focus(chromium, pages):
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        opened = Page(chromium, pages["five"])
        cells = opened.find("td[aria-labelledby]")
        assert len(cells) > 50
        assert len(opened.find('td[aria-labelledby][tabindex="0"]')) == len(cells)
    finally:
        chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_the_newest_stay_is_seen_first(chromium, pages):
    opened = Page(chromium, pages["fifty"], width=390)
    (last,) = opened.find("#c24")
    right = opened.run("return arguments[0].getBoundingClientRect().right", last)
    assert 0 < right <= 390


@pytest.mark.parametrize("name", ["five", "fifty"])
def test_a_page_prints_on_a4_in_colour(chromium, pages, name):
    content = Page(chromium, pages[name]).pdf()
    assert content.startswith(b"%PDF")
    sizes = boxes(content)
    a4 = {(595, 842), (842, 595)}
    assert sizes
    assert set(sizes) <= a4, sizes
    assert len(sizes) <= 6


def boxes(content):
    """The sizes of a PDF's pages in points, rounded."""
    found = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", content)
    return [(round(float(width)), round(float(height))) for width, height in found]


def test_nothing_is_cut_off_in_print(chromium, pages):
    opened = Page(chromium, pages["fifty"])
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        size = {"width": 1047, "height": 700, "deviceScaleFactor": 1, "mobile": False}  # A4 sideways within its margins
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        right = opened.run("return document.querySelector('.timeline').getBoundingClientRect().right")
        assert right <= 1047
        smallest = opened.run(
            "return Math.min(...[...document.querySelectorAll('.timeline b')].map("
            "(each) => parseFloat(getComputedStyle(each).fontSize)))"
        )
        assert smallest >= 7  # pixels: 5.25 points
    finally:
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


CONTRAST = """
const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
const background = (of) => {
  while (of && getComputedStyle(of).backgroundColor === 'rgba(0, 0, 0, 0)') of = of.parentElement;
  return of ? rgb(getComputedStyle(of).backgroundColor) : [255, 255, 255];
};
return [...document.querySelectorAll('main *')]
  .filter((each) => [...each.childNodes].some((inner) => inner.nodeType === 3 && inner.data.trim()))
  .filter((each) => !each.closest('svg, .unseen'))
  .map((each) => [rgb(getComputedStyle(each).color), background(each)]);
"""


@pytest.mark.parametrize("name", ["five", "fifty"])
def test_every_text_stands_out_as_drawn(chromium, pages, name):
    opened = Page(chromium, pages[name])
    opened.run(EXPAND)
    pairs = {(tuple(ink[:3]), tuple(back[:3])) for ink, back in opened.run(CONTRAST)}
    assert len(pairs) > 10
    for ink, back in pairs:
        found = contrast(*(tuple(channel / 255 for channel in colour) for colour in (ink, back)))
        assert found >= 4.5, (ink, back)
