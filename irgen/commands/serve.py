"""``irgen serve``: the page and the HTTP API over the served index."""

import gc
import os
import sys
import webbrowser
from pathlib import Path

import click

from irgen.commands.options import PATH, root_option
from irgen.errors import ServiceError

HOST, ANY, PORT = "127.0.0.1", "0.0.0.0", 8080


@click.command()
@click.option(
    "--host",
    default=HOST,
    help="Address to listen at. Beyond this machine, such as 0.0.0.0, clients need a token (irgen "
    f"token). Default: {HOST}.",
)
@click.option("--port", type=int, default=PORT, help=f"Default: {PORT}.")
@click.option(
    "--index",
    "folder",
    type=PATH,
    metavar="FOLDER",
    help="Serve this index. Default: that of irgen search.",
)
@click.option("--decoders", type=int, default=2, help="Processes that decode images. Default: 2.")
@click.option("--batch", type=int, default=32, help="Most queries answered together. Default: 32.")
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
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
@root_option
def serve(
    host: str,
    port: int,
    folder: Path | None,
    decoders: int,
    batch: int,
    fetch: bool,
    fetch_hosts: tuple[str, ...],
    rate: str | None,
    show: bool,
    root: Path,
) -> None:
    """Answer searches by browser and over HTTP until Ctrl-C. A newly released index is served at
    once, without a restart. The API is described at /v1/openapi.json."""
    gc.disable()  # it would look through each module again and again while others are imported
    import timm  # noqa: F401 – what models need, and the slowest to import
    import torch
    import uvicorn

    from irgen.commands.search_service import ADDRESS
    from irgen.commands.token import FILE
    from irgen.commands.ui import is_free
    from irgen.compute import keep_freed_memory
    from irgen.files.records import write_json
    from irgen.files.workspace import Workspace
    from irgen.releases.own_index import default_folder
    from irgen.serve.access import log_as_json
    from irgen.serve.app import LOOPBACK, create_app
    from irgen.serve.champion import Champion, Served
    from irgen.serve.fetch import Fetcher
    from irgen.serve.limits import RateLimit, parse_rate
    from irgen.serve.service import Limits, Service
    from irgen.serve.tokens import Tokens

    gc.freeze()  # what is here stays: looking through it later would stop all searches for 0.3 s
    gc.enable()
    if not is_free(port):
        raise ServiceError(f"port {port} is taken: choose another one with --port")
    is_local = host in LOOPBACK
    if not is_local and not (root / FILE).exists():
        raise ServiceError(
            f"--host {host} lets other machines in, and there is no token yet: make one with irgen "
            "token NAME"
        )
    keep_freed_memory()
    log_as_json(requests=not sys.stderr.isatty())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    champion = Champion(lambda: folder or default_folder(root), device)
    url = f"http://{HOST if host == ANY else host}:{port}"
    address = Workspace.at(root).cache / ADDRESS
    tokens = None if is_local else Tokens(root / FILE)
    unopened = [url] if show else []

    def note_address(served: Served) -> None:
        if is_local:  # then irgen search needs no token
            write_json(address, {"url": url, "process": os.getpid(), "folder": served.state[0]})
        if unopened and not webbrowser.open(unopened.pop()):
            click.echo(f"no browser could be started: open {url} in one", err=True)

    limits = Limits(batch=batch)
    service = Service(
        root,
        champion,
        limits,
        decoders=decoders,
        on_swap=note_address,
        fetcher=Fetcher(limits.bytes, fetch_hosts) if fetch or fetch_hosts else None,
    )
    click.echo(f"irgen: {url} (Ctrl-C ends it)")
    try:
        uvicorn.run(
            create_app(
                service,
                tokens=tokens,
                hosts=LOOPBACK if is_local else ["*"],
                rate=RateLimit(parse_rate(rate)) if rate else None,
            ),
            host=host,
            port=port,
            log_level="warning",
            access_log=False,
            log_config=None,  # as the service's own: JSON, without secrets
            server_header=False,
            timeout_graceful_shutdown=30,
        )
    finally:
        address.unlink(missing_ok=True)
