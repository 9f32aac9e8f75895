import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from optimize.page import collect, page, write_page
from optimize.page.charts import BAR_PX, NAME_PX, WIDTH_PX, Bar, Bars, Group, Point, Points, draw_bars, draw_points
from optimize.publish import write_report
from optimize.report import (
    GateRow,
    MemoryRow,
    ParityRow,
    Precision,
    QualityRow,
    Report,
    Runner,
    TimingRow,
    TrialRow,
    VariantRow,
)
from optimize.report_text import markdown, milliseconds, size
from serving.errors import BadInput

SVG = "{http://www.w3.org/2000/svg}"
REPOSITORY = Path(__file__).parents[2] / "model_repository"
CPU, GPU = "AMD EPYC", "NVIDIA H200"


def timing(case: str, batch: int | None = None, **ms: float) -> TimingRow:
    named: dict[Runner, float] = {"tensorrt fp16" if name == "plan" else name: value for name, value in ms.items()}
    return TimingRow(case=case, batch=batch, rounds=20, ms=named)


def report(
    part: str = "unet", precision: Precision = "fp32", version: int = 1, model: str = "film", **changes: object
) -> Report:
    made = Report(
        model=model,
        version=version,
        part=part,
        precision=precision,
        fingerprint="f" * 64,
        onnx_sha256="b" * 64,
        onnx_bytes=3 << 20,
        opset=20,
        relative_tolerance=1e-4,
        tools={"torch": "2.13.0"},
        parity=[
            ParityRow(case="height 64", output="sample", shape=[1, 4, 64, 64], relative=2e-6),
            ParityRow(case="height 64", output="hidden", shape=[1, 8], relative=7e-6),
        ],
        timing=[timing("height 64", torch=12.0, **{precision: 6.0})],
        threads=2,
        machine=CPU,
    )
    return made.model_copy(update=changes)


def full() -> list[Report]:
    trials = [
        TrialRow(float_nodes=[], measure="PSNR", quality=21.5, ms=3.0, onnx_bytes=1 << 20, accepted=False),
        TrialRow(float_nodes=["to_q"], measure="PSNR", quality=33.25, ms=4.0, onnx_bytes=2 << 20, accepted=True),
    ]
    quality = [
        QualityRow(measure="PSNR", value=33.25, unit="dB", bound=30.0, passed=True),
        QualityRow(measure="word error rate", value=0.0, bound=0.05, better="lower", passed=True),
    ]
    memory = MemoryRow(weights_bytes=4 << 20, torch_peak_bytes=900 << 20, onnx_peak_bytes=500 << 20)
    cases = [
        timing("height 64", 1, torch=12.0, fp32=6.0, int8=4.0),
        timing("height 64", 2, torch=20.0, fp32=11.0, int8=8.0),
    ]
    variants = [
        VariantRow(name=name, onnx_bytes=1 << 20, onnx_sha256="c" * 64, dynamic_axes=axes)
        for name, axes in (("batch_1", []), ("batch_2", ["height"]))
    ]
    gates = [GateRow(gate="load", outcome="passed"), GateRow(gate="quality", outcome="skipped", detail="no network")]
    return [
        report(memory=memory, fixes=["repeat_interleave"], variants=variants, gates=gates),
        report(precision="int8", version=2, timing=cases, trials=trials, quality=quality, memory=memory),
        report("vae.decoder", timing=[timing("height 64", torch=9.0, fp32=10.0)]),
    ]


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314 - drawn here


def publish(repository: Path, made: Report) -> Path:
    folder = repository / f"{made.model}_{made.part}" / str(made.version)
    folder.mkdir(parents=True)
    write_report(folder, made)
    return folder


def test_the_newest_report_of_every_runner_is_collected_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for made in (
        report(version=1),
        report(version=10),
        report(version=9, precision="int8"),
        report("vae"),
        report(version=11, precision="fp16", runtime="tensorrt"),
    ):
        publish(first, made)
    publish(second, report(version=12, machine="another"))
    publish(second, report("text_encoder"))
    (first / "no_export" / "1").mkdir(parents=True)
    found = [(each.part, each.runner, each.version) for each in collect([first, second, tmp_path / "nowhere"])]
    assert found == [
        ("text_encoder", "fp32", 1),
        ("unet", "fp32", 10),
        ("unet", "int8", 9),
        ("unet", "tensorrt fp16", 11),
        ("vae", "fp32", 1),
    ]


