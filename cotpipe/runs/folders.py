"""The folders of a store as `gc` sees them: which are artifacts', and what each part is there for."""

import logging
import re
from collections.abc import Iterable

from cotpipe.store.leases import is_lease
from cotpipe.store.records import (
    NEEDS,
    RECORD,
    REFRESHED,
    SET_ASIDE,
    Record,
    reference_of_folder,
)
from cotpipe.store.storage import FileInfo
from cotpipe.store.training_states import TRAINING_STATE

logger = logging.getLogger(__name__)

DAMAGED = "damaged-"
"""What the names of marks of damage begin with."""
_OWN_FOLDER = re.compile(rf"[0-9a-f]{{8}}|{TRAINING_STATE}")
_OWN_FILES = (REFRESHED, SET_ASIDE, NEEDS)

Files = dict[str, FileInfo]


def why_of_part(part: str, record: Record | None, files: Iterable[str]) -> str | None:
    """Why a part of a needed artifact's folder is garbage; None if it is not."""
    damaged = {
        name.removeprefix(DAMAGED).removesuffix(".json")
        for name in files
        if name.startswith(DAMAGED)
    }
    if part in (REFRESHED, SET_ASIDE):
        return None
    if is_lease(part):
        return "a stale lease"
    if any(attempt in part for attempt in damaged):
        return "damaged"
    if part in (TRAINING_STATE, NEEDS):
        return "the step is finished" if record and record.attempt not in damaged else None
    if part == RECORD:
        return "damaged" if record and record.attempt in damaged else None
    if record and part == record.attempt:
        return None
    return "leftover of an interrupted run"


def artifact_folders(names: Files) -> dict[str, Files]:
    """The files of every artifact's folder, by path relative to it; warns of foreign folders."""
    folders: dict[str, Files] = {}
    foreign = set()
    for name, info in names.items():
        kind, _, rest = name.partition("/")
        fingerprint, _, inner = rest.partition("/")
        folder = f"{kind}/{fingerprint}"
        if inner and (folder in folders or reference_of_folder(folder)):
            folders.setdefault(folder, {})[inner] = info
        elif name.endswith(f"/{RECORD}"):
            foreign.add(name)
    for name in sorted(foreign):
        logger.warning("skipped: %s is not a record of this store", name)
    return folders


def looks_own(names: Iterable[str]) -> bool:
    """Whether all files of a folder without a record are such as the store writes beside one."""
    return all(map(_is_own_name, names))


def _is_own_name(name: str) -> bool:
    part, _, inner = name.partition("/")
    if inner:
        return _OWN_FOLDER.fullmatch(part) is not None
    is_half_written = part.startswith(".")
    return part in _OWN_FILES or is_lease(part) or part.startswith(DAMAGED) or is_half_written
