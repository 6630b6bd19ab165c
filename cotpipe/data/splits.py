"""Assigning problems to splits, and finding near-duplicates of held-out problems."""

import hashlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cotpipe.data.rows import Split

if TYPE_CHECKING:
    from datasketch import MinHash

_SHINGLE_WORDS = 3
_PERMUTATIONS = 128
_MAX_LSH_THRESHOLD = 0.95  # datasketch finds no banding for a higher one
_LSH_WEIGHTS = (0.05, 0.95)
"""Weights of false positives and false negatives."""


def position_of(problem_id: str) -> float:
    """Map an id to [0, 1) by its hash, independently of run and recipe."""
    return (
        int.from_bytes(hashlib.sha256(f"split:{problem_id}".encode()).digest()[:6], "big") / 2**48
    )


def split_at(position: float, shares: dict[Split, float]) -> Split:
    """The split at a position in [0, 1); adding problems never moves existing ones."""
    end = 0.0
    for name, share in shares.items():
        end += share
        if position < end:
            return name
    return next(name for name in reversed(shares) if shares[name] > 0)


def near_duplicates(
    questions: Iterable[tuple[str, str]], held_out: Iterable[str], similarity: float
) -> dict[str, str]:
    """Find near-duplicates of held-out questions; maps their ids to the nearest held-out question.

    Similarity is the Jaccard index of 3-word shingles. MinHash LSH (Broder 1997, 128 permutations),
    tuned for recall, finds candidates; the exact index decides.

    Args:
        questions: Pairs of (id, question).
        held_out: The held-out questions.
        similarity: Minimum Jaccard index of a near-duplicate, in [0, 1].
    """
    from datasketch import MinHashLSH  # with SciPy, it takes half a second

    index = MinHashLSH(
        threshold=min(similarity, _MAX_LSH_THRESHOLD),
        num_perm=_PERMUTATIONS,
        weights=_LSH_WEIGHTS,
    )
    texts = list(dict.fromkeys(held_out))
    for number, text in enumerate(texts):
        index.insert(number, _minhash(_shingles(text)))
    found: dict[str, str] = {}
    for problem_id, question in questions:
        own = _shingles(question)
        # Shingles take ten times the memory of their text, so those of candidates are made again.
        near = [
            (_jaccard(own, _shingles(texts[number])), -number)
            for number in index.query(_minhash(own))
        ]
        best, negative = max(near, default=(0.0, 0))
        if best >= similarity:
            found[problem_id] = texts[-negative]
    return found


def _shingles(text: str) -> set[str]:
    words = re.findall(r"\w+", text.lower())
    starts = range(max(len(words) - _SHINGLE_WORDS + 1, 1))
    return {" ".join(words[start : start + _SHINGLE_WORDS]) for start in starts}


def _minhash(shingles: set[str]) -> "MinHash":
    from datasketch import MinHash

    signature = MinHash(num_perm=_PERMUTATIONS)
    signature.update_batch([shingle.encode() for shingle in sorted(shingles)])
    return signature


def _jaccard(first: set[str], second: set[str]) -> float:
    return len(first & second) / len(first | second)
