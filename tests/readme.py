"""What the README shows, for tests that do as it says."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def yaml_block(title: str) -> str:
    """The YAML block that begins with the comment `# title`."""
    text = README.read_text(encoding="utf-8")
    found = re.search(rf"```yaml\n(# {re.escape(title)}\n.*?)```", text, re.DOTALL)
    assert found is not None, f"the README shows no YAML that begins with # {title}"
    return found[1]
