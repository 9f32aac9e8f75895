"""MediaPipe's face detector and face mesh: TFLite files out of its wheel, converted to ONNX; run by `reelmesh
optimize`.

The wheel pins numpy below 2 and the converter needs TensorFlow, so both live in a throw-away environment
(about 1 GB while it lasts). The one invariant: picture normalisation, anchor decoding and sigmoids are part
of the exported graph, so a client sends 8-bit pixels and reads coordinates relative to the picture it sent.

Constants: mediapipe/modules/face_detection/face_detection_short_range_common.pbtxt and
mediapipe/modules/face_landmark/face_landmark_cpu.pbtxt of MediaPipe 0.10.21 (Apache-2.0).
"""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, helper

from optimize import edit
from optimize.canonical import save_canonical
from optimize.recipe import BATCH, Answer, Array, Arrays, Built, Recipe, Tensor
from serving.errors import EngineFailed, foreign_text

Floats = npt.NDArray[np.float32]

WHEEL: Final = "mediapipe==0.10.21"
CONVERTER: Final = ("tensorflow-cpu==2.21.0", "tf2onnx==1.17.0")
CHILD: Final = Path(__file__).with_name("tflite_child.py")

DETECTOR_SIDE: Final = 128
MESH_SIDE: Final = 192
MESH_POINTS: Final = 468
ANCHOR_LAYERS: Final = ((8, 2), (16, 6))
"""(stride, anchors per cell): the four SSD layers of strides 8, 16, 16, 16 with two anchors each, merged by
stride.
"""


def anchor_centres() -> Floats:
    """Centres of the detector's 896 anchors, (896, 2) as x, y in 0..1, in the order of its outputs."""
    layers = []
    for stride, per_cell in ANCHOR_LAYERS:
        cells = DETECTOR_SIDE // stride
        axis = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
        layers.append(np.repeat(grid, per_cell, axis=0))
    return np.concatenate(layers).astype(np.float32)


def anchor_offsets() -> Floats:
    """What is added to the 16 scaled regressors of each anchor, (896, 16): nothing to width and height."""
    offsets = np.tile(anchor_centres(), 8)
    offsets[:, 2:4] = 0
    return offsets


def sigmoid(x: Floats) -> Floats:
    """The logistic function, float32; arguments beyond +-88 saturate without overflow."""
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -88, 88))), np.float32)


class TfliteModel(NamedTuple):
    """Where a TFLite file lies in the wheel, how pixels become its input, and its outputs become ours."""

    member: str
    low: float
    decode: Callable[[dict[str, Floats]], dict[str, Floats]]
    """Numpy form of the decoding, on TFLite's own outputs: the reference the graph is compared with."""
    rewrite: Callable[[GraphProto], None]
    """The same as graph edits on the converted ``onnx.GraphProto``."""

    def normalise(self, image: Array) -> Floats:
        """8-bit pixels to [low, 1], float32."""
        span = np.float32((1 - self.low) / 255)
        return image.astype(np.float32) * span + np.float32(self.low)


def decode_detections(raw: dict[str, Floats]) -> dict[str, Floats]:
    """Regressors (1, 896, 16) in detector pixels and logits (1, 896, 1) to DETECTIONS and SCORES."""
    return {
        "DETECTIONS": raw["regressors"] / np.float32(DETECTOR_SIDE) + anchor_offsets(),
        "SCORES": sigmoid(raw["classificators"])[..., 0],
    }


def decode_mesh(raw: dict[str, Floats]) -> dict[str, Floats]:
    """Coordinates (1, 1, 1, 1404) in mesh pixels and the face logit to POINTS and SCORE."""
    return {
        "POINTS": raw["conv2d_21"].reshape(1, MESH_POINTS, 3) / np.float32(MESH_SIDE),
        "SCORE": sigmoid(raw["conv2d_31"]).reshape(1, 1),
    }


def rewrite_input(graph: GraphProto, old: str, low: float) -> None:
    """Prepend the normalisation: the 8-bit IMAGE becomes the float input ``old``."""
    span = edit.add_constant(graph, "pixel_span", np.array((1 - low) / 255, np.float32))
    lowest = edit.add_constant(graph, "pixel_low", np.array(low, np.float32))
    edit.prepend(
        graph,
        [
            helper.make_node("Cast", ["IMAGE"], ["pixels"], to=edit.FLOAT),
            helper.make_node("Mul", ["pixels", span], ["scaled"]),
            helper.make_node("Add", ["scaled", lowest], [old]),
        ],
    )


