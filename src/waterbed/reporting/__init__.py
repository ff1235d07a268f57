"""One self-contained HTML page about runs."""

from waterbed.reporting.page import Picture, Section, Table, write_page
from waterbed.reporting.runs import report, run_names

__all__ = ["Picture", "Section", "Table", "report", "run_names", "write_page"]
