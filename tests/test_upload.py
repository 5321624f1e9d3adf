"""Uploads: the content decides, every refusal is one plain sentence, whatever a good file looks like it is read."""

import contextlib
import io
import zipfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lwcore.errors import ModelError
from lwcore.model import Model
from lwcore.runtime import run, session
from lwcore.settings import Settings
from lwcore.sources import upload
from lwcore.sources.upload import read_upload

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def network(nodes=(), constants=(), shape=("n", 3, 8, 8), out=("n", 4), opset=17, domains=(), inputs=None, name="y"):
    """A small classifier (global pool, linear) with extra nodes and constants."""
    weight = numpy_helper.from_array(np.ones((3, 4), np.float32), "w")
    body = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", FLOAT, shape)
    graph = helper.make_graph(
        [*body, *nodes],
        "g",
        [x] if inputs is None else inputs,
        [helper.make_tensor_value_info(name, FLOAT, out)],
        [weight, *constants],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset), *domains])


def read(proto, **options):
    return read_upload(proto.SerializeToString(), "net.onnx", **options)


def int64(name, values):
    return numpy_helper.from_array(np.asarray(values, np.int64), name)


def grown(op, *inputs, constants=(), before=(), **attributes):
    """A network whose output is added to something that `op` makes out of nothing."""
    made = [
        *before,
        helper.make_node(op, list(inputs), ["big"], **attributes),
        helper.make_node("ReduceSum", ["big"], ["s"], keepdims=0),
        helper.make_node("Cast", ["s"], ["c"], to=FLOAT),
        helper.make_node("Add", ["y", "c"], ["z"]),
    ]
    return network(made, constants, name="z")


def test_a_good_file_becomes_a_model_that_runs_with_a_guessed_card():
    model = read(network())
    assert isinstance(model, Model)
    assert model.card.name == "net"
    assert (model.card.input.size, model.card.input.layout, model.card.input.color) == ((8, 8), "NCHW", "rgb")
    assert any("4 classes" in note for note in model.notes)
    assert run(session(model.data), {"x": np.ones((2, 3, 8, 8), np.float32)})[0].shape == (2, 4)


def test_guesses_follow_the_shape():
    photo = read(network(shape=("n", 3, 224, 224))).card.input
    assert (photo.mean, photo.resize) == ((0.485, 0.456, 0.406), 256)
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("ReduceMean", ["t"], ["p"], axes=[2, 3], keepdims=0),
        helper.make_node("Concat", ["p", "p"], ["z"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, (1, 20, 30, 1))],
        [helper.make_tensor_value_info("z", FLOAT, (1, 2))],
    )
    gray = read(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])).card.input
    assert (gray.size, gray.layout, gray.color, gray.mean, gray.std) == ((20, 30), "NHWC", "gray", (0.0,), (1.0,))


def test_an_open_size_is_fixed_and_said():
    assert any("fixed to 224 × 224" in n for n in read(network(shape=("n", 3, "h", "w"))).notes)
    assert read(network(shape=("n", 3, "h", "w")), size=(40, 24)).card.input.size == (40, 24)


def test_static_batches_and_constant_nodes_are_read():
    weight = numpy_helper.from_array(np.ones((1, 4), np.float32))
    nodes = [helper.make_node("Constant", [], ["b"], value=weight), helper.make_node("Add", ["y", "b"], ["z"])]
    model = read(network(nodes, shape=(2, 3, 8, 8), out=(2, 4), name="z"))
    assert not [n for n in model.proto.graph.node if n.op_type == "Constant"]


def archive(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, b"x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "an empty file"),
        (b"hello world\n" * 9, "a text file"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\x80\x04\x95\x10\x00\x00\x00.", "Python pickle"),
        (b"cos\nsystem\n(S'true'\ntR.", "Python pickle"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(99), "TensorFlow Lite"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "PNG"),
        (b"\x1f\x8b\x08" + bytes(99), "gzip"),
        (b'\x40\x00\x00\x00\x00\x00\x00\x00{"a":{"data_offsets":[0,4]}}' + bytes(99), "safetensors"),
        (archive("m/data.pkl", "m/data/0"), "PyTorch checkpoint"),
        (archive("m/data.pkl", "m/code/x.py", "m/constants.pkl"), "TorchScript"),
        (archive("m/archive_format", "m/models/model.json"), ".pt2"),
        (archive("a.npy"), ".npz"),
        (archive("model.onnx"), "a zip archive"),
        (b"\x08\x0a\xff\xff\xff\xff\xff" + bytes(range(256)), "cannot be read as one"),
    ],
)
@pytest.mark.parametrize("name", ["model.onnx", "model.pkl"])
def test_the_content_decides_what_a_file_is(data, found, name):
    with pytest.raises(ModelError, match="Expected an ONNX file") as caught:
        read_upload(data, name)
    assert found in str(caught.value)


def external(location):
    proto = network()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return proto


@pytest.mark.parametrize("location", ["weights.bin", "../../etc/passwd", "/etc/passwd"])
def test_data_outside_the_file_is_refused(location):
    with pytest.raises(ModelError, match="points to another file"):
        read(external(location))


