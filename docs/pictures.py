"""Take the pictures of the documentation from a folder that `make demo` wrote.

    python docs/pictures.py demo

Four pictures are copied; ``report.png`` is a screenshot of two sections of the report. It needs
playwright and Debian's chromium, or the program that SCOREFIELD_BROWSER names.
"""

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

COPIED = ("run/frontier.png", "samples.png", "strips.png", "trajectories.png")
PLACES = {"time": 12, "calls": 1}  # of the sliders: noise-to-signal ratio about 0.5, and 5 calls


def screenshot(report: Path, out: Path) -> None:
    """Write a picture of the two sections with sliders, from the line above the first."""
    browser = os.environ.get("SCOREFIELD_BROWSER") or shutil.which("chromium")
    with sync_playwright() as driver:
        page = driver.chromium.launch(executable_path=browser).new_page(
            viewport={"width": 1100, "height": 900}, color_scheme="light"
        )
        page.goto(report.resolve().as_uri())
        for name, place in PLACES.items():
            slider = page.locator(f"#{name} input")
            slider.evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')) }", place)
        first, last = (
            page.locator(f"section:has(#{name})").bounding_box() for name in ("time", "calls")
        )
        height = last["y"] + last["height"] - first["y"]
        clip = {"x": 0, "y": first["y"], "width": 1100, "height": height + 8}
        page.screenshot(path=out, full_page=True, clip=clip)


def main(demo: Path) -> None:
    """Copy and take all pictures."""
    images = Path(__file__).parent / "images"
    for name in COPIED:
        shutil.copyfile(demo / name, images / Path(name).name)
    screenshot(demo / "report.html", images / "report.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
