"""Any history of releases and edits gives what a three-way merge of dictionaries gives."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irgen.releases import own_index

from .plain_index import Image, create, put, read

IDS = st.sampled_from("abcdefgh")
IMAGES = st.dictionaries(IDS, st.tuples(st.sampled_from(["x", "y", "z", None]), st.integers(0, 2)))
OPERATIONS = st.one_of(
    st.tuples(st.just("serve"), IMAGES),
    st.tuples(st.just("put"), IMAGES),
    st.tuples(st.just("remove"), st.sets(IDS)),
    st.tuples(st.just("compact"), st.none()),
    st.tuples(st.just("refresh"), st.none()),
)


class Model:
    """Model the expected content of the index by dictionaries of images."""

    def __init__(self, served: dict[str, Image]) -> None:
        self.served, self.base, self.own = served, dict(served), dict(served)

    def refresh(self) -> None:
        edits = {name: at for name, at in self.own.items() if self.base.get(name, ()) != at}
        kept = {name: at for name, at in self.served.items() if not self._is_removed(name)}
        self.base, self.own = self.served, kept | edits

    def _is_removed(self, name: str) -> bool:
        return name in self.base and name not in self.own


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(first=IMAGES, history=st.lists(OPERATIONS, max_size=12))
def test_a_history_of_releases_and_edits_gives_what_dictionaries_give(first, history) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, model = Path(folder), Model(first)
        create(root / "data" / "index", first, 0)
        own_index.make_copy(root)
        for number, (name, argument) in enumerate([*history, ("refresh", None)], 1):
            if name == "serve":
                create(root / "data" / "index", argument, number)
                model.served = argument
            elif name == "refresh":
                own_index.refresh(root)
                model.refresh()
            else:
                change(root, model, name, argument)
            assert read(root / "index") == model.own


def change(root: Path, model: Model, name: str, argument) -> None:
    """Edit the index and the model alike."""
    with own_index.open_writer(root) as index:
        if name == "compact":
            index.compact()
        elif name == "put":
            put(index, argument)
            model.own |= argument
        else:
            present = sorted(argument & model.own.keys())
            index.remove(present)
            model.own = {key: at for key, at in model.own.items() if key not in present}
