"""Make the pictures of the report in docs/ again: python tests/screenshots.py RUN."""

import shutil
import sys
import tempfile
from pathlib import Path

from playwright import sync_api

from evolute.commands.report import commands
from evolute.report import page

DOCS = Path(__file__).parent.parent / "docs"
# Name, colour scheme, width, height, pixels for each of the page's.
PICTURES = (("light", "light", 1180, 1560, 1), ("dark", "dark", 1180, 1560, 1), ("phone", "light", 390, 1300, 1.5))
GENEALOGY = ("genealogy", "light", 1000, 900, 1.6)


def main(run: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, sync_api.sync_playwright() as driver:
        out = Path(folder) / "report.html"
        page.write(page.html(page.data([run], [commands(Path("runs") / run.name)])), out)
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        for name, scheme, width, height, scale in (*PICTURES, GENEALOGY):
            tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=scale)
            tab.goto(f"file://{out}")
            shown = tab.locator("figure.genealogy") if name == "genealogy" else tab
            shown.screenshot(path=DOCS / f"report-{name}.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
