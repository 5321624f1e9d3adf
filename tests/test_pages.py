"""AppTest over all pages: each draws without an exception, in both languages, with and without a model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from lwcore.evaluation.result import ClassRow, Evaluation
from lwcore.jobs import JobStatus
from lwcore.recipe import Recipe
from pages.ui import service

ROOT = Path(__file__).resolve().parents[1]
MAIN = str(ROOT / "pages" / "ui" / "main.py")
PAGES = ("start", "layers", "slim", "compare", "take_home")
MODEL = "fashion-mobilenetv2"


class InstantJobs:
    """Stands in for the workers: every job is done at once, with numbers made up from the plan."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict]] = []
        self.refuse = ""

    def submit(self, task: str, arguments: dict, owner: str = "") -> str:
        self.asked.append((task, arguments))
        return str(len(self.asked) - 1)

    def status(self, job: str) -> JobStatus:
        task, arguments = self.asked[int(job)]
        if self.refuse:
            return JobStatus(job_id=job, task=task, state="failed", error=self.refuse)
        return JobStatus(job_id=job, task=task, state="done", progress=1.0, result=getattr(self, task)(**arguments))

    def cancel(self, job: str) -> None:
        return None

    def measure(self, model: str, recipe: dict, samples: str) -> dict:
        read = Recipe.from_json(recipe)
        plan = service.plan(model, read)
        right = 0.9 if read.steps else 0.92
        report = Evaluation(
            n=2000,
            top1=right,
            top1_low=right - 0.01,
            top1_high=right + 0.01,
            agreement=0.95,
            agreement_low=0.94,
            agreement_high=0.96,
            reference_top1=0.92,
            difference=right - 0.92,
            difference_low=-0.03,
            difference_high=-0.01,
            p_value=0.0001 if read.steps else 1.0,
            per_class=(ClassRow(name="Bag", n=200, before=0.92, after=right),),
            latency_ms=0.5,
            reference_latency_ms=0.7,
            threads=2,
            size_bytes=plan.after.size_bytes,
            gzip_bytes=1000,
            reference_gzip_bytes=2000,
            params=plan.after.params,
            nonzeros=plan.after.params,
            macs=plan.after.macs,
        )
        return {
            "model": model,
            "before": plan.before.to_json(),
            "after": plan.after.to_json(),
            "seconds": 0.1,
            "recipe": read.to_json(),
            "evaluation": report.to_json(),
            "notes": ["A note with [markdown](x)."],
        }

    def profile(self, model: str) -> dict:
        group = service.coupling(model).groups[0]
        row = {
            "name": group.layers[0],
            "type": "Conv",
            "output_shape": [1, 16, 28, 28],
            "params": 160,
            "macs": 112896,
            "weight_bytes": 640,
            "activation_bytes": 50176,
            "weights": [],
            "note": "",
        }
        return {"layers": [row, {**row, "name": "other", "params": 40}], "tree": ""}

    def sensitivity(self, model: str, samples: str) -> dict:
        groups = service.coupling(model).groups
        return {"amounts": [0, 0.25, 0.5, 0.75], "harm": {g.name: [0.0, 0.1, 0.2, 0.4] for g in groups}, "samples": 8}


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> InstantJobs:
    made = InstantJobs()
    monkeypatch.setattr(service, "jobs", lambda: made)
    return made


def opened(language: str = "en", model: str = MODEL, recipe: str = "") -> AppTest:
    app = AppTest.from_file(MAIN, default_timeout=60)
    app.query_params["lang"] = language
    if model:
        app.query_params["model"] = model
    if recipe:
        app.query_params["recipe"] = recipe
    return app.run()


def at(app: AppTest, page: str) -> AppTest:
    return app.switch_page(str(ROOT / "pages" / f"{page}.py")).run()


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("page", PAGES)
def test_every_page_draws_with_a_model(jobs: InstantJobs, page: str, language: str) -> None:
    """No page raises or shows an error about a model that is fine."""
    app = at(opened(language), page)
    assert not app.exception
    assert not app.error


@pytest.mark.parametrize("page", PAGES)
def test_every_page_draws_without_a_model(jobs: InstantJobs, page: str) -> None:
    """With nothing chosen there is no error and one primary action."""
    app = at(opened(model=""), page)
    assert not app.exception
    assert not app.error
    assert len([b for b in app.button if b.proto.type == "primary"]) == 1
    assert "sl-line" in "".join(str(h.value) for h in app.html)


