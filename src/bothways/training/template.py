"""The page that `sections.render` fills: one column, readable light, dark and printed."""

from __future__ import annotations

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root {
  color-scheme: light dark;
  --back: #fdfdfb; --panel: #f4f4f0; --ink: #1d1f21; --muted: #646a70; --rule: #dddfda; --accent: #22577a;
  --series-0: #22577a; --series-1: #c8553d; --series-2: #588157; --series-3: #8e6c8a;
  --series-4: #b8860b; --series-5: #2a9d8f; --series-6: #a23e48; --series-7: #6b705c;
  --sans: ui-sans-serif, system-ui, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif;
  --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #16181a; --panel: #1f2225; --ink: #e6e6e1; --muted: #9aa0a6; --rule: #34383c; --accent: #7fb4d6;
    --series-0: #7fb4d6; --series-1: #e8927c; --series-2: #94c195; --series-3: #c3a2bf;
    --series-4: #e0b84c; --series-5: #6fcfc2; --series-6: #e38a93; --series-7: #b3b8a3;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.55 var(--sans); }
main { max-width: 820px; margin: 0 auto; padding: 56px 24px 96px; }
header { border-bottom: 2px solid var(--ink); padding-bottom: 16px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -0.015em; font-weight: 650; margin: 0; overflow-wrap: anywhere; }
header p { color: var(--muted); margin: 8px 0 0; }
section { margin-top: 44px; break-inside: avoid; }
h2, summary { font-size: 17px; font-weight: 620; letter-spacing: -0.005em; margin: 0 0 12px; }
summary { cursor: pointer; margin: 0; }
details[open] > summary { margin-bottom: 12px; }
p { margin: 0 0 12px; max-width: 68ch; }
.note { color: var(--muted); font-size: 14px; margin: 10px 0 0; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); gap: 20px 24px; margin: 0; }
dt { color: var(--muted); font-size: 13px; }
dd { margin: 2px 0 0; font-size: 21px; line-height: 1.25; font-weight: 560; letter-spacing: -0.01em; overflow-wrap: anywhere; }
dd, td { font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; line-height: 1.45; }
th { text-align: left; font-weight: 560; color: var(--muted); font-size: 13px; border-bottom: 1px solid var(--ink); }
th, td { padding: 7px 18px 7px 0; vertical-align: top; min-width: 5em; }
th:last-child, td:last-child { padding-right: 0; }
td { border-bottom: 1px solid var(--rule); overflow-wrap: anywhere; }
.number { text-align: right; white-space: nowrap; }
pre { background: var(--panel); border-radius: 6px; padding: 14px 16px; margin: 0; font: 13px/1.5 var(--mono); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
@media print {
  :root {
    --back: #fff; --panel: #f6f6f6; --ink: #000; --muted: #555; --rule: #ccc;
    --series-0: #22577a; --series-1: #c8553d; --series-2: #588157; --series-3: #8e6c8a;
    --series-4: #b8860b; --series-5: #2a9d8f; --series-6: #a23e48; --series-7: #6b705c;
  }
  body { font-size: 11pt; }
  main { max-width: none; padding: 0; }
}
</style>
</head>
<body>
<main>
<header>
<h1>{{ title }}</h1>
{% if subtitle %}
<p>{{ subtitle }}</p>
{% endif %}
</header>
{% for part in parts %}
<section>
{% set folded = part.kind in ("code", "table") and part.section.folded %}
{% if folded %}
<details><summary>{{ part.title }}</summary>
{% elif part.title %}
<h2>{{ part.title }}</h2>
{% endif %}
{% if part.kind == "text" %}
{% for paragraph in part.paragraphs %}
<p>{{ paragraph }}</p>
{% endfor %}
{% elif part.kind == "facts" %}
<dl>
{% for label, value in part.section["items"] %}
<div><dt>{{ label }}</dt><dd>{{ value }}</dd></div>
{% endfor %}
</dl>
{% elif part.kind == "table" %}
<div class="wide"><table>
<thead><tr>
{% for column in part.section.columns %}
<th{% if part.numeric[loop.index0] %} class="number"{% endif %}>{{ column }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in part.rows %}
<tr>
{% for cell in row %}
<td{% if part.numeric[loop.index0] %} class="number"{% endif %}>{{ cell }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table></div>
{% elif part.kind == "code" %}
<pre>{{ part.section.body }}</pre>
{% elif part.kind in ("lines", "bars") %}
{{ part.svg | safe }}
{% endif %}
{% if part.kind in ("table", "lines", "bars") and part.section.note %}
<p class="note">{{ part.section.note }}</p>
{% endif %}
{% if folded %}
</details>
{% endif %}
</section>
{% endfor %}
</main>
</body>
</html>
"""
