"""Queries of a batch."""

from irgen.catalog.images.pixels import decode_images
from irgen.index.index import Index
from irgen.search.engine import Options
from irgen.serve import query
from irgen.serve.query import Query


class BrokenIndex:
    """Fails, by a fault of ours, if one of the queries is ``bad``."""

    def search_ids(self, ids, k, options):
        if "bad" in ids:
            raise ValueError("a fault")
        return Found(ids)


class Found(list):
    """Stands for hits, of which those of the first queries are taken."""

    def first(self, count):
        return Found(self[:count])


def test_a_fault_concerns_its_own_query_and_no_other_of_the_batch(monkeypatch):
    monkeypatch.setattr(query, "_describe", lambda index, hits: [[name] for name in hits])
    same = {"index": BrokenIndex(), "kind": "id", "method": "served", "k": 1}
    same |= {"pixels": None, "text": None}
    queries = [Query(id=name, options=Options(), **same) for name in ("a", "bad", "b")]
    first, fault, third = query.answer(queries)
    assert (first, third) == (["a"], ["b"]) and isinstance(fault, ValueError)


def test_a_batch_is_filled_up_and_answers_as_its_queries_do_alone(make_project, png, tmp_path):
    with Index.open(make_project(tmp_path) / "data" / "index") as index:
        pixels = decode_images([png(n) for n in range(6)], index.models.decoding)
        same = {"index": index, "kind": "image", "id": None, "text": None}
        same |= {"method": "served", "k": 3, "options": index.options(3)}
        queries = [Query(pixels=image, **same) for image in pixels]
        together = query.answer(queries)
        assert [[hit.id for hit in result.hits] for result in together] == [
            [hit.id for hit in query.answer([alone])[0].hits] for alone in queries
        ]
        assert [len(result.hits) for result in together] == [3] * 6
