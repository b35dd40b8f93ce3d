"""The report in a real browser: Debian's Chromium, headless. Skipped where that or playwright is missing."""

import shutil
import threading

import numpy as np
import pytest

from evolute.commands import watch
from evolute.report import film, page, video
from evolute.runs.folder import RunFolder
from recorded import population, record
from test_report import RUN, exploit, row

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("there is no chromium here (on Debian: apt install chromium)", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install '.[browser]')")

OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# What would be seen if any text became markup or script.
HOSTILE = (
    "<img src=x onerror=window.hit=1></script><script>window.hit=1</script><svg onload=window.hit=1>\"'&{{1}}`${window.hit=1}`"
)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield browser
        browser.close()


@pytest.fixture
def look(browser):
    """Open a page; whatever it says on the console, and whatever it asks of a network, fails the test."""
    said, contexts = [], []

    def look(url, width=1280, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("dialog", lambda dialog: said.append("dialog"))
        tab.on(
            "request", lambda request: None if request.url == url or request.url.startswith("data:") else said.append(request.url)
        )
        tab.goto(url)
        tab.wait_for_selector("main")
        return tab

    yield look
    for context in contexts:
        context.close()
    assert said == []


def written(path, folders):
    shown = page.data(folders, [[("go on", "evolute resume run")] for _ in folders])
    page.write(page.html(shown), path)
    return f"file://{path}", shown


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    folder = record(tmp_path_factory.mktemp("eight") / "run", population(intervals=20, mix={"adam": 6, "kfac": 2}))
    return written(folder.parent / "report.html", [folder])


def marks(tab, selector):
    return tab.locator(selector).count()


def test_figures_have_a_mark_for_everything(look, eight):
    url, shown = eight
    tab, (run,) = look(url), shown["runs"]
    resets = sum(one["reset"] for one in run["exploits"])
    assert 0 < resets < len(run["exploits"])
    assert marks(tab, ".genealogy .lane") == len(run["members"]) == 8
    assert marks(tab, ".genealogy .edge") == len(run["exploits"])
    assert marks(tab, ".genealogy .births .birth.reset") == resets
    assert marks(tab, ".genealogy .births .birth.kept") == len(run["exploits"]) - resets
    assert marks(tab, ".genealogy svg.plot > .quarantine") == sum(one["what"] == "quarantine" for one in run["troubles"])
    learning = tab.locator("figure", has=tab.get_by_role("heading", name="Learning curves"))
    assert (learning.locator(".curve").count(), learning.locator(".ancestor").count(), learning.locator(".best").count()) == (
        8,
        1,
        1,
    )
    # A joint for every move of the line.
    assert learning.locator(".joint").count() == len(run["lines"][0]["parts"]) - 1
    assert marks(tab, ".grid .ancestor") == len(run["paths"]) == 5
    assert marks(tab, ".marks .trouble") == len(run["troubles"]) > 0
    assert (marks(tab, ".layer.p0"), marks(tab, ".layer")) == (1, len(run["phases"]) + len(run["kinds"]))
    assert tab.locator("tbody tr", has_text="→").count() + tab.locator("tbody tr", has_text="nothing").count() == len(
        run["exploits"]
    )


def test_hover_shows_both_fitnesses_and_what_changed(look, eight):
    url, shown = eight
    tab, one = look(url), shown["runs"][0]["exploits"][0]
    tab.locator(".genealogy .births .birth").first.hover()
    tip = tab.locator("#tip")
    text = tip.inner_text()
    assert tip.is_visible()
    assert f"member {one['member']} copied member {one['parent']}" in text
    assert text.count("fitness") == 2
    assert "→" in text
    assert "state is" in text
    tab.mouse.move(2, 2)
    assert not tip.is_visible()


def test_keys_move_through_the_exploits_and_choose_what_is_shown(look, eight):
    url, shown = eight
    tab, run = look(url), shown["runs"][0]
    tab.locator(".genealogy svg").first.focus()
    seen = set()
    for _ in range(3):
        tab.keyboard.press("ArrowRight")
        seen.add(tab.locator("#tip").inner_text())
    assert len(seen) == 3
    tab.keyboard.press("Escape")
    assert not tab.locator("#tip").is_visible()
    # Of the learning curves keys visit the highlighted line alone.
    tab.locator("figure", has=tab.get_by_role("heading", name="Learning curves")).locator("svg").first.focus()
    for _ in run["times"]:
        tab.keyboard.press("ArrowRight")
        assert "on the highlighted line" in tab.locator("#tip").inner_text()
    tab.keyboard.press("Escape")
    line = tab.locator(".genealogy .ancestor").first.get_attribute("d")
    tab.get_by_label("Highlighted line", exact=True).select_option(index=1)
    if run["lines"][1]["parts"] != run["lines"][0]["parts"]:
        assert tab.locator(".genealogy .ancestor").first.get_attribute("d") != line
    tab.get_by_role("button", name="adam", exact=True).press("Enter")
    learning = tab.locator("figure", has=tab.get_by_role("heading", name="Learning curves"))
    assert learning.locator(".curve").count() == 8 - sum(
        run["kinds"][member["kind"]]["name"] == "adam" for member in run["members"]
    )
    tab.get_by_text("Settings", exact=True).press("Enter")
    assert tab.get_by_role("cell", name="learning_starts").is_visible()


def colour(tab, of="body"):
    return tab.evaluate("of => getComputedStyle(document.querySelector(of)).backgroundColor", of)


def test_it_is_light_and_dark_and_fits_a_phone_and_a_page_of_paper(look, eight):
    url, _ = eight
    light, dark = look(url, color_scheme="light"), look(url, color_scheme="dark")
    assert colour(light) == "rgb(251, 250, 247)"
    assert colour(dark) == "rgb(16, 19, 23)"
    dark.get_by_role("button", name="Switch between light and dark").click()
    assert colour(dark) == "rgb(251, 250, 247)"
    phone = look(url, width=390, height=844, device_scale_factor=2)
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    # No word of a figure is cut off by the phone.
    outside = """[...document.querySelectorAll("svg.plot text")].filter((text) => {
        const place = text.getBoundingClientRect();
        return place.width && (place.left < 0 || place.right > 390);
    }).length"""
    assert phone.evaluate(outside) == 0
    printed = light.pdf(format="A4", print_background=True)
    assert printed.startswith(b"%PDF")
    assert len(printed) < 2_000_000


def test_nothing_of_a_run_folder_becomes_markup_or_script(look, tmp_path):
    path = tmp_path / "<img src=x onerror=window.hit=1>"
    with RunFolder.create(path, RUN) as folder:
        folder.write_metadata(
            {**folder.metadata(), "versions": {HOSTILE: HOSTILE}, "notes": [HOSTILE], "started": HOSTILE, "devices": [HOSTILE]}
        )
        kind = HOSTILE[:190]
        folder.append_metrics(
            [row(n, slot, float(n), kind=kind, quarantined=HOSTILE if n == 2 else None) for n in (1, 2) for slot in (0, 1)]
        )
        copied = {**exploit(1, 1, 0, batch_size=300), "member_kind": kind, "parent_kind": kind, "optimizer_state": HOSTILE}
        folder.append_events([copied, {"event": HOSTILE[:190], "message": HOSTILE}, {"event": "caution", "message": HOSTILE}])
    (path / "metrics.jsonl").write_text((path / "metrics.jsonl").read_text() + f"{HOSTILE}\n")
    url, _ = written(tmp_path / "report.html", [path])
    tab = look(url)
    for node in tab.locator("details").all():
        node.evaluate("node => { node.open = true; }")
    tab.locator(".genealogy .births .birth").first.hover()
    assert "<img src=x" in tab.locator("#tip").inner_text()
    assert "onerror" in tab.locator("h3").all_inner_texts().__str__() or "onerror" in tab.locator(".over").inner_text()
    assert tab.evaluate("window.hit") is None
    assert tab.evaluate("document.querySelectorAll('img, iframe, object, embed, [onload], [onerror]').length") == 0
    assert marks(tab, "script") == 2


def test_the_policy_of_the_page_stops_what_got_in_anyway(browser, eight):
    tab = browser.new_page()
    tab.goto(eight[0])
    tab.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.hit = 1'; document.body.append(s); }"
    )
    assert tab.evaluate("window.hit") is None
    assert tab.evaluate("fetch('https://example.com/').then(() => 'left', () => 'stayed')") == "stayed"
    tab.close()


