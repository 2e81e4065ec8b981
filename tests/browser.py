"""Headless Chromium for the tests of pages: Debian's `chromium` and `chromium-driver`, through selenium."""

import base64
import os
import shutil

import pytest

WIDTHS = (1280, 390)
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars")
_SCROLLS = "return document.documentElement.scrollWidth > document.documentElement.clientWidth"
_REQUESTS = "return performance.getEntriesByType('resource').map((each) => each.name)"


def start():
    """A browser that logs what its console says; skips the test where there is none, unless one is required."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        missing.append("selenium")
    if missing:
        said = f"no browser: {', '.join(missing)} missing (apt-get install chromium chromium-driver)"
        if os.environ.get("DEEPLIFT_FAST_REQUIRE_BROWSER"):
            pytest.fail(said)
        pytest.skip(said)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in _FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


class Page:
    """A page that a browser has opened.

    Args:
        driver: the browser.
        path: the file.
        width: pixels.
    """

    def __init__(self, driver, path, width=1280):
        self.driver = driver
        self.driver.get_log("browser")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(path.resolve().as_uri())

    def check(self):
        """Nothing was complained of, nothing loaded, and nothing lies beyond the right edge."""
        assert self.driver.get_log("browser") == []
        assert self.driver.execute_script(_REQUESTS) == []
        assert not self.driver.execute_script(_SCROLLS)

    def find(self, css):
        """The elements that a selector finds."""
        return self.driver.find_elements("css selector", css)

    def run(self, script, *arguments):
        """The result of a script."""
        return self.driver.execute_script(script, *arguments)

    def pdf(self):
        """The page as it is printed, without backgrounds unless the page asks for them."""
        found = self.driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": False})
        return base64.b64decode(found["data"])
