"""The addresses of the dashboard: pages for people, and what they load.

``/``                             all apps
``/apps/{app}``                   one app
``/apps/{app}/versions/{v}``      a version's card
``/incidents/{n}``                an incident
``/apps/{app}/charts/{key}.svg``  a picture; ``/incidents/{n}/charts/{key}.svg`` as well
``/apps/-/{file}``                style, script and icon (no app is called ``-``)

Reading is allowed as it is to ``/api``; what a page changes goes through ``/api``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request  # noqa: TC002 - read when routes are added
from fastapi.responses import HTMLResponse, Response

from mlguard.dashboard import pages
from mlguard.dashboard.gallery import NARROW, WIDE, Gallery, digest_of
from mlguard.dashboard.source import Source
from mlguard.errors import MlguardError, NotFoundError, RegistryError
from mlguard.version import VERSION

if TYPE_CHECKING:
    from mlguard.dashboard.series import Shown
    from mlguard.dashboard.view import Views

#: What a page may do: load our own style, script and pictures, ask this server, nothing else.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PICTURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


class Dashboard:
    """Pages of one project.

    Parameters
    ----------
    source : Source
        The server.
    reader : callable
        Raises unless a request may read.
    headers : mapping
        What every page of this server says.
    """

    def __init__(
        self, source: Source, *, reader: Callable[[Request], None], headers: dict[str, str]
    ) -> None:
        self._source = source
        self._reader = reader
        self._plain = headers
        self._headers = headers | {"Content-Security-Policy": _POLICY}
        self._gallery = Gallery()
        self._views: Views | None = None

    @property
    def views(self) -> Views:
        """What pages show; what it needs is loaded by a server that somebody looks at."""
        if self._views is None:
            from mlguard.dashboard.view import Views

            self._views = Views(self._source)
        return self._views

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""

        @app.get("/", tags=["pages"], response_class=HTMLResponse)
        def overview(request: Request) -> Response:
            """Show the apps."""
            return self._page(request, partial(self._overview, str(request.base_url)))

        hidden: dict[str, Any] = {"include_in_schema": False}

        @app.get("/apps/-/{name}", **hidden)
        def file(name: str) -> Response:
            return self._file(name)

        @app.get("/apps/{app_name}", **hidden)
        def one_app(app_name: str, request: Request) -> Response:
            return self._page(request, partial(self._app, app_name, str(request.base_url)))

        @app.get("/apps/{app_name}/versions/{version}", **hidden)
        def card(app_name: str, version: str, request: Request) -> Response:
            headers = self._plain  # a card stands alone: its style is inside
            return self._page(request, partial(self._card, app_name, version), headers=headers)

        @app.get("/incidents/{number}", **hidden)
        def incident(number: str, request: Request) -> Response:
            return self._page(request, partial(self._incident, number))

        @app.get("/apps/{app_name}/charts/{key}.svg", **hidden)
        def app_chart(app_name: str, key: str, request: Request) -> Response:
            return self._chart(request, lambda: self.views.app(app_name, "").drawn, key)

        @app.get("/incidents/{number}/charts/{key}.svg", **hidden)
        def incident_chart(number: str, key: str, request: Request) -> Response:
            return self._chart(request, lambda: self.views.incident(_number(number)).drawn, key)

    # --- pages ---

    def _page(
        self,
        request: Request,
        make: Callable[[], str],
        *,
        headers: dict[str, str] | None = None,
    ) -> Response:
        try:
            self._reader(request)
            return HTMLResponse(make(), headers=headers or self._headers)
        except MlguardError as error:
            text = self._render("trouble.html.j2", error=error, serving=self._serving(error))
            more = {"WWW-Authenticate": "Bearer"} if error.http_status == 401 else {}
            return HTMLResponse(text, error.http_status, headers=self._headers | more)

    def _serving(self, error: MlguardError) -> dict[str, str | None] | None:
        """Return what this process answers with, where only the registry is the trouble."""
        return dict(self._source.serving()) if isinstance(error, RegistryError) else None

    def _render(self, template: str, **values: Any) -> str:
        project = self._source.project.project
        shared = {
            "project": project.name,
            "environment": project.environment,
            "now": self._source.clock(),
            "version": VERSION,
        }
        return pages.render(template, **shared, **values)

    def _overview(self, base_url: str) -> str:
        return self._render("overview.html.j2", apps=self.views.overview(base_url))

    def _app(self, app: str, base_url: str) -> str:
        view = self.views.app(app, base_url)
        return self._render("app.html.j2", view=view, place=f"/apps/{app}")

    def _card(self, app: str, version: str) -> str:
        from mlguard.reports import card_page

        return card_page.html(self.views.card(app, version), home=f"/apps/{app}")

    def _incident(self, number: str) -> str:
        view = self.views.incident(_number(number))
        return self._render("incident.html.j2", view=view, place=f"/incidents/{number}")

    # --- what pages load ---

    def _file(self, name: str) -> Response:
        found = pages.static(name)
        if found is None:
            raise NotFoundError("the dashboard has no such file")
        content, media_type = found
        headers = {"Cache-Control": "no-cache", "Content-Security-Policy": "default-src 'none'"}
        return Response(content, media_type=media_type, headers=headers)

    def _chart(self, request: Request, charts: Callable[[], Sequence[Shown]], key: str) -> Response:
        self._reader(request)
        shown = charts()
        mine = next((one.chart for one in shown if one.key == key), None)
        if mine is None:
            raise NotFoundError("no such chart, or none any more")
        width = NARROW if request.query_params.get("w") == str(NARROW) else WIDE
        svg = self._gallery.picture(mine, width, [one.chart for one in shown])
        # Under an address that names its data a picture never changes.
        current = request.query_params.get("v") == digest_of(mine)
        headers = {
            "Cache-Control": "private, max-age=86400" if current else "no-store",
            "Content-Security-Policy": _PICTURE_POLICY,
        }
        return Response(svg, media_type="image/svg+xml", headers=headers)


def _number(text: str) -> int:
    # Larger ones are none to a database.
    if not text.isascii() or not text.isdecimal() or len(text) > 9:  # 32 bits
        raise NotFoundError("incidents have numbers", hint="the app's page lists them")
    return int(text)
