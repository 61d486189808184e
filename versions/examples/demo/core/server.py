"""The server: the HTTP API, the websocket, and the messages that go out on it."""

import asyncio
import glob
import hashlib
import ipaddress
import json
import logging
import os
import socket
import struct
import sys
import traceback
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import comfy.model_management
import comfy.utils
import execution
import folder_paths
import nodes
from app import http, multipart
from app.http import HTTPError, Request, Response, Routes, json_response
from app.user_manager import UserManager
from app.websocket import WebSocket
from comfy import png
from comfy.cli_args import args
from comfyui_version import __version__
from protocol import BinaryEventTypes

HERE = os.path.dirname(os.path.realpath(__file__))
# A page must not run what a node or a user saved.
NEVER_SHOWN = {
    "text/html",
    "text/html-sandboxed",
    "application/xhtml+xml",
    "text/javascript",
    "text/css",
}
IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def is_loopback(host: str | None) -> bool:
    """Whether every address of a host name is this machine."""
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(entry[4][0]).is_loopback for entry in found)


def is_foreign(request: Request) -> bool:
    """Whether another site's page sent this to a server on the visitor's own machine.

    Browsers let any page post to 127.0.0.1; its Origin then differs from the Host.
    """
    host, origin = request.headers.get("host"), request.headers.get("origin")
    if host is None or origin is None:
        return False
    own, other = urlsplit("//" + host.lower()), urlsplit(origin.lower())
    if not own.hostname or not other.hostname or not is_loopback(own.hostname):
        return False
    if own.port is None or other.port is None:
        return own.hostname != other.hostname
    return own.netloc != other.netloc


def is_inside(folder: str, path: str) -> bool:
    """Whether a path stays in a folder, by name."""
    return os.path.commonpath((folder, os.path.abspath(path))) == folder


