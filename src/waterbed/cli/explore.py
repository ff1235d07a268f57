"""explore: a local page to look at images through networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from waterbed.cli.options import Root, RunData, Runs
from waterbed.cli.output import say


@dataclass
class Explore:
    """Open a local page on which images are attacked, inverted and compared through the networks of runs."""

    runs: Runs
    data: RunData = None
    root: Root = None
    num_images: int = 300
    """Number of test images to choose from, and of training images among which the nearest are found."""
    port: int = 7860
    """The page is at http://127.0.0.1:PORT, which no other machine can open."""
    browser: bool = True
    """Open the page in a browser."""
    seed: int = 0
    """Seed of the choice of images, of attacks and of inversions."""

    def __call__(self) -> Any:
        import os

        from waterbed.cli.runs import data_of, unique_runs
        from waterbed.reporting.explorer import Explorer
        from waterbed.reporting.explorer_page import FONT, build_page

        # Before gradio is imported: it would tell its makers of every launch.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
        runs = unique_runs(self.runs)
        loaded = {name: data_of(name, run, self.data, self.root) for name, run in runs.items()}
        models = {name: run.model for name, run in runs.items()}
        page = build_page(Explorer(models, next(iter(loaded.values())), self.num_images, self.seed))
        import gradio as gr

        say(f"The page is at http://127.0.0.1:{self.port}; Ctrl-C closes it")
        theme = gr.themes.Base(font=FONT, font_mono=("monospace",))
        local = {"server_name": "127.0.0.1", "server_port": self.port, "share": False}
        page.launch(**local, inbrowser=self.browser, quiet=True, theme=theme, footer_links=[])
        return None
