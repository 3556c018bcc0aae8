"""Hook of mkdocs: list the conformance rules, and write the search index for pages that are opened from disk."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from simmat_testing import find_parts
from simmat_testing.checks import rule_of


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace `<!-- rules: KIND -->` by the table of the checks in `find_parts.KIND_CHECKS`."""

    def table(found: re.Match[str]) -> str:
        checks = getattr(find_parts, f"{found[1]}_CHECKS").items()
        rows = [
            f"| `{name}` | {rule_of(check).rstrip('.')} |" for name, check in checks
        ]
        return "\n".join(["| check | rule |", "|---|---|", *rows])

    return re.sub("<!-- rules: ([A-Z_]+) -->", table, markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Write search/search_index.js beside the json that Material's own search reads from a server."""
    index = Path(config.site_dir, "search", "search_index.json")
    index.with_suffix(".js").write_text(
        f"var searchIndex = {index.read_text(encoding='utf-8')};\n", encoding="utf-8"
    )
