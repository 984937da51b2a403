"""What a person wrote into a page that a benchmark writes, so that it can be written anew."""

from pathlib import Path


def own_words(path: Path, after: str, before: str) -> str:
    """Return what stands in a page between two marks of its own, "" where there is no page."""
    page = path.read_text() if path.exists() else ""
    return page.partition(after)[2].partition(before)[0].strip()
