"""Which addresses does the API have? All of them, one module per group."""

from typing import Final

from stratus.api.endpoint import Endpoint
from stratus.api.routes import history, hosts, images, instances, service, tenancy

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *service.ENDPOINTS,
    *instances.ENDPOINTS,
    *tenancy.ENDPOINTS,
    *images.ENDPOINTS,
    *hosts.ENDPOINTS,
    *history.ENDPOINTS,
)
