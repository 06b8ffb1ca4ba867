import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from ledger.store import PARTS, Store, VolumeFailed


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.prepare()
    return store


def test_what_is_finished_can_be_read_and_leaves_no_part(store: Store) -> None:
    relative = store.put("objects", "ab" * 32, ".dcm", b"bytes")
    assert store.read(relative) == b"bytes"
    assert relative.startswith("objects/ab/")
    assert os.listdir(store.root / PARTS) == []


def test_nothing_half_written_has_a_final_name(store: Store) -> None:
    part = store.begin()
    part.write(b"half")
    assert not list((store.root / "instances").rglob("*.dcm"))
    part.abort()
    part.abort()
    assert os.listdir(store.root / PARTS) == []


def test_the_bytes_are_synced_and_then_their_name_before_they_are_believed(tmp_path: Path) -> None:
    seen: list[str] = []

    def fsync(fd: int) -> None:
        target = Path(f"/proc/self/fd/{fd}").readlink()
        kind = "folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
        seen.append(f"{kind}:{target.suffix or target.name}:{len(list(Path(tmp_path).rglob('*.dcm')))}")

    store = Store(tmp_path / "store", fsync)
    store.prepare()
    seen.clear()
    store.put("objects", "ab" * 32, ".dcm", b"bytes")
    assert seen == [
        "folder:objects:0",
        "file:.dcm:1",
        "folder:ab:1",
    ]  # the bytes and the name in one commit of a journal
    seen.clear()
    store.put("objects", "ab" * 32, ".dcm", b"bytes")
    assert seen == ["file:.dcm:2", "folder:ab:2"]


def test_a_folder_that_another_process_made_is_not_believed_to_be_on_disk(tmp_path: Path) -> None:
    synced: list[str] = []
    Store(tmp_path / "store").prepare()
    (tmp_path / "store" / "objects" / "ab").mkdir()  # by a process that has not come to its sync yet
    store = Store(tmp_path / "store", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink().name))
    store.put("objects", "ab" * 32, ".dcm", b"bytes")
    assert synced[0] == "objects"
    assert synced[2:] == ["ab"]


def test_what_is_received_in_one_minute_shares_a_folder(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    minute = 60 * (256 * 1000 + 171)
    for at, shard in ((minute, "ab"), (minute + 59.9, "ab"), (minute + 60, "ac"), (minute + 256 * 60, "ab")):
        monkeypatch.setattr("ledger.store.time.time", lambda at=at: at)
        assert {store.name("instances", digit * 64, ".dcm").split("/")[1] for digit in "0f"} == {shard}
        assert store.name("masks", "0" * 64, ".png").startswith("masks/00/")


def test_what_is_sealed_is_synced_and_one_sync_of_its_folder_names_all_of_it(tmp_path: Path) -> None:
    synced: list[str] = []

    def fsync(fd: int) -> None:
        target = Path(f"/proc/self/fd/{fd}").readlink()
        synced.append(target.suffix or target.name)

    store = Store(tmp_path / "store", fsync)
    store.prepare()
    synced.clear()
    folders = set()
    for number in range(3):
        part = store.begin()
        part.write(b"bytes")
        folders.add(part.seal(f"instances/ab/{number}.dcm"))
    assert synced == ["instances", ".dcm", ".dcm", ".dcm"]
    assert folders == {store.root / "instances" / "ab"}
    assert [store.read(f"instances/ab/{number}.dcm") for number in range(3)] == [b"bytes"] * 3
    for folder in folders:
        store.sync_folder(folder)
    assert synced[4:] == ["ab"]


def test_a_stored_file_takes_the_place_of_another_durably(tmp_path: Path) -> None:
    synced: list[str] = []
    store = Store(tmp_path / "store", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink().name))
    store.prepare()
    old, new = store.put("objects", "ab" * 32, "", b"old"), store.put("objects", "cd" * 32, "", b"new")
    synced.clear()
    store.replace(old, new)
    assert store.read(old) == b"new"
    assert not store.path(new).exists()
    assert synced == ["ab"]


def test_a_store_that_was_unmounted_is_not_made_anew(store: Store) -> None:
    shutil.rmtree(store.root / "instances")
    with pytest.raises(FileNotFoundError):
        store.put("instances", "ab" * 32, ".dcm", b"bytes")
    assert not (store.root / "instances").exists()


def test_the_names_of_new_folders_are_durable_up_to_what_was_there(tmp_path: Path) -> None:
    synced: list[Path] = []
    store = Store(tmp_path / "state" / "store", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink()))
    store.prepare()
    assert synced == [tmp_path / "state" / "store", tmp_path / "state", tmp_path]
    synced.clear()
    store.prepare()  # another process may have made them and not have come to its sync
    assert synced == [tmp_path / "state" / "store", tmp_path / "state"]


def test_a_link_in_the_store_is_not_followed(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (store.root / "objects" / "ab").symlink_to(outside)
    with pytest.raises(OSError, match="link"):
        store.put("objects", "ab" * 32, ".dcm", b"bytes")
    assert not list(outside.iterdir())
    assert not list((store.root / PARTS).iterdir())
    assert not store.failed


def test_after_a_failed_sync_the_volume_takes_nothing_more(tmp_path: Path) -> None:
    broken = False

    def fsync(fd: int) -> None:
        if broken:
            raise OSError(errno.EIO, "Input/output error")

    store = Store(tmp_path / "store", fsync)
    store.prepare()
    broken = True
    with pytest.raises(VolumeFailed):
        store.put("instances", "ab" * 32, ".dcm", b"bytes")
    broken = False  # the kernel may now say yes although it dropped the pages
    with pytest.raises(VolumeFailed):
        store.begin()
    assert not list(store.root.rglob("*.dcm"))


def test_only_the_owner_can_read(store: Store) -> None:
    path = store.path(store.put("objects", "cd" * 32, ".dcm", b"bytes"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in [path.parent, path.parent.parent, store.root]} == {0o700}


@pytest.mark.parametrize("name", ["../outside", "instances/../../outside", "/etc/passwd"])
def test_a_name_cannot_leave_the_store(store: Store, name: str) -> None:
    with pytest.raises(ValueError, match="inside the store"):
        store.path(name)


def test_two_writers_of_the_same_content_never_share_a_file(store: Store) -> None:
    first = store.put("instances", "ab" * 32, ".dcm", b"same")
    second = store.put("instances", "ab" * 32, ".dcm", b"same")
    assert first != second
    assert store.read(first) == store.read(second)


def test_the_sweep_deletes_what_a_crash_left(store: Store) -> None:
    part = store.begin()
    part.write(b"half")
    assert store.sweep_parts() == 1
    assert os.listdir(store.root / PARTS) == []
    part.abort()
