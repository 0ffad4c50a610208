"""Get releases from the bucket on a machine that does not have them."""

from pathlib import Path

from irgen.catalog.sources.s3_client import Client
from irgen.errors import ReleaseError
from irgen.files.records import read_json
from irgen.params import Release as Settings
from irgen.releases import release, remote, store
from irgen.releases.release import Release


def pull_first_champion(releases: Path, settings: Settings) -> Release | None:
    """Pull the bucket's champion and serve it, on a machine that serves none; return it.

    None: there is no bucket or it has no champion. The caller holds the store's lock. Raise
    SourceError if the bucket does not answer.
    """
    if not settings.remote:
        return None
    client = remote.connect(settings.endpoint)
    champion = remote.read_champion(client, settings.remote)
    if champion is None:
        return None
    pulled = _pull(releases, client, settings.remote, champion["name"])
    store.set_champion(releases, pulled)
    return pulled


def pull_release(releases: Path, settings: Settings, version: int | None = None) -> Release:
    """Pull a release into the store ``releases`` and return it.

    Without a ``version``, pull the bucket's champion, serve it, and delete releases beyond
    ``settings.keep`` that the bucket has too. With a ``version``, serve it only if nothing else is
    served. Raise ReleaseError if no bucket is set or it lacks the release, SourceError if it does
    not answer.
    """
    if not settings.remote:
        raise ReleaseError("params.yaml: release: remote is empty: there is no bucket to pull from")
    client = remote.connect(settings.endpoint)
    with store.lock(releases):
        name = _find_name(client, settings.remote, version)
        pulled = _pull(releases, client, settings.remote, name)
        if version is None or not (releases / store.CHAMPION).exists():
            store.set_champion(releases, pulled)
            _prune(releases, pulled, settings.keep)
        return pulled


def _pull(releases: Path, client: Client, url: str, name: str) -> Release:
    """Return the release from the store, or from the bucket if the store lacks it."""
    for local in store.list_releases(releases):
        if local.name == name:
            return local
    return remote.pull_release(client, url, name, releases)


def _prune(releases: Path, champion: Release, keep: int) -> None:
    for old in store.select_to_prune(store.list_releases(releases), champion, keep):
        if old.pushed:
            store.delete_release(releases, old)


def _find_name(client: Client, url: str, version: int | None) -> str:
    """Return the folder name of a version, by default of the champion, in the bucket."""
    if version is None and (champion := remote.read_champion(client, url)) is not None:
        return champion["name"]
    names = remote.list_names(client, url)
    for name in names:
        if remote.parse_version(name) == version:
            return name
    missing = "no champion" if version is None else f"no release {version}"
    raise ReleaseError(f"{url} has {missing}; available: {', '.join(names) or 'none'}")


def follow_pointer(pointer_path: Path, spare: Path) -> Path:
    """Return the folder of the index that a registered model points to: where it was released, or
    a copy in ``spare`` pulled from the bucket. Raise ReleaseError if both are gone."""
    pointer = read_json(pointer_path)
    folder = Path(pointer["path"])
    bundle = release.digest_files(release.list_files(folder)) if folder.is_dir() else ""
    if bundle == pointer["bundle"]:
        return folder
    if not pointer["url"]:
        raise ReleaseError(
            f"the index at {folder} is gone, and no bucket has a copy: serve another version, or "
            "set release.remote and release again"
        )
    url, _, name = pointer["url"].rpartition("/")
    client = remote.connect(pointer["endpoint"])
    return spare / remote.pull_release(client, url, name, spare).name
