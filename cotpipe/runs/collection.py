"""Setting aside and removing what `garbage` has found, with another look before each removal."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from cotpipe.runs.folders import DAMAGED
from cotpipe.runs.garbage import Garbage, Look
from cotpipe.runs.log import FOLDER, read_runs
from cotpipe.runs.promotion import read_registry
from cotpipe.store.artifacts import Store
from cotpipe.store.lookup import READS_AT_ONCE
from cotpipe.store.records import RECORD, REFRESHED, SET_ASIDE, reference_of_folder

_ITEMS_PER_LOOK = 100
"""Pieces of garbage that are removed between two looks at the runs, within about a second."""


def collect_garbage(store: Store, look: Look, garbage: Sequence[Garbage]) -> list[Garbage]:
    """Set aside what is new, take back what is needed again, remove what is ready.

    Directly before anything is removed, its folder is looked at once more, and the runs about a
    second before. Returns what was removed; what a run has come to need meanwhile stays.
    """
    marks = [item.mark for item in garbage if item.mark and not item.ready]
    new = [mark for mark in marks if mark not in look.files or _was_used(mark, look)]
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        list(pool.map(lambda mark: store.storage.replace(mark, b"{}"), new))
    store.storage.remove_files(look.taken_back())
    ready = [item for item in garbage if item.ready]
    removed: list[Garbage] = []
    for start in range(0, len(ready), _ITEMS_PER_LOOK):
        chosen = _unneeded(store, look, ready[start : start + _ITEMS_PER_LOOK])
        by_folder: dict[str, list[Garbage]] = {}
        for item in chosen:
            by_folder.setdefault(_folder_of(item), []).append(item)
        with ThreadPoolExecutor(READS_AT_ONCE) as pool:
            for gone in pool.map(partial(_remove, store, look), by_folder.values()):
                removed += gone
    return removed


def _was_used(mark: str, look: Look) -> bool:
    folder, _, name = mark.rpartition("/")
    files = look.folders.get(folder, {})
    return name == SET_ASIDE and any(
        info.modified > look.files[mark].modified for info in files.values()
    )


def _unneeded(store: Store, look: Look, items: Sequence[Garbage]) -> list[Garbage]:
    """Those that no run has come to need since the look."""
    runs = {f"{FOLDER}/{name}": info for name, info in store.storage.files(FOLDER).items()}
    written = {name for name, info in runs.items() if look.files.get(name) != info}
    if written:
        look.add_runs(read_runs(store.storage, {Path(name).name for name in written}))
    look.add_needed(read_registry(store.storage).references)

    def is_unneeded(item: Garbage) -> bool:
        folder = _folder_of(item)
        if f"{folder}/{REFRESHED}" in item.files and look.is_pointer_needed(folder):
            return False
        is_needed = item.mark and reference_of_folder(folder) in look.needed
        return not is_needed and written.isdisjoint(item.files)

    return [item for item in items if is_unneeded(item)]


def _remove(store: Store, look: Look, items: Sequence[Garbage]) -> Sequence[Garbage]:
    """Remove the garbage of one folder, unless somebody has changed it; returns what was removed.

    Whoever uses an artifact takes its mark away and then reads its record again; here the record
    goes first and then the mark is read. So one of both sees what the other does.
    """
    folder, mark = _folder_of(items[0]), items[0].mark
    names = [name for item in items for name in item.files]
    if folder in look.folders:  # a run's record is in none
        if store.storage.files(folder) != look.folders[folder]:
            return []
        name, record = f"{folder}/{RECORD}", look.record(folder)
        if name in names:
            names.remove(name)
            store.storage.remove_files([name])
        if mark and record and store.storage.read(mark) is None:
            store.storage.create(name, record.model_dump_json(indent=2).encode())
            return []
    store.storage.remove_files(sorted(names, key=_is_mark))
    return items


def _folder_of(item: Garbage) -> str:
    """The artifact's folder; the name of a run's record, for runs share a folder."""
    return item.name if item.name.startswith(f"{FOLDER}/") else "/".join(item.name.split("/")[:2])


def _is_mark(name: str) -> bool:
    """Marks are removed last, so that a next `gc` goes on where this one is interrupted."""
    return f"/{DAMAGED}" in name or name.endswith(SET_ASIDE)
