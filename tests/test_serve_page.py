"""The page of `ecg-vlm serve` in a real browser, with a real server and nano behind it.

Chromium comes from the system (installed with apt-get where that may be done) or from `playwright install chromium`;
axe-core, which checks accessibility, from npm into the user's cache. Without them the tests are skipped, loudly.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import Request, urlopen

import pytest
import uvicorn
from PIL import Image

from ecg_vlm.reader import Reader
from ecg_vlm.serve.app import create_app
from ecg_vlm.serve.models import Models
from ecg_vlm.serve.security import Access
from ecg_vlm.serve.service import Limits, Service
from render.pages.page import draw
from render.record import LEADS
from render.simulator.simulate import simulate
from render.sources.registry import open_source

playwright = pytest.importorskip("playwright.sync_api", reason="no browser: playwright is not installed")

_AXE = "axe-core@4.14.1"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ecg-vlm-tests"
_DESKTOP, _PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server on a free port, with nano under two names."""
    nano = Reader.load("nano")
    service = Service(Models([nano, Reader(nano.model, nano.processor, "nano again", nano.base)]), 0, Limits())
    config = uvicorn.Config(create_app(service, Access()), port=0, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()
    service.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as library:
        yield _launch(library)


def _launch(library: Any) -> Any:
    """The system's Chromium, or Playwright's own."""
    path = _system_chromium()
    if path is None and getattr(os, "geteuid", lambda: 1)() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-qq", "chromium"], capture_output=True, timeout=300, check=False)
        path = _system_chromium()
    try:
        return library.chromium.launch(executable_path=path, args=["--no-sandbox"])
    except playwright.Error as error:
        pytest.skip(f"no browser: install chromium, or run `playwright install chromium` ({str(error)[:80]})")


def _system_chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core."""
    file = _CACHE / _AXE / "axe.min.js"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            pack = ["npm", "pack", _AXE, "--silent", "--pack-destination", str(file.parent)]
            subprocess.run(pack, capture_output=True, timeout=60, check=True)
            with tarfile.open(next(file.parent.glob("*.tgz"))) as archive:
                member = archive.extractfile("package/axe.min.js")
                assert member is not None
                file.write_bytes(member.read())
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"no browser: `npm pack {_AXE}` fails ({str(error)[:80]})")
    return file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page_image() -> Image.Image:
    return draw(open_source("simulated:acute").read(0)).to_pil()


@pytest.fixture(scope="module")
def ecg(page_image: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("serve") / "ecg.png"
    page_image.save(file)
    return file


@pytest.fixture(scope="module")
def recording(url: str, ecg: Path) -> bytes:
    """What the server streams about `ecg`, for tests of what is shown and how."""
    image = {"name": ecg.name, "data": f"data:image/png;base64,{base64.b64encode(ecg.read_bytes()).decode()}"}
    body = json.dumps({"images": [image], "questions": ["What does this ECG show?"], "stream": True}).encode()
    with urlopen(Request(f"{url}v1/ask", body, {"Content-Type": "application/json"})) as response:
        stream: bytes = response.read()
    return stream


@pytest.fixture
def open_page(browser: Any, url: str) -> Iterator[Callable[..., Any]]:
    """A function that opens the page in a context of its own; its errors and other hosts are faults of the test."""
    contexts: list[Any] = []
    faults: list[str] = []

    def open_context(stream: bytes | None = None, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": _DESKTOP, "locale": "en-GB", **options})
        contexts.append(context)
        context.on("request", lambda request: faults.extend([] if is_own(request.url, url) else [request.url]))
        context.on("console", lambda message: faults.extend([message.text] if is_fault(message) else []))
        context.on("weberror", lambda error: faults.append(str(error.error)))
        context.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
        page = context.new_page()
        if stream is not None:  # in place of the model's
            page.route("**/v1/ask", lambda route: route.fulfill(content_type="text/event-stream", body=stream))
        page.goto(url)
        return page

    yield open_context
    for context in contexts:
        context.close()
    assert not faults


def is_fault(message: Any) -> bool:
    """Whether a line of the console tells of an error of the page; a refused request is none."""
    return message.type == "error" and not re.search("status of 4(01|22|29)", message.text)


def is_own(address: str, url: str) -> bool:
    return urlparse(address).scheme in ("data", "blob") or address.startswith(url)


def read(page: Any, *files: Any) -> None:
    """Give files to the page, and wait for the answer about the first one."""
    page.set_input_files("#files", list(files))
    wait_for_answers(page)


def wait_for_answers(page: Any) -> None:
    page.locator("#scores .row").nth(70).wait_for(state="attached")
    page.locator(".history .busy").wait_for(state="detached")


def body_of(request: Any) -> dict[str, Any]:
    return json.loads(request.post_data)


def test_a_picture_is_read_and_its_answer_streamed(open_page, ecg):
    page = open_page()
    page.evaluate(
        """() => {
            window.pendingTexts = [];
            new MutationObserver(() => {
                const text = document.querySelector(".text.pending")?.textContent.trim();
                if (text) window.pendingTexts.push(text);
            }).observe(document.body, {childList: true, subtree: true, characterData: true});
        }"""
    )
    page.set_input_files("#files", ecg)
    wait_for_answers(page)
    lengths = [len(text) for text in page.evaluate("window.pendingTexts")]
    assert len(set(lengths)) > 2 and lengths[0] < max(lengths)  # words before the answer is complete
    assert "infarction" in page.locator(".answer .text").inner_text()
    assert page.get_by_role("img", name=re.compile("as read")).get_attribute("src").startswith("data:image/")
    measurements = page.locator("#measurements").inner_text()
    assert "Measured on the leads digitised from the picture" in measurements
    assert re.search(r"Heart rate\s+\d+ /min", measurements)
    assert page.locator("#scores .row").count() == 71
    assert page.locator("#scores .bar-mark").first.evaluate("node => node.style.left").endswith("%")
    page.get_by_text("How it was read").click()
    assert "25 mm/s, as printed" in page.locator("#how").inner_text()


@pytest.mark.parametrize("event", ["ClipboardEvent", "DragEvent"])
def test_pasted_or_dropped(open_page, ecg, recording, event):
    page = open_page(recording)
    page.evaluate(
        """([bytes, event]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "new.png", {type: "image/png"}));
            const facts = {clipboardData: data, dataTransfer: data, bubbles: true, cancelable: true};
            document.body.dispatchEvent(new window[event](event === "DragEvent" ? "drop" : "paste", facts));
        }""",
        [list(ecg.read_bytes()), event],
    )
    wait_for_answers(page)
    assert page.get_by_role("heading", level=1).inner_text() == "new.png"


def test_more_questions(open_page, ecg):
    page = open_page()
    read(page, ecg)
    page.get_by_role("button", name="Is this a normal ECG?").click()
    with page.expect_request("**/v1/ask") as request:
        page.get_by_label("Your question").fill("What is the heart rate?")
        page.keyboard.press("Enter")
    wait_for_answers(page)
    assert body_of(request.value)["scores"] is False  # they are there since the first question
    assert page.locator(".answer h3").all_inner_texts() == [
        "What does this ECG show?", "Is this a normal ECG?", "What is the heart rate?",
    ]  # fmt: skip
    assert page.locator(".answer .text").nth(1).inner_text() == "No."


def test_what_the_model_takes_back_is_amber(open_page, ecg):
    page = open_page(_stream_with_warnings())
    page.set_input_files("#files", ecg)
    banner = page.locator(".banner.amber")
    banner.wait_for()
    assert "non-specific ST changes 0.19" in banner.inner_text()
    assert "V2 0.31 mV" in page.locator(".banner.danger").inner_text()  # the warning
    assert "none of 0.2 mV" not in page.locator(".tile.severe").inner_text()


def _stream_with_warnings() -> bytes:
    answer = {"question": "What?", "answer": "ST changes.", "contradicted": {"NST_": 0.19}, "understood": True}
    result = {
        "result": 0, "readable": True, "refusal_reason": "", "view": "digitized leads", "page_as_read": None,
        "measurements": {"rate_bpm": 130.0}, "measured_on": "digitized leads", "st_elevation_mv": {"V2": 0.31},
        "warnings": ["ST elevation was measured (V2 0.31 mV)"], "answers": [answer], "scores": {}, "pages": 1,
        "model": "nano", "version": "0", "not_digitized_because": "",
    }  # fmt: skip
    return f"event: result\ndata: {json.dumps(result)}\n\nevent: done\ndata: {{}}\n\n".encode()


def test_corners_are_corrected_by_mouse_and_keyboard(open_page, ecg, page_image):
    page = open_page()
    read(page, ecg)
    page.get_by_role("button", name="Correct corners, turn, crop").click()
    handle = page.locator(".handle").nth(2)
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] - 20, box["y"] - 10, steps=3)
    assert page.locator(".loupe").is_visible()
    page.mouse.up()
    place = handle.get_attribute("aria-label")
    handle.press("ArrowLeft")
    assert handle.get_attribute("aria-label") != place
    page.get_by_role("button", name="Turn right").click()
    with page.expect_request("**/v1/ask") as request:
        page.get_by_role("button", name="Read again").click()
    correction = body_of(request.value)["correction"]
    corners = correction["corners"]
    assert correction["turn"] == 0 and correction["size"] == list(page_image.size)
    assert corners[3][0] < page_image.width and corners[3][1] < page_image.height  # moved, and now the bottom left one
    assert max(corners[2]) == corners[2][0] and corners[0][1] > corners[1][1]  # clockwise, in the turned picture
    page.locator("#stage").wait_for(state="hidden")
    assert "as corrected by you" in page.locator("#how").text_content()
    page.get_by_role("button", name="Correct corners, turn, crop").click()
    page.get_by_role("button", name="Crop").click()
    page.locator(".handle").first.press("Escape")
    assert page.locator("#editor").is_hidden()


def test_a_refusal_offers_what_mends_it(open_page, ecg):
    page = open_page()
    buffer = io.BytesIO()
    Image.open(ecg).resize((60, 30)).save(buffer, "PNG")
    page.set_input_files("#files", {"name": "small.png", "mimeType": "image/png", "buffer": buffer.getvalue()})
    refusal = page.locator(".refusal")
    refusal.wait_for()
    for name, key, value in (
        ("Turn right", "correction", {"turn": 90, "corners": None, "crop": None, "size": [60, 30]}),
        ("Ask about the picture as it is", "as_is", True),
    ):
        with page.expect_request("**/v1/ask") as request:
            refusal.get_by_role("button", name=name).click()
        assert body_of(request.value)[key] == value
        page.locator(".history .busy").wait_for(state="detached")
    refusal.get_by_role("button", name="Mark the corners").click()
    assert page.locator(".handle").count() == 4


def test_a_waveform_file_without_a_sampling_rate_is_given_one(open_page, ecg_mv):
    page = open_page()
    rows = [",".join(LEADS), *(",".join(f"{mv:.3f}" for mv in sample) for sample in ecg_mv.T)]
    page.set_input_files("#files", {"name": "a.csv", "mimeType": "text/csv", "buffer": "\n".join(rows).encode()})
    page.get_by_label("Sampling rate, Hz").fill("500")
    page.get_by_role("button", name="Read again").click()
    wait_for_answers(page)
    assert re.search(r"waveform in the file\s+Heart rate\s+75 /min", page.locator("#measurements").inner_text())
    assert page.get_by_role("button", name="Correct corners").is_disabled()  # a drawn page needs none


def test_two_models_side_by_side(open_page, ecg):
    page = open_page()
    read(page, ecg)
    page.get_by_label("Compare with").select_option("nano again")
    page.locator(".run").nth(1).locator(".text").wait_for()
    wait_for_answers(page)
    assert page.locator(".run-model").all_inner_texts() == ["nano", "nano again"]
    first, second = page.locator(".run .text").all_inner_texts()
    assert first == second != ""
    assert page.locator("#scores .row").first.locator(".bar-track").count() == 2


def test_export(open_page, ecg, recording):
    page = open_page(recording)
    read(page, ecg)
    pdf, wfdb, report, result = (export(page, form) for form in ("PDF", "WFDB", "FHIR", "JSON"))
    assert pdf.startswith(b"%PDF-")
    assert any(name.endswith(".hea") for name in zipfile.ZipFile(io.BytesIO(wfdb)).namelist())
    assert json.loads(report)["resourceType"] == "DiagnosticReport"
    assert len(json.loads(result)["scores"]) == 71


def export(page: Any, form: str) -> bytes:
    with page.expect_download() as download:
        page.get_by_role("button", name=form, exact=True).click()
    assert download.value.suggested_filename.startswith("ecg.")
    return Path(download.value.path()).read_bytes()


def test_pages_of_a_pdf_are_picked(open_page, ecg, tmp_path):
    page = open_page()
    image = Image.open(ecg).convert("RGB")
    Image.new("RGB", image.size, "white").save(tmp_path / "two.pdf", save_all=True, append_images=[image])
    page.set_input_files("#files", tmp_path / "two.pdf")
    assert not page.get_by_label("Page 1, blank").is_checked()
    assert page.get_by_label("Page 2").is_checked()  # the first that is not blank
    with page.expect_request("**/v1/ask") as request:
        page.get_by_role("button", name="Read the pages").click()
    assert body_of(request.value)["page"] == 2
    wait_for_answers(page)
    assert page.get_by_role("heading", level=1).inner_text() == "two.pdf, Page 2"


def test_a_busy_server_is_asked_again(open_page, ecg, recording):
    page = open_page(recording)
    error = {"message": "4 requests are waiting", "type": "queue_full", "code": 429}
    busy = {"status": 429, "headers": {"Retry-After": "2"}, "body": json.dumps({"error": error})}
    page.route("**/v1/ask", lambda route: route.fulfill(content_type="application/json", **busy), times=1)
    page.set_input_files("#files", ecg)
    assert "4 requests are waiting" in page.locator(".banner.danger").inner_text()
    assert page.get_by_role("button", name="Try again in").is_disabled()
    page.get_by_role("button", name="Try again", exact=True).click()
    wait_for_answers(page)
    assert page.locator(".answer .text").count() == 1


def test_the_token_is_taken_from_the_address_or_asked_for(open_page, url, ecg, recording):
    page = open_page(recording)

    def guard(route):
        is_allowed = route.request.headers.get("authorization") == "Bearer secret"
        error = json.dumps({"error": {"message": "a token is needed", "type": "unauthorized", "code": 401}})
        route.fallback() if is_allowed else route.fulfill(status=401, content_type="application/json", body=error)

    page.route("**/v1/*", guard)
    page.goto(f"{url}#token=secret")
    page.reload()  # in the session, no longer in the address
    read(page, ecg)
    assert page.url == url
    page.evaluate("sessionStorage.clear()")
    page.reload()
    page.get_by_role("textbox", name="Token").fill("secret")
    page.get_by_role("button", name="Continue").click()
    read(page, ecg)


def test_scripts_in_names_and_questions_do_nothing(open_page, ecg):
    page = open_page()
    name = '<img src=x onerror="alert(1)"><script>alert(2)</script>.png'
    read(page, {"name": name, "mimeType": "image/png", "buffer": ecg.read_bytes()})
    page.get_by_label("Your question").fill("<script>alert(3)</script>")
    page.keyboard.press("Enter")
    wait_for_answers(page)
    assert page.get_by_role("heading", level=1).inner_text() == name
    assert page.locator(".answer h3").nth(1).inner_text() == "<script>alert(3)</script>"
    assert page.locator(".tag").inner_text() == "Not understood"
    assert page.locator("main script, [onerror]").count() == 0


def test_the_session_is_in_memory_only(open_page, ecg, recording, tmp_path):
    page = open_page(recording)
    read(page, ecg, shutil.copy(ecg, tmp_path / "other.png"))
    assert page.locator(".entry").count() == 2
    page.get_by_role("button", name="Remove ecg.png").click()
    assert page.get_by_role("heading", level=1).inner_text() == "other.png"
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    page.reload()
    assert page.locator(".entry").count() == 0
    assert page.locator("#start").is_visible()


def test_german_by_the_browser_and_by_the_switch(open_page, ecg, recording):
    page = open_page(recording, locale="de-AT")
    with page.expect_request("**/v1/ask") as request:
        read(page, ecg)
    assert body_of(request.value)["questions"] == ["Was zeigt dieses EKG?"]
    assert page.locator("html").get_attribute("lang") == "de"
    assert "Herzfrequenz" in page.locator("#measurements").inner_text()
    assert page.locator("#scores").get_by_text("Sinusrhythmus", exact=True).count() == 1
    page.get_by_role("button", name="English").click()
    assert "Heart rate" in page.locator("#measurements").inner_text()
    assert page.locator("#scores").get_by_text("sinus rhythm", exact=True).count() == 1


def test_no_english_sentence_on_the_german_page(open_page, tmp_path):
    """A page with a warning, one lead alone, a picture that is refused, and a file that cannot be read."""
    draw(open_source("simulated:acute").read(2)).to_pil().save(tmp_path / "acute.png")
    sheet = draw(simulate(3), width=1600)
    strip = max(sheet.geometry.leads, key=lambda trace: trace.end_sample - trace.start_sample)
    sheet.to_pil().crop((0, round(strip.box[1]), 1600, round(strip.box[3]))).save(tmp_path / "strip.png")
    Image.new("RGB", (60, 30)).save(tmp_path / "small.png")
    (tmp_path / "damaged.csv").write_text("I,II\n1,2\n")
    page = open_page(locale="de-DE")
    page.set_input_files("#files", [tmp_path / name for name in ("acute.png", "strip.png", "small.png", "damaged.csv")])
    expected = {"acute.png": "ST-Hebung", "strip.png": "in Ableitung II", "small.png": "Pixel", "damaged.csv": "lesbar"}
    page.locator(".entry").nth(3).wait_for()
    page.locator(".history .busy").first.wait_for(state="detached", timeout=120_000)
    for name, words in expected.items():
        page.locator(".entry", has_text=name).click()
        text = page.locator("body").inner_text() + page.locator("#how").text_content()
        assert words in text and _ENGLISH.findall(text) == [] and "NaN" not in text
        assert bool(re.search(r"QTc \(Fridericia\)\s+\d+ ms", text)) == (name == "acute.png")
    page.locator(".entry", has_text="small.png").click()
    page.get_by_role("button", name="English").click()
    assert "pixels are too few" in page.locator(".refusal").inner_text()


_ENGLISH = re.compile(r"\b(the|of|is|are|and|was|rhythm|cannot|read|page|each|from|not|with|no)\b")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [_DESKTOP, _PHONE], ids=["desktop", "phone"])
def test_accessible_and_never_wider_than_the_screen(open_page, ecg, recording, axe, viewport, scheme):
    # axe-core is put into the page from outside, which its own policy rightly forbids.
    page = open_page(recording, viewport=viewport, color_scheme=scheme, bypass_csp=True)
    page.evaluate(axe)
    assert page.locator(".camera").is_visible() == (viewport is _PHONE)
    brightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(brightness) < 60) == (scheme == "dark")
    check(page, viewport)
    read(page, ecg)
    check(page, viewport)
    page.locator("#correct").click()
    check(page, viewport)


def check(page: Any, viewport: dict[str, int]) -> None:
    violations = page.evaluate("axe.run()")["violations"]
    assert [(rule["id"], rule["nodes"][0]["html"]) for rule in violations] == []
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]


def test_a_file_that_comes_before_the_models_waits_for_them(open_page, ecg, recording):
    page = open_page(recording)
    routes: list[Any] = []
    page.route("**/v1/models", lambda route: routes.append(route))
    page.reload()
    page.set_input_files("#files", ecg)
    page.wait_for_timeout(300)
    routes[0].continue_()
    wait_for_answers(page)
    assert page.locator(".answer .text").count() == 1


def test_without_a_mouse(open_page, ecg, recording):
    page = open_page(recording)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the ECG"
    read(page, ecg)
    assert page.evaluate("document.activeElement.id") == "name"  # what is new has the focus
    assert "Answer: " in page.locator("[role=status]").inner_text()  # and is announced
    page.locator("#correct").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("Top left")
