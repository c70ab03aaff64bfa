"""The report in a real browser: what a reader sees, does and reads."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dlb_core.relevance import Relevance
from dlb_core.viz.report import write_generation_report, write_report
from viz.browser import errors, opened, requests
from viz.reports import HOSTILE, Tokenizer, explained, generation, routed

Opened = Callable[..., Any]


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Any:
    """Opens the report of explanations, in light colours, and holds it to be quiet until the test is over."""
    from dlb_core.generation.result import GenerationExplanation

    def media(dark: bool) -> None:
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def open_(*explanations: Any, dark: bool = False) -> Any:
        path = tmp_path / "report.html"
        if isinstance(explanations[0], GenerationExplanation):
            write_generation_report(explanations[0], path, Tokenizer())
        else:
            write_report(explanations, path)
        media(dark)
        opened(browser, path)
        return browser

    yield open_
    found = errors(browser), requests(browser), browser.execute_script("return window.hacked ?? null")
    media(False)
    assert found == ([], [], None)


def one(driver: Any, selector: str) -> Any:
    from selenium.webdriver.common.by import By

    return driver.find_element(By.CSS_SELECTOR, selector)


def every(driver: Any, selector: str) -> list[Any]:
    from selenium.webdriver.common.by import By

    found: list[Any] = driver.find_elements(By.CSS_SELECTOR, selector)
    return found


def chosen(driver: Any, label: str, text: str) -> None:
    """Chooses by what a reader sees: the label beside a list, and an entry of it."""
    from selenium.webdriver.support.ui import Select

    [found] = [each for each in every(driver, "label") if each.text.split("\n")[0].strip() == label]
    Select(one(found, "select")).select_by_visible_text(text)


def pixels(element: Any) -> np.ndarray[Any, Any]:
    """What an element looks like, [H, W, RGB], without its border."""
    from PIL import Image

    image = Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB")
    found: np.ndarray[Any, Any] = np.asarray(image).astype(int)[4:-4, 4:-4]
    return found


def number(text: str) -> float:
    """The units in a readout."""
    [found] = re.findall(r"([+\u2212]?[\d.]+(?:e[\u2212]?\d+)?) units", text)
    return float(found.replace("\u2212", "-"))


def press(element: Any, *keys: str) -> None:
    """Keys to what has the focus: `element` at first, then where it went."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    for key in keys:
        ActionChains(element.parent).send_keys(getattr(Keys, key)).perform()


def focused(driver: Any, element: Any) -> Any:
    driver.execute_script("arguments[0].focus()", element)
    return element


def background(driver: Any, element: Any) -> list[int]:
    text = driver.execute_script("return getComputedStyle(arguments[0]).backgroundColor", element)
    return [int(part) for part in re.findall(r"\d+", text)[:3]]


def test_a_report_says_what_was_predicted_and_where_the_units_went(show: Opened) -> None:
    explanation = explained("image")
    driver = show(explanation)
    assert driver.title == "small image model \u00b7 relevance report"
    assert driver.execute_script("return window.dlbReady") > 0
    assert "small image model" in one(driver, "h1").text
    best = explanation.captions.classes[int(explanation.output[0].argmax())]
    first = one(driver, "#prediction tbody tr").text
    share = f"{100 * float(explanation.output[0].softmax(0).max()):.2f} %"
    assert best in first
    assert "explained" in first
    assert share in first
    rows = [row.text for row in every(driver, "#ledger tbody tr")]
    shares = [float(re.findall(r"(\u2212?[\d.]+) %", row)[0].replace("\u2212", "-")) for row in rows]
    assert rows[0].startswith("seed")
    assert any(row.startswith("input:x") for row in rows)
    assert sum(shares[1:]) == pytest.approx(100.0, abs=1e-9)
    layers = one(driver, "#layers").text
    assert all(name in layers for name in ("body", "pool", "head"))


