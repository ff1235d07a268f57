"""Reporting: self-contained HTML pages about runs, and the demo."""
