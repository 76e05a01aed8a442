"""Headless Chromium, driven through its debugging pipe: no library between."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile

CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)


# Text in drawings with a contrast below 4.5 (WCAG 2.1, 1.4.3).
_PALE = """(() => {
  const parts = color => color.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = color => {
    const [r, g, b] = parts(color).map(c => c / 255)
      .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = light(getComputedStyle(document.documentElement).backgroundColor);
  return [...document.querySelectorAll('svg text')].filter(text => {
    const own = light(getComputedStyle(text).fill);
    return (Math.max(own, behind) + 0.05) / (Math.min(own, behind) + 0.05) < 4.5;
  }).map(text => `${text.getAttribute('class')}: ${text.textContent}`);
})()"""


class Browser:
    """A browser with one page; every message is kept in `heard`."""

    def __init__(self, stack):
        profile = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        to_browser, our_end = os.pipe()
        our_other_end, from_browser = os.pipe()
        # The browser reads from 3 and writes to 4; the shell puts them there.
        command = (
            f"exec {CHROMIUM} --headless=new --no-sandbox --disable-gpu --remote-debugging-pipe "
            f"--user-data-dir={profile} --no-first-run --disable-extensions --hide-scrollbars "
            f"about:blank 3<&{to_browser} 4>&{from_browser}"
        )
        self.process = subprocess.Popen(
            ["bash", "-c", command],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(self.end)
        os.close(to_browser)
        os.close(from_browser)
        self._out, self._in = our_end, our_other_end
        self._buffer, self._number, self.heard = b"", 0, []
        targets = self.call("Target.getTargets", session=None)["targetInfos"]
        target = next(item["targetId"] for item in targets if item["type"] == "page")
        attached = self.call("Target.attachToTarget", session=None, targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def end(self):
        with contextlib.suppress(Exception):
            self.call("Browser.close", session=None)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._out)
        os.close(self._in)

    session = None

    def call(self, method, session="", **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session == "" and self.session:
            message["sessionId"] = self.session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._number:
                assert "error" not in found, found
                return found["result"]
            self.heard.append(found)

    def _next(self):
        while b"\0" not in self._buffer:
            part = os.read(self._in, 1 << 16)
            assert part, "the browser ended"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def open(self, path, width=1400, height=1000, dark=False, media=""):
        """Open a file from disk; what it complains of and asks for is in `heard` afterwards."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme, media=media)
        self.heard.clear()
        self.call("Page.navigate", url=f"file://{path}")
        while not any(item.get("method") == "Page.loadEventFired" for item in self.heard):
            self.heard.append(self._next())

    def eval(self, expression):
        """The value of an expression in the page."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def barriers(self, axe):
        """What axe-core finds on the page that keeps people out, and text of too little contrast.

        Of text in drawings axe cannot tell the contrast; behind it is what is behind the page.
        """
        self.eval(f"{axe};0")
        found = self.eval(
            "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map("
            "v => v.id + ': ' + v.nodes.map(n => n.html.slice(0, 100)).join()))"
        )
        return found + self.eval(_PALE)

    def key(self, name):
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=name,
                code=name,
                **({"text": "\r", "windowsVirtualKeyCode": 13} if name == "Enter" else {}),
            )

    def drag(self, start, end):
        """Press the mouse at one point and let it go at another."""
        for kind, (x, y) in (
            ("mousePressed", start),
            ("mouseMoved", end),
            ("mouseReleased", end),
        ):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def move(self, x, y):
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, path, full=True):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        found = self.call(
            "Page.captureScreenshot",
            format="png",
            captureBeyondViewport=full,
            **({"clip": clip} if full else {}),
        )
        path.write_bytes(base64.b64decode(found["data"]))

    def complaints(self):
        """Errors and warnings of the console, exceptions, and violations of the policy."""
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [item["params"] for item in self.heard if item.get("method") in kinds]

    def requests(self):
        """Addresses that were asked for."""
        sent = [
            item["params"]
            for item in self.heard
            if item.get("method") == "Network.requestWillBeSent"
        ]
        return [item["request"]["url"] for item in sent]


@contextlib.contextmanager
def browser():
    with contextlib.ExitStack() as stack:
        yield Browser(stack)
