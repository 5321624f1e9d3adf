"""What moves, cuts, indexes and resizes."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tests.operators.case import case, f, i, whole, x2

far = np.iinfo(np.int64).max
SHAPING = [
    case("Reshape", f(2, 3, 4), constants={1: i(0, -1)}),
    case("Reshape", f(2, 3, 4), i(4, 6)),
    case("Flatten", f(2, 3, 4)),
    case("Flatten", f(2, 3, 4), axis=0),
    case("Flatten", f(2, 3, 4), axis=-1),
    case("Transpose", f(2, 3, 4)),
    case("Transpose", f(2, 3, 4), perm=[1, 0, 2]),
    case("Concat", f(2, 3), f(2, 5), axis=-1),
    case("Concat", f(2, 3), constants={1: f(4, 3)}, axis=0),
    case("Split", f(2, 7), constants={1: i(3, 4)}, axis=1, outputs=2),
    case("Split", f(6, 2), outputs=3, num_outputs=3),
    case("Split", f(7, 2), outputs=3, num_outputs=3),
    case("Split", f(2, 6), split=[1, 5], axis=1, outputs=2, opset=11),
    case("Split", f(6, 2), outputs=2, opset=11),
    case("Slice", f(5, 6), starts=[1, 0], ends=[4, -1], opset=9),
    case("Slice", f(5, 6), starts=[2], ends=[far], axes=[1], opset=9),
    case("Slice", f(5, 6), constants={1: i(1), 2: i(far), 3: i(1), 4: i(2)}),
    case("Slice", f(5, 6), constants={1: i(-1, 4), 2: i(-far, 0), 3: i(0, 1), 4: i(-1, -2)}),
    case("Slice", f(5, 6), constants={1: i(-2), 2: i(100)}),
    case("Slice", f(5, 6), i(1), i(4), i(0)),
    case("Slice", f(5, 6), constants={1: i(3), 2: i(1), 3: i(0)}),
    case("Squeeze", f(1, 3, 1), constants={1: i(0)}),
    case("Squeeze", f(1, 3, 1)),
    case("Squeeze", f(1, 3, 1), axes=[-1], opset=11),
    case("Unsqueeze", f(2, 3), constants={1: i(0, -1)}),
    case("Unsqueeze", f(2, 3), axes=[1, 3], opset=11),
    case("Expand", f(3, 1), constants={1: i(2, 1, 4)}),
    case("Expand", f(3, 1), i(3, 4)),
    case("Tile", f(2, 3), constants={1: i(2, 2)}),
    case("Shape", f(2, 3, 4)),
    case("Shape", f(2, 3, 4), start=1),
    case("Size", f(2, 3)),
    case("DepthToSpace", f(1, 8, 2, 3), blocksize=2),
    case("DepthToSpace", f(1, 8, 2, 3), blocksize=2, mode="CRD"),
    case("SpaceToDepth", f(1, 2, 4, 6), blocksize=2),
    *(case("Pad", x2, mode=mode, pads=[0, 0, 1, 2, 0, 0, 3, 0], opset=9) for mode in ("constant", "reflect", "edge")),
    *(
        case("Pad", x2, constants={1: i(0, 0, 1, 2, 0, 0, 3, 0)}, mode=mode, opset=19)
        for mode in ("constant", "reflect", "edge", "wrap")
    ),
    case("Pad", x2, constants={1: i(1, -1, 2, 0), 2: np.float32(3), 3: i(1, 3)}),
    case("Pad", whole, constants={1: i(1, 0, 0, 1), 2: np.int64(7)}),
]
INDEXING = [
    case("Gather", f(5, 3), constants={1: i(0, -1, 2)}),
    case("Gather", f(5, 3), constants={1: np.array([[0, 1], [2, -1]])}, axis=1),
    case("Gather", f(5, 3), constants={1: np.array(2)}),
    case("Gather", np.array([[0, 2], [1, -1]]), constants={0: f(4, 6)}),
    case("GatherElements", f(3, 3), constants={1: np.array([[0, -1, 2], [1, 1, 0]])}, axis=0),
    case("GatherND", f(2, 3, 4), constants={1: np.array([[0, 1], [1, -1]])}),
    case("GatherND", f(2, 3, 4), constants={1: np.array([[1], [2]])}, batch_dims=1),
    case("ScatterElements", f(3, 3), constants={1: np.array([[0, 2, 1]]), 2: f(1, 3)}),
    case("ScatterElements", f(3, 3), constants={1: np.array([[0, 2, 0]]), 2: f(1, 3)}, axis=1, reduction="add"),
    case("Scatter", f(3, 3), constants={1: np.array([[0, 2, 1]]), 2: f(1, 3)}, opset=10),
    case("ScatterND", f(4, 3), constants={1: np.array([[0], [-1]]), 2: f(2, 3)}),
    case("OneHot", np.array([0, 2, -1]), constants={1: np.array(4), 2: np.array([0.5, 2], np.float32)}),
    case("OneHot", np.array([0, 2, 1]), constants={1: np.array(3), 2: np.array([0, 1], np.float32)}, axis=0),
    case("ConstantOfShape", i(2, 3), value=helper.make_tensor("v", TensorProto.FLOAT, [1], [2.5])),
    case("Trilu", f(4, 4)),
    case("Trilu", f(4, 4), constants={1: np.array(1)}, upper=0),
    case("Range", np.array(1), np.array(9), np.array(3)),
    case("NonZero", f(3, 4) * (f(3, 4) > 0)),
    *(
        case(
            "GridSample",
            f(1, 2, 5, 6),
            np.clip(f(1, 4, 3, 2), -1.2, 1.2),
            mode=mode,
            padding_mode=edge,
            align_corners=a,
            opset=20,
            within=1e-4,
        )
        for mode in ("linear", "nearest")
        for edge in ("zeros", "border")
        for a in (0, 1)
    ),
]
SCALE = np.array([1, 1, 2, 2.5], np.float32)
SMALLER = np.array([1, 1, 0.6, 0.5], np.float32)
RESIZE = [
    *(
        case("Resize", x2, constants={2: s}, mode=mode, coordinate_transformation_mode=c, within=1e-4)
        for s in (SCALE, SMALLER)
        for mode in ("nearest", "linear", "cubic")
        for c in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    ),
    *(
        case(
            "Resize",
            x2,
            constants={2: SCALE},
            mode="nearest",
            nearest_mode=n,
            coordinate_transformation_mode="asymmetric",
        )
        for n in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ),
    case("Resize", x2, constants={3: i(2, 6, 20, 13)}, mode="linear", within=1e-4),
    case("Resize", x2, constants={3: i(4, 5)}, axes=[2, 3], mode="linear", within=1e-4),
    case("Resize", x2, constants={3: i(2, 6, 4, 5)}, mode="linear", antialias=1, within=1e-4),
    case("Resize", x2, constants={2: SCALE}, mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5, within=1e-4),
    case("Resize", x2, constants={1: SCALE}, mode="nearest", opset=10),
    case("Upsample", x2, constants={1: np.array([1, 1, 2, 2], np.float32)}, mode="nearest", opset=9),
    case("Upsample", x2, constants={1: np.array([1, 1, 2, 2], np.float32)}, mode="linear", opset=9),
]
CASES = [*SHAPING, *INDEXING, *RESIZE]
