"""Setting aside and removing what `garbage` has found, with another look before each removal."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from cotpipe.runs.folders import DAMAGED
from cotpipe.runs.garbage import Garbage, Look
from cotpipe.runs.log import FOLDER, read_runs
from cotpipe.runs.promotion import read_registry
from cotpipe.store.artifacts import Store
from cotpipe.store.lookup import READS_AT_ONCE
from cotpipe.store.records import RECORD, REFRESHED, SET_ASIDE, Record, reference_of_folder

_ITEMS_PER_LOOK = 250
"""Pieces of garbage that are removed together, within about a second."""


def collect_garbage(store: Store, look: Look, garbage: Sequence[Garbage]) -> list[Garbage]:
    """Set aside what is new, take back what is needed again, remove what is ready.

    Directly before anything is removed, its folder and the runs are looked at once more. Returns
    what was removed; what a run has come to need meanwhile stays.
    """
    marks = [item.mark for item in garbage if item.mark and not item.ready]
    new = [mark for mark in marks if mark not in look.files or _was_used(mark, look)]
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        list(pool.map(lambda mark: store.storage.replace(mark, b"{}"), new))
    store.storage.remove_files(look.taken_back())
    ready = [item for item in garbage if item.ready]
    removed: list[Garbage] = []
    for start in range(0, len(ready), _ITEMS_PER_LOOK):
        some = _unneeded(store, look, ready[start : start + _ITEMS_PER_LOOK])
        removed += _remove(store, look, some)
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


def _remove(store: Store, look: Look, items: Sequence[Garbage]) -> list[Garbage]:
    """Remove garbage unless somebody has changed its folder or needs it; returns what was removed.

    Whoever uses an artifact takes its mark away and then reads its record again, and a run writes its
    own record before it looks for what it needs; here the records go first, and then the marks and
    the runs are read. So one of both sees what the other does.
    """
    items = _unchanged(store, look, items)
    records = {f"{_folder_of(item)}/{RECORD}" for item in items}
    records &= {name for item in items for name in item.files}
    with ExitStack() as unless_decided:
        unless_decided.callback(_put_back, store, look, items)
        store.storage.remove_files(sorted(records))
        chosen = _still_marked(store, look, _unneeded(store, look, items))
        unless_decided.pop_all()
    gone = {item.name for item in chosen}
    _put_back(store, look, [item for item in items if item.name not in gone])
    names = {name for item in chosen for name in item.files} - records
    marks = set(filter(_is_mark, names))
    store.storage.remove_files(sorted(names - marks))
    store.storage.remove_files(sorted(marks))
    return chosen


def _unchanged(store: Store, look: Look, items: Sequence[Garbage]) -> list[Garbage]:
    """Those in whose folders nothing has happened since the look; a run's record is in none."""
    folders = sorted({_folder_of(item) for item in items} & look.folders.keys())
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        found = dict(zip(folders, pool.map(store.storage.files, folders), strict=True))
    return [
        item for item in items if found.get(_folder_of(item)) == look.folders.get(_folder_of(item))
    ]


def _still_marked(store: Store, look: Look, items: Sequence[Garbage]) -> list[Garbage]:
    """Those but for the artifacts whose marks somebody has taken away."""
    marks = sorted({item.mark for item in items if item.mark and _folder_of(item) in look.folders})
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        found = dict(zip(marks, pool.map(store.storage.read, marks), strict=True))
    return [item for item in items if not item.mark or found.get(item.mark, b"") is not None]


def _put_back(store: Store, look: Look, items: Sequence[Garbage]) -> None:
    """Write the records of whole artifacts again."""
    records = [record for item in items if item.mark and (record := look.record(item.name))]

    def write(record: Record) -> None:
        content = record.model_dump_json(indent=2).encode()
        store.storage.create(f"{record.reference}/{RECORD}", content)

    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        list(pool.map(write, records))


def _folder_of(item: Garbage) -> str:
    """The artifact's folder; the name of a run's record, for runs share a folder."""
    return item.name if item.name.startswith(f"{FOLDER}/") else "/".join(item.name.split("/")[:2])


def _is_mark(name: str) -> bool:
    """Marks are removed last, so that a next `gc` goes on where this one is interrupted."""
    return f"/{DAMAGED}" in name or name.endswith(SET_ASIDE)
