"""Searches go on answering while releases are made, rolled back and pruned."""

import threading

import numpy as np

from irgen.index.index import Index


class Readers:
    """Threads that open the champion, search it and close it, again and again."""

    def __init__(self, project, count: int) -> None:
        self.project, self.answers = project, 0
        self.errors: list[BaseException] = []
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.search) for _ in range(count)]

    def __enter__(self) -> "Readers":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join(60)

    def search(self) -> None:
        while not self.ended.is_set() and not self.errors:
            try:
                with Index.open(self.project.store / "champion") as index:
                    result = index.search([self.project.query], 4)
                assert result.ids.shape == (1, 4) and np.isfinite(result.scores).all()
                self.answers += 1
            except BaseException as error:
                self.errors.append(error)


def test_no_search_fails_while_releases_and_rollbacks_swap_the_index(project, release, irgen):
    release()
    with Readers(project, 4) as readers:
        for number in range(2, 6):
            project.builds(number)
            assert release()["champion"] == number  # prunes the oldest
            for version in (number - 1, number):
                assert irgen("rollback", version).status == 0
    assert not readers.errors, readers.errors
    assert readers.answers > 10
