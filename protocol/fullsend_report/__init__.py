"""The report: one self-contained HTML page about the backups of a store, or of one host. Facts in, text out.

`facts`: what the page shows, filled in by both programs; `page`: the page; `nights`, `chain` and `sizes`: the drawings
of one dataset; `style`: the style sheet; `figures`: numbers, times and names as a person reads them. There is no script
in the page, and nothing is loaded from elsewhere. docs/report.md describes what a reader sees.
"""
