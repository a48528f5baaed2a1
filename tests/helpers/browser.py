"""Headless browser without network access; tests are skipped where none is installed."""

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_NAMES = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
BROWSER = next(filter(None, _NAMES), None)
_QUIET = "disable-quic no-first-run disable-background-networking disable-component-update"
_FLAGS = [f"--{flag}" for flag in f"headless no-sandbox disable-gpu {_QUIET} disable-sync".split()]
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND"
PATIENCE_S = 60
_TWO_FRAMES = (
    "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))).then(() => 0)"
)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")


def browse(page: Path, width: int, *arguments: str) -> str:
    """Show a page in a window so wide; what the browser prints."""
    assert BROWSER is not None
    own = [f"--user-data-dir={page.parent / '.browser'}", f"--window-size={width},2000", OFFLINE]
    command = [BROWSER, *_FLAGS, *own, *arguments, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


class Tab:
    """A page that a person uses: real clicks, keys, files and downloads, by Chromium's own protocol
    (chromedevtools.github.io/devtools-protocol) over two pipes."""

    def __init__(self, source: int, sink: int) -> None:
        self._source, self._sink, self._rest, self._number = source, sink, b"", 0
        self._session: dict[str, str] = {}
        self._loaded = False
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        found = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": found["sessionId"]}
        self.ask("Page.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command; its answer."""
        self._number += 1
        asked = {"id": self._number, "method": method, "params": params, **self._session}
        os.write(self._sink, json.dumps(asked).encode() + b"\0")
        while (found := self._next()).get("id") != self._number:
            pass
        assert "error" not in found, found
        return dict(found["result"])

    def open(self, page: Path) -> None:
        self._load("Page.navigate", url=page.as_uri())

    def reload(self, until: Callable[[], bool]) -> None:
        """Reload until something holds.

        A reloaded page may be run by another process, which a busy browser may give the local
        storage of a moment before.
        """
        self._load("Page.reload")
        end = time.monotonic() + PATIENCE_S
        while not until():
            assert time.monotonic() < end, "the page never came to the wanted state"
            time.sleep(0.5)  # reloading at once would keep the browser busy
            self._load("Page.reload")

    def _load(self, method: str, **params: Any) -> None:
        self._loaded = False
        self.ask(method, **params)
        while not self._loaded:
            self._next()
        self.until("document.readyState == 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression on the page."""
        found = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE_S
        while not self.run(script):
            assert time.monotonic() < end, script

    def click(self, element: str, share: float = 0.5) -> None:
        """Press the mouse on an element, at a share of its width; returns when the page has it."""
        self.run(f"window.aim = {element}; aim.scrollIntoView({{block: 'center'}})")
        self.run("hit = null; aim.addEventListener('click', () => { hit = aim; }, {once: true}); 0")
        self.run(_TWO_FRAMES)  # a page that is not painted yet receives no events
        box = json.loads(self.run("JSON.stringify(aim.getBoundingClientRect())"))
        place = {"x": box["x"] + share * box["width"], "y": box["y"] + box["height"] / 2}
        self.until("aim.contains(document.elementFromPoint({x}, {y}))".format(**place))
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)
        self.until("hit === aim")

    def choose_file(self, selector: str, path: Path) -> None:
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.ask("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._source], [], [], PATIENCE_S)[0], "the browser is silent"
            more = os.read(self._source, 2**16)
            assert more, "the browser has ended"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        found = dict(json.loads(message))
        self._loaded |= found.get("method") == "Page.loadEventFired"
        return found


@contextmanager
def opened_tab(folder: Path) -> Iterator[Tab]:
    """A tab of a new browser, whose profile lies in a folder and whose downloads come there."""
    assert BROWSER is not None
    (to_browser, sink), (source, from_browser) = os.pipe(), os.pipe()
    own = [f"--user-data-dir={folder / '.browser'}", OFFLINE, "--remote-debugging-pipe"]

    def join() -> None:  # it reads from 3 and writes to 4
        spare = fcntl.fcntl(from_browser, fcntl.F_DUPFD, 10)
        os.dup2(to_browser, 3)
        os.dup2(spare, 4)

    process = subprocess.Popen(
        [BROWSER, *_FLAGS, *own, "--window-size=1200,900"],
        preexec_fn=join,
        pass_fds=(3, 4),
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser)
    os.close(from_browser)
    try:
        tab = Tab(source, sink)
        tab.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        yield tab
        tab.ask("Browser.close")  # what it keeps is on the disk then
        process.wait(PATIENCE_S)
    finally:
        process.kill()
        process.wait()
        os.close(source)
        os.close(sink)
