"""A real browser without a window, where the machine has one: Chromium, driven by its own driver."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")


def missing() -> str:
    """Why there is no browser; empty where there is one."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed"
    if not any(map(shutil.which, CHROMIUM)):
        return "no Chromium on PATH (Debian: apt-get install chromium chromium-driver)"
    return "" if shutil.which("chromedriver") else "no chromedriver on PATH (Debian: apt-get install chromium-driver)"


@contextmanager
def started(width: int = 1280, height: int = 900, *, dark: bool = False) -> Iterator[Any]:
    """A driver whose page may ask the network for nothing unseen: every request is logged."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = next(path for name in CHROMIUM if (path := shutil.which(name)))
    flags = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"]
    flags += ["--disable-background-networking", "--no-first-run", f"--window-size={width},{height}"]
    for flag in [*flags, *(["--force-dark-mode"] if dark else [])]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    if dark:
        media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        yield driver
    finally:
        driver.quit()


def opened(driver: Any, path: Path) -> None:
    """Opens a file, after what was logged before it is forgotten."""
    driver.get_log("performance")
    driver.get_log("browser")
    driver.get(path.resolve().as_uri())


def errors(driver: Any) -> list[str]:
    """What the console said that is an error or a warning."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def requests(driver: Any) -> list[str]:
    """The addresses that the page asked for, the file itself and data inside it aside."""
    found = []
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.append(message["params"]["request"]["url"])
    return [url for url in found if not url.startswith(("data:", "blob:", "file:"))]
