"""explore: what the tools compute, and the page clicked through in a browser."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image

import waterbed as wb
from waterbed.reporting.explorer import STEPS_BETWEEN_IMAGES, Explorer

DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def explorer():
    data = wb.load_dataset("digits").take(30, 12)
    models = {n: wb.create_model("resnet10", 10, width=2, in_channels=1, seed=s) for n, s in (("one", 0), ("two", 1))}
    for model in models.values():
        model.input_shape = data.shape
    return Explorer(models, data, num_images=12)


def test_predictions_are_of_every_network(explorer):
    found = explorer.predict(explorer.images[0])
    assert list(found) == ["one", "two"]
    assert float(found["one"].sum()) == pytest.approx(1)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_an_attack_stays_in_its_ball_and_in_the_range(explorer, norm):
    image = explorer.images[0]
    change = explorer.attack("one", image, 0.25, norm) - image
    size = change.norm() if norm == "l2" else change.abs().max()
    assert 0 < float(size) <= 0.25 + 1e-6
    assert torch.equal(explorer.attack("one", image, 0.0, norm), image)


def test_a_descent_is_watched_and_stops_when_nobody_asks(explorer):
    descent = explorer.descend("one", explorer.images[0], steps=60)
    seen = list(descent)
    assert [done for done, _, _ in seen] == [STEPS_BETWEEN_IMAGES, 2 * STEPS_BETWEEN_IMAGES, 60]
    assert seen[-1][1] < seen[0][1], "it goes on from where it was"
    assert seen[0][2].shape == explorer.images[0].shape


def test_effective_images_come_one_after_the_other(explorer):
    betas = [beta for beta, _ in explorer.effective("one", explorer.images[0], (1e-8, 1e-4), steps=2)]
    assert betas == [1e-8, 1e-4]


def test_the_nearest_of_a_training_image_is_itself(explorer):
    (first, distance), *others = explorer.nearest("one", explorer.train_images[3])
    assert first == 3
    assert distance == pytest.approx(0, abs=1e-4)
    assert all(d >= distance for _, d in others)


def test_a_point_of_the_map_is_its_image(explorer):
    places = explorer.map("one")
    assert places.min() == 0
    assert places.max() == 1
    assert [explorer.at("one", *places[i]) for i in (0, 5)] == [0, 5]


def test_a_photograph_is_brought_to_the_networks_shape(explorer, tmp_path):
    Image.fromarray(np.full((30, 40, 3), 128, np.uint8)).save(tmp_path / "photo.png")
    image = explorer.read(tmp_path / "photo.png")
    assert image.shape == explorer.images[0].shape
    assert float(image.mean()) == pytest.approx(128 / 255, abs=0.01)
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.raises(wb.UsageError, match=r"notes\.png"):
        explorer.read(tmp_path / "notes.png")


def test_networks_of_other_images_are_refused(explorer):
    other = wb.create_model("resnet10", 10, width=2, in_channels=3)
    other.input_shape = (3, 8, 8)
    with pytest.raises(wb.UsageError, match=r"'other' takes images of \(3, 8, 8\)"):
        Explorer({"other": other}, explorer.data)
    with pytest.raises(wb.UsageError, match=r"'other' knows 3 classes, and .* has 10"):
        Explorer({"other": wb.create_model("resnet10", 3, width=2, in_channels=1)}, explorer.data)
    with pytest.raises(wb.UsageError, match="models is empty"):
        Explorer({}, explorer.data)


@pytest.fixture
def address(tmp_path):
    """The page of two untrained networks, served by the command."""
    pytest.importorskip("gradio")
    data = wb.load_dataset("digits").take(40, 20)
    for name in ("one", "two"):
        model = wb.create_model("resnet10", 10, width=2, in_channels=1)
        wb.fit(model, data, wb.Standard(), tmp_path / name, epochs=1, progress=False, notes={"source": {
            "name_or_folder": "digits"}})  # fmt: skip
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["explore", str(tmp_path / "one"), str(tmp_path / "two"), "--num-images", "20", "--no-browser"]
    command = [sys.executable, "-m", "waterbed", *words, "--port", str(port)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    server = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{port}"
    for _ in range(240):
        time.sleep(0.5)
        assert server.poll() is None, server.stderr.read()
        try:
            urllib.request.urlopen(url, timeout=5)
            break
        except OSError:
            continue
    yield url
    server.terminate()
    server.wait(timeout=30)
    server.stderr.close()


@pytest.mark.slow
@pytest.mark.skipif(DRIVER is None, reason="needs Chromium and its driver")
def test_clicked_through_in_a_browser(address, tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1600"):
        options.add_argument(word)
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        browser.get(address)
        wait = WebDriverWait(browser, 60)

        def script(text, *arguments):
            return browser.execute_script(f"return {text}", *arguments)

        def until(text):
            wait.until(lambda _: script(text))

        def source(part):
            return f"document.querySelector('#{part} img')?.src"

        until(source("image"))
        before = script(source("image"))
        script("document.querySelectorAll('#images button.thumbnail-item, #images .grid-container button')[3].click()")
        until(f"{source('image')} !== '{before}'")
        script("document.querySelector('#attack').click()")
        until(source("attacked"))
        tabs = {t: f"[...document.querySelectorAll('[role=tab]')].find(e => e.textContent.trim() === '{t}').click()"
                for t in ("Invert", "Nearest training images", "Map")}  # fmt: skip
        script(tabs["Invert"])
        script("document.querySelector('#descend').click()")
        until("/Step 25 of 500/.test(document.querySelector('#told')?.textContent)")
        script("document.querySelector('#stop').click()")
        time.sleep(2)
        stopped = script("document.querySelector('#told').textContent")
        time.sleep(2)
        assert script("document.querySelector('#told').textContent") == stopped, "it was stopped"
        script(tabs["Nearest training images"])
        script("document.querySelector('#near').click()")
        until("document.querySelectorAll('#neighbours img').length === 8")
        script(tabs["Map"])
        script("document.querySelector('#draw').click()")
        until(source("map"))
        browser.save_screenshot(str(tmp_path / "map.png"))
        before = script(source("image"))
        webdriver.ActionChains(browser).move_to_element(
            browser.find_element("css selector", "#map img")
        ).click().perform()
        until(f"{source('image')} !== '{before}'")
        before = script(source("image"))
        (tmp_path / "notes.png").write_text("no picture")
        browser.find_element("css selector", "#upload input[type=file]").send_keys(str(tmp_path / "notes.png"))
        until("/notes.png/.test(document.querySelector('.toast-wrap, .toast-body')?.textContent)")
        assert script(source("image")) == before, "the image before stays"
        browser.save_screenshot(str(tmp_path / "page.png"))
        entries = script("performance.getEntriesByType('resource').map(e => e.name)")
        assert {e for e in entries if not e.startswith((address, "data:", "blob:"))} == set()
        errors = [e for e in browser.get_log("browser") if e["level"] == "SEVERE"]
        assert errors == []
    finally:
        browser.quit()
