"""Which split a problem belongs to, and which problems say too much about the held-out ones."""

import hashlib
import re
from collections.abc import Iterable, Sequence

from datasketch import MinHash, MinHashLSH

from cotpipe.config import Split, SplitShares

_SHINGLE_WORDS = 3
_PERMUTATIONS = 128
_HIGHEST_THRESHOLD = 0.95  # of the bands; no number of them fits a higher one
_RATHER_TOO_MANY = (0.05, 0.95)
"""Weights of wrong candidates and of missed ones."""


def position_of(problem_id: str) -> float:
    """Where an id falls in [0, 1): its hash, the same in every run and for every recipe."""
    return int.from_bytes(hashlib.sha256(f"split:{problem_id}".encode()).digest()[:6], "big") / 2**48


def split_at(position: float, shares: SplitShares) -> Split:
    """The split at a position; adding problems never moves another problem."""
    names: tuple[Split, ...] = ("stage1", "stage2", "mining", "validation", "test")
    end = 0.0
    for name in names:
        end += getattr(shares, name)
        if position < end:
            return name
    return next(name for name in reversed(names) if getattr(shares, name) > 0)


def near_duplicates(questions: Sequence[tuple[str, str]], held_out: Iterable[str], similarity: float) -> dict[str, str]:
    """The ids of questions, given as (id, question), that nearly repeat a held-out one, with the nearest one's text.

    Similarity is the Jaccard index of 3-word shingles. MinHash (Broder 1997, 128 permutations) finds candidates, with
    bands that rather bring one too many than miss one; the index itself then decides.
    """
    index = MinHashLSH(threshold=min(similarity, _HIGHEST_THRESHOLD), num_perm=_PERMUTATIONS, weights=_RATHER_TOO_MANY)
    texts = list(dict.fromkeys(held_out))
    shingles = [_shingles(text) for text in texts]
    for number, shingle in enumerate(shingles):
        index.insert(number, _minhash(shingle))
    found: dict[str, str] = {}
    for problem_id, question in questions:
        own = _shingles(question)
        near = [(_jaccard(own, shingles[number]), -number) for number in index.query(_minhash(own))]
        best, negative = max(near, default=(0.0, 0))
        if best >= similarity:
            found[problem_id] = texts[-negative]
    return found


def _shingles(text: str) -> set[str]:
    words = re.findall(r"\w+", text.lower())
    starts = range(max(len(words) - _SHINGLE_WORDS + 1, 1))
    return {" ".join(words[start : start + _SHINGLE_WORDS]) for start in starts}


def _minhash(shingles: set[str]) -> MinHash:
    signature = MinHash(num_perm=_PERMUTATIONS)
    signature.update_batch([shingle.encode() for shingle in sorted(shingles)])
    return signature


def _jaccard(first: set[str], second: set[str]) -> float:
    return len(first & second) / len(first | second)
