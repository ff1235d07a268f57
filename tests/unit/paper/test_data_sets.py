"""The table of data sets."""

import json

from waterbed_paper.register import TABLES


def test_table_4_counts_the_images_that_were_trained_on(results_in, tmp_path):
    results = results_in(tmp_path)
    place, file = results.graph.place, "cifar10-standard.safetensors"
    place.network(file).parent.mkdir()

    def cell():
        (table,) = next(table for table in TABLES if table.number == "4").section(results).tables
        return next(row for row in table.rows if row[0] == "cifar10")[table.columns.index("ours, as a source")]

    assert "not run" not in cell(), "it was run, though its network is elsewhere"
    assert "49,059" not in cell()
    place.network(file).touch()
    card = {"schema": 1, "config": {"data": {"train": 49059, "test": 9806}}}
    place.network(file).with_suffix(".json").write_text(json.dumps(card))
    assert cell() == "49,059 training images, 9,806 test images"
