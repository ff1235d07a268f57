"""The page of ``waterbed explore``: an image, what each network makes of it, and tools to look further (gradio)."""

# No "from __future__ import annotations": gradio reads from the annotations which arguments are events.
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from waterbed.errors import UsageError
from waterbed.plots import COLOURS, MARKERS, panels, png
from waterbed.reporting.explorer import STEPS_BETWEEN_IMAGES, Explorer
from waterbed.text import plain

BETAS = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
SIDE = 224  # pixels of a small image on the page
NORMS = {"l2": 3.0, "linf": 0.2, "l1": 30.0}  # with the largest eps on the slider
MAP_SIDE, LEGEND, EDGE = 520, 140, 0.03  # pixels of the map's square and beside it; share of the square left free
MOST_NAMED = 20  # classes in the legend
FONT = ("system-ui", "sans-serif")  # of the system: nothing is loaded from elsewhere


def build_page(explorer: Explorer) -> Any:
    """A ``gradio.Blocks`` of the explorer, to be launched.

    Raises:
        UsageError: gradio is not installed.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise UsageError("explore needs the package gradio; pip install 'waterbed[explore]'") from error

    names = list(explorer.models)
    pictures = [(shown(x), explorer.classes[y]) for x, y in zip(explorer.images, explorer.labels.tolist(), strict=True)]

    def choose(image: Tensor) -> list[Any]:
        return [image, shown(image), *({c: float(p) for c, p in of.items()} for of in chances(image).values())]

    def chances(image: Tensor) -> dict[str, dict[str, float]]:
        return {n: dict(zip(explorer.classes, p.tolist(), strict=True)) for n, p in explorer.predict(image).items()}

    def pick(event: gr.SelectData) -> list[Any]:
        return choose(explorer.images[event.index])

    def upload(path: str | None) -> list[Any]:
        unchanged = [gr.skip()] * (2 + len(names))
        if path is None:
            return unchanged
        try:
            return choose(explorer.read(path))
        except UsageError as error:
            gr.Warning(str(error).replace(str(Path(path).parent) + "/", ""), title="Not shown")
            return unchanged

    def attack(image: Tensor, name: str, norm: str, eps: float) -> list[Any]:
        attacked = explorer.attack(name, image, eps, norm)
        change = attacked - image
        largest = max(float(change.abs().max()), 1e-12)
        return [shown(attacked), shown(0.5 + 0.5 * change / largest), *chances(attacked).values()]

    def descend(image: Tensor, name: str, mode: str, steps: float, beta: float) -> Iterator[tuple[Any, str]]:
        for done, loss, found in explorer.descend(name, image, mode, int(steps), 10**beta):
            yield shown(found), f"Step {done} of {int(steps)}: loss {100 * loss:.3g} % of |z|²"

    def effective(image: Tensor, name: str, steps: float) -> Iterator[list[Any]]:
        found: list[Any] = []
        for beta, one in explorer.effective(name, image, BETAS, int(steps)):
            found.append((shown(one), f"beta {beta:g}"))
            yield found

    def nearest(image: Tensor, name: str) -> list[Any]:
        return [
            (shown(explorer.train_images[i]), f"{explorer.classes[int(explorer.train_labels[i])]}, {distance:.3g}")
            for i, distance in explorer.nearest(name, image)
        ]

    def at(name: str, event: gr.SelectData) -> list[Any]:
        x, y = (value / MAP_SIDE for value in event.index)
        return choose(explorer.images[explorer.at(name, *from_map(x, 1 - y))])

    still: dict[str, Any] = {"interactive": False, "buttons": []}
    with gr.Blocks(title="waterbed explore", analytics_enabled=False) as page:
        image = gr.State(explorer.images[0])
        gr.Markdown(f"# {explorer.data.name}: {', '.join(names)}")
        with gr.Row():
            with gr.Column():
                gallery = gr.Gallery(
                    pictures, label="Test images", columns=5, height=330, allow_preview=False, elem_id="images"
                )
                file = gr.File(label="Or a photograph of your own", type="filepath", elem_id="upload")
            with gr.Column():
                first = choose(explorer.images[0])
                original = gr.Image(first[1], label="The image", height=SIDE, **still, elem_id="image")
                with gr.Row():
                    labels = [
                        gr.Label(chance, label=name, num_top_classes=3)
                        for name, chance in zip(names, first[2:], strict=True)
                    ]
        name = gr.Radio(names, value=names[0], label="Network of the tools below", elem_id="network")
        with gr.Tab("Attack"):
            with gr.Row():
                norm = gr.Radio(list(NORMS), value="l2", label="Norm")
                eps = gr.Slider(0, NORMS["l2"], value=0.5, step=0.01, label="eps [pixels in 0 to 1]", elem_id="eps")
                attack_now = gr.Button("Attack", variant="primary", elem_id="attack")
            with gr.Row():
                attacked = gr.Image(label="Attacked", height=SIDE, **still, elem_id="attacked")
                change = gr.Image(label="What changed, enlarged to the full range", height=SIDE, **still)
                after = [gr.Label(label=f"{one}, attacked", num_top_classes=3) for one in names]
        with gr.Tab("Invert"):
            with gr.Row():
                mode = gr.Radio(["plain", "variational", "effective"], value="plain", label="Noise on the weights")
                beta = gr.Slider(-10, -3, value=-6, step=0.5, label="log10 of beta, with noise")
                steps = gr.Slider(STEPS_BETWEEN_IMAGES, 2000, 500, step=STEPS_BETWEEN_IMAGES, label="Steps")
                start = gr.Button("Descend", variant="primary", elem_id="descend")
                stop = gr.Button("Stop", elem_id="stop")
            inverted = gr.Image(label="Has the same features", height=SIDE, **still, elem_id="inverted")
            told = gr.Markdown(elem_id="told")
        with gr.Tab("Effective images"):
            with gr.Row():
                along = gr.Button("Invert at every beta", variant="primary", elem_id="along")
                stop_along = gr.Button("Stop")
            row = gr.Gallery(label="The larger beta, the less the weights keep", columns=5, height=260)
        with gr.Tab("Nearest training images"):
            near = gr.Button("Find", variant="primary", elem_id="near")
            neighbours = gr.Gallery(label="By distance of features", columns=8, height=220, elem_id="neighbours")
        with gr.Tab("Map"):
            draw = gr.Button("Draw the map of the test images", variant="primary", elem_id="draw")
            drawn = gr.Image(label="t-SNE of the features; click for an image", **still, elem_id="map")

        both = [image, original, *labels]
        gallery.select(pick, None, both)
        file.change(upload, file, both)
        norm.change(lambda n: gr.Slider(maximum=NORMS[n], value=NORMS[n] / 6), norm, eps)
        attack_now.click(attack, [image, name, norm, eps], [attacked, change, *after])
        going = start.click(descend, [image, name, mode, steps, beta], [inverted, told])
        stop.click(None, cancels=[going])
        going_along = along.click(effective, [image, name, steps], row)
        stop_along.click(None, cancels=[going_along])
        near.click(nearest, [image, name], neighbours)
        draw.click(lambda n: map_picture(explorer, n), name, drawn)
        drawn.select(at, name, both)
    return page


def shown(image: Tensor) -> np.ndarray:
    """An image (C, H, W) in [0, 1] as uint8 (H', W', C), enlarged by whole pixels to about :data:`SIDE`."""
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    times = max(1, round(SIDE / max(pixels.shape[:2])))
    pixels = pixels.repeat(times, 0).repeat(times, 1)
    return pixels if pixels.shape[2] == 3 else pixels.repeat(3, 2)


def from_map(x: float, y: float) -> tuple[float, float]:
    """From shares of the drawn square to the unit square of the map."""
    return (x - EDGE) / (1 - 2 * EDGE), (y - EDGE) / (1 - 2 * EDGE)


def map_picture(explorer: Explorer, name: str) -> np.ndarray:
    """The map of a network as pixels: a square of :data:`MAP_SIDE`, one colour and marker per class, and a legend."""
    from io import BytesIO

    from PIL import Image

    figure, ((ax,),) = panels(size=((MAP_SIDE + LEGEND) / 100, MAP_SIDE / 100))
    figure.set_layout_engine("none")
    ax.set_position((0, 0, MAP_SIDE / (MAP_SIDE + LEGEND), 1))
    ax.set_axis_off()
    places = EDGE + (1 - 2 * EDGE) * explorer.map(name)
    there = sorted(set(explorer.labels.tolist()))
    for label in there:
        style = {"color": COLOURS[label % len(COLOURS)], "marker": MARKERS[label // len(COLOURS) % len(MARKERS)]}
        of_class = explorer.labels.numpy() == label
        shown_as = plain(explorer.classes[label]) if label in there[:MOST_NAMED] else None
        ax.scatter(*places[of_class].T, s=22, label=shown_as, **style)
    ax.set(xlim=(0, 1), ylim=(0, 1))
    figure.legend(loc="center right", frameon=False, fontsize=8)
    return np.asarray(Image.open(BytesIO(png(figure, dpi=100))).convert("RGB"))
