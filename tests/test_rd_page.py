"""The page of ``cwrv rd`` in a real browser: what is drawn, what moves, and that it asks for nothing.

Needs Chromium and its driver (Debian: chromium, chromium-driver). Without them the tests are skipped, but fail where
CI is set.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rd_samples import COUNT, FAST, FakeDecoder, fake_codec, moving_clip
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from nvcodec.core.color import to_rgb
from nvcodec.rd import output, run
from nvcodec.rd.anchors import CODERS, decode_stream, parse_anchors

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --force-device-scale-factor=1 --window-size=1300,1000"
)
NAMES = ("nvcodec fast", "x264:ultrafast", "svtav1:12")
TARGETS = (0.1, 0.2, 0.4, 0.8)


def programs() -> tuple[str, str]:
    found = [shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")]
    if not all(found):
        message = "no chromium with chromedriver on this machine"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return str(found[0]), str(found[1])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    chromium, driver = programs()
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[run.Plan, list[run.ClipCurves], dict[str, Any]]:
    """A finished run over two clips, the second too small for MS-SSIM; our codec is a stand-in."""
    folder = tmp_path_factory.mktemp("report")
    clips = (moving_clip(folder / "moving.mkv"), moving_clip(folder / "<!--<script>.mkv", 128, 96, 4))
    plan = run.Plan(
        sources=tuple(map(str, clips)),
        folder=folder / "out",
        bpps=TARGETS,
        anchors=parse_anchors("x264:ultrafast,svtav1:12"),
        settings=FAST,
    )
    with pytest.MonkeyPatch.context() as monkeypatch:
        fake_codec(monkeypatch)
        curves = run.compute(plan, run.check_plan(plan), lambda progress: None)
        return plan, curves, output.write_outputs(plan, curves, "cwrv rd </script>", lambda done, what: None)


@pytest.fixture
def page(browser: webdriver.Chrome, report: tuple[run.Plan, Any, Any]) -> Iterator[webdriver.Chrome]:
    """The page, freshly loaded. Afterwards: no console message, and no request but for the page itself."""
    browser.get("about:blank")
    browser.get_log("performance")
    browser.get_log("browser")
    url = (report[0].folder / "report.html").as_uri()
    browser.get(url)
    wait(browser, lambda: view(browser).get_attribute("data-frame") == "0")
    yield browser
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert url in asked
    assert {address for address in asked if not address.startswith("data:")} == {url}


def wait(browser: webdriver.Chrome, until: Callable[[], Any]) -> None:
    WebDriverWait(browser, 20, poll_frequency=0.02).until(lambda _: until())


def one(browser: webdriver.Chrome, selector: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, selector)


def button(browser: webdriver.Chrome, within: str, text: str) -> WebElement:
    (found,) = (b for b in browser.find_elements(By.CSS_SELECTOR, f"{within} button") if b.text.strip() == text)
    return found


def view(browser: webdriver.Chrome) -> WebElement:
    return one(browser, "#view")


def seen(element: WebElement) -> np.ndarray[Any, Any]:
    """What is drawn there: (H, W, 3)."""
    with Image.open(io.BytesIO(element.screenshot_as_png)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def count_colour(pixels: np.ndarray[Any, Any], colour: str) -> int:
    """Pixels near a colour as CSS states it: rgb(1, 2, 3)."""
    wanted = [int(number) for number in re.findall(r"\d+", colour)[:3]]
    return int((np.abs(pixels - wanted).max(axis=2) <= 12).sum())


def slide(browser: webdriver.Chrome, name: str, value: float) -> None:
    """Moves a slider as a hand would: its value, then the event."""
    browser.execute_script(
        "const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('input'));",
        name, value,
    )  # fmt: skip


def canvas_picture(browser: webdriver.Chrome, width: int, height: int) -> tuple[np.ndarray[Any, Any], float]:
    """The samples of the picture that the canvas shows, read from it at the centre of each, and the split among its
    columns."""
    data, scale, split = browser.execute_script(
        "const c = document.getElementById('view');"
        "return [c.toDataURL('image/png').split(',')[1], Number(c.dataset.scale), Number(c.dataset.split)];"
    )
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        pixels = np.asarray(image.convert("RGB"))
    h, w = pixels.shape[:2]
    left, top = round((w - width * scale) / 2), round((h - height * scale) / 2)
    rows = top + ((np.arange(height) + 0.5) * scale).astype(int)
    columns = left + ((np.arange(width) + 0.5) * scale).astype(int)
    return pixels[rows][:, columns].astype(int), (split - left) / scale


def rgb(frame: Any, properties: Any) -> np.ndarray[Any, Any]:
    return to_rgb(frame, properties).permute(1, 2, 0).numpy().astype(int)


def decoded(report: tuple[run.Plan, list[run.ClipCurves], Any], clip: int, codec: str, target: float) -> list[Any]:
    """RGB pictures of the point that the viewer should show: ours, or the anchor's that matches it."""
    plan, curves, _ = report
    found = curves[clip]
    if codec == "nvcodec":
        (point,) = (p for p in found.ours if p["target_bpp"] == target)
    else:
        spec = next(s for s in found.anchors if s.codec == codec)
        (point,) = (p for p in found.anchors[spec] if target in p["matches"])
    path = run.store_of(plan, found.clip).folder / point["file"]
    if codec == "nvcodec":
        frames = list(FakeDecoder(path))
    else:
        frames = list(decode_stream(path.read_bytes(), point["packet_bytes"], CODERS[codec]))
    return [rgb(frame, found.clip.properties) for frame in frames]


