"""What a figure's description says."""

from waterbed_paper.drawing import described, panels


def test_lines_are_described_point_by_point():
    figure, axes = panels(1, 2)
    axes[0, 0].plot([0, 1, 2], [8.5, 8.1, 8.8], label="log-variance")
    axes[0, 1].plot(range(9), [3, 1, 2, 2, 2, 2, 2, 9, 4], label="loss")
    text = described(figure)
    assert "log-variance, 8.5 at 0, 8.1 at 1, 8.8 at 2" in text
    assert "loss, 3 at 0 to 4 at 8, least 1 at 1, greatest 9 at 7" in text
    figure, axes = panels(1, 2)
    axes[0, 0].scatter([0, 1], [0, 1])
    for ax, title in zip(axes[0], ("a cloud", "nothing"), strict=True):
        ax.set_title(title)
    assert described(figure) == "2 panels. a cloud. nothing: not run."