def test_a_slider_move_is_measured_by_itself(jobs: InstantJobs) -> None:
    """On a quick model the numbers come without a button, and the cost line shows before → after."""
    app = at(opened(), "slim")
    app.slider(key="slim-amount").set_value(30).run()
    app.run()
    assert not app.exception
    recipes = [arguments["recipe"] for task, arguments in jobs.asked if task == "measure"]
    assert recipes[-1]["steps"][0]["amount"] == 0.3
    assert "90.0 %" in "".join(m.value for m in app.markdown)
    assert "90.0 %" in "".join(str(h.value) for h in app.html)


def test_a_budget_asks_for_sensitivity_first(jobs: InstantJobs) -> None:
    """A budget of MACs is shared out by measured sensitivity, once a model."""
    app = at(opened(), "slim")
    app.session_state["slim-goal"] = "macs"
    app.slider(key="slim-amount").set_value(50).run()
    app.run()
    assert not app.exception
    assert [task for task, _ in jobs.asked].count("sensitivity") == 1
    recipe = [a["recipe"] for task, a in jobs.asked if task == "measure"][-1]
    assert recipe["steps"][0]["budget"] == {"of": "macs", "keep": 0.5}


def test_a_failed_measurement_is_one_sentence(jobs: InstantJobs) -> None:
    """What a worker says went wrong stands on the page; nothing is asked again by itself."""
    jobs.refuse = "The job needed more than 5 MB of memory and was stopped."
    app = at(opened(), "slim")
    app.run()
    assert not app.exception
    assert any("memory" in e.value for e in app.error)
    asked = len(jobs.asked)
    app.run()
    assert len(jobs.asked) == asked


def test_a_link_brings_its_recipe(jobs: InstantJobs) -> None:
    """A shared link sets the sliders; a damaged one is told and does no harm."""
    from pages.ui import form

    link = form.to_link(form.Form(amount=40, precision="fp16").recipe())
    app = at(opened(recipe=link), "slim")
    assert app.slider(key="slim-amount").value == 40
    assert not app.exception
    damaged = at(opened(recipe=link[:-4]), "slim")
    assert damaged.slider(key="slim-amount").value == 0
    assert not damaged.exception


def test_compare_goes_back_to_an_attempt(jobs: InstantJobs) -> None:
    """Returning to an attempt sets the sliders to it."""
    app = at(opened(), "slim")
    for amount in (30, 60):
        app.slider(key="slim-amount").set_value(amount).run()
        app.run()
    app = at(app, "compare")
    assert len(app.dataframe[0].value) == 3
    app.selectbox(key="return-to").set_value(1).run()
    app.button(key="return").click().run()
    assert not app.exception
    assert app.slider(key="slim-amount").value == 30


def test_a_language_switch_keeps_the_model(jobs: InstantJobs) -> None:
    """Everything is in the other language afterwards, and nothing is lost."""
    app = at(opened(), "slim")
    app.segmented_control(key="language").set_value("zh").run()
    assert app.title[0].value == "瘦身"
    assert app.selectbox(key="model-choice").value == MODEL
    assert app.query_params["lang"] in ("zh", ["zh"])


def test_a_strange_model_in_the_link_is_no_crash(jobs: InstantJobs) -> None:
    """A link to a model that is not here says so and opens Start."""
    app = opened(model="../../etc/passwd")
    assert not app.exception
    assert app.toast


def test_the_web_process_never_imports_torch(tmp_path: Path) -> None:
    """Warming up and drawing a page of a chosen model leaves torch out of the process."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from streamlit.testing.v1 import AppTest\n"
        "from pages.ui import service\n"
        "app = AppTest.from_file(sys.argv[2], default_timeout=60)\n"
        f"app.query_params['model'] = {MODEL!r}\n"
        "app.run()\n"
        "assert not app.exception, app.exception\n"
        "service.coupling(app.query_params['model'][0] if isinstance(app.query_params['model'], list) else "
        "app.query_params['model'])\n"
        "service.close()\n"
        "print([name for name in ('torch', 'torchinfo', 'torchvision') if name in sys.modules])\n"
    )
    environment = {**os.environ, "SLIMLAB_HOME": str(tmp_path)}
    command = [sys.executable, "-c", script, str(ROOT), MAIN]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr[-2000:]
