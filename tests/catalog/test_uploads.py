"""Files added by hand: kept by content, whole, and only as long as an index names them."""

import hashlib
import os
import threading
import time

from irgen.catalog import uploads
from irgen.catalog.uploads import delete_uploads, prune_uploads, read_upload, store_upload


def test_a_file_is_kept_by_its_content_and_read_back(tmp_path):
    sha256 = store_upload(tmp_path, b"an image")
    assert sha256 == hashlib.sha256(b"an image").hexdigest()
    assert (tmp_path / "uploads" / sha256[:2] / sha256).read_bytes() == b"an image"
    assert read_upload(tmp_path, sha256) == b"an image"
    assert read_upload(tmp_path, "0" * 64) is None
    assert read_upload(tmp_path, "\0") is None


def test_what_is_no_checksum_names_no_file(tmp_path):
    other = tmp_path / "mine.txt"
    other.write_text("mine")
    for name in (str(other), "../../mine.txt", ""):
        delete_uploads(tmp_path, [name])
        assert read_upload(tmp_path, name) is None
    assert other.exists()


def test_what_is_kept_is_not_written_again_unless_it_is_damaged(tmp_path):
    path = uploads.upload_path(tmp_path, store_upload(tmp_path, b"an image"))
    before = path.stat().st_ino
    store_upload(tmp_path, b"an image")
    assert path.stat().st_ino == before
    path.write_bytes(b"another!")
    assert read_upload(tmp_path, path.name) is None
    store_upload(tmp_path, b"an image")
    assert path.read_bytes() == b"an image"


def test_many_threads_store_the_same_content(tmp_path):
    threads = [
        threading.Thread(target=store_upload, args=(tmp_path, b"image" * 999)) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (path,) = (tmp_path / "uploads").glob("??/*")
    assert path.read_bytes() == b"image" * 999


def test_what_no_index_names_goes_after_a_while(tmp_path):
    old, named, new = (store_upload(tmp_path, content) for content in (b"a", b"b", b"c"))
    an_age_ago = time.time() - uploads.GRACE - 60
    for sha256 in (old, named):
        os.utime(uploads.upload_path(tmp_path, sha256), (an_age_ago, an_age_ago))
    prune_uploads(tmp_path, {named})
    assert [read_upload(tmp_path, sha256) for sha256 in (old, named, new)] == [None, b"b", b"c"]
    delete_uploads(tmp_path, [named, "0" * 64])
    assert read_upload(tmp_path, named) is None


def test_what_is_stored_again_may_wait_again(tmp_path):
    path = uploads.upload_path(tmp_path, store_upload(tmp_path, b"a"))
    os.utime(path, (0, 0))
    store_upload(tmp_path, b"a")
    prune_uploads(tmp_path, set())
    assert path.exists()
