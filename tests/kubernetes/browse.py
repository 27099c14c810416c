"""Looks at a run in the UI of a cluster, in a real Chromium beside the pods.

Usage: browse.py CHROMIUM URL PASSWORD RUN PICTURE
"""

import sys

from playwright.sync_api import expect, sync_playwright

from tests.browser.chromium import ARGUMENTS, TIMEOUT_MS, page_of


def browse(chromium: str, url: str, password: str, run: str, picture: str) -> None:
    """Log in, see what the run launcher did, and keep the page as a picture."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=ARGUMENTS, timeout=TIMEOUT_MS
        )
        with page_of(browser, url, password) as page:
            # Without the filter, the page shows the end of the log only.
            page.goto(f"/runs/{run}?logs=K8sRunLauncher")
            expect(page.get_by_text("Success", exact=True).first).to_be_visible()
            expect(page.get_by_text("Creating Kubernetes run worker job").first).to_be_visible()
            expect(page.get_by_text("Kubernetes Job name").first).to_be_visible()
            page.mouse.move(1, 1)
            page.screenshot(path=picture, animations="disabled")
        browser.close()


if __name__ == "__main__":
    browse(*sys.argv[1:])