def test_several_runs_stand_side_by_side(look, tmp_path):
    folders = [
        record(tmp_path / f"{name}-{seed}", population(seed, 8, mix, learning_starts=500))
        for name, mix in (("a", {"adam": 3}), ("b", {"kfac": 3}))
        for seed in (0, 1)
    ]
    url, shown = written(tmp_path / "report.html", folders)
    tab = look(url)
    (env,) = shown["comparison"]
    assert (marks(tab, ".mean"), marks(tab, ".band"), marks(tab, ".seed")) == (2, 2, 4)
    assert marks(tab, ".grid .genealogy") == 4
    assert [group["label"] for group in env["groups"]] == ["adam=3", "kfac=3"]
    assert tab.get_by_text("common seeds").count() == 1
    tab.get_by_role("link", name="b-1").click()
    tab.locator("#run-3 .ancestor").first.wait_for(state="visible")


def until(tab, true):
    """Wait until something holds in the page, whose policy lets nobody evaluate text."""
    for _ in range(400):
        if tab.evaluate(true):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(true)


def filmed(path, size=(64, 48), count=12):
    """Write a real video of a moving square, as `evolute video` does."""
    path.parent.mkdir(exist_ok=True)
    frames = np.zeros((count, size[1], size[0], 3), np.uint8)
    for n, frame in enumerate(frames):
        frame[10:20, 2 * n : 2 * n + 10] = (250, 120, 40)
    video.write(path, iter(frames), 10.0)


