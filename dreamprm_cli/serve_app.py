"""`dreamprm serve`: the PRM of this machine, for terminals elsewhere."""

from __future__ import annotations

import importlib.util
import ipaddress
import signal
import threading
from typing import Annotated, Any

import typer

from dreamprm_cli.errors import ConfigError, DreamPRMError
from dreamprm_cli.output import stderr


def serve(
    prm: Annotated[str | None, typer.Option("--prm", help="A checkpoint's folder or name.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; any but this machine's own wants a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any that is free.")] = 8077,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="DREAMPRM_PRM_TOKEN",
            help="Bearer token that clients must send. In the environment other users do not see it.",
        ),
    ] = None,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait; more are told to come again.")] = 64,
    cache_mb: Annotated[int, typer.Option(min=1, help="Memory for keys and values of problems and programs.")] = 1024,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:NUMBER.")] = None,
) -> None:
    """Score programs for other terminals over HTTP: `--prm http://HOST:PORT` there.

    Ctrl-C, or SIGTERM, ends it when what it has taken is answered.
    """
    from dreamprm_cli.config import load_settings
    from dreamprm_cli.prm.open import open_scorer
    from dreamprm_cli.serve.engine import engine_for
    from dreamprm_cli.serve.http import ScoringServer
    from dreamprm_cli.serve.metrics import Metrics
    from dreamprm_cli.serve.service import Service
    from dreamprm_cli.view.progress import download_bar

    if not token and not _is_loopback(host):
        raise ConfigError(
            f"--host {host} is open to other machines, and there is no token", "set DREAMPRM_PRM_TOKEN here and there"
        )
    settings = load_settings({"prm": prm, "device": device})
    console = stderr()
    metrics = Metrics()
    with download_bar(console) as progress:
        # Torch where it is installed: it alone scores many clients' requests in one forward.
        engine = "torch" if importlib.util.find_spec("torch") else "llama"
        scorer = open_scorer(settings.prm, engine=engine, device=settings.device, progress=progress)
    if scorer is None:
        raise ConfigError("--prm none leaves nothing to serve", "name a checkpoint")
    try:
        scoring = engine_for(scorer, cache_mb << 20)
    except (MemoryError, RuntimeError) as error:  # torch raises the latter
        raise DreamPRMError(f"--cache-mb {cache_mb} is more than there is: {str(error).splitlines()[0]}") from None
    service = Service(scoring, metrics, queue)
    try:
        server = ScoringServer((host, port), service, metrics, aggregation=settings.aggregation, token=token or None)
    except OSError as error:
        raise DreamPRMError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from None
    where = f"[{host}]" if ":" in host else host
    console.print(
        f"scoring with {scorer.name} on http://{where}:{server.server_port} ({scorer.device})",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    _until_stopped(server)


def _until_stopped(server: Any) -> None:
    """Serve until a signal; a second Ctrl-C does not wait for what is taken."""
    stopper = threading.Thread(target=server.drain, name="drain")

    def stop(number: int, _: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if not stopper.ident:
            stopper.start()

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop)
    server.serve_forever(poll_interval=0.1)
    stopper.join()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
