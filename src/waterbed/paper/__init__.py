"""The paper: its published numbers as data, its claims as checkable sentences, and how a claim is judged."""

from waterbed.paper.claims import CLAIMS, VERDICTS, Claim, verdict
from waterbed.paper.published import Published, Slip, published, slips, table_frame

__all__ = [
    "CLAIMS",
    "VERDICTS",
    "Claim",
    "Published",
    "Slip",
    "published",
    "slips",
    "table_frame",
    "verdict",
]