def test_the_slider_uncovers_the_picture(show: Opened) -> None:
    driver = show(explained("image"))
    slider, stack = one(driver, "input[type=range]"), every(driver, ".stack")[1]
    press(focused(driver, slider), "HOME")
    grey = pixels(stack)
    assert "0 %" in one(driver, "label output").text
    assert (grey.max(2) - grey.min(2)).max() <= 2  # the picture alone
    press(slider, "END")
    covered = pixels(stack)
    assert (covered.max(2) - covered.min(2)).max() > 60  # red and blue


def test_a_pixel_tells_its_units_to_the_pointer_and_to_the_keys(show: Opened) -> None:
    from selenium.webdriver import ActionChains

    explanation = explained("image")
    units = explanation.inputs["x"][0].sum(0)
    driver = show(explanation)
    canvas, readout = one(driver, "canvas.heat[tabindex]"), one(driver, ".image .readout")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", canvas)
    ActionChains(driver).move_to_element(canvas).perform()
    row, column = map(int, re.findall(r"row (\d+), column (\d+)", readout.text)[0])
    assert row in (5, 6)  # the middle of 12 rows
    assert column in (4, 5)
    assert number(readout.text) == pytest.approx(float(units[row, column]), rel=1e-3)
    press(focused(driver, canvas), "ARROW_UP", "ARROW_RIGHT")
    row, column = row - 1, column + 1
    assert f"row {row}, column {column} " in readout.text
    assert number(readout.text) == pytest.approx(float(units[row, column]), rel=1e-3)
    chosen(driver, "Channels", "channel 2")
    assert number(readout.text) == pytest.approx(float(explanation.inputs["x"][0, 2, row, column]), rel=1e-3)
    press(focused(driver, canvas), "ESCAPE")
    assert readout.text.startswith("Point at")


def test_another_sample_shows_its_own_input_and_prediction(show: Opened) -> None:
    explanation = explained("image")
    driver = show(explanation)
    before = pixels(every(driver, ".stack")[0])
    chosen(driver, "Sample", "sample 1")
    assert (pixels(every(driver, ".stack")[0]) != before).any()
    share = f"{100 * float(explanation.output[1].softmax(0).max()):.2f} %"
    assert share in one(driver, "#prediction tbody tr").text
    total = one(driver, ".map:nth-child(2) figcaption").text
    assert number(total) == pytest.approx(float(explanation.inputs["x"][1].sum()), rel=1e-3)


def test_another_target_shows_both_its_maps_and_its_books(show: Opened) -> None:
    explanation = explained("image", mode="contrastive", targets=(1, 3))
    driver = show(explanation)
    chosen(driver, "Target", "cup")
    captions = [each.text for each in every(driver, "#inputs figcaption")[1:]]
    for caption, side, name in zip(
        captions, (explanation.positive, explanation.negative), ("for the target", "against it"), strict=True
    ):
        assert name in caption
        assert number(caption) == pytest.approx(float(side.inputs["x"][1][0].sum()), rel=1e-3)
    assert [each.text for each in every(driver, "#ledger h3")] == ["for the target", "against it"]
    chosen(driver, "Layers of", "against it")
    entered = explanation.negative.ledgers[1].by_module()["head"]["in"]
    [head] = [row.text for row in every(driver, "#layers tbody tr") if row.text.startswith("head")]
    assert float(head.split()[1]) == pytest.approx(entered, rel=1e-2)


def test_tokens_have_colours_and_numbers_and_hostile_texts_are_texts(show: Opened) -> None:
    explanation = explained("text")
    units = explanation.inputs["ids"]
    driver = show(explanation.captioned(model=HOSTILE[0], classes=HOSTILE[:4]))
    chosen(driver, "Sample", "sample 1")
    tokens = every(driver, ".token")
    seen = [driver.execute_script("return arguments[0].textContent", one(token, "bdi")) for token in tokens]
    assert seen[:5] == [*HOSTILE[:5]]  # to the letter
    assert seen[5] == "\u2039U+202E\u203aright to left"
    assert seen[6] == "\u2400null"
    assert one(driver, "h1").text == HOSTILE[0]
    for token, amount in zip(tokens, units[1].tolist(), strict=True):
        assert float(one(token, ".under").text.replace("\u2212", "-")) == pytest.approx(amount, rel=1e-2)
        red, _, blue = background(driver, token)
        assert (red > blue) == (amount > 0) or red == blue
    press(focused(driver, tokens[0]), "ARROW_RIGHT", "ARROW_RIGHT")
    assert driver.switch_to.active_element == tokens[2]
    tip = one(driver, ".tip")
    assert number(tip.text) == pytest.approx(float(units[1, 2]), rel=1e-3)
    press(tokens[2], "ESCAPE")
    assert not tip.is_displayed()


