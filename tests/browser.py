"""Chromium without a window, as Debian has it, for pages that only a browser makes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from selenium.common.exceptions import TimeoutException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

LIMIT_S = 120.0
PAGE_HEIGHT = 3000
# It would look for updates and accounts, and wait for a network that may not be there.
_ALONE = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic",
          "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage")  # fmt: skip


def installed() -> bool:
    """Whether the browser and its driver are here (Debian's packages chromium and chromium-driver)."""
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


class Browser:
    """One browser, with a profile of its own in `folder`; a context, which ends it."""

    def __init__(self, folder: Path, *, width: int = 1500, height: int = 900) -> None:
        self._width, self._height = width, height
        options = ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        # Chromium's own sandbox refuses to be root's.
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        for argument in (
            "--headless=new",
            f"--user-data-dir={folder}",
            f"--window-size={width},{height}",
            *_ALONE,
            *root,
        ):
            options.add_argument(argument)
        self._chrome = Chrome(options=options, service=ChromeService(shutil.which("chromedriver")))

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._chrome.quit()

    def open(self, url: str) -> None:
        """Go to a page. A name and a password in the URL are given to who asks for them."""
        self._chrome.get(url)

    def unroll(self) -> None:
        """Make the window as tall as a page, whose parts below a window's edge may not be made before they are seen."""
        self._chrome.set_window_size(self._width, PAGE_HEIGHT)

    def close_all(self, label: str) -> None:
        """Press every button that is called so to those who hear a page read, if there is any."""
        for button in self._chrome.find_elements(By.CSS_SELECTOR, f"button[aria-label='{label}']"):
            button.click()

    def shows(self, *texts: str) -> None:
        """Wait until the page shows all of them. AssertionError with what it shows instead."""
        try:
            WebDriverWait(self._chrome, LIMIT_S).until(lambda _: all(text in self.text for text in texts))
        except TimeoutException:
            missing = [text for text in texts if text not in self.text]
            raise AssertionError(f"{self._chrome.current_url} does not show {missing}, but:\n{self.text}") from None

    def count(self, css: str) -> int:
        """Elements that a CSS selector finds."""
        return len(self._chrome.find_elements(By.CSS_SELECTOR, css))

    def settle(self) -> None:
        """Wait until the page's text is the same at two looks."""
        seen = [""]

        def same(_: object) -> bool:
            seen.append(self.text)
            return seen[-1] == seen[-2]

        WebDriverWait(self._chrome, LIMIT_S, poll_frequency=2).until(same)

    @property
    def text(self) -> str:
        """What a person reads on the page."""
        return str(self._chrome.execute_script("return document.body ? document.body.innerText : ''"))

    def picture(self, file: Path) -> None:
        """Write what is seen in a window of the size that was asked for as a PNG, once it is still."""
        self._chrome.set_window_size(self._width, self._height)
        self.settle()
        self._chrome.save_screenshot(str(file))