def test_a_damaged_report_is_named_with_the_way_to_mend_it(tmp_path: Path) -> None:
    folder = publish(tmp_path, report(version=3))
    (folder / "report.json").write_text("{", encoding="utf-8")
    with pytest.raises(BadInput, match=r"film_unet/3/report\.json.*--force.*remove version 3"):
        collect([tmp_path])


def test_what_the_repository_holds_fits_the_schema_and_the_page() -> None:
    reports = collect([REPOSITORY])
    assert {"face_detection", "face_landmarks", "log_mel"} <= {each.title for each in reports}
    made = page(reports)
    for each in reports:
        assert f"## {each.title}" in made.markdown
        assert (REPOSITORY / each.model / str(each.version) / "report.md").read_text() == markdown(each)


def test_without_anything_published_the_page_says_what_to_run(tmp_path: Path) -> None:
    made = page([], [tmp_path / "models"])
    for text in (made.markdown, made.html):
        assert f"No part is published in {tmp_path / 'models'}: run reelmesh optimize MODEL." in text
    assert made.plots == {}


def test_both_forms_show_size_parity_speed_quality_and_memory() -> None:
    made = page(full())
    assert "| film: unet | ONNX INT8 | 2 | 3 MiB | 7.0e-06 of 1e-04 | PSNR 33.2 dB | 2.75x | 500 MiB |" in made.markdown
    assert "| height 64 | 2 | 20.0 ms | 11.0 ms (1.82x) | 8.00 ms (2.50x) |" in made.markdown
    assert "| ONNX INT8 | word error rate | 0 | at most 0.05 | passed |" in made.markdown
    assert "| 1 | PSNR 33.25 | 4.00 ms | 2 MiB | yes |" in made.markdown
    assert "height 64, batch 2" in made.plots["optimize-report-film-unet.svg"]
    assert "repeat_interleave" in made.markdown
    cells = re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", made.html)
    lines = re.findall(r"^\| (.*) \|$", made.markdown, re.MULTILINE)
    assert [cell for line in lines for cell in line.split(" | ")] == cells


def test_speed_ups_of_one_run_are_not_mixed_with_those_of_another_machine() -> None:
    on_gpu = report(
        version=2,
        precision="fp16",
        runtime="tensorrt",
        machine=GPU,
        timing=[timing("height 64", torch=1.0, plan=0.25)],
    )
    made = page([report(), on_gpu])
    assert "| height 64 | 12.0 ms | 6.00 ms (2.00x) | - |" in made.markdown
    assert "| height 64 | 1.00 ms | - | 0.25 ms (4.00x) |" in made.markdown
    assert f"{CPU}, 2 threads" in made.plots["optimize-report-speed.svg"]
    assert f"{GPU}, 2 threads" in made.plots["optimize-report-speed-2.svg"]
    assert f"height 64 ({GPU}, 2 threads)" in made.plots["optimize-report-film-unet.svg"]


def test_parts_stand_in_the_plot_with_the_fastest_first() -> None:
    plot = page(full()).plots["optimize-report-speed.svg"]
    labels = [node.text for node in parsed(plot).iter(f"{SVG}text") if node.get("class") == "label"]
    assert labels[1:] == ["film: unet", "film: vae.decoder"]


def test_the_page_is_the_same_every_time_and_loads_nothing() -> None:
    made = page(full())
    assert page(list(reversed(full()))) == made
    assert re.findall(r"(?:src|href)=\"(?!#)[^\"]*\"|url\(|@import", made.html) == []
    anchors = set(re.findall(r'href="#([^"]+)"', made.html))
    assert anchors == set(re.findall(r'<section id="([^"]+)"', made.html)) == {"film-unet", "film-vae-decoder"}


