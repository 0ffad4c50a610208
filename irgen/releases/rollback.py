"""The champion moved by hand: back to an earlier release, or on again."""

from pathlib import Path

from irgen.errors import ReleaseError
from irgen.params import Params
from irgen.releases import promote, store
from irgen.releases.promote import Outcome
from irgen.releases.release import Release


def roll_back(root: Path, params: Params, version: int | None = None) -> Outcome:
    """Makes the release ``version`` the champion; by default the one whose place the champion took.

    If that was one before, the champion is withdrawn: it is not released again by itself, but by
    another rollback, to it, which withdraws nothing. A champion whose folder is gone is in the way
    of no ``version``. Raises ReleaseError if there is no champion, or no such release here.
    """
    place = store.folder(root)
    with store.alone(place):
        if version is not None and store.is_lost(place):
            one = store.existing(place, version)
            return promote.serve(root, params, one, None, previous=one.previous)
        served = store.champion(place)
        if served is None:
            raise ReleaseError(f"nothing in {place} is served yet: irgen release makes the first")
        one = store.existing(place, _target(place, served) if version is None else version)
        if one.version == served.version:
            return promote.serve(root, params, one, served, previous=one.previous)
        if one.state == "released":
            store.note(place, served.but(state="withdrawn"))  # first: it must not come back
            return promote.serve(root, params, one, served, previous=one.previous)
        return promote.serve(root, params, one, served, previous=served.version)


def _target(place: Path, served: Release) -> int:
    if served.previous is not None:
        return served.previous
    there = ", ".join(str(each.version) for each in store.all_releases(place))
    raise ReleaseError(
        f"release {served.version} took the place of none; there: {there}; name one: irgen "
        "rollback VERSION"
    )
