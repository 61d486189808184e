"""The user's folder and settings."""

import json
import logging
import os
from typing import Any

import folder_paths

from app.http import Request, Response, Routes, json_response, static_response


class UserManager:
    """One user, `default`, whose folder appears when a page first asks for something."""

    def __init__(self) -> None:
        folder = folder_paths.get_user_directory()
        if not os.path.exists(folder):
            os.makedirs(folder)
            logging.info(f"User settings are kept in {folder}")

    def _settings(self) -> tuple[str, dict[str, Any]]:
        folder = os.path.join(folder_paths.get_user_directory(), "default")
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "comfy.settings.json")
        if not os.path.isfile(path):
            return path, {}
        try:
            with open(path, encoding="utf-8") as stream:
                return path, dict(json.load(stream))
        except ValueError:
            logging.error(f"The user settings file is corrupted: {path}")
            return path, {}

    def add_routes(self, routes: Routes) -> None:
        """What a page asks about its user."""

        @routes.get("/users")
        async def get_users(request: Request) -> Response:
            folder = os.path.join(folder_paths.get_user_directory(), "default")
            return json_response({"storage": "server", "migrated": os.path.exists(folder)})

        @routes.get("/userdata/{file}")
        async def get_file(request: Request) -> Response:
            folder = os.path.join(folder_paths.get_user_directory(), "default")
            answer = static_response(request, folder, request.match_info["file"])
            return answer if answer.status != 404 else Response(status=404)

        @routes.get("/settings")
        async def get_settings(request: Request) -> Response:
            return json_response(self._settings()[1])

        @routes.get("/settings/{id}")
        async def get_setting(request: Request) -> Response:
            return json_response(self._settings()[1].get(request.match_info["id"]))

        @routes.post("/settings")
        async def post_settings(request: Request) -> Response:
            self._save(await request.json())
            return Response()

        @routes.post("/settings/{id}")
        async def post_setting(request: Request) -> Response:
            self._save({request.match_info["id"]: await request.json()})
            return Response()

    def _save(self, changes: dict[str, Any]) -> None:
        path, settings = self._settings()
        with open(path, "w", encoding="utf-8") as stream:
            json.dump({**settings, **changes}, stream, indent=4)
