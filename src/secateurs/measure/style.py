"""How a report looks: one style sheet for light and dark screens and for paper."""

CSS = """
:root {
  --paper: #fbfbf9; --card: #ffffff; --ink: #1c1f1b; --muted: #62685f; --line: #dfe2da;
  --good: #256d45; --bad: #a8341f; --accent: #2e7d4f;
  --series-0: #8b918a; --series-1: #2e7d4f; --series-2: #d07a21; --series-3: #2f6db3;
  --series-4: #8a4fae; --series-5: #b83a5e;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #151815; --card: #1d211d; --ink: #e9ece6; --muted: #9ba298; --line: #333a33;
    --good: #6fce96; --bad: #f08a73; --accent: #6fce96;
    --series-0: #899087; --series-1: #5fbf88; --series-2: #e59a4c; --series-3: #6ba4e0;
    --series-4: #b98ad6; --series-5: #e2758f;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 var(--sans); font-variant-numeric: tabular-nums; }
main { max-width: 72rem; margin: 0 auto; padding: 3rem 1.5rem 5rem; }
header { border-top: 4px solid var(--accent); padding-top: 1.25rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; letter-spacing: -0.015em; }
h2 { font-size: 1.15rem; margin: 3rem 0 0.9rem; }
p { margin: 0.4rem 0; max-width: 46rem; }
.muted, figcaption { color: var(--muted); font-size: 0.875rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr));
  gap: 1rem; margin: 2rem 0 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1.1rem 1.25rem; }
.card h3 { margin: 0 0 0.7rem; font-size: 1rem; }
.card dl { display: grid; grid-template-columns: 1fr auto; gap: 0.25rem 1rem; margin: 0; }
.card dt { color: var(--muted); }
.card dd { margin: 0; text-align: right; font-weight: 600; }
.dot { display: inline-block; width: 0.7em; height: 0.7em; border-radius: 50%;
  margin-right: 0.5em; background: var(--dot); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; }
th { font-weight: 500; color: var(--muted); text-align: right; vertical-align: bottom;
  border-bottom: 1px solid var(--line); padding: 0.4rem 0.7rem; white-space: nowrap; }
td { text-align: right; vertical-align: top; border-bottom: 1px solid var(--line);
  padding: 0.55rem 0.7rem; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
td small { display: block; color: var(--muted); font-size: 0.8rem; }
.good { color: var(--good); } .bad { color: var(--bad); }
td small.good { color: var(--good); } td small.bad { color: var(--bad); }
ul { padding-left: 1.2rem; max-width: 46rem; } li { margin: 0.3rem 0; }
.proof { list-style: none; padding: 0; } .proof b { font-weight: 600; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: 1rem 1.1rem; overflow-x: auto; }
.paper { background: #fff; color: #1f241c; margin: 0.9rem 0; }
figcaption { margin: 0 0 0.6rem; }
svg { width: 100%; min-width: 38rem; height: auto; display: block; }
svg text { font-family: var(--sans) !important; }
.legend { display: flex; flex-wrap: wrap; gap: 0.2rem 1.4rem; margin: 0 0 0.8rem;
  font-size: 0.875rem; }
details { margin: 0.9rem 0; }
summary { cursor: pointer; font-weight: 500; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem; overflow-x: auto; font: 0.82rem/1.5 var(--mono); }
code { font-family: var(--mono); font-size: 0.88em; }
@media print { main { padding: 0; } figure, .card { break-inside: avoid; } }
"""