def rewrite_detector(graph: GraphProto) -> None:
    """Free the batch axis, decode the anchors and squash the scores inside the graph."""
    rewrite_input(graph, "input", -1.0)
    for node in graph.node:
        if node.op_type == "Reshape":
            shape = np.array(edit.constant(graph, node.input[1]))
            node.input[1] = edit.add_constant(graph, f"{node.output[0]}_shape", np.array([0, *shape[1:]]))
    scale = edit.add_constant(graph, "detector_scale", np.array(1 / DETECTOR_SIDE, np.float32))
    offsets = edit.add_constant(graph, "anchors", anchor_offsets())
    last = edit.add_constant(graph, "last_axis", np.array([2]))
    graph.node.extend(
        [
            helper.make_node("Mul", ["regressors", scale], ["relative"]),
            helper.make_node("Add", ["relative", offsets], ["DETECTIONS"]),
            helper.make_node("Squeeze", ["classificators", last], ["logits"]),
            helper.make_node("Sigmoid", ["logits"], ["SCORES"]),
        ]
    )


def rewrite_mesh(graph: GraphProto) -> None:
    """Free the batch axis, scale the points to the crop and squash the face flag inside the graph."""
    rewrite_input(graph, "input_1", 0.0)
    for output, shape in (("conv2d_21", [0, MESH_POINTS, 3]), ("conv2d_31", [0, 1])):
        edit.producer(graph, output).input[1] = edit.add_constant(graph, f"{output}_shape", np.array(shape))
    scale = edit.add_constant(graph, "mesh_scale", np.array(1 / MESH_SIDE, np.float32))
    graph.node.extend(
        [
            helper.make_node("Mul", ["conv2d_21", scale], ["POINTS"]),
            helper.make_node("Sigmoid", ["conv2d_31"], ["SCORE"]),
        ]
    )


