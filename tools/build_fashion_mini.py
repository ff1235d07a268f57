"""Build the embedded data set: the first 1,000 training and 200 test images of each Fashion-MNIST class.

    python tools/build_fashion_mini.py FOLDER_WITH_IDX_FILES src/waterbed/data/embedded/fashion_mini.npz

On Debian the files come with the package dataset-fashion-mnist (/usr/share/datasets/fashion-mnist).
"""

import sys

import numpy as np

from waterbed.data.idx import read_idx_folder


def first_of_each_class(images: np.ndarray, labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first ``count`` images of each class, in their original order."""
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in np.unique(labels)]))
    return images[chosen], labels[chosen]


if __name__ == "__main__":
    source, target = sys.argv[1:]
    train, test = read_idx_folder(source)
    train_images, train_labels = first_of_each_class(*train, 1000)
    test_images, test_labels = first_of_each_class(*test, 200)
    np.savez_compressed(
        target,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
    )
    print(f"{target}: {len(train_images)} training and {len(test_images)} test images")
