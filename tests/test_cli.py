"""The command line: every command, its JSON keys, and one sentence with exit code 2 for whatever is wrong."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save as save_weights

import lwcore
from lwcore.cli import main
from lwcore.settings import ROOT
from tests.tiny import tiny_model

MODEL = "fashion-squeezenet"


@pytest.fixture
def pictures(tmp_path):
    """A folder with ten labelled pictures that fit the built-in models."""
    rng = np.random.default_rng(0)
    for index, name in enumerate(lwcore.load(MODEL).card.classes):
        folder = tmp_path / "pictures" / f"{index}"
        folder.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)).save(folder / f"{name[:3].strip('-/')}.png")
    return tmp_path / "pictures"


def ask(capsys, *arguments):
    """Exit code 0 and the JSON on stdout."""
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments):
    """Exit code 2, nothing on stdout, and the one sentence on stderr."""
    assert main(list(arguments)) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "Traceback" not in told.err
    assert "fault of lwcore" not in told.err
    return told.err


def test_models_lists_the_gallery(capsys):
    assert [row["id"] for row in ask(capsys, "models")["models"]] == list(lwcore.gallery())


def test_samples_lists_the_sets(capsys):
    rows = {row["id"]: row for row in ask(capsys, "samples")["samples"]}
    assert rows["fashion-test"]["n"] == 2000
    assert rows["fashion-test"]["labelled"]


@pytest.mark.slow
def test_profile_has_the_keys_and_the_totals(capsys):
    table = ask(capsys, "profile", MODEL)
    cost = lwcore.cost(lwcore.load(MODEL))
    assert (table["params"], table["macs"]) == (cost.params, cost.macs)
    assert all({"name", "type", "params", "macs", "output_shape"} <= set(row) for row in table["layers"])
    assert sum(row["params"] for row in table["layers"]) == cost.params


def test_groups_names_groups_and_what_is_frozen(capsys):
    found = ask(capsys, "groups", MODEL)
    assert all({"name", "channels", "layers"} == set(group) for group in found["groups"])
    assert all({"layer", "reason"} == set(row) for row in found["frozen"])
    assert found["groups"]
    assert found["blocks"] == []


def test_groups_names_the_blocks_that_slim_drops(capsys, tmp_path):
    name = "fashion-mobilenetv2"
    block = ask(capsys, "groups", name)["blocks"][0]
    options = ("--drop-block", block["name"], "--low-rank-macs", "0.9", "--out", str(tmp_path / "x.onnx"))
    found = ask(capsys, "slim", name, *options)
    assert [step["kind"] for step in found["recipe"]["steps"]] == ["blocks", "low-rank"]
    assert found["after"]["macs"] <= 0.9 * (found["before"]["macs"] - block["macs"])


def test_slim_writes_a_smaller_file_that_evaluate_knows_how_to_feed(capsys, tmp_path, pictures):
    out = tmp_path / "small.onnx"
    found = ask(capsys, "slim", MODEL, "--channels", "0.3", "--no-compensate", "--out", str(out))
    assert found["after"]["params"] < found["before"]["params"]
    assert found["after"]["macs"] < found["before"]["macs"]
    assert found["after"]["size_bytes"] == out.stat().st_size < found["before"]["size_bytes"]
    assert found["seconds"] >= 0
    card = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert card["classes"] == list(lwcore.load(MODEL).card.classes)
    assert card["accuracy"] is None
    report = ask(capsys, "evaluate", str(out), "--samples", str(pictures), "--against", MODEL, "--threads", "1")
    assert report["n"] == 10
    assert report["size_bytes"] == found["after"]["size_bytes"]
    assert 0 <= report["top1_low"] <= report["top1"] <= report["top1_high"] <= 1
    assert 0 <= report["agreement"] <= 1
    assert report["latency_ms"] > 0


def test_a_recipe_file_gives_the_bytes_of_the_options(capsys, tmp_path):
    one, two, recipe = tmp_path / "one.onnx", tmp_path / "two.onnx", tmp_path / "recipe.json"
    options = ("--channels", "0.25", "--criterion", "l1", "--no-compensate", "--connections", "0.5")
    found = ask(capsys, "slim", MODEL, *options, "--out", str(one))
    recipe.write_text(json.dumps(found["recipe"]))
    ask(capsys, "slim", MODEL, "--recipe", str(recipe), "--out", str(two))
    assert one.read_bytes() == two.read_bytes()


def test_steps_go_channels_then_connections_then_precision(capsys, tmp_path, pictures):
    found = ask(
        capsys,
        "slim",
        MODEL,
        "--precision",
        "int8-static",
        "--variant",
        "u8s8-reduced",
        "--connections",
        "0.2",
        "--channels",
        "0.2",
        "--compensate",
        "one-shot",
        "--samples",
        str(pictures),
        "--out",
        str(tmp_path / "all.onnx"),
    )
    assert [step["kind"] for step in found["recipe"]["steps"]] == ["channels", "connections", "precision"]
    assert found["recipe"]["steps"][0]["compensate"] == "one-shot"
    assert found["after"]["size_bytes"] < 0.5 * found["before"]["size_bytes"]


def test_a_card_says_how_to_feed_a_bare_file(capsys, tmp_path):
    model, path, card = tiny_model(), tmp_path / "bare.onnx", tmp_path / "how.json"
    path.write_bytes(model.data)
    card.write_text(
        json.dumps(
            {
                "input": {"size": [8, 8], "color": "gray", "mean": [0.5], "std": [0.5]},
                "classes": ["red", "green", "blue"],
            }
        )
    )
    folder = tmp_path / "green"
    folder.mkdir()
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(folder / "one.png")
    report = ask(capsys, "evaluate", str(path), "--samples", str(folder), "--card", str(card))
    assert report["n"] == 1
    assert report["top1"] is None or report["per_class"][0]["name"] == "green"


def test_text_is_for_people(capsys, pictures):
    assert main(["evaluate", MODEL, "--samples", str(pictures), "--threads", "1"]) == 0
    told = capsys.readouterr().out
    assert "top-1" in told
    assert "MACs" in told


BAD = [
    (),
    ("fly",),
    ("slim",),
    ("profile", "nosuch"),
    ("groups", "/no/such/file.onnx"),
    ("groups", "torchvision:"),
    ("slim", MODEL, "--out", "x.onnx"),
    ("slim", MODEL, "--channels", "lots", "--out", "x.onnx"),
    ("slim", MODEL, "--channels", "1.5", "--out", "x.onnx"),
    ("slim", MODEL, "--blocks", "2", "--out", "x.onnx"),
    ("slim", MODEL, "--drop-block", "nosuch", "--out", "x.onnx"),
    ("slim", MODEL, "--low-rank", "0", "--out", "x.onnx"),
    ("slim", MODEL, "--low-rank", "0.9", "--low-rank-macs", "0.5", "--out", "x.onnx"),
    ("slim", MODEL, "--channels", "nan", "--out", "x.onnx"),
    ("slim", MODEL, "--channels", "0.5", "--criterion", "beauty", "--out", "x.onnx"),
    ("slim", MODEL, "--channels", "0.5", "--out", "/no/such/folder/x.onnx"),
    ("slim", MODEL, "--channels", "0.5", "--out", "x.json"),
    ("slim", MODEL, "--recipe", "/no/such.json", "--out", "x.onnx"),
    ("slim", MODEL, "--channels", "0.5", "--samples", "nosuch", "--out", "x.onnx"),
    ("slim", MODEL, "--budget-macs", "0.5", "--budget-params", "0.5", "--out", "x.onnx"),
    ("slim", MODEL, "--budget-macs", "2", "--out", "x.onnx"),
    ("slim", MODEL, "--precision", "int4", "--out", "x.onnx"),
    ("evaluate", MODEL),
    ("evaluate", MODEL, "--samples", "nosuch"),
    ("evaluate", MODEL, "--samples", "/no/such.zip"),
    ("evaluate", MODEL, "--samples", "fashion-test", "--against", "nosuch"),
    ("evaluate", MODEL, "--samples", "fashion-test", "--threads", "0"),
    ("evaluate", MODEL, "--samples", "fashion-test", "--card", "/no/such.json"),
]


@pytest.mark.parametrize("arguments", BAD, ids=" ".join)
def test_bad_input_is_one_sentence_and_exit_code_2(capsys, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused(capsys, *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"steps": 3}', '{"steps": [{"kind": "magic"}]}', "\x00\xff"])
def test_a_bad_recipe_is_one_sentence(capsys, tmp_path, content):
    path = tmp_path / "recipe.json"
    path.write_bytes(content.encode("latin-1"))
    assert refused(capsys, "slim", MODEL, "--recipe", str(path), "--out", str(tmp_path / "x.onnx"))
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04zip", b"\x80\x04pickle"])
def test_a_file_that_is_no_model_is_one_sentence(capsys, tmp_path, content):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    assert refused(capsys, "groups", str(path))


def test_a_folder_is_no_model(capsys, tmp_path):
    assert refused(capsys, "groups", str(tmp_path))


def test_a_recipe_and_options_together_are_refused(capsys, tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text("{}")
    assert "both" in refused(capsys, "slim", MODEL, "--recipe", str(path), "--channels", "0.5", "--out", "x.onnx")


def test_calibration_without_samples_is_refused_before_any_work(capsys, tmp_path):
    path = tmp_path / "bare.onnx"
    path.write_bytes(tiny_model().data)
    told = refused(capsys, "slim", str(path), "--precision", "int8-static", "--out", str(tmp_path / "x.onnx"))
    assert "--samples" in told


def test_the_module_runs_as_a_program_without_torch():
    code = (
        "import sys, runpy; sys.argv = ['lwcore', 'models', '--json']\n"
        "try: runpy.run_module('lwcore', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'streamlit'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["models"]


def test_the_list_of_hub_models_is_searched_by_words(capsys):
    """Parts of names narrow it; sizes and published accuracies are told."""
    found = ask(capsys, "hub", "torchvision", "RESNET18")["models"]
    assert [row["ref"] for row in found] == ["torchvision:resnet18"]
    assert found[0]["params"] == 11_689_512
    assert main(["hub", "torchvision:resnet18"]) == 0
    assert "69.8 % top-1" in capsys.readouterr().out


def test_weights_need_their_architecture(capsys, tmp_path):
    """Without one the sentence says so; with one that they do not fit, what differs."""
    path = tmp_path / "w.safetensors"
    path.write_bytes(save_weights({"fc.weight": np.zeros((3, 4), np.float32)}))
    assert "which architecture" in refused(capsys, "groups", str(path))
    message = refused(capsys, "groups", str(path), "--architecture", "torchvision:squeezenet1_1")
    assert "1 unexpected (fc.weight)" in message
    assert "path to a file of weights" in refused(capsys, "groups", MODEL, "--architecture", "timm:resnet18")
