"""``irgen serve``: the page and the HTTP API over the served index."""

import sys
import urllib.request
import webbrowser
from contextlib import suppress
from pathlib import Path
from threading import Thread

import click

from irgen.commands.options import PATH, root_option
from irgen.errors import ServiceError

HOST, PORT = "127.0.0.1", 8080


@click.command()
@click.option(
    "--host",
    default=HOST,
    help="Address to listen at. Beyond this machine, such as 0.0.0.0, clients need a token (irgen "
    f"token). Default: {HOST}.",
)
@click.option("--port", type=int, default=PORT, help=f"0: a free one. Default: {PORT}.")
@click.option(
    "--index",
    "folder",
    type=PATH,
    metavar="FOLDER",
    help="Serve this index. Default: that of irgen search.",
)
@click.option(
    "--from",
    "bucket",
    metavar="s3://BUCKET/PREFIX",
    help="Serve what is released to this bucket (release.remote), and follow it. Needs no project: "
    "releases are kept below --root. Read-only.",
)
@click.option(
    "--every",
    type=click.FloatRange(0.1, 86_400),
    default=10.0,
    metavar="SECONDS",
    help="Time between looks at the bucket. Default: 10.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=1,
    help="Processes that answer, behind one port; each has the models in memory. Default: 1.",
)
@click.option(
    "--decoders",
    type=click.IntRange(1, 64),
    default=2,
    help="Processes that decode images, for each that answers. Default: 2.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 256),
    default=32,
    help="Most queries answered together. Default: 32.",
)
@click.option("--fetch", is_flag=True, help="Fetch pictures that clients name by address.")
@click.option(
    "--fetch-from",
    "fetch_hosts",
    multiple=True,
    metavar="HOST",
    help="Fetch from this host alone (HOST, or HOST:PORT for a port other than 80 and 443); may be "
    "repeated.",
)
@click.option(
    "--rate",
    metavar="N/UNIT",
    help="Requests that each client may send, such as 20/s or 100/min, besides thumbnails. "
    "Default: any number.",
)
@click.option("--read-only", is_flag=True, help="Let nobody change the index.")
@click.option(
    "--candidate",
    metavar="FOLDER|latest",
    help="Try another index on searches: the one in FOLDER, or the newest release that was not "
    "served. irgen release tells how it did.",
)
@click.option(
    "--share",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Part of the searches that the candidate answers, such as 0.1. Default: 0.",
)
@click.option(
    "--shadow",
    is_flag=True,
    help="Ask the candidate beside the served index, and compare; nobody sees its answers.",
)
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
@root_option
def serve(
    host: str,
    port: int,
    folder: Path | None,
    bucket: str | None,
    every: float,
    processes: int,
    decoders: int,
    batch: int,
    fetch: bool,
    fetch_hosts: tuple[str, ...],
    rate: str | None,
    read_only: bool,
    candidate: str | None,
    share: float,
    shadow: bool,
    show: bool,
    root: Path,
) -> None:
    """Answer searches by browser and over HTTP until Ctrl-C, and change the index for clients that
    may write. A newly released index is served at once, without a restart. The API is described at
    /v1/openapi.json."""
    from irgen.commands.token import FILE
    from irgen.serve import launch
    from irgen.serve.access.limits import parse_rate

    if (candidate is not None) != (share > 0 or shadow):
        raise click.UsageError("--candidate needs --share or --shadow, and these need --candidate")
    if bucket is not None:
        from irgen.catalog.sources.s3 import split_url

        split_url(bucket)  # which says what is wrong with it
        if folder is not None or candidate is not None:
            raise click.UsageError(
                "--from serves the bucket's release: leave out --index and --candidate"
            )
    tokens = None if host in launch.LOCAL else root / FILE
    if tokens is not None and not tokens.exists():
        raise ServiceError(
            f"--host {host} lets other machines in, and there is no token yet: make one with irgen "
            "token NAME"
        )
    with launch.listen(host, port) as listener:
        url = launch.format_url(host, listener.getsockname()[1])
        settings = launch.Settings(
            root=root,
            folder=folder,
            bucket=bucket,
            every=every,
            url=url,
            tokens=tokens,
            fetch_hosts=fetch_hosts if fetch or fetch_hosts else None,
            processes=processes,
            decoders=decoders,
            batch=batch,
            rate=parse_rate(rate) if rate else None,
            read_only=read_only or bucket is not None,
            candidate=candidate,
            share=share,
            is_shadow=shadow,
            log_requests=not sys.stderr.isatty(),
        )
        click.echo(f"irgen: {url} (Ctrl-C ends it)")
        if show:
            Thread(target=open_page, args=[url], daemon=True).start()
        launch.run(settings, listener)


def open_page(url: str) -> None:
    """Open the page in the browser as soon as the service answers."""
    with suppress(OSError):  # the service says what is wrong
        urllib.request.urlopen(f"{url}/healthz").close()
        if not webbrowser.open(url):
            click.echo(f"no browser could be started: open {url} in one", err=True)