def test_every_plot_of_the_markdown_is_a_file_beside_it_and_old_ones_go(tmp_path: Path) -> None:
    (tmp_path / "parts-gone.svg").write_text("<svg/>", encoding="utf-8")
    (tmp_path / "other-speed.svg").write_text("<svg/>", encoding="utf-8")
    written = write_page(tmp_path, full(), stem="parts")
    shown = set(re.findall(r"\]\(([^)]+)\)", (tmp_path / "parts.md").read_text()))
    assert {path.name for path in tmp_path.iterdir()} == shown | {"parts.md", "parts.html", "other-speed.svg"}
    assert {path.name for path in written} == shown | {"parts.md", "parts.html"}
    assert "parts-film-unet-int8.svg" in shown
    for name in shown:
        assert parsed((tmp_path / name).read_text()).tag == f"{SVG}svg"


def test_names_are_escaped() -> None:
    made = page([report(machine="<script>A|B</script>")])
    assert "<script>" not in made.html
    assert all("<script>" not in plot for plot in made.plots.values())


def test_bars_and_their_values_never_meet_and_long_labels_are_cut_in_the_middle() -> None:
    long = "height 1024, width 1024, frames 25, text tokens 77, channels 4"
    groups = [Group(long, [Bar("fp32", "ONNX fp32", 1e9, "1e9 ms"), Bar("torch", "torch", 0.0, "0 ms")])]
    drawn = parsed(draw_bars(Bars("Time", "machine", groups, mark=5e8), alone=True))
    bars = [node for node in drawn.iter(f"{SVG}rect") if node.get("class") != "ground"]
    assert [float(bar.get("width", "0")) for bar in bars] == [BAR_PX, 1.0]
    values = [node for node in drawn.iter(f"{SVG}text") if node.get("class") == "value"]
    assert {node.get("x") for node in values} == {str(WIDTH_PX)}
    assert {node.get("x1") for node in drawn.iter(f"{SVG}line")} == {str(NAME_PX + BAR_PX / 2)}
    label = next(node for node in drawn.iter(f"{SVG}text") if (node.text or "").startswith("height"))
    assert label.text == "height 1024, width 1024,…xt tokens 77, channels 4"
    title = label.find(f"{SVG}title")
    assert title is not None
    assert title.text == long


def test_points_lie_between_the_axes_also_where_one_is_infinite() -> None:
    points = [Point("a", 1.0, 20.0, False), Point("b", 2.0, float("inf"), True), Point("c", 2.0, 20.0, False)]
    drawn = parsed(draw_points(Points("INT8", "ms", "PSNR", points), alone=True))
    circles = [(float(each.get("cx", "0")), float(each.get("cy", "0"))) for each in drawn.iter(f"{SVG}circle")]
    assert all(52 <= x <= WIDTH_PX and 10 <= y <= 160 for x, y in circles)
    assert circles[0][0] < circles[1][0] == circles[2][0]
    assert circles[1][1] < circles[0][1]


def test_a_report_of_a_part_tells_all_that_is_recorded() -> None:
    fp32, int8, _ = full()
    text = markdown(fp32)
    assert text.startswith("# film: unet, version 1\n")
    assert "Exporter faults cured: repeat_interleave." in text
    assert "| batch_1 | 1 MiB | none: static | `cccccccccccccccc` |" in text
    assert "| quality | skipped | no network |" in text
    assert "| peak, torch's allocations | 900 MiB |" in text
    assert "## INT8" not in text
    assert "| 1: `to_q` | PSNR | 33.25 | 4.00 ms | 2 MiB | yes |" in markdown(int8)
    assert Report.model_validate_json(int8.model_dump_json()) == int8


def test_a_measure_that_is_infinite_survives_the_file() -> None:
    made = report(quality=[QualityRow(measure="PSNR", value=float("inf"), unit="dB", bound=50.0, passed=True)])
    again = Report.model_validate_json(made.model_dump_json())
    assert again.quality[0].value == float("inf")
    assert "| PSNR | equal | at least 50.0 dB | passed |" in markdown(again)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (709_182, "693 KiB"), (5 << 30, "5 GiB")],
)
def test_sizes_have_units_that_suit_them(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(("value", "text"), [(0.0482, "0.05 ms"), (31.94, "31.9 ms"), (12_345.6, "12,346 ms")])
def test_times_are_rounded_to_what_can_be_measured(value: float, text: str) -> None:
    assert milliseconds(value) == text