class PromptServer:
    """One per process; custom nodes reach it as `PromptServer.instance`."""

    instance: "PromptServer"

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        PromptServer.instance = self
        self.loop = loop
        self.routes = Routes()
        self.user_manager = UserManager()
        self.prompt_queue = execution.PromptQueue(self)
        self.messages: asyncio.Queue[tuple[Any, Any, str | None]] = asyncio.Queue()
        self.sockets: dict[str, WebSocket] = {}
        self.sockets_metadata: dict[str, dict[str, Any]] = {}
        self.number = 0
        self.client_id: str | None = None
        self.last_node_id: str | None = None
        self.last_prompt_id: str | None = None
        self.on_prompt_handlers: list[Callable[[Any], Any]] = []
        self.web_root = args.front_end_root or os.path.join(HERE, "web")
        logging.info(f"[Prompt Server] web root: {self.web_root}")
        self._add_page_routes()
        self._add_file_routes()
        self._add_node_routes()
        self._add_prompt_routes()

    # Routes

    def add_routes(self) -> None:
        """Add what comes last: the user's, and every route once more under /api."""
        self.user_manager.add_routes(self.routes)
        self.routes.repeat_under("/api")

    def _add_page_routes(self) -> None:
        routes = self.routes

        @routes.get("/")
        async def get_root(request: Request) -> Response:
            headers = {"Cache-Control": "no-cache", "Pragma": "no-cache", "Expires": "0"}
            return http.file_response(request, os.path.join(self.web_root, "index.html"), headers)

        @routes.get("/ws")
        async def websocket_handler(request: Request) -> None:
            await self._serve_socket(await request.upgrade(), request.query.get("clientId", ""))

        @routes.get("/features")
        async def get_features(request: Request) -> Response:
            return json_response(self.features())

        @routes.get("/extensions")
        async def get_extensions(request: Request) -> Response:
            found = []
            roots = {"": os.path.join(self.web_root, "extensions"), **nodes.EXTENSION_WEB_DIRS}
            for name, root in roots.items():
                prefix = f"/extensions/{quote(name)}/" if name else "/extensions/"
                for path in glob.glob("**/*.js", root_dir=root, recursive=True):
                    found.append(prefix + path)
            return json_response(found)

        @routes.get("/system_stats")
        async def system_stats(request: Request) -> Response:
            total, free = comfy.model_management.memory()
            python_folder = os.path.basename(os.path.dirname(sys.executable))
            system = {
                "os": os.name,
                "ram_total": total,
                "ram_free": free,
                "comfyui_version": __version__,
                "required_frontend_version": "none",
                "installed_templates_version": "none",
                "required_templates_version": "none",
                "python_version": sys.version,
                "pytorch_version": "none",
                "embedded_python": python_folder == "python_embeded",
                "argv": sys.argv,
            }
            device = {
                "name": "cpu",
                "type": "cpu",
                "index": None,
                "vram_total": total,
                "vram_free": free,
                "torch_vram_total": total,
                "torch_vram_free": free,
            }
            return json_response({"system": system, "devices": [device]})

    def _add_file_routes(self) -> None:
        routes = self.routes

        @routes.get("/embeddings")
        async def get_embeddings(request: Request) -> Response:
            names = folder_paths.get_filename_list("embeddings")
            return json_response([os.path.splitext(name)[0] for name in names])

        @routes.get("/models")
        async def list_model_types(request: Request) -> Response:
            return json_response(list(folder_paths.folder_names_and_paths))

        @routes.get("/models/{folder}")
        async def get_models(request: Request) -> Response:
            folder = request.match_info["folder"]
            if folder not in folder_paths.folder_names_and_paths:
                return Response(status=404)
            return json_response(folder_paths.get_filename_list(folder))

        @routes.get("/view_metadata/{folder_name}")
        async def view_metadata(request: Request) -> Response:
            name = request.query.get("filename", "")
            path = folder_paths.get_full_path(request.match_info["folder_name"], name)
            if not name.endswith(".safetensors") or path is None:
                return Response(status=404)
            header = comfy.utils.safetensors_header(path, max_size=1024 * 1024)
            metadata = json.loads(header).get("__metadata__") if header else None
            return Response(status=404) if metadata is None else json_response(metadata)

        @routes.get("/view")
        async def view_image(request: Request) -> Response:
            return self._view(request)

        @routes.post("/upload/image")
        async def upload_image(request: Request) -> Response:
            return self._upload(request)

    def _view(self, request: Request) -> Response:
        """A file of the output, input or temp folder; nothing outside them."""
        if "filename" not in request.query:
            return Response(status=404)
        name, folder = folder_paths.annotated_filepath(request.query["filename"])
        if not name or name.startswith("/") or ".." in name:
            return Response(status=400)
        if folder is None:
            folder = folder_paths.get_directory_by_type(request.query.get("type", "output"))
        if folder is None:
            return Response(status=400)
        if "subfolder" in request.query:
            subfolder = os.path.join(folder, request.query["subfolder"])
            if not is_inside(folder, subfolder):
                return Response(status=403)
            folder = subfolder
        name = os.path.basename(name)
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            return Response(status=404)
        headers = {"Content-Disposition": f'filename="{name}"'}
        channel = request.query.get("channel")
        if channel in ("rgb", "a"):
            with open(path, "rb") as stream:
                body = _one_channel(png.decode(stream.read()), channel)
            return Response(body, 200, "image/png", headers)
        kind = http.content_type_of(name)
        if kind.split(";")[0] in NEVER_SHOWN:
            kind = "application/octet-stream"
        return http.file_response(request, path, {**headers, "Content-Type": kind})

    def _upload(self, request: Request) -> Response:
        """Save a file from a form; a different one of the same name gets a number."""
        form = multipart.parse(request.headers.get("content-type", ""), request.body)
        text = {name: field.value.decode("utf-8", "replace") for name, field in form.items()}
        kind = text.get("type", "input")
        folder = folder_paths.get_directory_by_type(kind)
        if folder is None:
            raise KeyError(f"no such folder: {kind}")
        image = form.get("image")
        if image is None or not image.filename:
            return Response(status=400)
        subfolder, name = text.get("subfolder", ""), image.filename
        target = os.path.join(folder, os.path.normpath(subfolder))
        path = os.path.abspath(os.path.join(target, name))
        if not is_inside(folder, path):
            return Response(status=400)
        os.makedirs(target, exist_ok=True)
        stem, ending = os.path.splitext(name)
        number = 1
        while text.get("overwrite") not in ("true", "1") and os.path.exists(path):
            if _digest_of(path) == hashlib.sha256(image.value).digest():
                break
            name = f"{stem} ({number}){ending}"
            path = os.path.join(target, name)
            number += 1
        with open(path, "wb") as stream:
            stream.write(image.value)
        return json_response({"name": name, "subfolder": subfolder, "type": kind})

    def _add_node_routes(self) -> None:
        routes = self.routes

        @routes.get("/object_info")
        async def get_object_info(request: Request) -> Response:
            found = {}
            for name in nodes.NODE_CLASS_MAPPINGS:
                try:
                    found[name] = node_info(name)
                except Exception:
                    logging.error(
                        "[ERROR] An error occurred while retrieving information for the "
                        f"'{name}' node."
                    )
                    logging.error(traceback.format_exc())
            return json_response(found)

        @routes.get("/object_info/{node_class}")
        async def get_object_info_node(request: Request) -> Response:
            name = request.match_info["node_class"]
            found = {name: node_info(name)} if name in nodes.NODE_CLASS_MAPPINGS else {}
            return json_response(found)

    def _add_prompt_routes(self) -> None:
        routes, queue = self.routes, self.prompt_queue

        @routes.get("/prompt")
        async def get_prompt(request: Request) -> Response:
            return json_response(self.get_queue_info())

        @routes.post("/prompt")
        async def post_prompt(request: Request) -> Response:
            logging.info("got prompt")
            return self._queue_prompt(self.trigger_on_prompt(await request.json()))

        @routes.get("/queue")
        async def get_queue(request: Request) -> Response:
            running, pending = queue.get_current_queue()
            return json_response({"queue_running": running, "queue_pending": pending})

        @routes.post("/queue")
        async def post_queue(request: Request) -> Response:
            data = await request.json()
            if data.get("clear"):
                queue.wipe_queue()
            for prompt_id in data.get("delete", []):
                queue.delete_queue_item(prompt_id)
            return Response()

        @routes.post("/interrupt")
        async def post_interrupt(request: Request) -> Response:
            try:
                data = await request.json()
            except json.JSONDecodeError:
                data = {}
            prompt_id = data.get("prompt_id")
            if not prompt_id:
                logging.info("Global interrupt (no prompt_id specified)")
                nodes.interrupt_processing()
            elif any(item[1] == prompt_id for item in queue.get_current_queue()[0]):
                logging.info(f"Interrupting prompt {prompt_id}")
                nodes.interrupt_processing()
            else:
                logging.info(f"Prompt {prompt_id} is not currently running, skipping interrupt")
            return Response()

        @routes.post("/free")
        async def post_free(request: Request) -> Response:
            data = await request.json()
            for name in ("unload_models", "free_memory"):
                if data.get(name):
                    queue.set_flag(name, data[name])
            return Response()

        @routes.get("/history")
        async def get_history(request: Request) -> Response:
            limit = request.query.get("max_items")
            offset = int(request.query.get("offset", -1))
            return json_response(
                queue.get_history(max_items=None if limit is None else int(limit), offset=offset)
            )

        @routes.get("/history/{prompt_id}")
        async def get_history_of(request: Request) -> Response:
            return json_response(queue.get_history(request.match_info["prompt_id"]))

        @routes.post("/history")
        async def post_history(request: Request) -> Response:
            data = await request.json()
            if data.get("clear"):
                queue.wipe_history()
            for prompt_id in data.get("delete", []):
                queue.delete_history_item(prompt_id)
            return Response()

    def _queue_prompt(self, data: dict[str, Any]) -> Response:
        """Check a prompt and queue it, or say what is wrong with it."""
        if "number" in data:
            number = float(data["number"])
        else:
            number = -self.number if data.get("front") else self.number
            self.number += 1
        if "prompt" not in data:
            message = "No prompt provided"
            error = {"type": "no_prompt", "message": message, "details": message, "extra_info": {}}
            return json_response({"error": error, "node_errors": {}}, status=400)
        prompt = data["prompt"]
        prompt_id = str(data.get("prompt_id", uuid.uuid4()))
        valid, problem, outputs, node_errors = execution.validate_prompt(
            prompt, data.get("partial_execution_targets")
        )
        extra_data = data.get("extra_data", {})
        if "client_id" in data:
            extra_data["client_id"] = data["client_id"]
        if not valid:
            logging.warning(f"invalid prompt: {problem}")
            return json_response({"error": problem, "node_errors": node_errors}, status=400)
        self.prompt_queue.put((number, prompt_id, prompt, extra_data, outputs))
        answer = {"prompt_id": prompt_id, "number": number, "node_errors": node_errors}
        return json_response(answer)

    # Requests

    async def handle(self, request: Request) -> Response | None:
        """Answer one request, with the headers that every answer of its kind has."""
        if args.enable_cors_header is None and is_foreign(request):
            logging.warning(
                "WARNING: request with non matching host and origin "
                f"{request.headers['host']} != {request.headers['origin']}, returning 403"
            )
            return Response(status=403)
        if request.method == "OPTIONS":
            response: Response | None = Response()
        else:
            response = await self._dispatch(request)
        if response is None:
            return None
        if args.enable_cors_header is not None:
            response.headers["Access-Control-Allow-Origin"] = args.enable_cors_header
            response.headers["Access-Control-Allow-Methods"] = "POST, GET, DELETE, PUT, OPTIONS"
            response.headers["Access-Control-Allow-Headers"] = "Content-Type, Authorization"
            response.headers["Access-Control-Allow-Credentials"] = "true"
        if request.path.endswith((".js", ".css")):
            response.headers.setdefault("Cache-Control", "no-cache")
        elif request.path.lower().endswith(IMAGES) and response.status < 300:
            response.headers.setdefault("Cache-Control", "public, max-age=86400")
        return response

    async def _dispatch(self, request: Request) -> Response | None:
        handler, request.match_info, allowed = self.routes.find(request.method, request.raw_path)
        if handler is not None:
            return await handler(request)
        if request.method not in ("GET", "HEAD"):  # files can be asked for under every path
            raise HTTPError(405, {"Allow": ",".join(sorted(allowed | {"GET", "HEAD"}))})
        if allowed:
            raise HTTPError(405, {"Allow": ",".join(sorted(allowed))})
        for name, folder in nodes.EXTENSION_WEB_DIRS.items():
            prefix = f"/extensions/{name}/"
            if request.path.startswith(prefix):
                return http.static_response(request, folder, request.path[len(prefix) :])
        return http.static_response(request, self.web_root, request.path)

    # The websocket

    def features(self) -> dict[str, Any]:
        """What this server can do, told to a client that tells what it can."""
        size = args.max_upload_size * 1024 * 1024
        return {"supports_preview_metadata": True, "max_upload_size": size}

    def _supports_preview_metadata(self, client_id: str | None) -> bool:
        flags = self.sockets_metadata.get(client_id or "", {}).get("feature_flags", {})
        return flags.get("supports_preview_metadata") is True

    async def _serve_socket(self, ws: WebSocket, client_id: str) -> None:
        """Keep a client's connection until it ends; a second one of its name replaces it."""
        client_id = client_id or uuid.uuid4().hex
        self.sockets[client_id] = ws
        self.sockets_metadata[client_id] = {"feature_flags": {}}
        try:
            status = {"status": self.get_queue_info(), "sid": client_id}
            await self.send("status", status, client_id)
            if self.client_id == client_id and self.last_node_id is not None:
                await self.send("executing", {"node": self.last_node_id}, client_id)
            first = True
            while (message := await ws.receive()) is not None:
                if isinstance(message, str):
                    first = await self._received(message, client_id, first)
        except ConnectionError as error:
            logging.warning(f"send error: {error}")
        finally:
            if self.sockets.get(client_id) is ws:
                del self.sockets[client_id]
                self.sockets_metadata.pop(client_id, None)

    async def _received(self, message: str, client_id: str, first: bool) -> bool:
        """Read what a client says; only the flags in its first message mean something."""
        try:
            data = json.loads(message)
            if first and data.get("type") == "feature_flags":
                self.sockets_metadata[client_id]["feature_flags"] = data.get("data", {})
                await self.send("feature_flags", self.features(), client_id)
        except json.JSONDecodeError:
            logging.warning(f"Invalid JSON received from client {client_id}: {message}")
            return first
        except AttributeError as error:
            logging.error(f"Error processing WebSocket message: {error}")
            return first
        return False

    # Messages

    async def send(self, event: Any, data: Any, sid: str | None = None) -> None:
        """Send to one client, or to all; binary messages begin with the number of their kind."""
        if event == BinaryEventTypes.UNENCODED_PREVIEW_IMAGE:
            event, data = BinaryEventTypes.PREVIEW_IMAGE, _preview(data)
        elif event == BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA:
            data = _preview_with_metadata(*data)
        message: str | bytes
        if isinstance(data, bytes | bytearray):
            message = struct.pack(">I", event) + data
        else:
            message = json.dumps({"type": event, "data": data})
        targets = list(self.sockets) if sid is None else [sid]
        for target in targets:
            if target in self.sockets:
                try:
                    await self.sockets[target].send(message)
                except ConnectionError as error:
                    logging.warning(f"send error: {error}")

    def send_sync(self, event: Any, data: Any, sid: str | None = None) -> None:
        """Send from another thread; messages go out in the order of these calls."""
        self.loop.call_soon_threadsafe(self.messages.put_nowait, (event, data, sid))

    async def publish_loop(self) -> None:
        """Send what other threads have to say."""
        while True:
            message = await self.messages.get()
            try:
                await self.send(*message)
            except Exception:  # one message that is no JSON must not silence the rest
                logging.error(traceback.format_exc())

    def progress(self, value: int, total: int, preview: Any, node_id: str | None) -> None:
        """Tell a client how far a node is, in the old message; the new one has been sent."""
        data = {"value": value, "max": total, "prompt_id": self.last_prompt_id, "node": node_id}
        self.send_sync("progress", data, self.client_id)
        if preview is None:
            return
        if self._supports_preview_metadata(self.client_id):
            names = ("node_id", "display_node_id", "real_node_id")
            place = {**dict.fromkeys(names, node_id), "prompt_id": self.last_prompt_id}
            kind = BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA
            self.send_sync(kind, (preview, {**place, "parent_node_id": None}), self.client_id)
        else:
            self.send_sync(BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, preview, self.client_id)

    def queue_updated(self) -> None:
        """Tell everybody how many prompts are left."""
        self.send_sync("status", {"status": self.get_queue_info()})

    def get_queue_info(self) -> dict[str, Any]:
        """How many prompts are left."""
        return {"exec_info": {"queue_remaining": self.prompt_queue.get_tasks_remaining()}}

    def send_progress_text(self, text: bytes | str, node_id: str, sid: str | None = None) -> None:
        """Show a text on a node."""
        content = text.encode() if isinstance(text, str) else bytes(text)
        node = str(node_id).encode()
        message = struct.pack(">I", len(node)) + node + content
        self.send_sync(BinaryEventTypes.TEXT, message, sid)

    def add_on_prompt_handler(self, handler: Callable[[Any], Any]) -> None:
        """Let a custom node change every prompt before it is checked."""
        self.on_prompt_handlers.append(handler)

    def trigger_on_prompt(self, data: Any) -> Any:
        """Let them."""
        for handler in self.on_prompt_handlers:
            try:
                data = handler(data)
            except Exception:
                logging.warning("[ERROR] An error occurred during the on_prompt_handler processing")
                logging.warning(traceback.format_exc())
        return data

    async def start_multi_address(
        self,
        addresses: list[tuple[str, int]],
        call_on_start: Callable[[str, str, int], None] | None = None,
        verbose: bool = True,
    ) -> None:
        """Listen on every address; OSError if a port is taken."""
        limit = round(args.max_upload_size * 1024 * 1024)
        listener = http.Server(self.handle, limit)
        if args.tls_keyfile or args.tls_certfile:
            raise SystemExit("This core speaks no TLS: leave --tls-keyfile and --tls-certfile out.")
        if verbose:
            logging.info("Starting server\n")
        for address, port in addresses:
            await listener.start(address, port)
            if verbose:
                shown = f"[{address}]" if ":" in address else address
                logging.info(f"To see the GUI go to: http://{shown}:{port}")
        if call_on_start is not None:
            call_on_start("http", *addresses[0])


