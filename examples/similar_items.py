"""Find "more like this" for items of a shop:

python examples/similar_items.py http://127.0.0.1:8080 shirts/0042.jpg shoes/0007.jpg
"""

import sys

from irgen.client import Client
from irgen.errors import ServiceError


def find_similar(client: Client, name: str, filter: str | None = None) -> list[str]:
    """Return the ids of at most five images like ``name``, likely of its kind."""
    (hits,) = client.search_ids([name], k=5, filter=filter, min_probability=0.5)
    return [hit.id for hit in hits]


def main() -> None:
    """Print a line for each item."""
    url, *names = sys.argv[1:]
    with Client(url) as client:
        print(f"{client.info()['index']['images']:,} images")
        for name in names:
            try:
                print(f"{name}: {', '.join(find_similar(client, name)) or 'nothing similar'}")
            except ServiceError as error:
                print(f"{name}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