def test_a_table_lists_values_and_units_in_either_order(show: Opened) -> None:
    explanation = explained("table")
    units = explanation.inputs["input"][0]
    driver = show(explanation)
    largest = int(units.abs().argmax())
    first = one(driver, "#inputs tbody tr").text
    assert first.startswith(f"feature {largest} ")
    value = f"{float(explanation.given['input'][0, largest]):.4g}"[:5].replace("-", "\u2212")
    assert value in first
    assert "30 more" in one(driver, "#inputs table").text
    chosen(driver, "Order", "as given")
    numbers = [int(row.text.split()[1]) for row in every(driver, "#inputs tbody tr")[:100]]
    assert numbers == sorted(numbers)


def test_a_series_reads_out_step_value_and_units(show: Opened) -> None:
    explanation = explained("series")
    driver = show(explanation)
    strip = every(driver, ".strip")[1]
    press(focused(driver, strip), "HOME", "ARROW_RIGHT", "ARROW_RIGHT")
    readout = one(driver, ".series .readout").text
    assert readout.startswith("lead II \u00b7 step 2 \u00b7 value ")
    assert number(readout) == pytest.approx(float(explanation.inputs["input"][0, 1, 2]), rel=1e-3)


def test_modes_beside_each_other_share_the_choice_of_sample(show: Opened) -> None:
    pair = [explained("image"), explained("image", mode="default")]
    driver = show(*pair)
    for sample in (0, 1):
        chosen(driver, "Sample", f"sample {sample}")
        captions = [each.text for each in every(driver, "#inputs figcaption")[1:]]
        for caption, explanation in zip(captions, pair, strict=True):
            assert f"mode {explanation.mode}" in caption
            assert number(caption) == pytest.approx(float(explanation.inputs["x"][sample].sum()), rel=1e-3)
    tops = {round(each.rect["y"]) for each in every(driver, "#ledger h3")}
    assert len(tops) == 1  # beside each other, not below


def test_a_written_token_recolours_what_it_came_from(show: Opened) -> None:
    generated = generation()
    assert generated.relevance is not None
    driver = show(generated)
    tokens = every(driver, ".token")

    def read() -> list[float]:
        return [float(one(token, ".under").text.replace("\u2212", "-")) for token in tokens]

    def colours() -> list[list[int]]:
        return [background(driver, token) for token in tokens]

    assert read() == pytest.approx(generated.relevance[0, 0].tolist(), rel=1e-2, abs=1e-3)
    before = colours()
    tokens[6].click()  # the second written token
    assert read() == pytest.approx(generated.relevance[0, 1].tolist(), rel=1e-2, abs=1e-3)
    assert colours() != before
    press(focused(driver, tokens[7]), "ENTER")
    assert read() == pytest.approx(generated.relevance[0, 2].tolist(), rel=1e-2, abs=1e-3)
    press(focused(driver, one(driver, ".matrix")), "ARROW_UP", "ARROW_UP")
    assert read() == pytest.approx(generated.relevance[0, 0].tolist(), rel=1e-2, abs=1e-3)
    assert colours() == before
    chosen(driver, "Sequence", "sequence 1")
    tokens = every(driver, ".token")
    assert read() == pytest.approx(generated.relevance[1, 0].tolist(), rel=1e-2, abs=1e-3)


def test_an_expert_tells_its_units(show: Opened) -> None:
    explanation = routed()
    driver = show(explanation)
    cells = every(driver, "#experts .cell")
    assert len(cells) == 10
    press(focused(driver, cells[4]), "ARROW_RIGHT", "ARROW_RIGHT")
    readout = one(driver, "#experts .readout").text
    layer = explanation.experts["layers.1.experts"]
    assert readout.startswith("layers.1.experts, expert 1: ")
    assert number(readout) == pytest.approx(float(layer.relevance[1]), rel=1e-3)
    assert f"{layer.load[1]} tokens" in readout
    assert not every(show(explained("text")), "#experts")