def test_curves_are_drawn(page: webdriver.Chrome) -> None:
    chart = one(page, "#rd-chart")
    pixels = seen(chart)
    for name in NAMES:
        group = one(page, f'#rd-chart g[data-series="{name}"]')
        line = group.find_element(By.CSS_SELECTOR, "path.curve")
        assert line.size["width"] > 150
        assert line.size["height"] > 50
        assert len(group.find_elements(By.CSS_SELECTOR, "path.mark")) >= 4
        assert count_colour(pixels, line.value_of_css_property("stroke")) > 250
    assert "bits per pixel" in chart.text
    assert "PSNR 6:1:1 (dB)" in chart.text


def test_the_legend_hides_a_curve(page: webdriver.Chrome) -> None:
    colour = one(page, f'#rd-chart g[data-series="{NAMES[1]}"] path.curve').value_of_css_property("stroke")
    before = count_colour(seen(one(page, "#rd-chart")), colour)
    button(page, "#legend", NAMES[1]).click()
    assert not page.find_elements(By.CSS_SELECTOR, f'#rd-chart g[data-series="{NAMES[1]}"]')
    assert count_colour(seen(one(page, "#rd-chart")), colour) < before / 20
    button(page, "#legend", NAMES[1]).click()
    assert count_colour(seen(one(page, "#rd-chart")), colour) == before


def test_values_under_the_pointer_and_by_keys(page: webdriver.Chrome, report: tuple[Any, Any, dict[str, Any]]) -> None:
    ours = report[2]["clips"][0]["ours"]
    assert not one(page, "#tip").is_displayed()
    marks = page.find_elements(By.CSS_SELECTOR, f'#rd-chart g[data-series="{NAMES[0]}"] path.mark')
    ActionChains(page).move_to_element(marks[2]).perform()
    text = one(page, "#tip").text
    assert one(page, "#tip svg").size["height"] < 20
    assert NAMES[0] in text
    assert f"{ours[2]['psnr_yuv_611']:.2f} dB" in text
    assert f"{ours[2]['bpp']:.3f} bpp" in text
    ActionChains(page).move_to_element(one(page, "h1")).perform()
    assert not one(page, "#tip").is_displayed()
    page.execute_script("document.querySelector('#rd-chart svg').focus()")
    ActionChains(page).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).perform()
    assert f"{ours[1]['psnr_yuv_611']:.2f} dB" in one(page, "#tip").text
    ActionChains(page).send_keys(Keys.ARROW_DOWN).perform()
    assert NAMES[1] in one(page, "#tip").text


