"""Sphinx: the pages of this folder, the public names from their docstrings, and the examples as a gallery.

python -m pip install -e '.[docs]' && python -m sphinx -W -b html docs docs/_build
"""

import sys
from pathlib import Path

from waterbed import __version__

sys.path.insert(0, str(Path(__file__).parent))  # gallery.py

project = "waterbed"
author = copyright = "The waterbed developers"
version = release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
html_theme = "pydata_sphinx_theme"
html_title = "waterbed"  # in the header, beside the links
html_theme_options = {
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
    "header_links_before_dropdown": 7,
}
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_sidebars = {
    name: []
    for name in (
        "index",
        "training",
        "information",
        "inversion",
        "transfer",
        "scale",
        "reproduction",
        "verdicts",
        "demo",
        "networks",
        "results",
        "paper",
        "probe-study",
        "coming-from",
        "faq",
        "glossary",
    )
}
html_show_sourcelink = False
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autosummary_generate = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "examples",
    "image_scrapers": ("matplotlib", "gallery.figures_of_results"),
    "within_subsection_order": "gallery.position",
    "capture_repr": ("_repr_html_",),
    "show_memory": False,
    "download_all_examples": False,
}


def _without_substitutions(app, what, name, obj, options, lines):
    """In a docstring |w| is a norm; to Sphinx it would be the name of a text to put in its place."""
    lines[:] = [
        "``".join(part if i % 2 else part.replace("|", r"\|") for i, part in enumerate(line.split("``")))
        if not line.lstrip().startswith(">>>")
        else line
        for line in lines
    ]


def setup(app):
    app.connect("autodoc-process-docstring", _without_substitutions, priority=100)
