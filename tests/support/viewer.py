"""A reader in front of OHIF: opens a study, opens its series one by one, and says what is to be seen."""

from base64 import b64decode
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Locator, Page, sync_playwright

from tests.support.peers import need
from tests.support.waiting import wait_until

FLAGS = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox")
SCREEN = {"width": 1280, "height": 800}
NO_TOUR = "localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))"
WITHIN_MS = 60_000.0
QUIET_S = 0.7
ENTRY = '[data-cy="study-browser-thumbnail"], [data-cy="study-browser-thumbnail-no-image"]'
CANVAS = "canvas.cornerstone-canvas"
DRAWN = "svg.svg-layer"
PANEL = '[data-cy="trackedMeasurements-panel"]'  # an empty one has an empty one of the same name within
BLANK_SPREAD = 4.0  # grey levels: a viewport that shows nothing is one colour


@dataclass(frozen=True)
class Box:
    """A rectangle that was drawn, in pixels of the screen within its viewport."""

    left: float
    top: float
    right: float
    bottom: float


class Viewer:
    """One chromium with one page; a context manager. `page` is there for what is asked once only."""

    def __init__(self) -> None:
        self._url = ""
        self.asked_elsewhere: list[str] = []
        self.failures: list[str] = []

    def __enter__(self) -> "Viewer":
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=need("chromium"), args=FLAGS)
        self.page: Page = self._browser.new_page(viewport=SCREEN)
        self.page.set_default_timeout(WITHIN_MS)
        self.page.add_init_script(NO_TOUR)
        self.page.on("request", lambda request: self._note_address(request.url))
        self.page.on("pageerror", lambda error: self.failures.append(str(error)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._browser.close()
        self._playwright.stop()

    def _note_address(self, url: str) -> None:
        if not url.startswith((self._url, "blob:", "data:")):
            self.asked_elsewhere.append(url)

    def open(self, url: str, study_uid: str, series: int) -> None:
        """Open a study in the OHIF at `url` and wait until all its series are listed."""
        self._url = url
        self.failures.clear()
        self.page.goto(f"{self._url}/viewer?StudyInstanceUIDs={study_uid}")
        wait_until(lambda: self.page.locator(ENTRY).count() >= series, WITHIN_MS / 1000, 0.2)
        self.page.locator(CANVAS).first.wait_for()

    def series(self) -> list[str]:
        """The list at the left: modality and description of each series, as OHIF writes them."""
        return [" ".join(entry.inner_text().split()) for entry in self.page.locator(ENTRY).all()]

    def show(self, words: str) -> None:
        """Double-click the one series in whose entry these words stand, as a reader does."""
        (entry,) = [one for one in self.page.locator(ENTRY).all() if words in " ".join(one.inner_text().split())]
        entry.dblclick()
        self.settle()

    def settle(self) -> None:
        """Wait until the viewport stops changing."""
        last = b""

        def same() -> bool:
            nonlocal last
            self.page.wait_for_timeout(QUIET_S * 1000)
            before, last = last, self.grid.screenshot()
            return before == last

        wait_until(same, WITHIN_MS / 1000)

    @property
    def grid(self) -> Locator:
        return self.page.locator('[data-cy="viewport-grid"]')

    def text(self) -> str:
        """Every word in the viewport."""
        return self.grid.inner_text()

    def boxes(self) -> list[Box]:
        """The closed rectangles that are drawn over the image."""
        found = []
        for line in self.grid.locator(f"{DRAWN} polyline").all():
            numbers = (line.get_attribute("points") or "").replace(",", " ").split()
            points = np.array(numbers, float).reshape(-1, 2)
            if len(points) == 5:
                (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
                found.append(Box(float(left), float(top), float(right), float(bottom)))
        return found

    def answer(self, word: str) -> None:
        """Answer OHIF's question."""
        self.page.get_by_role("button", name=word, exact=True).click()
        self.settle()

    def asks(self) -> str:
        """The question in the viewport, or nothing."""
        question = self.grid.locator('[data-cy="viewport-notification"]')
        return question.inner_text() if question.count() else ""

    def measurements(self) -> list[str]:
        """What the panel of tracked measurements lists now: a line for each."""
        panel = self.page.locator(f"{PANEL}:not({PANEL} {PANEL})")
        if not panel.count():
            self.page.locator('[data-cy="trackedMeasurements-btn"]').click()
            panel.wait_for()
        return [
            " | ".join(row.inner_text().splitlines())
            for row in panel.locator('[data-cy^="measurement-table-row"]').all()
        ]

    def pixels(self) -> NDArray[np.uint8]:
        """The image as it is shown, without what is written or drawn over it: (rows, columns, 3)."""
        canvas = self.grid.locator(CANVAS).first
        encoded: str = canvas.evaluate("canvas => canvas.toDataURL('image/png')")
        return np.asarray(Image.open(BytesIO(b64decode(encoded.partition(",")[2]))).convert("RGB"))

    def is_blank(self) -> bool:
        """Whether a reader looks at a viewport of one colour with nothing written in it."""
        if self.text().strip():
            return False
        return not self.grid.locator(CANVAS).count() or bool(self.pixels().std() < BLANK_SPREAD)

    def went_wrong(self) -> bool:
        """Whether OHIF tells its reader that it failed."""
        return "went wrong" in self.page.inner_text("body")

    def keep(self, path: Path) -> None:
        """The whole page, in all its colours: a heat map in few of them shows bands that are not there."""
        Image.open(BytesIO(self.page.screenshot())).convert("RGB").save(path, optimize=True)
