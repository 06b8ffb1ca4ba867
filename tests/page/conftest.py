"""One node, one PACS and one browser for every test of the page; each test has a visitor with cookies of its own."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.peers import need
from tests.support.running import StoreScp

if not find_spec("playwright"):
    raise pytest.UsageError("tests/page needs playwright: `make test-page` installs it and runs these tests")

from playwright.sync_api import Browser, BrowserContext, Error, Page, expect, sync_playwright

from tests.support.page_site import Site, settled

Keep = Callable[[Page, str], None]
PICTURE_MAX = 150_000  # bytes
DESK = {"width": 1280, "height": 800}
WITHIN_MS = 60_000.0  # whatever is waited for: deadlines of truths, on a machine that may be busy
expect.set_options(timeout=WITHIN_MS)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pictures", type=Path, help="keep the pictures for docs/ in this folder")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with StoreScp(folder / "pacs") as pacs:
        made = settled(folder, pacs)
        yield made
        made.node.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=need("chromium"), args=["--no-sandbox"], timeout=WITHIN_MS
        )
        yield chromium
        chromium.close()


class Visitor:
    """A person with a browser. What goes wrong in it is kept, and whom it asked besides the node."""

    def __init__(self, browser: Browser, site: Site, **options: object) -> None:
        self.context: BrowserContext = browser.new_context(**({"viewport": DESK, "color_scheme": "dark"} | options))  # type: ignore[arg-type]
        self.context.set_default_timeout(WITHIN_MS)
        self.page = self.context.new_page()
        self.site_url = site.url  # another's, where a test has a server of its own
        self.faults: list[str] = []
        self.elsewhere: list[str] = []
        self.expected: tuple[str, ...] = ()
        self.page.on("console", lambda said: self.faults.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda asked: self._note(asked.url))

    def _note(self, url: str) -> None:
        if not url.startswith((self.site_url + "/", "data:")):
            self.elsewhere.append(url)

    def open(self, path: str = "/") -> Page:
        self.page.goto(self.site_url + path)
        return self.page

    def sign_in(self, token: str) -> Page:
        self.open("/sign-in")
        self.page.get_by_label("Access token").fill(token)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(self.site_url + "/")
        return self.page

    def words(self) -> list[str]:
        """The priorities of the list, from the top."""
        return self._of_rows("word")

    def uids(self) -> list[str]:
        return self._of_rows("key")

    def _of_rows(self, name: str) -> list[str]:
        """None while one document takes the place of another."""
        try:
            found: list[str] = self.page.locator("#rows tr").evaluate_all(f"all => all.map(row => row.dataset.{name})")
        except Error as error:
            if "Execution context was destroyed" not in str(error):
                raise
            return []
        return found

    def leave(self) -> None:
        self.context.close()
        unexpected = [fault for fault in self.faults if not any(word in fault for word in self.expected)]
        assert unexpected == []
        assert self.elsewhere == []


@pytest.fixture
def arrive(site: Site, browser: Browser) -> Iterator[Callable[..., Visitor]]:
    """Makes visitors; at the end nothing may have gone wrong in any of their browsers."""
    visitors: list[Visitor] = []

    def make(**options: object) -> Visitor:
        visitors.append(Visitor(browser, site, **options))
        return visitors[-1]

    yield make
    for visitor in visitors:
        visitor.leave()


@pytest.fixture
def visitor(arrive: Callable[..., Visitor]) -> Visitor:
    """A stranger."""
    return arrive()


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> Keep:
    """Keep the page as it looks now, when pictures are wanted."""
    folder: Path | None = request.config.getoption("--pictures")

    def kept(page: Page, name: str) -> None:
        if folder is not None:
            page.mouse.move(0, 0)
            picture = folder / f"{name}.png"
            page.screenshot(path=picture, animations="disabled")
            _smaller(picture)

    return kept


def _smaller(picture: Path) -> None:
    """As small as a repository wants it: a page of few colours fits a palette, and so does a picture on it."""
    from PIL import Image

    with Image.open(picture) as taken:
        every = taken.convert("RGB")
    every.save(picture, optimize=True)
    if picture.stat().st_size > PICTURE_MAX:
        every.quantize(256, kmeans=4, dither=Image.Dither.FLOYDSTEINBERG).save(picture, optimize=True)
