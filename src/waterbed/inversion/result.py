"""Inversion: the images that an inversion found, their similarity to the originals, pictures and animations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from waterbed.errors import UsageError, check_count, check_number
from waterbed.tables import html_picture, html_table

GIF_MARK = b"written by waterbed"  # by which a GIF of ours is known


@dataclass(frozen=True, repr=False)
class Inversion:
    """The result of :func:`invert`, of B images.

    Attributes:
        images: (B, C, H, W) in [0, 1].
        losses: (steps, B), before each step, of the objective (noisy in the noisy modes; for "lbfgs", of the trials of
            its line search). If all images stopped early, the last row is repeated.
        clean_losses: (steps, B), the same images on the clean model and target.
        final_losses, final_clean_losses: (B,), of ``images``, in the precision of the weights.
        originals: (B, C, H, W), or None if a bare representation or a label was inverted.
        lr: (B,), the step size of each image.
        diverged: (B,), True where the loss became infinite or NaN; ``images`` then holds the best iterate.
        mode: "plain", "variational", "effective" or "label".
        noise_size: root of E |n|^2 over |w|; 0 without noise.
        seed: of the start image and the noise.
        scale: (B,), what losses are relative to: |z|^2 for "l2" (|z| unsquared), 1 for "relative" and "cosine", log K
            for labels.
        frames: (F, B, C, H, W), intermediate images, every ``keep_every`` steps; None without ``keep_every``.
    """

    images: Tensor
    losses: Tensor
    clean_losses: Tensor
    final_losses: Tensor
    final_clean_losses: Tensor
    originals: Tensor | None
    lr: Tensor
    diverged: Tensor
    mode: str
    noise_size: float
    seed: int
    scale: Tensor
    frames: Tensor | None = None

    def __repr__(self) -> str:
        """One line instead of all tensors."""
        relative = float((self.final_clean_losses / self.scale).mean())
        stopped = f", {int(self.diverged.sum())} diverged" if bool(self.diverged.any()) else ""
        return (
            f"Inversion({self.mode}, {len(self.images)} images of {tuple(self.images.shape[1:])}, {len(self.losses)} "
            f"steps, clean loss {relative:.3g} of the scale{stopped})"
        )

    def plot(self) -> Figure:
        """Originals, where there are any, above the images found."""
        from waterbed.plots import image_grid

        rows = {} if self.originals is None else {"original": self.originals}
        return image_grid({**rows, self.mode: self.images})

    def _repr_html_(self) -> str:
        relative = self.final_clean_losses / self.scale
        rows = [["clean loss, of the scale", *(f"{loss:.3g}" for loss in relative.tolist())]]
        if self.originals is not None:
            rows += [[name, *(f"{v:.3g}" for v in values.tolist())] for name, values in self.similarity().items()]
        return html_table(["image", *range(1, len(self.images) + 1)], rows, repr(self)) + html_picture(self.plot())

    def iterations_to(self, threshold: float, clean: bool = True) -> Tensor:
        """Steps (B,) until the loss first was at most ``threshold`` times ``scale``; nan where it never was.

        Args:
            threshold: relative to ``scale``: 0.01 is one percent of |z|^2 for a squared "l2".
            clean: use the loss on the clean model rather than the objective.
        """
        check_number("threshold", threshold, above=0)
        losses = self.clean_losses if clean else self.losses
        reached = losses <= threshold * self.scale
        first = reached.to(torch.uint8).argmax(0).double()
        return torch.where(reached.any(0), first, torch.nan)

    def similarity(self) -> dict[str, Tensor]:
        """How close each image (B,) is to its original: "rmse" in pixel units, "psnr" in dB, "ssim" (torchmetrics).

        SSIM's window is Gaussian over 11 pixels; smaller images get a uniform one that fits.
        """
        from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

        images, originals = self._pairs()
        side = min(images.shape[-2:])
        window = min(11, side - 1 + side % 2)
        return {
            "rmse": (images - originals).square().flatten(1).mean(1).sqrt(),
            "psnr": peak_signal_noise_ratio(images, originals, 1.0, dim=(1, 2, 3), reduction="none"),
            "ssim": structural_similarity_index_measure(
                images, originals, data_range=1.0, reduction="none", gaussian_kernel=side >= 11, kernel_size=window
            ),
        }

    def identified(self) -> Tensor:
        """Whether each image (B,) correlates more with its own original than with any other of the batch.

        Correlations are over mean-centred pixels; by chance one image in B is identified.

        >>> originals = torch.eye(3).view(3, 1, 1, 3)
        >>> result = Inversion(originals[[0, 2, 1]], *[torch.zeros(1, 3)] * 2, *[torch.zeros(3)] * 2, originals,
        ...     *[torch.zeros(3)] * 2, "plain", 0.0, 0, torch.ones(3))
        >>> result.identified().tolist()
        [True, False, False]
        """
        images, originals = (
            torch.nn.functional.normalize(x.flatten(1).double() - x.flatten(1).double().mean(1, keepdim=True), dim=1)
            for x in self._pairs()
        )
        return (images @ originals.mT).argmax(1) == torch.arange(len(images), device=images.device)

    def lpips(self, net: str = "alex") -> Tensor:
        """Learned perceptual distance (B,) from the originals, by the optional package ``lpips`` (Zhang et al. 2018).

        Its pretrained trunk is downloaded by torchvision unless cached. Images are enlarged to at least 64 pixels.
        """
        try:
            import lpips
        except ImportError as error:
            raise UsageError("lpips() needs the package lpips; pip install 'waterbed[lpips]'") from error
        images, originals = (2 * t.repeat(1, 3 // t.shape[1], 1, 1) - 1 for t in self._pairs())
        if min(images.shape[-2:]) < 64:
            images, originals = (torch.nn.functional.interpolate(t, size=(64, 64)) for t in (images, originals))
        with torch.no_grad():
            return lpips.LPIPS(net=net, verbose=False)(images, originals).flatten()

    def nearest(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest of ``images`` (N, C, H, W) to each inversion: its index (B,) and the RMSE in pixel units (B,).

        A check that nothing was memorised: with training images, an inversion should lie nearer to its own original.
        """
        inverted = self.images.cpu()
        if images.shape[1:] != inverted.shape[1:]:
            raise UsageError(f"images have shape {tuple(images.shape[1:])} each, not {tuple(inverted.shape[1:])}")
        distances = torch.cat(
            [torch.cdist(inverted.flatten(1), part.cpu().to(inverted).flatten(1)) for part in images.split(4096)], dim=1
        )
        values, indices = distances.min(1)
        return indices, values / inverted[0].numel() ** 0.5

    def save(self, path: str | Path, force: bool = False) -> None:
        """Write originals and inversions as rows of one PNG.

        Args:
            path: ends in .png.
            force: replace a picture that is not ours.

        Raises:
            UsageError: ``path`` does not end in .png, or is a picture of your own.
        """
        from waterbed.files import check_output
        from waterbed.plots import is_our_png, save_figure

        check_output(path, is_our_png, force, "path")
        save_figure(self.plot(), path)

    def animate(self, path: str | Path, seconds: float = 3.0, scale: int = 4, force: bool = False) -> None:
        """Write the descent of all images, side by side below their originals, as a GIF.

        Args:
            path: ends in .gif.
            seconds: duration of one loop.
            scale: side of one pixel of the images in pixels of the GIF.
            force: replace a GIF that is not ours.

        Raises:
            UsageError: :func:`invert` was called without ``keep_every``; ``path`` does not end in .gif or is a GIF of
                your own.
        """
        from PIL import Image

        from waterbed.files import check_output, write_atomic

        if self.frames is None:
            raise UsageError("no frames were stored; pass keep_every= to invert, for example steps // 50")
        if Path(path).suffix.lower() != ".gif":
            raise UsageError(f"path={str(path)!r} must end in .gif")
        check_output(path, is_our_gif, force, "path")
        check_number("seconds", seconds, above=0)
        check_count("scale", scale)
        top = [] if self.originals is None else [self.originals]
        pictures = [Image.fromarray(_tiled([*top, frame], scale)) for frame in (*self.frames, self.images)]
        buffer = BytesIO()
        duration = max(20, round(1000 * seconds / len(pictures)))
        pictures[0].save(
            buffer,
            format="GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=[duration] * (len(pictures) - 1) + [1000],
            loop=0,
            comment=GIF_MARK,
        )
        write_atomic(path, buffer.getvalue())

    def _pairs(self) -> tuple[Tensor, Tensor]:
        if self.originals is None:
            raise UsageError("there are no originals to compare with: a bare representation or a label was inverted")
        return self.images.cpu(), self.originals.cpu()


def is_our_gif(content: bytes) -> bool:
    """Whether the bytes are an animation that :meth:`Inversion.animate` wrote."""
    return GIF_MARK in content[:2000]


def _tiled(rows: Sequence[Tensor], scale: int) -> np.ndarray:
    """Rows of images (B, C, H, W) in [0, 1] as one uint8 picture, each pixel enlarged ``scale`` times."""
    lines = [torch.cat(list(row.detach().float().cpu()), dim=2) for row in rows]
    picture = (torch.cat(lines, dim=1) * 255).round().to(torch.uint8)
    picture = picture.repeat_interleave(scale, 1).repeat_interleave(scale, 2).permute(1, 2, 0).numpy()
    return picture[:, :, 0] if picture.shape[2] == 1 else picture
