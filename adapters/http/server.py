"""uvicorn around the application."""

import uvicorn
from fastapi import FastAPI


def serve(app: FastAPI, host: str, port: int, log_level: str, grace: float) -> None:
    """Serve until SIGINT or SIGTERM; streams then have `grace` seconds to finish."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level=log_level,
        http="h11",  # httptools takes headers of any size
        ws="none",
        access_log=log_level == "debug",
        server_header=False,
        timeout_graceful_shutdown=int(grace),
    )
    uvicorn.Server(config).run()
