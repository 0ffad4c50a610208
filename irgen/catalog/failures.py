"""Count the images that cannot be had, and stop a sync that meets too many."""

from irgen.errors import GivenUpError, SourceError

IN_A_ROW = 20  # images given up one after the other: the source is down


class Failures:
    """Failures to get images of a source. `limit`: share of its `count` images that is borne; a
    single one is borne unless it is 0."""

    def __init__(self, limit: float, count: int) -> None:
        self._limit, self._count = limit, count
        self._problems: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._problems)

    def add(self, key: str, problem: str) -> None:
        """Note an image that cannot be had. Raises SourceError if it is one too many."""
        self._problems[key] = problem
        borne = max(self._limit * self._count, 1) if self._limit else 0
        if len(self) > borne:
            raise SourceError(
                f"{len(self):,} or more of {self._count:,} images cannot be had, more than "
                f"download.max_unreadable ({self._limit:g}) allows ({self._name_one()}); nothing "
                "is changed. Make them readable, take them out of the source, or raise "
                "download.max_unreadable"
            )

    def refuse_all(self) -> None:
        """Raise SourceError: no image of the source can be had."""
        raise SourceError(
            f"none of {self._count:,} images can be had ({self._name_one()}); nothing is changed. "
            "Make them readable, or give another source"
        )

    def _name_one(self) -> str:
        key, problem = next(iter(self._problems.items()))
        return f"e.g. {key}: {problem}"


class Outage:
    """Failures in a row, which tell that the source itself is down."""

    def __init__(self) -> None:
        self._failures = 0

    def note(self, error: Exception | None) -> None:
        """Count one image. Raises SourceError for the last of IN_A_ROW that are given up."""
        self._failures = self._failures + 1 if isinstance(error, GivenUpError) else 0
        if self._failures == IN_A_ROW:
            raise SourceError(
                f"the source seems to be down: {IN_A_ROW} images in a row cannot be had, the last "
                f"for this reason: {error}; run again when it works"
            )
