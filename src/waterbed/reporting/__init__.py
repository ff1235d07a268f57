"""Reporting: pages in one file, from runs and from the demo."""
