import browser
import pytest


@pytest.fixture(scope="session")
def chromium():
    """A browser for all tests of pages."""
    driver = browser.start()
    yield driver
    driver.quit()
