"""Named randomness: the seed of every random choice is derived from its purpose."""

import hashlib
import random


def named_seed(*name: str | int) -> int:
    """A 64-bit seed for a name such as `(recipe seed, purpose, problem id, epoch)`.

    The parts are hashed with their lengths, so `("a", "bc")` and `("ab", "c")` differ. The seed is
    the same in every process, on every machine and in every Python version.
    """
    digest = hashlib.sha256()
    for part in name:
        encoded = f"{type(part).__name__}:{part}".encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return int.from_bytes(digest.digest()[:8], "big")


def named_random(*name: str | int) -> random.Random:
    """A separate generator for one random choice; see `named_seed`."""
    return random.Random(named_seed(*name))
