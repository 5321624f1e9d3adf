"""AppTest over all pages: each draws without an exception, in both languages, with and without a model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from lwcore.evaluation.result import ClassRow, Evaluation
from lwcore.jobs.pool import JobStatus
from lwcore.recipe import Blocks, Channels, Precision, Recipe
from lwcore.slimming.budget.allocate import Sensitivity
from pages.ui import service
from pages.ui.slim import methods
from pages.ui.workspaces import links

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

    def status(self, job: str, owner: str = "") -> JobStatus:
        task, arguments = self.asked[int(job)]
        if self.refuse:
            return JobStatus(job_id=job, task=task, state="failed", error=self.refuse)
        return JobStatus(job_id=job, task=task, state="done", progress=1.0, result=getattr(self, task)(**arguments))

    def cancel(self, job: str, owner: str = "") -> None:
        return None

    def waited_for(self) -> int:
        return 0

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

    def search(self, model: str, samples: str, target: dict, seconds: int, seed: int) -> dict:
        found = Recipe(seed=seed, steps=(Blocks(amount=0.25), Channels(amount=0.3, criterion="l2"), Precision()))
        measured = self.measure(model, found.to_json(), samples)
        cost = measured["after"]
        trial = {"number": 0, "recipe": found.to_json(), "cost": cost, "quality": 0.9, "drop": 2.0, "error": None}
        return {
            **measured,
            "met": target["drop"] >= 2.0,
            "words": "The smallest file of 1 tried.",
            "limits": [{"name": "drop", "limit": target["drop"], "found": 2.0, "met": target["drop"] >= 2.0}],
            "held_out": {"n": 500, "quality": 0.9, "reference": 0.92, "drop": 2.0},
            "considered": 1,
            "front": [trial],
            "trials": [trial],
            "fit": None,
        }

    def node_errors(self, model: str, recipe: dict, samples: str) -> dict:
        return {"nodes": [{"node": n, "alone": e, "without": e} for n, e in (("mild", 0.01), ("worst", 0.3))]}

    def spectra(self, model: str, samples: str) -> dict:
        return {"layers": {}, "samples": 8}

    def order(self, model: str, samples: str) -> dict:
        return {"order": list(service.blocks(model))}

    def sensitivity(self, model: str, samples: str) -> dict:
        harm = {g.name: ((0.0, 0.0), (0.5, 0.2), (0.75, 0.4)) for g in service.coupling(model).groups}
        return Sensitivity(harm=harm, samples=8).to_json()


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
    """On a quick model the numbers come without a button; what is known already is shown by the same run."""
    app = at(opened(), "slim")
    app.slider(key="channels-amount").set_value(30).run()
    assert not app.exception
    recipes = [arguments["recipe"] for task, arguments in jobs.asked if task == "measure"]
    assert recipes[-1]["steps"][0]["amount"] == 0.3
    assert "90.0 %" in "".join(m.value for m in app.markdown)
    assert "90.0 %" in "".join(str(h.value) for h in app.html)


def test_a_budget_asks_for_sensitivity_first(jobs: InstantJobs) -> None:
    """A budget of MACs is shared out by measured sensitivity, once a model."""
    app = at(opened(), "slim")
    app.session_state["channels-advanced"] = True
    app.run().selectbox(key="channels-goal").set_value("macs").run()
    app.slider(key="channels-amount").set_value(50).run()
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
    link = links.to_link(Recipe(steps=(Channels(amount=0.4), Precision(format="fp16"))))
    app = at(opened(recipe=link), "slim")
    assert app.slider(key="channels-amount").value == 40
    assert not app.exception
    damaged = at(opened(recipe=link[:-4]), "slim")
    assert damaged.slider(key="channels-amount").value == 0
    assert not damaged.exception


def test_compare_goes_back_to_an_attempt(jobs: InstantJobs) -> None:
    """Returning to an attempt sets the sliders to it."""
    app = at(opened(), "slim")
    for amount in (30, 60):
        app.slider(key="channels-amount").set_value(amount).run()
        app.run()
    app = at(app, "compare")
    assert len(app.dataframe[0].value) == 3
    app.selectbox(key="return-to").set_value(1).run()
    app.button(key="return").click().run()
    assert not app.exception
    assert app.slider(key="channels-amount").value == 30


def _steps(jobs: InstantJobs) -> list[dict]:
    return [arguments["recipe"]["steps"] for task, arguments in jobs.asked if task == "measure"][-1]


def test_a_method_is_off_until_chosen(jobs: InstantJobs) -> None:
    """Choosing a method adds its step where it belongs; letting it go takes the step out again."""
    app = at(opened(), "slim")
    app.slider(key="channels-amount").set_value(30).run()
    app.pills(key="slim-more").set_value(["blocks", "low-rank", "connections"]).run()
    app.run()
    assert not app.exception
    assert [s["kind"] for s in _steps(jobs)] == ["blocks", "channels", "low-rank", "connections"]
    app.pills(key="slim-more").set_value(["low-rank"]).run()
    app.run()
    assert [s["kind"] for s in _steps(jobs)] == ["channels", "low-rank"]


@pytest.mark.parametrize(("family", "formats"), [(f, v) for f, v in methods.FAMILIES.items() if v])
def test_every_format_can_be_chosen(jobs: InstantJobs, family: str, formats: tuple[str, ...]) -> None:
    """Each family of number formats, and each format in it, ends in the recipe."""
    app = at(opened(), "slim")
    app.segmented_control(key="precision-family").set_value(family).run()
    for name in formats:
        if len(formats) > 1:
            app.segmented_control(key="precision-format").set_value(name).run()
        app.run()
        assert not app.exception
        assert not app.error
        assert _steps(jobs)[-1]["format"] == name
    app.segmented_control(key="precision-family").set_value("fp32").run()
    assert app.session_state["slimlab"].recipe == Recipe()


def test_a_recipe_in_another_order_is_shown_and_can_be_put_right(jobs: InstantJobs) -> None:
    """Steps in an unusual order, and several of a kind, come out of a link as they went in; arrows move them."""
    odd = Recipe(steps=(Precision(format="fp16"), Channels(amount=0.33), Channels(amount=0.2)))
    app = at(opened(recipe=links.to_link(odd)), "slim")
    app.run()
    assert not app.exception
    assert Recipe.from_json({"steps": _steps(jobs)}) == odd
    app.session_state["order"] = True
    app.run().button(key="down-precision").click().run()
    app.run()
    assert [s["kind"] for s in _steps(jobs)] == ["channels", "precision", "channels"]


def test_a_goal_is_searched_and_its_recipe_adopted(jobs: InstantJobs) -> None:
    """One button; the found recipe stands in the controls, with its reasons, and in the list of attempts."""
    app = at(opened(), "slim")
    app.segmented_control(key="slim-way").set_value("find").run()
    app.number_input(key="goal-drop").set_value(2.5).run()
    app.button(key="find").click().run()
    app.run()
    assert not app.exception
    asked = next(arguments for task, arguments in jobs.asked if task == "search")
    assert asked["target"]["drop"] == 2.5
    assert [s.kind for s in app.session_state["slimlab"].recipe.steps] == ["blocks", "channels", "precision"]
    assert app.slider(key="blocks-amount").value == 25
    assert any("All limits hold" in m.value for m in app.markdown)
    app = at(app, "compare")
    assert len(app.dataframe[0].value) == 2


def test_a_search_that_fails_is_one_sentence(jobs: InstantJobs) -> None:
    """What went wrong stands in the panel; putting it away leaves the page as it was."""
    jobs.refuse = "200 jobs are waiting already."
    app = at(opened(), "slim")
    app.segmented_control(key="slim-way").set_value("find").run()
    app.button(key="find").click().run()
    assert not app.exception
    assert any("200 jobs" in e.value for e in app.error)
    app.button(key="found-close").click().run()
    assert app.session_state["slimlab"].search is None


def test_one_click_keeps_an_operator_in_float(jobs: InstantJobs) -> None:
    """Errors are measured once; keeping the worst operator puts it into the recipe and measures anew."""
    app = at(opened(), "slim")
    app.segmented_control(key="precision-family").set_value("int8").run()
    app.run()
    app.segmented_control(key="slim-tab").set_value("nodes").run()
    app.button(key="nodes-ask").click().run()
    app.run()
    app.button(key="keep-worst").click().run()
    app.run()
    assert not app.exception
    assert list(_steps(jobs)[-1]["keep"]) == ["worst"]
    assert [task for task, _ in jobs.asked].count("node_errors") == 1
    app.button(key="keep-worst").click().run()
    app.run()
    assert list(_steps(jobs)[-1]["keep"]) == ["worst", "mild"]


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