def node_info(name: str) -> dict[str, Any]:
    """A node as /object_info describes it."""
    node = nodes.NODE_CLASS_MAPPINGS[name]
    inputs = node.INPUT_TYPES()
    info = {
        "input": inputs,
        "input_order": {category: list(entries) for category, entries in inputs.items()},
        "output": node.RETURN_TYPES,
        "output_is_list": getattr(node, "OUTPUT_IS_LIST", [False] * len(node.RETURN_TYPES)),
        "output_name": getattr(node, "RETURN_NAMES", node.RETURN_TYPES),
        "name": name,
        "display_name": nodes.NODE_DISPLAY_NAME_MAPPINGS.get(name, name),
        "description": getattr(node, "DESCRIPTION", ""),
        "python_module": getattr(node, "RELATIVE_PYTHON_MODULE", "nodes"),
        "category": getattr(node, "CATEGORY", "sd"),
        "output_node": bool(getattr(node, "OUTPUT_NODE", False)),
    }
    if hasattr(node, "OUTPUT_TOOLTIPS"):
        info["output_tooltips"] = node.OUTPUT_TOOLTIPS
    if getattr(node, "DEPRECATED", False):
        info["deprecated"] = True
    if getattr(node, "EXPERIMENTAL", False):
        info["experimental"] = True
    if hasattr(node, "API_NODE"):
        info["api_node"] = node.API_NODE
    return info


def _digest_of(path: str) -> bytes:
    with open(path, "rb") as stream:
        return hashlib.sha256(stream.read()).digest()


def _one_channel(image: png.Png, channel: str) -> bytes:
    """An image's colours alone, or its alpha alone as the alpha of black."""
    pixels = png.to_rgba(image)
    if channel == "a":
        alpha = bytearray(len(pixels))
        alpha[3::4] = pixels[3::4]
        return png.encode(image.width, image.height, 4, bytes(alpha))
    colors = bytearray(image.width * image.height * 3)
    for index in range(3):
        colors[index::3] = pixels[index::4]
    return png.encode(image.width, image.height, 3, bytes(colors))


def _preview(preview: tuple[str, Any, int | None]) -> bytes:
    """A preview as old clients get it: 2 for PNG, then the file."""
    return struct.pack(">I", 2) + nodes.frame_png(preview[1], level=1)


def _preview_with_metadata(preview: tuple[str, Any, int | None], metadata: Any) -> bytes:
    """A preview as new clients get it: the length of its description, that, the file."""
    text = json.dumps({**metadata, "image_type": "image/png"}).encode()
    return struct.pack(">I", len(text)) + text + nodes.frame_png(preview[1], level=1)
