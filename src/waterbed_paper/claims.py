"""What the paper claims, each claim as one sentence that an experiment can support or contradict, and the verdict.

Every claim names a quantity that is positive (above ``holds_above``) where the claim is true, so that one rule judges
them all: :func:`verdict`, on an interval of that quantity over seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from waterbed.errors import UsageError, check_number

VERDICTS = ("holds", "does not hold", "undecided", "not run")

_SEEDS = "95 % t interval over seeds, paired where both networks share a seed: above 0 supports, below 0 contradicts."
_IMAGES = "95 % interval over images, networks of the first seed: above 0 supports, below 0 contradicts."

_BEST = (
    "The best of those tried decides, chosen afterwards: with k tried, the lower end of its interval is that at 1 - "
    "5 %/k."
)

_TARGETS = (
    "Spearman and Pearson of the mean gaps over seeds, with Fisher's 95 % interval over targets (few, so it is wide): "
    "above 0 supports, below 0 contradicts, if the one-sided permutation p-value agrees (at most 2.5 %); one seed "
    "decides nothing. Distances by the features of the first standard network of the source. Beside it: without "
    "traffic signs or handwritten digits, which stand in the place of SVHN."
)


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        id: short name.
        where: figure, table, proposition or section.
        sentence: the claim, in one sentence.
        quantity: what is measured; it is above ``holds_above`` where the claim is true.
        test: the statistic, and which sign or interval of it supports or contradicts the claim.
        holds_above: see :func:`verdict`.
        identity: it follows from the definitions, so that it can fail by an error of the code or of the estimate alone.
        reading: ours, of a figure or sentence that claims nothing so definite.
    """

    id: str
    where: str
    sentence: str
    quantity: str
    test: str
    holds_above: float = 0.0
    identity: bool = False
    reading: bool = False

    def judge(self, low: float | None, high: float | None) -> str:
        """The verdict from an interval of the quantity.

        >>> CLAIMS["fig-2-speed"].judge(0.9, 1.1), CLAIMS["fig-2-speed"].judge(30, 55)
        ('does not hold', 'holds')
        """
        return verdict(low, high, self.holds_above)


def verdict(low: float | None, high: float | None, holds_above: float = 0.0) -> str:
    """What an interval over seeds says of a claim whose quantity should be above ``holds_above``.

    Args:
        low, high: ends of the interval; None for both: nothing was run. nan (one seed has no interval): undecided.
        holds_above: 0 for a difference, 1 for a ratio.

    Raises:
        UsageError: an interval of which one end is missing, or whose ends are exchanged.

    >>> verdict(0.4, 2.1), verdict(-2.1, -0.4), verdict(-0.4, 2.1), verdict(None, None)
    ('holds', 'does not hold', 'undecided', 'not run')
    """
    check_number("holds_above", holds_above)
    if low is None and high is None:
        return "not run"
    if low is None or high is None:
        raise UsageError(f"low={low!r} and high={high!r} must both be numbers, or both None; pass both ends")
    if math.isnan(low) or math.isnan(high):
        return "undecided"
    if low > high:
        raise UsageError(f"low={low!r} is above high={high!r}; exchange them")
    if low > holds_above:
        return "holds"
    if high < holds_above:
        return "does not hold"
    return "undecided"


def told(n: int, verdict: str, among: str = "") -> str:
    """How many claims, or pieces of evidence, have a verdict.

    >>> told(1, "holds"), told(2, "does not hold"), told(3, "holds", " of 4")
    ('1 holds', '2 do not hold', '3 of 4 hold')
    """
    several = {"holds": "hold", "does not hold": "do not hold"}
    return f"{n}{among} {verdict if n == 1 else several.get(verdict, verdict)}"