def test_modules_open_and_close(show: Opened) -> None:
    driver = show(explained("image"))

    def rows() -> int:
        return sum(row.is_displayed() for row in every(driver, "#layers tbody tr"))

    button = one(driver, "#layers button[aria-expanded]")
    open_ = rows()
    press(focused(driver, button), "ENTER")
    assert button.get_attribute("aria-expanded") == "false"
    assert rows() == open_ - 3  # the modules of `body`
    press(button, "SPACE")
    assert rows() == open_


def test_dark_paper_is_dark_by_the_system_and_by_choice(show: Opened) -> None:
    driver = show(explained("text"), dark=True)
    body = one(driver, "body")
    assert max(background(driver, body)) < 60
    smallest = explained("text").inputs["ids"][0].abs().argmin()
    token = every(driver, ".token")[int(smallest)]
    dark = sum(background(driver, token))
    one(driver, "#theme").click()
    assert min(background(driver, body)) > 240
    assert sum(background(driver, token)) > dark + 200  # zero is the paper
    one(driver, "#theme").click()
    assert sum(background(driver, token)) == dark


@pytest.mark.parametrize("kind", ["image", "text", "table", "series"])
def test_a_narrow_screen_needs_no_scrolling_sideways(show: Opened, kind: str) -> None:
    narrow = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver = show(explained(kind))
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
    try:
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 400
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_graph_is_drawn_when_it_comes_into_view(show: Opened) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    driver = show(explained("image"))
    driver.execute_script("document.getElementById('graph').scrollIntoView({behavior: 'instant'})")
    WebDriverWait(driver, 10).until(lambda _: "head" in one(driver, "#graph").text)


def test_hostile_modules_rules_and_accounts_are_texts(show: Opened) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    plain = explained("image")
    names = [*HOSTILE, *HOSTILE]
    nodes = {
        node: dataclasses.replace(entry, modules=(name, f"{name}.{name}"), op=name, rule=name, pack=name)
        for name, (node, entry) in zip(names, plain.ledger.by_node.items(), strict=False)
    }
    ledger = dataclasses.replace(plain.ledger, by_node=nodes, accounts={f"bias:{name}": 1.0 for name in HOSTILE})
    relevance = Relevance(plain.inputs, (ledger,), inputs=("x",), target=HOSTILE[0], mode=HOSTILE[1])
    driver = show(dataclasses.replace(plain, relevance=relevance, options={HOSTILE[2]: HOSTILE[3]}))
    assert all(name in one(driver, "#layers").text for name in HOSTILE[:5])
    assert all(f"bias:{name}" in one(driver, "#ledger").text for name in HOSTILE[:5])
    assert all(name in one(driver, "#prediction").text for name in HOSTILE[:4])
    driver.execute_script("document.getElementById('graph').scrollIntoView({behavior: 'instant'})")
    WebDriverWait(driver, 10).until(lambda _: "output" in one(driver, "#graph").text)


def test_everything_can_be_reached_by_the_tab_key(show: Opened) -> None:
    driver = show(explained("image"))
    seen = set()
    for _ in range(24):
        active = driver.switch_to.active_element
        press(active, "TAB")
        seen.add(driver.execute_script("const e = document.activeElement; return e.tagName + (e.type ?? '')"))
    assert {"A", "BUTTONbutton", "SELECTselect-one", "INPUTrange", "CANVAS"} <= seen


def test_units_are_those_of_the_tensors_after_saving(show: Opened, tmp_path: Path) -> None:
    from dlb_core import Explanation

    explained("table").save(tmp_path / "saved")
    driver = show(Explanation.load(tmp_path / "saved"))
    total = number(one(driver, "#inputs figcaption").text)
    assert total == pytest.approx(float(explained("table").inputs["input"][0].sum()), rel=1e-3)
    assert torch.isfinite(torch.tensor(total))
