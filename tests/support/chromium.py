"""A headless Chromium, spoken to by its DevTools protocol: what a page does, shows and asks for."""

from __future__ import annotations

import asyncio
import base64
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

ANSWER_S = 60.0


def chromium_binary() -> str:
    """Its path; the test is skipped where there is none."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("chromium is not installed (Debian: chromium)")
    return found


class Tab:
    """One open page. Everything that it asks for or complains of is kept."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._last_id = socket, 0
        self.requested: list[str] = []
        """Addresses, the page's own first."""
        self.complaints: list[str] = []
        """Errors, console messages, and what the page's policy blocked."""
        self._is_loaded = False

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command's result; events that come before it are kept."""
        self._last_id += 1
        await self._socket.send_json({"id": self._last_id, "method": method, "params": params})
        while True:
            said = await self._socket.receive_json(timeout=ANSWER_S)
            if said.get("id") == self._last_id:
                assert "error" not in said, said
                return dict(said["result"])
            self._keep(said)

    async def open(self, url: str) -> None:
        """Until all of it is there."""
        for domain in ("Page", "Network", "Log", "Runtime"):
            await self.call(f"{domain}.enable")
        self._is_loaded = False
        await self.call("Page.navigate", url=url)
        async with asyncio.timeout(ANSWER_S):
            while not self._is_loaded:
                self._keep(await self._socket.receive_json(timeout=ANSWER_S))

    async def show(self, *, width: int, is_dark: bool = False) -> None:
        """A window of this width, light or dark."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def ask(self, script: str) -> Any:
        """What an expression gives, as plain data."""
        said = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    async def picture(self, box: dict[str, float]) -> bytes:
        """A PNG of a part of the page: `x`, `y`, `width`, `height`."""
        said = await self.call(
            "Page.captureScreenshot", clip={**box, "scale": 1}, captureBeyondViewport=True
        )
        return base64.b64decode(said["data"])

    def _keep(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif method in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.complaints.append(str(params))
        elif method == "Page.javascriptDialogOpening":
            self.complaints.append(f"dialog: {params}")
        elif method == "Page.loadEventFired":
            self._is_loaded = True


@asynccontextmanager
async def open_tab(folder: Path) -> AsyncIterator[Tab]:
    """A tab of a Chromium of its own, which knows no host; stopped at the end."""
    process = subprocess.Popen(
        [
            chromium_binary(),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--remote-debugging-port=0",
            f"--user-data-dir={folder / 'profile'}",
            "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = await _port(process, folder / "profile" / "DevToolsActivePort")
        async with aiohttp.ClientSession() as http:
            async with http.get(f"http://127.0.0.1:{port}/json", timeout=_TIMEOUT) as answer:
                tabs = await answer.json()
            address = next(t["webSocketDebuggerUrl"] for t in tabs if t["type"] == "page")
            async with http.ws_connect(address, max_msg_size=0) as socket:
                yield Tab(socket)
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=20)


_TIMEOUT = aiohttp.ClientTimeout(total=ANSWER_S)


async def _port(process: subprocess.Popen[bytes], file: Path) -> int:
    async with asyncio.timeout(ANSWER_S):
        while not (file.exists() and "\n" in file.read_text()):
            assert process.poll() is None, f"chromium ended with {process.returncode}"
            await asyncio.sleep(0.05)
    return int(file.read_text().splitlines()[0])