CLAIMS: dict[str, Claim] = {
    claim.id: claim
    for claim in (
        # Theory: what adversarial training does to the information about the input.
        Claim(
            id="prop-3.2",
            where="Prop. 3.2, eq. 5",
            sentence="The largest KL divergence that a perturbation of norm eps causes becomes eps^2/2 times the "
            "largest eigenvalue of the sensitivity matrix as eps goes to 0.",
            quantity="0.05 - |ratio - 1| at eps = 0.0001 in float64, the ratio being the largest KL divergence over "
            "eps^2/2 lambda_1(S), label model, both means over images",
            test=_IMAGES + " The distance from 1 must also shrink at least threefold when eps does tenfold.",
            identity=True,
        ),
        Claim(
            id="prop-3.2-training",
            where="Sec. 3, after Prop. 3.2",
            sentence="At the eps of training, too, the largest KL divergence is about eps^2/2 times the largest "
            "eigenvalue, so that what adversarial training penalises is the Fisher information about the input.",
            quantity="0.5 - |ratio - 1| with the ratio of prop-3.2 at the eps of training",
            test=_IMAGES + " The bound of 0.5 is generous: a ratio in 0.5 to 1.5 counts as the same size. The robust "
            "network decides, the standard one stands beside it. The paper derives this for small eps alone; that the "
            "Fisher information does fall is another claim.",
        ),
        Claim(
            id="footnote-1",
            where="Sec. 3, footnote 1",
            sentence="Although the perturbation may be shorter, the attack at small eps almost always uses the whole "
            "eps.",
            quantity="share of images with |delta| of at least 0.99 eps after PGD-20, less 0.95",
            test="Wilson's 95 % interval of the share of images: above 0 supports, below 0 contradicts.",
        ),
        Claim(
            id="gaussian-bound",
            where="Sec. 3, after Prop. 3.2",
            sentence="Gaussian noise raises the KL divergence by at most as much as an adversarial perturbation of "
            "equal norm.",
            quantity="lambda_1(S) - tr S / n, mean over images",
            test=_IMAGES + " It cannot be below 0 but for errors of the estimate.",
            identity=True,
        ),
        Claim(
            id="gaussian-dimension",
            where="Sec. 3, after Prop. 3.2",
            sentence="Gaussian noise falls the farther behind adversarial perturbations, the more pixels an image has.",
            quantity="log of lambda_1(S) n / tr S on images of twice the side, less the same on the small ones",
            test="Networks of one architecture trained on one data set at two sizes. " + _SEEDS + " S has at most as "
            "many directions as classes less one, so the quantity cannot be far from log 4 when the side doubles.",
        ),
        Claim(
            id="gaussian-training",
            where="Sec. 3, after Prop. 3.2",
            sentence="At equal eps, training with Gaussian noise leaves directions of higher curvature than "
            "adversarial training.",
            quantity="log lambda_1(S) after Gaussian training, less that after adversarial training, at equal eps",
            test=_SEEDS,
        ),
        Claim(
            id="example-3.3",
            where="Example 3.3",
            sentence="For logistic regression the Fisher information about the input is w w^T times the mean of "
            "p (1 - p).",
            quantity="digits to which both matrices agree in float64 (minus log10 of their relative difference, at "
            "most 16), less 9",
            test="One number, without chance: above 0 supports, below 0 contradicts.",
            identity=True,
        ),
        Claim(
            id="input-fisher",
            where="Sec. 3, Def. 3.1; abstract",
            sentence="Adversarial training lowers the Fisher information that the representation has about the input.",
            quantity="log tr S of the standard network, less that of the robust one; likewise log lambda_1(S)",
            test="For each observation model by itself, divided by E|z|^2 where the model depends on the scale of "
            "the features. " + _SEEDS,
        ),
        Claim(
            id="effective-information",
            where="Sec. 3, Def. 3.5, eq. 8",
            sentence="Adversarial training lowers the effective information about the input, the more the larger eps.",
            quantity="effective information [nats] at each eps of training, less that at the next",
            test="Every step of eps by itself. " + _SEEDS + " Eq. 8 as printed is minus infinity where features are "
            "fewer than pixels. In its place 1/2 log det(I + J_x J_x^T / Sigma_z), the information that the noisy "
            "features have about a change N(0, I) of the image; Sigma_z from weight noise beta (F + beta/lambda^2)^-1 "
            "with a diagonal F, at one beta and one prior variance lambda^2, those of the inversions.",
        ),
        Claim(
            id="jacobian",
            where="Sec. 3, after eq. 9; Fig. 4 (our reading: that it is possible)",
            sentence="The robust networks' features do not have a smaller derivative with respect to the input.",
            quantity="log of |J_x| / |z| (root mean squares over images) of the robust network, less that of the "
            "standard one",
            test=_SEEDS
            + " The paper says that it is possible, which no recipe can contradict: this says whether it happened. "
            "|J_x|^2 / |z|^2 is also the third piece of evidence on input-fisher.",
            reading=True,
        ),
        # Information in the weights.
        Claim(
            id="fig-4",
            where="Fig. 4; Sec. 3, after eq. 9; abstract",
            sentence="The larger the eps of training, the less information the weights hold: their log-variance rises.",
            quantity="mean of -log(F_ii + damping) at each eps of training, less that at the eps before",
            test="Every step of eps by itself. " + _SEEDS + " log tr(D F D) must fall as well: the log-variance also "
            "moves with rescalings that leave the function as it is.",
        ),
        Claim(
            id="eq-11",
            where="Sec. 5, eq. 11",
            sentence="Adversarial training lowers the Fisher information that the weights have about the data set.",
            quantity="log tr F_{w|D} of the standard network, less that of the robust one, for a few examples",
            test="dw/dD exists at a minimum alone, so these are small models of their own on handwritten digits, odd "
            "against even: logistic regression, for which the worst perturbation has a closed form, and one hidden "
            "layer of four tanh units, for which the loss has it to first order in eps. They say nothing of the source "
            "networks. " + _SEEDS,
        ),
        Claim(
            id="fig-5-large-eps",
            where="Fig. 5; Sec. 3, after Example 3.3",
            sentence="Above eps = 1 adversarial training makes the norm of the weights fall as eps grows.",
            quantity="|w| at each eps of 1 and more, less that at the next",
            test="Every step of eps by itself. " + _SEEDS,
        ),
        Claim(
            id="fig-5-small-eps",
            where="Fig. 5; Sec. 3, after Example 3.3",
            sentence="Up to eps = 1 it does not: the norm of the weights does not fall as eps grows.",
            quantity="|w| at each eps up to 1, less that at the eps before",
            test="Every step of eps by itself. " + _SEEDS,
        ),
        Claim(
            id="fig-5-dynamics",
            where="Fig. 5, caption",
            sentence="The norm of the weights goes another way during robust training than during standard training.",
            quantity="largest distance over epochs between the curves of |w|, each brought from 1 after the first "
            "epoch to 0 after the last, of the standard and the robust network, less that between two standard ones of "
            "different seeds",
            test=_SEEDS
            + " The distances between standard networks share networks, so the interval is a little narrow.",
        ),
        Claim(
            id="waterbed",
            where="Sec. 1; abstract",
            sentence="The robust network pays with accuracy on the task it was trained on.",
            quantity="clean accuracy [points] on the source of the standard network, less that of the robust one",
            test=_SEEDS,
        ),
        # Inversion.
        Claim(
            id="inversion",
            where="Sec. 1 and 4; Figs 1 and 9",
            sentence="Inverting a robust representation shows the image, inverting a standard one shows noise.",
            quantity="1 - SSIM to the original of inversions of the standard network, less that of the robust one; and "
            "the share of inversions that correlate more with their own original than with any other, of the robust "
            "network, less that of the standard one; from the same start, after the same number of steps",
            test="Mean over images. "
            + _SEEDS
            + " The share is judged over images, each a mean over seeds, with one more image without a difference, so "
            "that the interval keeps a width. SSIM is strict: a grey square has more of it with most photographs than "
            "an inversion that shows the object (figures say how much), so it compares and does not recognise.",
        ),
        Claim(
            id="inversion-elsewhere",
            where="Sec. 1 and 4",
            sentence="Inverting a robust representation shows images of other data sets, too, and better than a "
            "standard one.",
            quantity="as inversion, on images of a data set that the networks were not trained on",
            test="Mean over images; the share as there. " + _SEEDS,
        ),
        Claim(
            id="fig-1-noise-once",
            where="Fig. 1, rows 2 and 3; Sec. 4; Algorithm 1; abstract",
            sentence="Noise on the weights, drawn once before the inversion, brings the image closer to the original.",
            quantity="1 - SSIM to the original of plain inversions, less that with noise drawn once",
            test="The paper gives no size of noise, and several are tried; another may do otherwise. "
            + _BEST
            + " Mean over images. The robust network decides, as the paper inverts it; the standard one and each size "
            "by itself stand beside it. " + _SEEDS,
        ),
        Claim(
            id="fig-1-effective",
            where="Fig. 1, row 4; Def. 4.1; Algorithm 2",
            sentence="Effective images keep less of the original than plain inversions.",
            quantity="1 - SSIM to the original of effective images, less that of plain inversions",
            test="Mean over images, one beta. The robust network decides (Def. 4.1 asks for one); the standard one "
            "stands beside it, and so does the difference to noise of equal size drawn once: where that is below 0, it "
            "is noise as such that costs likeness, and not its being drawn anew. " + _SEEDS,
        ),
        Claim(
            id="fig-2-speed",
            where="Fig. 2; Sec. 4",
            sentence="Noise drawn once makes the inversion converge much faster.",
            quantity="steps that the plain inversion takes to 1.05 times its last loss, over the steps to the same "
            "loss with noise drawn once, measured on the clean network",
            test="Each arm with its own best step size; geometric mean over images, 95 % t interval over starts: above "
            "2, the least that counts as much, supports; below 2 contradicts. Where the plain loss still falls at the "
            "last step, the ratio is of that far; what never reaches the loss counts as having taken all steps, in "
            "favour of the claim. " + _BEST + " The robust network decides, the standard one stands beside.",
            holds_above=2.0,
        ),
        Claim(
            id="fig-2-forty",
            where="Fig. 2; Sec. 4",
            sentence="The speed-up is about forty times (200 steps against 8,000).",
            quantity="the ratio of fig-2-speed",
            test="95 % t interval over starts of the ratio: above 20, half of what is claimed, supports; below 20 "
            "contradicts. The robust network decides; else as fig-2-speed.",
            holds_above=20.0,
        ),
        Claim(
            id="fig-2-fit",
            where="Fig. 2; Sec. 4; abstract",
            sentence="Noise drawn once also ends at a lower loss.",
            quantity="log of the last loss of the plain inversion over that with noise drawn once",
            test="On the network being inverted and on the clean one, both must agree; each arm with its own best "
            "step size. 95 % t interval over starts: above 0 supports, below 0 contradicts. "
            + _BEST
            + " The robust network decides, the standard one stands beside it.",
        ),
        Claim(
            id="fig-9",
            where="Fig. 9, caption; appendix D",
            sentence="One eps of training between the smallest and the largest inverts best: below it the network is "
            "too irregular, above it details are lost.",
            quantity="the smaller 1 - SSIM of those at the smallest and at the largest eps, less the least between",
            test="Among the eps that all seeds have; a best eps above the largest is not excluded. " + _BEST + " Mean "
            "over images. " + _SEEDS,
        ),
        # Representations and transfer.
        Claim(
            id="fig-6",
            where="Fig. 6; Sec. 5",
            sentence="The larger the eps of training, the more the classes are entangled in the representation.",
            quantity="soft nearest neighbour loss of the features on test images at each eps of training, less that at "
            "the eps before",
            test="Every step of eps by itself. " + _SEEDS + " A t-SNE picture shows it, and does not decide.",
        ),
        Claim(
            id="far-tasks",
            where="Tables 1 and 2; Sec. 5; abstract",
            sentence="With a new head alone (mode 0), the robust backbone is better on tasks far from the source.",
            quantity="accuracy [points] of the robust backbone, less that of the standard one, mode 0: from CIFAR to "
            "Fashion-MNIST, MNIST and SVHN, from ImageNet also to CIFAR-10 and CIFAR-100",
            test="For every source and target by itself. " + _SEEDS,
        ),
        Claim(
            id="far-tasks-others",
            where="Sec. 5, beyond the paper's own targets",
            sentence="With a new head alone (mode 0), the robust backbone is better on other far tasks, too.",
            quantity="as far-tasks, to traffic signs or handwritten digits, which stand in the place of SVHN",
            test="For every source and target by itself. " + _SEEDS,
            reading=True,
        ),
        Claim(
            id="near-tasks",
            where="Table 2; Sec. 5",
            sentence="The standard backbone is better on fine-grained tasks whose photographs resemble the source.",
            quantity="accuracy [points] of the standard backbone, less that of the robust one, mode 0, from ImageNet "
            "to Aircraft, Birds, Cars, Dogs, Flowers and Indoor",
            test="For every target by itself. " + _SEEDS,
        ),
        Claim(
            id="table-5",
            where="Table 5; appendix E",
            sentence="With nearly the same images and classes as the source, the standard backbone is better.",
            quantity="accuracy [points] of the standard backbone, less that of the robust one, linear layer alone, "
            "from CIFAR-10 to CINIC-10 without its CIFAR images",
            test=_SEEDS,
        ),
        Claim(
            id="asymmetry",
            where="Table 1; Sec. 5",
            sentence="The gap is not symmetric: the robust backbone gains more, or loses less, from a simple source to "
            "a more complex target than the other way round.",
            quantity="gap [points, robust less standard] from CIFAR-10 to CIFAR-100, less that from CIFAR-100 to "
            "CIFAR-10, mode 0",
            test=_SEEDS,
        ),
        Claim(
            id="complex-target",
            where="Table 1; Sec. 5",
            sentence="From a simple source to a more complex target the robust backbone is better.",
            quantity="gap [points, robust less standard] from CIFAR-10 to CIFAR-100, mode 0",
            test="At the eps of the tables; other eps of training stand beside it. " + _SEEDS,
        ),
        Claim(
            id="fig-3",
            where="Fig. 3; Sec. 5",
            sentence="From ImageNet, the gap grows with the earth mover's distance of the target.",
            quantity="correlation over targets between distance and gap (robust less standard), mode 0",
            test=_TARGETS,
        ),
        Claim(
            id="fig-7",
            where="Fig. 7; Sec. 5",
            sentence="From CIFAR-100, the gap grows with the earth mover's distance of the target.",
            quantity="as fig-3, from CIFAR-100",
            test=_TARGETS,
        ),
        Claim(
            id="fig-8",
            where="Fig. 8; appendix E",
            sentence="From CIFAR-10, the gap grows with the earth mover's distance of the target.",
            quantity="as fig-3, from CIFAR-10",
            test=_TARGETS,
        ),
        Claim(
            id="larger-network",
            where="Tables 3, 11 and 12; Sec. 5",
            sentence="Where the robust backbone is better, a larger network has a larger gap.",
            quantity="gap [points, robust less standard] of the larger network, less that of the smaller, on targets "
            "where the gap of both is positive",
            test="For every target and mode by itself. " + _SEEDS,
        ),
        Claim(
            id="larger-network-near",
            where="Tables 3, 11 and 12; Sec. 5",
            sentence="Where the standard backbone is better, a larger network has a smaller gap.",
            quantity="gap [points, standard less robust] of the smaller network, less that of the larger, on targets "
            "where the gap of both is positive",
            test="For every target and mode by itself. " + _SEEDS,
        ),
        # Fine-tuning more than the head.
        Claim(
            id="fig-14",
            where="Fig. 14; Tables 8 to 10; appendix F",
            sentence="The gap shrinks when more than the head is fine-tuned.",
            quantity="|gap| [points] in mode 0, less that in mode 1; likewise mode 2",
            test="Mean over targets. "
            + _SEEDS
            + " Where modes differ in epochs or augmentation, the evidence says so.",
        ),
        Claim(
            id="batch-norm",
            where="Fig. 14; Tables 6 and 7; appendix F",
            sentence="Fine-tuning the batch norms of the whole network (mode 1) raises the accuracy above that of "
            "mode 0.",
            quantity="accuracy [points] in mode 1, less that in mode 0",
            test="For robust and standard backbones, mean over targets. " + _SEEDS + " Where modes differ in epochs or "
            "augmentation, the evidence says so.",
        ),
        Claim(
            id="batch-norm-simple",
            where="Tables 6 and 7; appendix F",
            sentence="That gain is larger for backbones trained on CIFAR than on ImageNet.",
            quantity="the gain of batch-norm from CIFAR, less that from ImageNet, on targets of both",
            test="Mean over Fashion-MNIST, MNIST and SVHN. " + _SEEDS,
        ),
        # The captions of Figs 10 to 13 claim nothing; this is what such curves can show.
        *(
            Claim(
                id=f"fig-{figure}",
                where=f"Fig. {figure}; appendix F (our reading: the caption claims nothing)",
                sentence=f"From {source}, the backbone that is better at the end of fine-tuning is better all along.",
                quantity="share of epochs in which the gap in validation accuracy has its final sign, less 0.9",
                test=f"{targets}, every mode by itself. {_SEEDS}",
                reading=True,
            )
            for figure, source, targets in (
                (10, "CIFAR-10", "Mean over targets"),
                (11, "CIFAR-100", "Mean over targets"),
                (12, "ImageNet", "Mean over the targets of Table 9 (the caption does not say which are drawn)"),
                (13, "ImageNet", "Mean over the targets of Table 10 (the caption does not say which are drawn)"),
            )
        ),
        # Robustness of what is built on a robust backbone.
        Claim(
            id="lemma-5.1",
            where="Lemma 5.1; appendix B",
            sentence="A linear layer on the features has no more Fisher information about the input than the features.",
            quantity="tr F_{z|x} - tr F_{y|x} for y = A (z + noise) + b",
            test=_IMAGES
            + " This is the reading of the proof (data processing), and cannot be below 0. The lemma names "
            "no noise: with unit noise on y = A z + b as on z it is false where A stretches what the input moves. "
            "That stands beside; so does 1/2 |A|^2 tr F_{z|x} - tr F_{y|x} for softmax labels, never below 0.",
            identity=True,
        ),
        Claim(
            id="robust-features",
            where="Sec. 5 and 1, after Lemma 5.1",
            sentence="A new head on a robust backbone is robust on the new task.",
            quantity="robust accuracy [points] on the target, at the largest eps of attack that was run, of the robust "
            "backbone with a new head, less that of the standard one",
            test="Linear layer alone, so that the features stay as they are. " + _SEEDS,
        ),
    )
}