def test_data_outside_the_file_is_found_in_inner_graphs_too():
    inside = helper.make_graph(
        [helper.make_node("Identity", ["k"], ["o"])],
        "b",
        [],
        [helper.make_tensor_value_info("o", FLOAT, None)],
        [external("x").graph.initializer[0]],
    )
    inside.initializer[0].name = "k"
    nodes = [helper.make_node("If", ["flag"], ["z"], then_branch=inside, else_branch=inside)]
    flag = numpy_helper.from_array(np.array(True), "flag")
    with pytest.raises(ModelError, match="points to another file"):
        read(network(nodes, [flag], name="z"))


def test_foreign_operators_old_opsets_and_odd_inputs_are_refused():
    odd = network(
        [helper.make_node("Run", ["y"], ["z"], domain="evil")], name="z", domains=[helper.make_opsetid("evil", 1)]
    )
    with pytest.raises(ModelError, match="'evil'"):
        read(odd)
    with pytest.raises(ModelError, match="operator set 7"):
        read(network(opset=6))
    with pytest.raises(ModelError, match="found 99"):
        read(network(opset=99))
    with pytest.raises(ModelError, match="found 0"):
        read(network(inputs=[]))
    with pytest.raises(ModelError, match="array of numbers, found string"):
        read(network(inputs=[helper.make_tensor_value_info("x", onnx.TensorProto.STRING, (1, 3, 8, 8))]))
    with pytest.raises(ModelError, match="inputs of at most"):
        read(network(shape=(1, 10**6, 10**6)))
    with pytest.raises(ModelError, match="pixels an edge"):
        read(network(shape=(1, 3, 100_000, 100_000)))


def test_metadata_is_dropped():
    proto = network()
    proto.metadata_props.add(key="ORT_config", value='{"session_options": {"inter_op_num_threads": 99}}')
    model = read(proto)
    assert not model.proto.metadata_props
    assert any("onnxruntime" in note for note in model.notes)


def test_size_and_operators_are_capped_inner_graphs_counted(monkeypatch):
    inside = helper.make_graph(
        [helper.make_node("Identity", ["y"], [f"o{i}"]) for i in range(6)],
        "b",
        [],
        [helper.make_tensor_value_info("o0", FLOAT, None)],
    )
    nodes = [helper.make_node("If", ["flag"], ["z"], then_branch=inside, else_branch=inside)]
    proto = network(nodes, [numpy_helper.from_array(np.array(True), "flag")], name="z")
    monkeypatch.setattr(upload, "SETTINGS", Settings(nodes=10))
    with pytest.raises(ModelError, match="at most 10 operators"):
        read(proto)
    monkeypatch.setattr(upload, "SETTINGS", Settings(upload_mb=0))
    with pytest.raises(ModelError, match="at most 0 MB"):
        read(proto)


HUGE = 200_000_000_000


@pytest.mark.parametrize(
    "proto",
    [
        grown("ConstantOfShape", "s0", constants=[int64("s0", [HUGE])]),
        grown(
            "ConstantOfShape", "s0", before=[helper.make_node("Constant", [], ["s0"], value_ints=[400_000, 500_000])]
        ),
        grown(
            "ConstantOfShape",
            "m",
            constants=[int64("s0", [400_000])],
            before=[helper.make_node("Mul", ["s0", "s0"], ["m"])],
        ),
        grown("Expand", "e", "s0", constants=[int64("s0", [HUGE]), int64("e", [1])]),
        grown("Tile", "e", "s0", constants=[int64("s0", [HUGE]), int64("e", [1, 2])]),
        grown("Range", "a", "b", "c", constants=[int64("a", 0), int64("b", HUGE), int64("c", 1)]),
        grown("RandomNormal", shape=[400_000, 500_000]),
        network(constants=[TensorProto(name="k", data_type=FLOAT, dims=[2**40])]),
    ],
    ids=["shape", "constant-node", "product", "expand", "tile", "range", "random", "empty-weight"],
)
def test_bombs_are_refused_before_anything_is_evaluated(proto, monkeypatch):
    monkeypatch.setattr(upload, "normalise", lambda _: pytest.fail("it was evaluated"))
    assert len(proto.SerializeToString()) < 2000
    with pytest.raises(ModelError, match=r"asks for|expected sizes"):
        read(proto)


def functions(depth, width=2):
    """Functions that call functions: `width ** depth` operators when written out."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    made = []
    for i in range(depth):
        op, domain = ("Identity", "") if i == 0 else (f"f{i - 1}", "f")
        names = ["a", *(f"t{k}" for k in range(width))]
        nodes = [helper.make_node(op, [names[k]], [names[k + 1]], domain=domain) for k in range(width)]
        made.append(helper.make_function("f", f"f{i}", ["a"], [names[-1]], nodes, opsets))
    proto = network([helper.make_node(f"f{depth - 1}", ["y"], ["z"], domain="f")], domains=[opsets[1]], name="z")
    proto.functions.extend(made)
    return proto


def test_functions_are_written_out_unless_they_multiply():
    assert not read(functions(3)).proto.functions
    with pytest.raises(ModelError, match="written out"):
        read(functions(40))


def test_a_name_never_becomes_a_path():
    assert read_upload(network().SerializeToString(), "..\\..\\../etc/passwd.onnx").card.name == "passwd"


def test_every_damaged_file_is_a_sentence_not_a_crash():
    data, rng = network().SerializeToString(), np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] = rng.integers(0, 256)
        with contextlib.suppress(ModelError):
            assert read_upload(bytes(damaged), "x.onnx").data
    assert onnx.load_model_from_string(data)
