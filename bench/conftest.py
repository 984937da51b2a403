"""The scripts here are run by hand; only their tests are collected."""

from pathlib import Path

collect_ignore = [p.name for p in Path(__file__).parent.glob("*.py") if "_test" not in p.name]
