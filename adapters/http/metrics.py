"""`GET /metrics`, for Prometheus."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response

MetricsPage = Callable[[str], Awaitable[tuple[bytes, str]]]


def router(page: MetricsPage) -> APIRouter:
    """page: what a scraper accepts into the metrics and their content type."""
    routes = APIRouter(tags=["health"])

    @routes.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format"}},
    )
    async def get_metrics(request: Request) -> Response:
        """Counters, gauges and histograms, as of now."""
        body, content_type = await page(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    return routes
