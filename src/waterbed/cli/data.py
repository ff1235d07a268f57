"""data: the data sets known by name, or one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from tyro.conf import Positional, arg

from waterbed.cli.options import Channels, Download, Root, Size
from waterbed.cli.output import print_rows


@dataclass
class Data:
    """List the data sets known by name and where they are, or describe one (a name or a folder)."""

    NAMES_DATA: ClassVar[str] = ""

    name: Annotated[Positional[str], arg(metavar="DATA")] = "list"
    """"list", a name from the list, or a folder with train/<class>/* and test/<class>/*."""
    root: Root = None
    download: Download = False
    size: Size = None
    channels: Channels = None

    def __call__(self) -> Any:
        from waterbed.data.catalog import CATALOG
        from waterbed.data.load import load_dataset

        if self.name == "list":
            return self._list()
        data = load_dataset(self.name, self.root, self.download, self.size, self.channels)
        columns = ["name", "classes", "train", "test", "shape", "metric"]
        shape = " x ".join(map(str, data.shape))
        row = [data.name, data.num_classes, len(data.train), len(data.test), shape, data.metric]
        described = {**dict(zip(columns, row, strict=True)), "shape": list(data.shape), "classes": list(data.classes)}
        print_rows(columns, [row], f"{data.name}: {', '.join(data.classes)}")
        if self.name in CATALOG:
            source = CATALOG[self.name]
            print(f"{source.description}; split: {source.split}; licence: {source.licence}")
        return described

    def _list(self) -> Any:
        """The catalogue with what is present below the root; under the table where it is, or how to get it."""
        import textwrap

        from waterbed.data.catalog import CATALOG
        from waterbed.data.named import data_root, locate
        from waterbed.errors import UsageError

        root = data_root(self.root)
        rows, places, found = [], [], []
        for s in CATALOG.values():
            try:
                place = "embedded" if s.obtain == "embedded" else locate(s, root)
                how = s.instructions(root).replace("download=True", "--download")  # as this command has it
                state, text = ("yes" if place else "no"), place or f"missing; {how}"
            except UsageError as error:
                state, text = "in part", error
            rows.append([s.name, s.classes, s.train_size, s.test_size, s.metric, s.licence, state])
            found.append(str(text))
            places.append(textwrap.fill(f"{s.name}: {text}", 100, subsequent_indent="  ", break_on_hyphens=False))
        columns = ["name", "classes", "train", "test", "metric", "licence", "here"]
        print_rows(columns, rows, f"Data sets known by name; root: {root}")
        print("\n".join(places))
        return [
            {**dict(zip(columns, row, strict=True)), "where": where} for row, where in zip(rows, found, strict=True)
        ]
