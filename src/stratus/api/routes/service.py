"""The service itself: is it alive, is it ready, how is it doing, what is it?"""

from typing import Final

from stratus.api.endpoint import Access, Call, Endpoint, NoBody, NoQuery, Reply, endpoint
from stratus.api.metrics import CONTENT_TYPE
from stratus.api.pools import Lane
from stratus.wire.v1 import LiveView, ReadyView, ServiceView

TAG: Final = "service"


@endpoint(
    "GET", "/healthz", tag=TAG, title="Alive?", answer=LiveView, access=Access.NONE, lane=Lane.HERE
)
def live_show(call: Call[NoBody, NoQuery]) -> Reply:  # noqa: ARG001  # nothing is asked
    """Answers as long as this process works at all."""
    return Reply(value=LiveView())


@endpoint("GET", "/readyz", tag=TAG, title="Ready?", answer=ReadyView, access=Access.NONE)
def ready_show(call: Call[NoBody, NoQuery]) -> Reply:
    """Says part by part whether the service can do its work; 503 while it cannot."""
    parts = list(call.services.ready())
    ready = all(part.ready for part in parts)
    return Reply(value=ReadyView(ready=ready, parts=parts), status=200 if ready else 503)


@endpoint("GET", "/metrics", tag=TAG, title="Metrics", access=Access.NONE, media="text/plain")
def metrics_show(call: Call[NoBody, NoQuery]) -> Reply:
    """Counts and times in the text format of Prometheus."""
    return Reply(text=call.services.metrics(), headers=((b"content-type", CONTENT_TYPE),))


@endpoint(
    "GET",
    "/v1",
    tag=TAG,
    title="What is this?",
    answer=ServiceView,
    access=Access.NONE,
    lane=Lane.HERE,
)
def service_show(call: Call[NoBody, NoQuery]) -> Reply:
    """Names the product, its version and the site, and where to go on."""
    settings = call.services.settings
    links = {
        "openapi": "/v1/openapi.json",
        "me": "/v1/me",
        "instances": "/v1/instances",
        "images": "/v1/images",
        "events": "/v1/events",
    }
    return Reply(
        value=ServiceView(
            product="StratusLab",
            version=settings.version,
            site=settings.site,
            api="v1",
            links=links,
        )
    )


@endpoint("GET", "/v1/openapi.json", tag=TAG, title="This description", access=Access.NONE)
def openapi_show(call: Call[NoBody, NoQuery]) -> Reply:
    """Describes the API in OpenAPI 3.1."""
    json = (b"content-type", b"application/json")
    return Reply(text=call.services.openapi(), headers=(json,))


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    live_show,
    ready_show,
    metrics_show,
    service_show,
    openapi_show,
)
