"""Make the web application: routes, page, limits and error handling around one service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.staticfiles import StaticFiles

import irgen
from irgen.serve.access.limits import RateLimit
from irgen.serve.access.middleware import Access
from irgen.serve.access.tokens import Tokens
from irgen.serve.api import problems, routes, write_routes
from irgen.serve.pages import edit_page, page, rendering
from irgen.serve.service import Service

LOOPBACK = ["127.0.0.1", "localhost", "[::1]"]  # as browsers name this machine


def create_app(
    service: Service,
    *,
    tokens: Tokens | None = None,
    rate: RateLimit | None = None,
) -> FastAPI:
    """Return the application; it starts and stops ``service`` with itself.

    ``tokens``: who is let in. None: everybody who reaches the port, but only by a name in LOOPBACK,
    so that no page of another name can reach the service through a browser. ``rate``: of each
    client's requests.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="irgen",
        version=irgen.__version__,
        description="Find the images of a catalogue that are most like a picture.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        redirect_slashes=False,  # such a redirect would name whatever host the client names
        telemetry={"tracing": False, "metrics": False, "logs": False},  # /metrics has figures
    )
    app.state.service, app.state.show_problem = service, rendering.show_problem
    problems.add_handlers(app)
    app.include_router(routes.api)
    app.include_router(routes.watch)
    app.include_router(write_routes.writes)
    app.include_router(page.page)
    app.include_router(edit_page.edits)
    app.mount("/static", StaticFiles(directory=rendering.FOLDER / "static"))
    hosts = LOOPBACK if tokens is None else ["*"]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    app.add_middleware(
        Access,
        measurements=service.measurements,
        most_bytes=service.limits.bytes,
        tokens=tokens,
        rate=rate,
    )
    return app
