"""From the slider's release to the measured accuracy on the page, against the bare passes it cannot do without.

    python benchmarks/slider.py [--models fashion-resnet20 …] [--moves 6]

Starts the dashboard with an empty store, opens Slim in chromium and presses the slider on, position by position; the
clock runs in the page, from the key's release to the first frame with the measured accuracy. After each move another
process runs what cannot be left out for that very recipe, with the same samples, batches and threads: the original and
the slimmed model over the 512 calibration images, the slimmed model over the 2,000 test images. Only the passes count
there: no process, no session, no slimming, no timing of single runs. Aim: at most 1.5 times that.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import lwcore  # noqa: E402  (the path above comes first)
from lwcore import runtime, units  # noqa: E402
from lwcore.answers import feed  # noqa: E402
from lwcore.settings import SETTINGS  # noqa: E402
from lwcore.slimming.refit.compensate import CALIBRATION  # noqa: E402
from lwcore.store import Store  # noqa: E402

MODELS = tuple(name for name in lwcore.gallery() if name.startswith("fashion-"))
REPEATS = 3  # of the bare passes; their median counts
PAUSE_MS = 1500  # between two moves: a person looks, and the page's last script run is over
WAIT_MS = 120_000
HEADINGS = {
    key: text.lstrip("# ")
    for key, text in json.loads((ROOT / "pages" / "ui" / "texts" / "en.json").read_text(encoding="utf-8")).items()
    if key.startswith("result.")
}
# Watches the heading of the verdict. A position counts as measured when the estimate for it was seen first, so that the
# result of the position before, which stays on the page until it is replaced, is never taken for it.
CLOCK = """([estimate, measured]) => {
  const seen = window.slimClock = {};
  const look = () => {
    const heading = document.querySelector('.st-key-verdict h4')?.textContent.trim();
    if (seen.start === undefined) return;
    if (heading === estimate && seen.estimate === undefined) seen.estimate = performance.now();
    if (heading === measured && seen.estimate !== undefined && seen.end === undefined) {
      watch.disconnect();
      requestAnimationFrame(() => { seen.end = performance.now(); });
    }
  };
  const watch = new MutationObserver(look);
  watch.observe(document.body, {childList: true, subtree: true, characterData: true});
  document.addEventListener('keyup', () => { seen.start = performance.now(); }, {capture: true, once: true});
}"""


@dataclass(frozen=True, kw_only=True)
class Move:
    """One slider move; seconds.

    Attributes:
        estimate: until the estimate was on the page.
        measured: until the measured accuracy was.
        slimming, evaluation: inside the job, by its own account.
        bare: the passes that cannot be left out.
    """

    estimate: float
    measured: float
    slimming: float
    evaluation: float
    bare: float

    @property
    def around(self) -> float:
        """Page, queue and process: what the job's own account does not hold."""
        return self.measured - self.slimming - self.evaluation


# -- the bare passes ---------------------------------------------------------------------------------------------------


def bare(model: lwcore.Model, recipe: lwcore.Recipe) -> float:
    """Seconds of the passes alone, median of `REPEATS`."""
    slim = lwcore.apply(model, recipe).model
    calibration = lwcore.load_samples("fashion-calibration", model, limit=CALIBRATION)
    test = lwcore.load_samples("fashion-test", model)
    return statistics.median(
        _pass(model, calibration, runtime.BATCH)
        + _pass(slim, calibration, runtime.BATCH)
        + _pass(slim, test, runtime.BATCH)
        for _ in range(REPEATS)
    )


def _pass(model: lwcore.Model, samples: lwcore.SampleSet, size: int) -> float:
    runner = runtime.session(model.data)
    inputs = [feed(model, samples, *span) for span in runtime.batches(len(samples), size)]
    start = time.perf_counter()
    for batch in inputs:
        runtime.run(runner, batch)
    return time.perf_counter() - start


def answer_bare() -> None:
    """The other process: one question a line (model and recipe), one number back."""
    for line in sys.stdin:
        question = json.loads(line)
        recipe = lwcore.Recipe.from_json(question["recipe"])
        print(bare(lwcore.load(question["model"]), recipe), flush=True)


# -- the page ----------------------------------------------------------------------------------------------------------


