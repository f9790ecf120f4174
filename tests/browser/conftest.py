"""A headless Chromium without a network, and the command line to make runs for it."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from cli import cli

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--autoplay-policy=no-user-gesture-required",
    "--proxy-server=127.0.0.1:9",  # nothing listens there: what asks for a network fails
)


class Browser:
    """Chromium with the few gestures that the tests need; `complaints` is what it wrote to its console so far."""

    def __init__(self, driver: webdriver.Chrome):
        self.driver = driver
        self.complaints: list[str] = []

    def open(self, page: Path, width: int = 1280, scheme: str = "light") -> None:
        self.drain()
        self.complaints.clear()
        self.resize(width)
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.driver.get(page.as_uri())

    def resize(self, width: int) -> None:
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)

    def cdp(self, command: str, **parameters) -> dict:
        return self.driver.execute_cdp_cmd(command, parameters)

    def run(self, script: str, *args):
        """The value of a script's `return`; a promise is awaited."""
        return self.driver.execute_script(script, *args)

    def draw_everything(self) -> None:
        """Open every section and wait until each chart has come into view and is drawn."""
        self.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        self.run("""
            const pause = () => new Promise((go) => setTimeout(go, 25));
            for (const box of document.querySelectorAll('.chart')) {
              box.scrollIntoView({ block: 'center' });
              for (let i = 0; i < 200 && box.dataset.drawn !== 'yes'; i++) await pause();
            }
        """)

    def drain(self) -> list[str]:
        """Addresses asked for since the last call; what the console said is added to `complaints`."""
        self.complaints += [entry["message"] for entry in self.driver.get_log("browser")]
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        requests = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [request["request"]["url"] for request in requests]


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_script_timeout(60)
    browser = Browser(driver)
    browser.cdp("Network.enable")
    browser.cdp("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
    yield browser
    driver.quit()


@pytest.fixture(scope="session")
def call():
    def call(*args) -> None:
        result = CliRunner().invoke(cli, [str(arg) for arg in args])
        assert result.exit_code == 0, result.output + repr(result.exception)

    return call