def drawn_faces(tensor: Tensor, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Pictures (n, side, side, 3) of one simple face with grain: on pure noise both scores are next to
    nothing.
    """
    del tensor
    side = shape[1]
    down, right = np.mgrid[0:side, 0:side] / side
    picture = np.full((side, side, 3), (96.0, 128.0, 160.0))

    def ellipse(x: float, y: float, wide: float, high: float, colour: tuple[int, int, int]) -> None:
        picture[((right - x) / wide) ** 2 + ((down - y) / high) ** 2 < 1] = colour

    ellipse(0.5, 0.5, 0.3, 0.4, (60, 40, 30))
    ellipse(0.5, 0.53, 0.27, 0.36, (224, 180, 150))
    for x in (0.39, 0.61):
        ellipse(x, 0.46, 0.055, 0.03, (250, 250, 250))
        ellipse(x, 0.46, 0.025, 0.028, (50, 30, 20))
        ellipse(x, 0.39, 0.07, 0.014, (60, 40, 30))
    ellipse(0.5, 0.58, 0.025, 0.05, (200, 150, 125))
    ellipse(0.5, 0.7, 0.09, 0.03, (170, 60, 60))
    contrast = np.linspace(1, 0.03, shape[0]).reshape(-1, 1, 1, 1)
    pictures = 128 + (picture - 128) * contrast + random.normal(0, 12, shape)
    return np.asarray(np.clip(pictures, 0, 255), np.uint8)


class TfliteRecipe(Recipe):
    """A TFLite file from MediaPipe's wheel; its reference is TensorFlow's own interpreter, one picture at a
    time.
    """

    def __init__(self, model: TfliteModel, *, inputs: Tensor, outputs: tuple[Tensor, ...]) -> None:
        sizes = [{BATCH: 1}, {BATCH: 2}, {BATCH: 5}]
        super().__init__(inputs=[inputs], outputs=outputs, sizes=sizes, max_batch=8, sampler=drawn_faces)
        self.model = model

    def sources(self) -> tuple[Path, ...]:
        """This module and the child; the wheel and the converter are pinned in here."""
        return (Path(__file__), CHILD, Path(edit.__file__))

    def packages(self) -> tuple[str, ...]:
        """Only what edits the graph; the converter is pinned."""
        return ("onnx",)

    @contextmanager
    def build(self, folder: Path, opset: int) -> Iterator[Built]:
        """Fetch the wheel, make the environment, convert, edit the graph; the child lives until the context
        ends.
        """
        python = make_environment(folder / "environment")
        tflite = fetch_member(self.model.member, folder)
        raw = folder / "converted.onnx"
        command = [str(python), str(CHILD), str(tflite), str(raw), str(opset)]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "child.log").open("wb"),
            text=True,
        ) as child:
            try:
                tools = answer(child, folder)
                target = folder / "model.onnx"
                self.finish(raw, target)
                yield Built(target, lambda inputs: self.reference(child, folder, inputs), {"wheel": WHEEL, **tools})
            finally:
                child.kill()

    def finish(self, raw: Path, target: Path) -> None:
        """Edit the converted graph and write it in canonical form."""
        model = onnx.load(raw)
        self.model.rewrite(model.graph)
        kinds = {"uint8": edit.UINT8, "float32": edit.FLOAT}
        edit.set_interface(
            model.graph,
            [(t.name, kinds[t.dtype], t.axes) for t in self.inputs],
            [(t.name, kinds[t.dtype], t.axes) for t in self.outputs],
        )
        edit.renumber(model.graph)
        save_canonical(model, target)

    def reference(self, child: subprocess.Popen[str], folder: Path, inputs: Arrays) -> Answer:
        """TensorFlow's answer, picture by picture, since the TFLite graphs have a fixed batch of one."""
        assert child.stdin is not None  # noqa: S101
        rows: list[dict[str, Floats]] = []
        seconds = 0.0
        for picture in inputs["IMAGE"]:
            source, result = folder / "reference_in.npz", folder / "reference_out.npz"
            np.savez(source, image=self.model.normalise(picture[None]))
            child.stdin.write(f"{source} {result}\n")
            child.stdin.flush()
            seconds += float(answer(child, folder)["seconds"])
            with np.load(result) as raw:
                rows.append(self.model.decode({name: np.asarray(raw[name], np.float32) for name in raw.files}))
        return Answer({name: np.concatenate([row[name] for row in rows]) for name in rows[0]}, seconds)


def answer(child: subprocess.Popen[str], folder: Path) -> dict[str, str]:
    """The child's next line; EngineFailed with its log if it died."""
    assert child.stdout is not None  # noqa: S101
    line = child.stdout.readline()
    if not line:
        log = (folder / "child.log").read_text(errors="replace")
        raise EngineFailed(f"the TensorFlow child ended: {foreign_text(log[-200:])}")
    try:
        parsed = json.loads(line)
    except ValueError as error:
        raise EngineFailed(f"the TensorFlow child said: {foreign_text(line)}") from error
    if not isinstance(parsed, dict):
        raise EngineFailed(f"the TensorFlow child said: {foreign_text(line)}")
    return parsed


def run_pip(*arguments: str) -> None:
    """Run pip of this interpreter; EngineFailed with the end of its output."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    if done.returncode:
        raise EngineFailed(f"pip {arguments[0]} failed: {foreign_text(done.stderr[-250:])}")


def make_environment(folder: Path) -> Path:
    """A fresh virtual environment with the converter; its Python."""
    import venv

    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    run_pip("--python", str(python), "install", *CONVERTER)
    return python


def fetch_member(member: str, folder: Path) -> Path:
    """Take one file out of MediaPipe's wheel (its pins do not matter, it is never installed)."""
    run_pip("download", "--no-deps", "--only-binary=:all:", "--dest", str(folder), WHEEL)
    (wheel,) = folder.glob("mediapipe-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        target = folder / Path(member).name
        target.write_bytes(archive.read(member))
    return target


FACE_DETECTION: Final = TfliteRecipe(
    TfliteModel(
        "mediapipe/modules/face_detection/face_detection_short_range.tflite",
        -1.0,
        decode_detections,
        rewrite_detector,
    ),
    inputs=Tensor("IMAGE", "uint8", (BATCH, DETECTOR_SIDE, DETECTOR_SIDE, 3)),
    outputs=(Tensor("DETECTIONS", "float32", (BATCH, 896, 16)), Tensor("SCORES", "float32", (BATCH, 896))),
)

FACE_LANDMARKS: Final = TfliteRecipe(
    TfliteModel("mediapipe/modules/face_landmark/face_landmark.tflite", 0.0, decode_mesh, rewrite_mesh),
    inputs=Tensor("IMAGE", "uint8", (BATCH, MESH_SIDE, MESH_SIDE, 3)),
    outputs=(Tensor("POINTS", "float32", (BATCH, MESH_POINTS, 3)), Tensor("SCORE", "float32", (BATCH, 1))),
)