@contextmanager
def dashboard(home: Path) -> Iterator[str]:
    """Address of a dashboard of our own on a free port, ended afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        str(ROOT / "app.py"),
        "--server.port",
        str(port),
        "--server.address",
        "127.0.0.1",
    ]
    with (
        (home / "server.log").open("w") as log,
        subprocess.Popen(command, cwd=home, env=_environment(home), stdout=log, stderr=log) as server,
    ):
        try:
            _wait_until_up(f"http://127.0.0.1:{port}", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "SLIMLAB_HOME": str(home), "SLIMLAB_THREADS": str(SETTINGS.threads)}


def _wait_until_up(address: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        if server.poll() is not None:
            raise SystemExit("The dashboard ended before it answered; run `streamlit run app.py` to see why.")
        try:
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=1)
            return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("Expected the dashboard to answer within two minutes; it did not.")


@contextmanager
def browser_page(address: str) -> Iterator[Any]:
    """A page in chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 1000}, base_url=address)
        page.set_default_timeout(WAIT_MS)
        yield page
        browser.close()


def moves(page: Any, model: str, count: int, store: Store, other: subprocess.Popen[str]) -> list[Move]:
    """Open Slim for a model and move the slider on; every position is new to the store."""
    page.goto(f"/slim?model={model}&lang=en")
    page.get_by_text(HEADINGS["result.original.title"], exact=True).wait_for()
    known = set(results(store))
    found = []
    for _ in range(count):
        page.wait_for_timeout(PAUSE_MS)
        page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
        page.evaluate(CLOCK, [HEADINGS["result.estimate.title"], HEADINGS["result.measured.title"]])
        page.locator(".st-key-channels-amount input[type=range]").focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("window.slimClock.end !== undefined")
        clock = page.evaluate("window.slimClock")
        result = fresh(store, known)
        shown = page.locator(".st-key-verdict").inner_text()
        if units.percent(result["evaluation"]["top1"]) not in shown:
            raise SystemExit(f"Expected the job's accuracy on the page, found {shown!r}.")
        found.append(
            Move(
                estimate=(clock["estimate"] - clock["start"]) / 1000,
                measured=(clock["end"] - clock["start"]) / 1000,
                slimming=result["seconds"],
                evaluation=result["evaluation"]["seconds"],
                bare=_ask(other, model, result["recipe"]),
            )
        )
    return found


def results(store: Store) -> dict[str, dict[str, Any]]:
    """Fingerprint → finished measurement in the store."""
    found = {path.name: store.get_result(path.name) for path in store.home.glob("results/*/*")}
    return {key: result for key, result in found.items() if result and "evaluation" in result}


def fresh(store: Store, known: set[str]) -> dict[str, Any]:
    """The one measurement that is not known yet; it is known afterwards."""
    new = {key: result for key, result in results(store).items() if key not in known}
    if len(new) != 1:
        raise SystemExit(f"Expected one new measurement after a slider move, found {len(new)}.")
    known.update(new)
    return new.popitem()[1]


def _ask(other: subprocess.Popen[str], model: str, recipe: dict[str, Any]) -> float:
    assert other.stdin is not None
    assert other.stdout is not None
    print(json.dumps({"model": model, "recipe": recipe}), file=other.stdin, flush=True)
    return float(other.stdout.readline())


# -- the table ---------------------------------------------------------------------------------------------------------


def medians(found: list[Move]) -> Move:
    """Every figure's median by itself."""
    return Move(**{f.name: statistics.median(getattr(move, f.name) for move in found) for f in fields(Move)})


def report(by_model: dict[str, list[Move]]) -> None:
    """Print medians by model, and the ratio over all moves."""
    print(
        "| model | estimate | measured | slimming in the job | evaluation in the job | page, queue, process "
        "| bare passes | measured ÷ bare |\n|---|---|---|---|---|---|---|---|"
    )
    for name, found in {**by_model, "all": [move for of_model in by_model.values() for move in of_model]}.items():
        middle = medians(found)
        around = statistics.median(move.around for move in found)
        times = (middle.estimate, middle.measured, middle.slimming, middle.evaluation, around, middle.bare)
        ratio = statistics.median(move.measured / move.bare for move in found)
        print(f"| {name} | {' | '.join(f'{1000 * t:.0f}' for t in times)} | {ratio:.2f} |")
    count = len(next(iter(by_model.values())))
    print(f"\nMilliseconds after the slider's release, medians of {count} moves a model, {SETTINGS.threads} threads.")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--moves", type=int, default=6, help="slider positions a model, 5 %% apart, at most 18")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bare:
        answer_bare()
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with (
            subprocess.Popen(
                [sys.executable, __file__, "--bare"],
                env=_environment(home),
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            ) as other,
            dashboard(home) as address,
            browser_page(address) as page,
        ):
            report({name: moves(page, name, args.moves, Store(home), other) for name in args.models})


if __name__ == "__main__":
    main()
