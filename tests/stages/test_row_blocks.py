"""Features and identifiers are read and written in blocks of rows."""

import numpy as np
import pytest

from irgen.encoding import cache
from irgen.encoding.cache import ArrayStore
from irgen.stages import identifiers

from .conftest import files, run


@pytest.mark.slow
def test_features_and_identifiers_hold_a_block_at_once_and_are_the_same_in_blocks_of_any_size(
    copy, monkeypatch
) -> None:
    folder, params = copy
    outputs = [folder / "data" / stage for stage in ("features", "identifiers")]
    before, counts, get = [files(output) for output in outputs], [], ArrayStore.get

    def counted(store: ArrayStore, sha256s: cache.Hashes) -> np.ndarray:
        counts.append(len(sha256s))
        return get(store, sha256s)

    monkeypatch.setattr(ArrayStore, "get", counted)
    for module in (cache, identifiers):
        monkeypatch.setattr(module, "ROWS", 7)
    run(params, folder, "features", "identifiers")
    assert max(counts) == 7
    for output, contents in zip(outputs, before, strict=True):
        assert files(output) == contents
