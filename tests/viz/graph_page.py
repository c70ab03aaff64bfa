"""A page with graphs as the report has them, and what a reader sees of one."""

import base64
import hashlib
import json

from dlb_core.viz.report.graph_page import graph_script, graph_style
from viz.browser import opened

START = """
const documents = JSON.parse(document.getElementById("data").textContent);
window.took = documents.map((graph, place) => {
  const start = performance.now();
  dlbGraph(document.getElementById(`graph-${place}`), graph);
  document.body.getBoundingClientRect();
  return performance.now() - start;
});
"""


def page(*documents):
    """A page as the report is one: everything inside, under a policy that lets nothing else run."""

    def hashed(source):
        return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"

    script, style = f"{graph_script()}\n{START}", graph_style()
    policy = f"default-src 'none'; script-src {hashed(script)}; style-src {hashed(style)}; img-src data:"
    places = "".join(f'<div id="graph-{place}"></div>' for place in range(len(documents)))
    data = json.dumps(documents, allow_nan=False).replace("<", "\\u003c")
    return (
        f'<!DOCTYPE html><html><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
        f'content="{policy}"><link rel="icon" href="data:,"><style>{style}</style></head><body>{places}'
        f'<script type="application/json" id="data">{data}</script><script>{script}</script></body></html>'
    )


class Shown:
    """A page in a browser, and what a test asks of the graph on it."""

    def __init__(self, driver, path, *documents):
        path.write_text(page(*documents), encoding="utf-8")
        opened(driver, path)
        self.driver = driver

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        return self.driver.find_element("css selector", selector)

    def run(self, script, *arguments):
        return self.driver.execute_script(f"return {script}", *arguments)

    def texts(self, selector):
        return self.run("[...document.querySelectorAll(arguments[0])].map(each => each.textContent)", selector)

    def names(self, kind=".box"):
        return self.texts(f"{kind} .name")

    def box(self, name):
        return self.all(".box:not(.port)")[self.names(".box:not(.port)").index(name)]

    def crumbs(self):
        return self.texts(".crumbs button")

    def details(self):
        """The panel's rows by their words."""
        return dict(zip(self.texts(".details dt"), self.texts(".details dd"), strict=True))

    def heading(self):
        return self.one(".details h3").text

    def double_click(self, name):
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).double_click(self.box(name)).perform()

    def press(self, *keys):
        self.driver.switch_to.active_element.send_keys(*keys)

    def focused(self):
        return self.run("document.activeElement.getAttribute('aria-label')")

    def view(self):
        """What the picture is moved by: x, y, scale."""
        moved = self.run("document.querySelector('.picture > g').getAttribute('transform')")
        return [float(part) for part in moved.replace("translate(", "").replace(") scale(", " ").rstrip(")").split()]


def number(units):
    """Three digits, as the page writes them."""
    return f"{float(f'{units:.3g}'):g}".replace("-", "\u2212")