# How imageio-ffmpeg starts ffmpeg, of which JAX warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["best.mp4", "best.gif"])
def test_a_video_of_the_run_folder_plays_in_the_page(look, tmp_path, name):
    folder = record(tmp_path / "run", population(intervals=12, mix={"adam": 2}))
    filmed(folder / "videos" / "member-1.mp4", (32, 32))
    filmed(folder / "videos" / name)
    url, shown = written(tmp_path / "report.html", [folder])
    assert (tmp_path / "report.html").stat().st_size < 5_000_000
    assert shown["runs"][0]["video"]["name"] == f"videos/{name}"
    tab = look(url, width=390, height=844)
    if name.endswith(".gif"):
        until(tab, "document.querySelector('.film img').complete")
        size = "[document.querySelector('.film img').naturalWidth, document.querySelector('.film img').naturalHeight]"
    else:
        until(tab, "document.querySelector('.film video').readyState >= 2")
        size = "[document.querySelector('.film video').videoWidth, document.querySelector('.film video').videoHeight]"
        tab.evaluate("document.querySelector('.film video').play()")
        until(tab, "document.querySelector('.film video').currentTime > 0.2")
    assert tab.evaluate(size) == [64, 48]
    assert tab.evaluate("document.documentElement.scrollWidth") == 390


def test_a_video_that_is_too_large_or_none_is_named(look, tmp_path):
    folder = record(tmp_path / "run", population(intervals=12, mix={"adam": 2}))
    (folder / "videos").mkdir()
    for content in (b"<script>window.hit=1</script>", b"\0\0\0 ftyp" + bytes(film.ROOM)):
        (folder / "videos" / "best.mp4").write_bytes(content)
        url, shown = written(tmp_path / "report.html", [folder])
        assert shown["runs"][0]["video"]["source"] is None
        assert (tmp_path / "report.html").stat().st_size < 1_000_000
        tab = look(url)
        assert marks(tab, "video") == 0
        assert f"videos/best.mp4, {len(content):,} bytes" in tab.locator("p.empty").all_inner_texts().__str__()


@pytest.mark.parametrize("state", ["stopped", "empty"])
def test_runs_that_have_not_ended_are_shown(look, tmp_path, state):
    folder = record(tmp_path / "run", population(0, 12), ended=False, upto=5 if state == "stopped" else 1)
    if state == "empty":
        (folder / "metrics.jsonl").write_text("")
        (folder / "events.jsonl").write_text("")
        (folder / "metadata.json").write_text("{")
    tab = look(written(tmp_path / "report.html", [folder])[0])
    assert tab.locator(".badge").inner_text() == "stopped"
    if state == "empty":
        assert tab.get_by_text("No interval has ended yet").is_visible()
        assert "metadata.json" in tab.locator(".problems").inner_text()
    else:
        assert tab.get_by_text("of 12,000").is_visible()
        assert marks(tab, ".problems") == 0


def test_a_watched_page_follows_the_run(look, tmp_path):
    with RunFolder.create(tmp_path / "run", RUN) as folder:
        folder.append_metrics([row(1, slot, float(slot)) for slot in range(3)])
        server = watch.serving(watch.Pages([folder.path]), 0)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        tab = look(f"http://127.0.0.1:{server.server_port}/")
        assert tab.locator(".badge").inner_text() == "running"
        tab.get_by_text("Versions", exact=True).click()
        folder.append_metrics([row(2, slot, 10.0 + slot) for slot in range(3)])
        folder.append_events([exploit(1, 0, 2)])
        tab.locator(".genealogy .edge").wait_for(state="attached", timeout=10_000)
        assert tab.get_by_text("2,000", exact=True).first.is_visible()
        # What the reader had opened stays open.
        assert tab.locator("details[open]").count() == 1
        tab.close()
        server.shutdown()
        thread.join()
        server.server_close()


def test_numbers_of_any_size_are_drawn(look, tmp_path):
    with RunFolder.create(tmp_path / "run", RUN) as folder:
        huge = {"batch_size": 2**62, "actor_learning_rate": 1e-300, "critic_learning_rate": -1e300}
        hypers = [{**row(1, 0, 0.0)["hyperparameters"], **more} for more in ({}, huge)]
        folder.append_metrics(
            [
                row(
                    n,
                    slot,
                    fitness * sign,
                    steps=2**62 + n,
                    hyperparameters=hypers[slot],
                    seconds={"learn": 1e300, "rollout": "x"},
                )
                for n, fitness in ((1, 1e300), (2, 1.7e308), (10**15, 1e-300))
                for slot, sign in ((0, 1), (1, -1))
            ]
        )
        folder.append_events([{**exploit(1, 0, 1), "steps": 2**63 - 1, "member": 999}])
    tab = look(written(tmp_path / "report.html", [tmp_path / "run"])[0])
    assert marks(tab, ".genealogy .lane") == 3
    drawn = tab.evaluate("[...document.querySelectorAll('svg *')].filter(n => /NaN|Infinity/.test(n.outerHTML)).length")
    assert drawn == 0