def test_bd_figures_are_those_of_the_results(page: webdriver.Chrome, report: tuple[Any, Any, dict[str, Any]]) -> None:
    given = 0
    for metric, label in (("psnr_yuv_611", "PSNR 6:1:1"), ("psnr_rgb", "PSNR RGB"), ("ms_ssim_db", "MS-SSIM")):
        button(page, "#metric-choice", label).click()
        text = one(page, "#bd-table").text.replace("−", "-")  # noqa: RUF001
        for anchor in report[2]["clips"][0]["anchors"]:
            rate, quality = anchor["bd"][metric]["rate"], anchor["bd"][metric]["quality"]
            assert rate["note"] in text
            assert f"{quality['value']:+.2f} dB" in text
            if rate["value"] is None:
                assert "none" in text
                continue
            given += 1
            assert f"{rate['value']:+.1f} %" in text
            assert f"{rate['low']:.1f} to {rate['high']:.1f} dB" in text
        assert f"{label} (dB)" in one(page, "#rd-chart").text
    assert 4 <= given < 6


def test_the_wipe_moves(page: webdriver.Chrome, report: Any) -> None:
    """Left of the line is the source, right of it ours, sample by sample."""
    clip = report[1][0].clip
    from rd_samples import frames

    left = rgb(frames(176, 176, (0,))[0], clip.properties)
    right = decoded(report, 0, "nvcodec", 0.2)[0]
    assert (left != right).any(axis=2).mean() > 0.5
    splits = []
    for percent in (20, 75):
        slide(page, "wipe", percent)
        wait(page, lambda percent=percent: one(page, "#wipe-value").text == f"{percent} %")
        shown, split = canvas_picture(page, 176, 176)
        assert split == pytest.approx(176 * percent / 100, abs=0.5)
        near = int(split)  # the line and its handle are 5 samples wide on either side
        assert (shown[:, : near - 6] == left[:, : near - 6]).all()
        assert (shown[:, near + 6 :] == right[:, near + 6 :]).all()
        splits.append(split)
    assert splits[1] - splits[0] == pytest.approx(0.55 * 176, abs=1)


def test_the_line_follows_the_pointer_and_the_keys(page: webdriver.Chrome) -> None:
    canvas = view(page)
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    before = int(canvas.get_attribute("data-split"))
    ActionChains(page).move_to_element(canvas).click_and_hold().move_by_offset(-90, 10).release().perform()
    wait(page, lambda: abs(int(canvas.get_attribute("data-split")) - (before - 90)) <= 1)
    canvas.send_keys(Keys.ARROW_RIGHT)
    wait(page, lambda: int(canvas.get_attribute("data-split")) > before - 88)


def test_the_frame_slider(page: webdriver.Chrome, report: Any) -> None:
    slide(page, "wipe", 0)
    for frame in (3, COUNT - 1):
        slide(page, "frame", frame)
        wait(page, lambda frame=frame: view(page).get_attribute("data-frame") == str(frame))
        assert one(page, "#frame-value").text == str(frame)
        shown, _ = canvas_picture(page, 176, 176)
        assert (shown == decoded(report, 0, "nvcodec", 0.2)[frame]).all()
        assert f"frame {frame}: " in one(page, "#right-label").text
    view(page).send_keys(",")
    wait(page, lambda: view(page).get_attribute("data-frame") == str(COUNT - 2))


@pytest.mark.parametrize("codec", ["x264", "svtav1"])
def test_an_anchor_at_about_the_same_bits(page: webdriver.Chrome, report: Any, codec: str) -> None:
    (name,) = (name for name in NAMES if name.startswith(codec))
    button(page, "#pictures .rate-choice", f"{report[1][0].ours[2]['bpp']:.3f} bpp").click()
    Select(one(page, "#right")).select_by_visible_text(name)
    wait(page, lambda: view(page).get_attribute("data-right") == name)
    slide(page, "wipe", 0)
    wait(page, lambda: one(page, "#wipe-value").text == "0 %")
    shown, _ = canvas_picture(page, 176, 176)
    assert (shown == decoded(report, 0, codec, 0.4)[0]).all()
    assert re.search(r"[+−]\d+\.\d % bits", one(page, "#right-label").text)  # noqa: RUF001


