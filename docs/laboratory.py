"""Write the hashes of its script and its style into the laboratory page, after a change of either.

    python docs/laboratory.py

The page's policy lets nothing else run.
"""

import base64
import hashlib
import re
from pathlib import Path

PAGE = Path(__file__).parent / "_static" / "laboratory.html"


def sealed(page: str) -> str:
    """Return the page with the hashes of its parts in its policy."""
    for name in ("script", "style"):
        (content,) = re.findall(rf"<{name}>(.*?)</{name}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        page = re.sub(rf"{name}-src 'sha256-[^']*'", f"{name}-src 'sha256-{digest}'", page)
    return page


if __name__ == "__main__":
    PAGE.write_text(sealed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
