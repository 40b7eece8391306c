"""What the pages of the documentation contain: code, commands, headings and links."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "kvae").rglob("*.md")),
    ROOT / "saved_models" / "README.md",
    ROOT / "tests" / "fixtures" / "README.md",
]


class Link(NamedTuple):
    """A link or a picture: a file, a place in it (`#anchor`), or both."""

    file: str
    anchor: str


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[str]:
    """The code of a page in these languages, as ```` ```sh ```` marks it."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```$", text, re.M | re.S)


def commands(code: str) -> list[str]:
    """The commands of shell code, one each, with their comments."""
    lines = code.replace("\\\n", " ").splitlines()
    return [line for line in lines if shlex.split(line, comments=True)]


def prose(page: Path) -> str:
    """The text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def links(page: Path) -> list[Link]:
    """The links and pictures of a page that are within the repository."""
    without_code = re.sub(r"`[^`]*`", "", prose(page))
    targets = re.findall(r"\]\(([^)]+)\)", without_code) + re.findall(r'(?:src|href)="([^"]+)"', without_code)
    inner = [target for target in targets if not target.startswith(("http://", "https://"))]
    return [Link(*re.fullmatch(r"([^#]*)#?(.*)", target, re.S).groups()) for target in inner]


def anchors(page: Path) -> set[str]:
    """The places of a page that a link can name: its headings, in small letters, without signs, with hyphens."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