def test_zoom(page: webdriver.Chrome) -> None:
    scale = float(view(page).get_attribute("data-scale"))
    for name, check in (
        ("zoom-in", lambda s: s > scale),
        ("zoom-fit", lambda s: s == scale),
        ("zoom-out", lambda s: s < scale),
    ):
        one(page, f"#{name}").click()
        wait(page, lambda check=check: check(float(view(page).get_attribute("data-scale"))))
    view(page).send_keys("0")
    wait(page, lambda: float(view(page).get_attribute("data-scale")) == scale)


def test_frame_by_frame(page: webdriver.Chrome, report: Any) -> None:
    for name in ("frame-quality", "frame-bits"):
        for series in NAMES:
            marks = page.find_elements(By.CSS_SELECTOR, f'#{name} g[data-series="{series}"] path.mark')
            assert len(marks) == COUNT
    marks = page.find_elements(By.CSS_SELECTOR, f'#frame-quality g[data-series="{NAMES[1]}"] path.mark')
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", marks[4])
    ActionChains(page).move_to_element(marks[4]).perform()
    (point,) = (p for p in report[2]["clips"][0]["anchors"][0]["points"] if 0.2 in p["matches"])
    assert f"{point['by_frame']['psnr_yuv_611'][4]:.2f} dB" in one(page, "#tip").text
    ActionChains(page).click().perform()
    wait(page, lambda: view(page).get_attribute("data-frame") == "4")


def test_where_the_bits_go(page: webdriver.Chrome, report: Any) -> None:
    rows = page.find_elements(By.CSS_SELECTOR, "#where-bars .stack")
    assert len(rows) == len(TARGETS)
    for row, point in zip(rows, report[2]["clips"][0]["ours"], strict=True):
        widths = [part.size["width"] for part in row.find_elements(By.CSS_SELECTOR, "button")]
        parts = point["bytes_by_purpose"]
        sizes = [parts["weights"], parts["motion"], parts["blocks"], parts["container"]]
        assert widths == pytest.approx([row.size["width"] * size / point["bytes"] for size in sizes], abs=4)
    part = rows[0].find_elements(By.CSS_SELECTOR, "button")[1]
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", part)
    ActionChains(page).move_to_element(part).perform()
    assert "motion" in one(page, "#tip").text
    assert "10.0 % of the file" in one(page, "#tip").text


def test_another_clip(page: webdriver.Chrome, report: Any) -> None:
    name = report[2]["clips"][1]["name"]
    button(page, "#clip-choice", name).click()
    wait(page, lambda: one(page, "#frame").get_attribute("max") == "3")
    assert "128×96, 4 frames" in one(page, "#clip-line").text  # noqa: RUF001
    assert "MS-SSIM" not in one(page, "#metric-choice").text
    slide(page, "wipe", 0)
    wait(page, lambda: one(page, "#wipe-value").text == "0 %")
    shown, _ = canvas_picture(page, 128, 96)
    assert (shown == decoded(report, 1, "nvcodec", 0.2)[0]).all()


def test_light_and_dark(page: webdriver.Chrome) -> None:
    def brightness() -> float:
        return float(seen(one(page, "body > header")).mean())

    first = brightness()
    one(page, "#theme").click()
    second = brightness()
    assert max(first, second) > 200
    assert min(first, second) < 60


def test_what_the_page_says_of_its_stills(page: webdriver.Chrome) -> None:
    assert "All 6 frames, as lossless WebP" in one(page, "#stills-note").text
    assert "BT.601 (assumed by the number of rows)" in one(page, "#stills-note").text


def test_the_page_is_one_file(report: Any) -> None:
    text = (report[0].folder / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert text.count("</script>") == 2
    addresses = set(re.findall(r"https?://[^\"'\s<]+", re.sub(r"settings_text.*?\"file\"", "", text, flags=re.S)))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(script|img|link)[^>]+(src|href)=\"(?!data:)", text)
    assert torch.__version__ in text
