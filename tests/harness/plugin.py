"""A volume plug-in, as somebody might write one: a server on a socket that keeps volumes in a directory."""

from __future__ import annotations

import json
import shutil
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

SOCKETS = Path("/run/docker/plugins")
"""Where all daemons of a machine look; tests hide it, in a namespace, behind a directory of their own."""

MISSING = "404 page not found"
"""The answer to a method that there is not."""


class VolumePlugin:
    """`name` is the driver's; `asked` is what it was asked for, `broken` what it says of some methods."""

    failure_status = 500

    def __init__(self, name: str, root: Path, socket: Path) -> None:
        self.name = name
        self.root = root
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.broken: dict[str, str] = {}
        self.held: dict[str, threading.Event] = {}
        """Methods that are not answered before their time."""
        self.socket = socket
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        plugin = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                method = self.path.lstrip("/")
                answer = plugin.answer(method, json.loads(body or b"{}"))
                content = json.dumps(answer).encode()
                failed = 404 if answer.get("Err") == MISSING else plugin.failure_status
                self.send_response(failed if answer.get("Err") else 200)
                self.send_header("Content-Type", "application/vnd.docker.plugins.v1.2+json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def address_string(self) -> str:
                return "engine"

        self.server = socketserver.ThreadingUnixStreamServer(str(self.socket), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, method: str, given: dict[str, Any]) -> dict[str, Any]:
        """Be the plug-in."""
        if method == "Plugin.Activate":
            return {"Implements": ["VolumeDriver"]}
        self.asked.append((method, given))
        if method in self.held:
            self.held[method].wait(60)
        if method in self.broken:
            return {"Err": self.broken[method]}
        name = given.get("Name", "")
        where = self.root / name
        described = {"Name": name, "Mountpoint": str(where), "Status": {"made by": "test"}}
        match method.partition(".")[2]:
            case "Capabilities":
                return {"Capabilities": {"Scope": "global"}}
            case "Create":
                where.mkdir(parents=True, exist_ok=True)
            case "Remove":
                shutil.rmtree(where)
            case "Mount" | "Path":
                return {"Mountpoint": str(where)}
            case "Get":
                return {"Volume": described} if where.is_dir() else {"Err": f"no such volume: {name}"}
            case "List":
                return {"Volumes": [{"Name": each.name} for each in self.root.iterdir()]}
        return {}

    def methods(self, *of: str) -> list[str]:
        """Which of these were called, in order."""
        called = [method.partition(".")[2] for method, _ in self.asked]
        return [method for method in called if method in of]

    def close(self) -> None:
        """End it, and remove its socket."""
        self.server.shutdown()
        self.server.server_close()
        self.socket.unlink(missing_ok=True)
