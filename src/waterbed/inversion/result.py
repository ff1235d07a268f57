"""Inversion: what an inversion found, how close it is to the original, and its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from waterbed.errors import UsageError, check_count, check_number


@dataclass(frozen=True, repr=False)
class Inversion:
    """What :func:`invert` found; B images.

    Attributes:
        images: (B, C, H, W) in [0, 1].
        losses: (steps, B), before each step, on the objective that was descended (noisy in the noisy modes; the trials
            of its line search for "lbfgs"). Where all images stopped early the last value stands for the steps left.
        clean_losses: (steps, B), the same images on the clean model and target.
        final_losses, final_clean_losses: (B,), of ``images``, in the weights' own precision.
        originals: (B, C, H, W), or None if a bare representation or a label was inverted.
        lr: (B,), the step size of each image.
        diverged: (B,), True where the loss became infinite or NaN; ``images`` then holds the best iterate.
        mode: "plain", "variational", "effective" or "label".
        noise_size: root of E |n|^2 over |w|; 0 without noise.
        seed: of the start image and the noise.
        scale: (B,), what a loss is compared with: |z|^2 for "l2" (|z| unsquared), 1 for "relative" and "cosine", log K
            for labels.
        frames: (F, B, C, H, W), images on the way, every ``keep_every`` steps; None if none were kept.
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

    def iterations_to(self, threshold: float, clean: bool = True) -> Tensor:
        """Steps (B,) until the loss first was at most ``threshold`` times ``scale``; nan where it never was.

        Args:
            threshold: such as 0.01: of |z|^2, for a squared "l2".
            clean: of the loss on the clean model, else of the objective itself.
        """
        check_number("threshold", threshold, above=0)
        losses = self.clean_losses if clean else self.losses
        reached = losses <= threshold * self.scale
        first = reached.to(torch.uint8).argmax(0).double()
        return torch.where(reached.any(0), first, torch.nan)

    def similarity(self) -> dict[str, Tensor]:
        """How close each image (B,) is to its original: "rmse" in pixel units, "psnr" in dB, "ssim" (torchmetrics).

        SSIM's window is Gaussian over 11 pixels; images smaller than that get a flat one that fits.
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
        """Whether each image (B,) correlates more with its own original than with any other of the batch, over pixels
        about their mean; by chance one in B does.

        >>> originals = torch.eye(3).view(3, 1, 1, 3)
        >>> found = Inversion(originals[[0, 2, 1]], *[torch.zeros(1, 3)] * 2, *[torch.zeros(3)] * 2, originals,
        ...     *[torch.zeros(3)] * 2, "plain", 0.0, 0, torch.ones(3))
        >>> found.identified().tolist()
        [True, False, False]
        """
        images, originals = (
            torch.nn.functional.normalize(x.flatten(1).double() - x.flatten(1).double().mean(1, keepdim=True), dim=1)
            for x in self._pairs()
        )
        return (images @ originals.mT).argmax(1) == torch.arange(len(images), device=images.device)

    def lpips(self, net: str = "alex") -> Tensor:
        """Learned perceptual distance (B,) from the originals, by the optional package ``lpips`` (Zhang et al. 2018).

        Its pretrained trunk is downloaded by torchvision unless the weights are there already. Images are enlarged to
        64 pixels at least.
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
        """Of each inversion the nearest of ``images`` (N, C, H, W): its index (B,) and the RMSE in pixels (B,).

        A check that nothing was memorised: with training images, an inversion should lie nearer to its own original.
        """
        found = self.images.cpu()
        if images.shape[1:] != found.shape[1:]:
            raise UsageError(f"images have shape {tuple(images.shape[1:])} each, not {tuple(found.shape[1:])}")
        distances = torch.cat(
            [torch.cdist(found.flatten(1), part.cpu().to(found).flatten(1)) for part in images.split(4096)], dim=1
        )
        values, indices = distances.min(1)
        return indices, values / found[0].numel() ** 0.5

    def save(self, path: str | Path) -> None:
        """Draw originals and inversions as named rows of one picture (PNG)."""
        from waterbed.plots import image_grid, save_figure

        rows = {} if self.originals is None else {"original": self.originals}
        save_figure(image_grid({**rows, self.mode: self.images}), path)

    def animate(self, path: str | Path, seconds: float = 3.0, scale: int = 4) -> None:
        """Write the way of all images, side by side under their originals, as a GIF; needs ``keep_every=``."""
        from PIL import Image

        from waterbed.files import write_atomic

        if self.frames is None:
            raise UsageError("frames were not kept; pass keep_every= to invert, for example steps // 50")
        if Path(path).suffix.lower() != ".gif":
            raise UsageError(f"path={str(path)!r} must end in .gif")
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
        )
        write_atomic(path, buffer.getvalue())

    def _pairs(self) -> tuple[Tensor, Tensor]:
        if self.originals is None:
            raise UsageError("there are no originals to compare with: a bare representation or a label was inverted")
        return self.images.cpu(), self.originals.cpu()


def _tiled(rows: Sequence[Tensor], scale: int) -> np.ndarray:
    """Rows of images (B, C, H, W) in [0, 1] as one uint8 picture."""
    lines = [torch.cat(list(row.detach().float().cpu()), dim=2) for row in rows]
    picture = (torch.cat(lines, dim=1) * 255).round().to(torch.uint8)
    picture = picture.repeat_interleave(scale, 1).repeat_interleave(scale, 2).permute(1, 2, 0).numpy()
    return picture[:, :, 0] if picture.shape[2] == 1 else picture
