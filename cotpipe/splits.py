"""Which split a problem belongs to, and which problems say too much about the held-out ones."""

import hashlib
import re
from collections.abc import Iterable, Sequence

from datasketch import MinHash, MinHashLSH

from cotpipe.config import Split, SplitShares

_SHINGLE_WORDS = 3
_PERMUTATIONS = 128


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
    """The ids of questions, given as (id, question), that nearly repeat a held-out one, with that one's text.

    Similarity is the Jaccard index of 3-word shingles, estimated by MinHash (Broder 1997) with 128 permutations.
    """
    index = MinHashLSH(threshold=similarity, num_perm=_PERMUTATIONS)
    texts = list(dict.fromkeys(held_out))
    for number, text in enumerate(texts):
        index.insert(number, _minhash(text))
    found: dict[str, str] = {}
    for problem_id, question in questions:
        if matches := index.query(_minhash(question)):
            found[problem_id] = texts[min(matches)]
    return found


def _minhash(text: str) -> MinHash:
    words = re.findall(r"\w+", text.lower())
    shingles = {
        " ".join(words[start : start + _SHINGLE_WORDS]) for start in range(max(len(words) - _SHINGLE_WORDS + 1, 1))
    }
    signature = MinHash(num_perm=_PERMUTATIONS)
    signature.update_batch([shingle.encode() for shingle in sorted(shingles)])
    return signature
