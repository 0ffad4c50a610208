"""Files of the images of an index."""

import hashlib

from irgen.catalog.pictures import Pictures


def test_a_path_in_the_metadata_gives_nothing_away_but_the_image_itself(tmp_path):
    (tmp_path / "a.png").write_bytes(b"an image")
    pictures, sha256 = Pictures(tmp_path), hashlib.sha256(b"an image").hexdigest()
    assert pictures.read({"path": "a.png", "sha256": sha256}) == b"an image"
    for other in (None, "", "0" * 64):
        assert pictures.read({"path": str(tmp_path / "a.png"), "sha256": other}) is None
