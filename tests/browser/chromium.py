"""A headless Chromium of the machine's own, which sees nothing but this machine."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Response, Route, expect

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",  # Chromium has no sandbox for root.
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LOOPBACK = ("127.0.0.1", "localhost", "::1", None)  # A data: URL has no host.
TIMEOUT_MS = 60_000

# What Dagster's UI keeps once its invitation to the community is dismissed: it comes at any time
# and lies over the page.
DISMISS_INVITATION = """localStorage.setItem("communityNux", '"1"')"""

expect.set_options(timeout=TIMEOUT_MS)


def find_chromium() -> str | None:
    """Find the program: CHROMIUM_BIN, or the first of `NAMES` on the PATH."""
    return os.environ.get("CHROMIUM_BIN") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def page_of(browser: Browser, url: str, password: str = "") -> Iterator[Page]:
    """Give a page of `url`'s server, and fail at the end if it reported an error.

    Args:
        browser: shows it.
        url: where relative addresses start.
        password: what the server asks for, with any user name.
    """
    problems: list[str] = []

    def console(message: ConsoleMessage) -> None:
        where = message.location["url"]
        if message.type == "error" and urlsplit(where).hostname in LOOPBACK:
            problems.append(f"console: {message.text} ({where})")

    def response(answer: Response) -> None:
        if answer.status >= 400:
            problems.append(f"{answer.status} from {answer.url}")

    context = browser.new_context(
        base_url=url,
        viewport={"width": 1280, "height": 800},
        locale="en-US",
        timezone_id="UTC",
        reduced_motion="reduce",
        http_credentials={"username": "someone", "password": password} if password else None,
    )
    context.set_default_timeout(TIMEOUT_MS)
    context.add_init_script(DISMISS_INVITATION)
    context.route("**/*", _only_this_machine)
    page = context.new_page()
    page.on("console", console)
    page.on("response", response)
    page.on("pageerror", lambda error: problems.append(f"page: {error}"))
    try:
        yield page
    finally:
        context.close()
    assert not problems, "\n".join(problems)


def _only_this_machine(route: Route) -> None:
    if urlsplit(route.request.url).hostname in LOOPBACK:
        route.continue_()
    else:
        route.abort()
