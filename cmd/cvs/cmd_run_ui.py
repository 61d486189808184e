"""`cvs run-ui`: start ComfyUI with its web page, in the foreground."""

import sys

from cvs import running
from cvs.cli import Parser, Session
from cvs.profiles import process
from cvs.profiles.client import Client

EXAMPLES = """\
  cvs run-ui wan-demo
  cvs run-ui wan-demo --host 0.0.0.0 --port 9000 --extra-args -- --lowvram
  cvs run-ui wan-demo --extra-args -- --cpu
"""


def parser() -> Parser:
    """The options."""
    found = Parser("run-ui", "Start ComfyUI with its web page; Ctrl-C ends it.", EXAMPLES)
    found.version_argument()
    found.add_argument("--host", default="0.0.0.0", help="the address to listen on (0.0.0.0)")
    found.add_argument("--port", type=int, default=8188, help="the port to listen on (8188)")
    running.options(found)
    return found


def run(arguments: list[str]) -> int:
    """Runs the command."""
    own, extra = running.split(arguments)
    session = Session(parser().parse_args(own))
    options = session.options
    process.check_port(options.host, options.port)
    with running.open_session(session) as opened:
        with process.ComfyUI(
            python=opened.python,
            view=opened.view,
            variables=opened.variables,
            user=extra,
            host=options.host,
            port=options.port,
            database=opened.database,
            scratch=opened.scratch,
            seal=opened.seal,
            log=lambda line: print(line, file=sys.stderr, flush=True),
        ) as comfy:
            comfy.wait_ready(Client(comfy.url).answers, running.READY_TIMEOUT)
            failed = running.warn_of_failed_imports(session, comfy)
            started = {
                "url": comfy.url,
                "version": opened.version,
                "generation": opened.generation,
                "pid": comfy.process.pid,
                "seal": opened.seal.state,
                "failed_nodes": failed,
            }
            text = (
                f"{opened.version}, generation {opened.generation}, is ready at {comfy.url} "
                f"(sealed: {opened.seal.state})"
            )
            try:
                session.result(started, text)
                sys.stdout.flush()
                code = comfy.process.wait()
            except KeyboardInterrupt:
                session.say("ending ComfyUI")
                comfy.stop()
                return 0
    if code != 0:
        comfy.check_alive()
    return 0
