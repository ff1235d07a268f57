"""What the gallery needs of Sphinx-Gallery beyond its own: pictures without pyplot, and the order of the examples."""

from weakref import WeakSet

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

ORDER = (
    "plot_waterbed",
    "plot_attack_and_defend",
    "plot_own_network",
    "plot_robust_checkpoint",
    "plot_class_images",
    "plot_which_backbone",
    "plot_robust_finetuning",
    "plot_measure_during_training",
    "plot_own_measure",
    "plot_fisher_of_a_vit",
    "plot_own_training",
    "plot_own_attack",
)
saved = WeakSet()


def position(filename):
    """Where an example stands; those without a place come last."""
    name = str(filename).removesuffix(".py")
    return ORDER.index(name) if name in ORDER else len(ORDER)


def figures_of_results(block, block_vars, gallery_conf):
    """The figures that ``.plot()`` returns, which are no pyplot figures, as the pictures of the cell that made them."""
    paths = []
    for value in list(block_vars["example_globals"].values()):
        if isinstance(value, Figure) and value.canvas.manager is None and value not in saved:
            saved.add(value)
            paths.append(block_vars["image_path_iterator"].next())
            value.savefig(paths[-1], dpi=120)
    return figure_rst(paths, gallery_conf["src_dir"]) if paths else ""
