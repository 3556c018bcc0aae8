"""The HTML and CSS of a report page; values are filled in, already escaped, by `simmat.report.page`."""

from __future__ import annotations

from string import Template

STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --card: #f5f6f8; --line: #dfe2e8; --text: #1f2329;
  --faint: #5d6470; --accent: #0067a3; }
@media (prefers-color-scheme: dark) { :root { --ground: #101216; --card: #1a1d23; --line: #2d323b; --text: #e6e8ec;
  --faint: #9ba3b0; --accent: #6cc1f0; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 2rem 1.25rem 3rem; max-width: 66rem; background: var(--ground); color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { margin: 0 0 .4rem; font-size: 1.8rem; line-height: 1.2; letter-spacing: -.01em; }
h2 { margin: 2.4rem 0 .7rem; font-size: 1.2rem; }
p { margin: .3rem 0 .8rem; max-width: 46rem; }
.faint, figcaption, th { color: var(--faint); }
.beside { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 2rem; align-items: start; }
.beside > section > h2 { margin-top: 1.6rem; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { font-weight: 600; font-size: .88rem; text-align: left; vertical-align: bottom; }
th, td { padding: .42rem .9rem .42rem 0; border-bottom: 1px solid var(--line); }
th.number, td.number { text-align: right; padding: .42rem 0 .42rem .9rem; }
tr.best td, td.best { font-weight: 700; color: var(--accent); }
.wide { overflow-x: auto; }
.wide table { min-width: 34rem; }
.wide td.number { white-space: nowrap; }
.wide td:first-child { min-width: 9rem; }
img { display: block; max-width: 100%; height: auto; border-radius: 8px; }
.wide > img { min-width: 44rem; width: 100%; }
figure { margin: 0; }
figcaption { margin-top: .4rem; font-size: .88rem; line-height: 1.4; overflow-wrap: anywhere; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)); gap: 1.25rem; }
.grid img { width: 100%; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: 0 0 .8rem; padding: 0; list-style: none;
  font-size: .92rem; }
.legend span { display: inline-block; width: .95em; height: .95em; margin-right: .45em; border-radius: 3px;
  vertical-align: -.1em; border: 1px solid var(--line); }
pre { margin: 0; padding: .75rem .9rem; border: 1px solid var(--line); border-radius: 8px; background: var(--card);
  font: .84rem/1.5 ui-monospace, "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
ol { margin: 0; padding: 0; list-style: none; display: grid; gap: .7rem; }
ol p { margin: 0 0 .2rem; font-size: .92rem; }
footer { margin-top: 3rem; padding-top: .8rem; border-top: 1px solid var(--line); font-size: .85rem;
  color: var(--faint); }
@media (max-width: 46rem) { body { padding: 1.25rem 1rem 2rem; } h1 { font-size: 1.45rem; }
  .beside { display: block; } .beside > section > h2 { margin-top: 2.2rem; } }
""".strip()

PAGE = Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
$style
</style>
</head>
<body>
<header>
<h1>$title</h1>
<p>$summary</p>
</header>
<main>
$sections
</main>
<footer>$footer</footer>
</body>
</html>
"""
)
