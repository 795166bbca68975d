"""uvicorn around the application."""

import copy

import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG


def serve(app: FastAPI, host: str, port: int, log_level: str, grace: float) -> None:
    """Serve until SIGINT or SIGTERM; streams then have `grace` seconds to finish."""
    logging_config = copy.deepcopy(LOGGING_CONFIG)
    logging_config["loggers"]["portico"] = {
        "handlers": ["default"],
        "level": log_level.upper(),
        "propagate": False,
    }
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level=log_level,
        log_config=logging_config,
        http="h11",  # httptools takes headers of any size
        ws="none",
        access_log=False,  # portico.requests has a line a request, with its id
        server_header=False,
        timeout_graceful_shutdown=int(grace),
    )
    uvicorn.Server(config).run()
