"""Headless Chromium: what it complains about in a page, and whether the page's figures fit."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
_FLAGS += ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars")
_FLAGS += ("--enable-logging=stderr", "--window-size=1400,900", "--virtual-time-budget=20000")

# Runs inside a copy of the page without its policy: text outside its drawing, text over text, a page wider than
# its window (scrolling containers aside), text too small to read, matrices and seeds that a wide window cuts.
_MEASURE = """<script>
const out = [], wide = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth > wide) out.push("page of " + document.documentElement.scrollWidth);
for (const one of document.querySelectorAll("details")) one.open = true;
if (document.documentElement.scrollWidth > wide) out.push("open page of " + document.documentElement.scrollWidth);
for (const svg of document.querySelectorAll("svg")) {
  const all = svg.getBoundingClientRect(), name = " in " + svg.querySelector("title").textContent;
  if (!all.width) continue;
  if (12 * all.width / svg.viewBox.baseVal.width < 9) out.push("small text" + name);
  const texts = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
  texts.forEach(([text, a], i) => {
    if (a.left < all.left - 1 || a.right > all.right + 1 || a.top < all.top - 1 || a.bottom > all.bottom + 1)
      out.push("clipped: " + text + name);
    for (const [other, b] of texts.slice(0, i))
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
          Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4)
        out.push("overlap: " + text + " / " + other + name);
  });
  for (const group of svg.querySelectorAll("g:has(> rect.box)")) {
    const box = [...group.querySelectorAll("rect.box")].pop().getBoundingClientRect();
    for (const text of group.querySelectorAll("text")) {
      const a = text.getBoundingClientRect();
      if (a.right > box.right - 2 || a.top < box.top || a.bottom > box.bottom)
        out.push("out of box: " + text.textContent);
    }
  }
}
if (wide > 1200) for (const box of document.querySelectorAll(".even .scroll, .tiles .scroll"))
  if (box.scrollWidth > box.clientWidth + 1) out.push("cut table: " + box.getAttribute("aria-label"));
parent.postMessage([wide, document.querySelectorAll("svg text").length, out], "*");
</script>"""
_COLLECT = """<!doctype html><meta charset="utf-8"><body><script>
const all = [];
addEventListener("message", e => { all.push(e.data); document.body.dataset.out = JSON.stringify(all); });
</script>"""


def visit(page: Path) -> tuple[str, list[str]]:
    """The page's DOM after loading, and what the browser's console said."""
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [str(CHROMIUM), *_FLAGS, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line or "Content Security" in line]


def measure(page: str, widths: tuple[int, ...], folder: Path) -> dict[int, tuple[int, list[str]]]:
    """Per window width: how many texts the figures have, and what does not fit."""
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    bare = bare.replace("</body>", _MEASURE + "</body>")
    frames = "".join(f'<iframe width="{w}" height="900" srcdoc="{html.escape(bare)}"></iframe>' for w in widths)
    probe = folder / "probe.html"
    probe.write_text(_COLLECT + frames, encoding="utf-8")
    found = re.search(r'data-out="([^"]*)"', visit(probe)[0])
    answers: list[Any] = json.loads(html.unescape(found.group(1))) if found else []
    return {width: (texts, out) for width, texts, out in answers}
