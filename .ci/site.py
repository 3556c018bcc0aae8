"""Hook of mkdocs: also write the search index as a script, which a page that is opened from disk can load."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig


def on_post_build(config: MkDocsConfig) -> None:
    """Write search/search_index.js beside the json that Material's own search reads from a server."""
    index = Path(config.site_dir, "search", "search_index.json")
    index.with_suffix(".js").write_text(f"var searchIndex = {index.read_text(encoding='utf-8')};\n", encoding="utf-8")
