"""Queries of a batch."""

from irgen.search.engine import Options
from irgen.serve import query
from irgen.serve.query import Query


class BrokenIndex:
    """Fails, by a fault of ours, if one of the queries is ``bad``."""

    def search_ids(self, ids, k, options):
        if "bad" in ids:
            raise ValueError("a fault")
        return ids


def test_a_fault_concerns_its_own_query_and_no_other_of_the_batch(monkeypatch):
    monkeypatch.setattr(query, "_describe", lambda index, hits: [[name] for name in hits])
    same = {"index": BrokenIndex(), "pixels": None, "method": "served", "k": 1}
    queries = [Query(id=name, options=Options(), **same) for name in ("a", "bad", "b")]
    first, fault, third = query.answer(queries)
    assert (first, third) == (["a"], ["b"]) and isinstance(fault, ValueError)
