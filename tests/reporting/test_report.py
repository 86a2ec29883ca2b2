"""report.html shows the files of a run and makes no requests."""

import csv
import json
import re
import shutil
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Mapping
from hashlib import sha256
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from ganmnist.reporting import plots, report

SECTIONS = ["epochs", "pair", "training", "metrics", "classes", "neighbors", "reproduce"]
SHA = "35914650c8beaeed4429263376775b71ac05b224ab7d958a603bb5feac95afaf"
SUMMARY: dict[str, Any] = {
    **{"name": "my_idea", "status": "finished", "error": "", "data": "MNIST"},
    **{"epochs": 3, "batches_seen": 1234, "images_seen": 78976, "seconds": 745.3},
    **{"metric": "val_fid", "value": 3.25, "scalars": {}},
}
METRICS: dict[str, Any] = {
    "protocol": {"data": "MNIST", "n": 10000, "val_n": 2000, "seed": 7, "classifier": SHA},
    "val_fid_floor": 1.31,
    "final": {
        "epoch": 3,
        "raw": {"fid": 2.913, "fid_floor": 0.412, "kid": 0.00213},
        "ema": {"fid": 2.5, "fid_floor": 0.412, "kid": None},
    },
    "best": {"epoch": 2, "val_fid": 3.0721, "raw": {"fid": 2.75, "fid_floor": 0.412}},
    "class_histogram": {"generated": [0.05, *[0.1] * 8, 0.15], "test": [0.1] * 10},
}
ENV: dict[str, Any] = {
    "command": ["python", "-m", "ganmnist.train", "name=my idea", "lr=0.002"],
    "git": "7d44c0aa60670726280f23e6c733c0b984228a34+changes",
    **{"ganmnist": "0.1.0", "python": "3.11.7", "platform": "Linux"},
    "packages": {"torch": "2.14.1", "numpy": "2.4.6"},
    "device": {"type": "cuda", "name": "H200"},
    "data": {"name": "MNIST", "checksum": SHA},
}
CONFIG: dict[str, Any] = {
    **{"epochs": 3, "batch_size": 64, "lr": 0.002, "ema": None, "seed": 5},
    "model": {
        "generator": {
            "_target_": "ganmnist.networks.mlp.Generator",
            "latent_dim": "${latent_dim}",
            "widths": [32, 64],
        }
    },
    "objective": {"_target_": "my_losses.LeastSquares", "stable": True},
}


class Page(HTMLParser):
    """Elements, sections and images of a page, and its text outside of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.within = ""
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())
        self.sections = [a["id"] for tag, a in self.elements if tag == "section"]
        self.images = self.all("img")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.within = tag

    def handle_endtag(self, tag: str) -> None:
        self.within = ""

    def handle_data(self, data: str) -> None:
        if self.within not in ("script", "style"):
            self.words.append(data)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.elements if t == tag and attributes.items() <= a.items()]


def add_image(path: Path, level: int) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new("L", (4, 4), level).save(path)


def add_metrics(folder: Path, rows: Mapping[int, Mapping[str, float]]) -> None:
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", *columns])
        writer.writeheader()
        writer.writerows({"step": step, **row} for step, row in rows.items())


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content))


def read(folder: Path) -> Page:
    report.write(folder)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def gray(uri: str | None) -> int:
    """The gray level of an image of one color."""
    assert uri is not None
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    with Image.open(BytesIO(b64decode(data))) as image:
        return image.convert("L").getpixel((0, 0))


def charts_of(page: Page) -> dict[str, str]:
    """The charts of a page by their titles."""
    uris = {str(image["alt"]): str(image["src"]).partition(",") for image in page.images}
    svgs = {title: data for title, (head, _, data) in uris.items() if "svg" in head}
    return {title: b64decode(svg).decode() for title, svg in svgs.items()}


def path_points(svg: str, color: str) -> list[int]:
    """The number of points of each path of a color, without the legend."""
    paths = [a for a in Page(svg).all("path") if "clip-path" in a]
    return [str(a["d"]).count("L") for a in paths if f": {color};" in f"{a['style']};"]


def curves(svg: str) -> dict[str, int]:
    """The curves of a chart: names in the legend -> points."""
    named = {name: c for name, c in plots.COLORS.items() if f">{name}<" in svg}
    return {name: points for name, color in named.items() for points in path_points(svg, color)}


def numbers(svg: str) -> list[str]:
    """The labels of the ticks of a chart."""
    return re.findall(r">([\d.]+)</text>", svg)


def three_epochs(prefix: str = "") -> dict[int, dict[str, float]]:
    """metrics.csv of three epochs of 500 batches."""
    rows: dict[int, dict[str, float]] = {
        step: {
            **{"train/d/loss": 1.0 + step % 2, "train/g/loss": 2.0 - step % 2},
            **{"train/d/real_prob": step % 2, "train/d/fake_prob": 1 - step % 2},
        }
        for step in range(1, 1501)
    }
    for epoch in (1, 2, 3):
        fids = {"val_fid": 100.0 / epoch**2, "val_fid_ema": 90.0 / epoch}
        fids["val_class_entropy"] = 2.2 - 1 / epoch
        rows[500 * epoch] |= {f"metrics/{prefix}{name}": value for name, value in fids.items()}
        rows[500 * epoch]["epoch"] = epoch
    return rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with all files. The gray level of the image of epoch n is 17 n."""
    run = tmp_path / "2026-11-22_07-11-18"
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra/config.yaml").write_text(yaml.safe_dump(CONFIG))
    (run / ".hydra/overrides.yaml").write_text(yaml.safe_dump(["lr=0.002"]))
    write_json(run / "env.json", ENV)
    write_json(run / "summary.json", {**SUMMARY, "metrics": METRICS})
    add_metrics(run, three_epochs())
    for epoch in (1, 2, 3):
        add_image(run / f"samples/epoch_{epoch:03d}.png", 17 * epoch)
    for batch, level in ((200, 68), (400, 85)):
        add_image(run / f"samples/real_{batch:06d}.png", level)
        add_image(run / f"samples/fake_{batch:06d}.png", level + 100)
    add_image(run / "samples/neighbors.png", 255)
    return run


def test_report_has_all_sections_in_order(folder: Path) -> None:
    page = read(folder)
    assert page.sections == SECTIONS
    assert "my_idea MNIST · finished · 2026-11-22 07:11" in page.text
    assert "3 epochs · 1,234 batches · 78,976 images · 12 min" in page.text
    assert "fid 2.91, EMA 2.5 (lower is better; real images: 0.412); 2.75" in page.text
    for option in ("epochs 3", "batch_size 64", "lr 0.002", "ema null", "seed 5"):
        assert option in page.text
    assert "generator networks.mlp.Generator widths=[32,64] " in page.text
    assert "objective my_losses.LeastSquares stable=true" in page.text
    assert "device cuda, H200 git 7d44c0aa6067, with changes" in page.text
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == [".hydra"]


def test_table_has_all_weights_with_direction_and_reference(folder: Path) -> None:
    text = read(folder).text
    columns = "trained weights EMA weights trained weights"
    assert f"last, epoch 3 best, epoch 2 {columns} reference fid" in text
    assert re.search(r"lower is better 2\.913 2\.500 2\.750 real images: 0\.412 kid", text)
    assert "lower is better 0.00213 \N{EN DASH} \N{EN DASH} best: 0 The best epoch" in text
    assert "The best epoch has val_fid 3.07 (lower is better; real images: 1.31)." in text
    assert "data MNIST , n 10000 , val_n 2000 , seed 7 , classifier 35914650c8be ." in text


def test_last_epoch_that_is_the_best_has_one_column(folder: Path) -> None:
    best = {"epoch": 3, "val_fid": 3.0, "raw": METRICS["final"]["raw"]}
    write_json(folder / "summary.json", {**SUMMARY, "metrics": {**METRICS, "best": best}})
    text = read(folder).text
    assert "last and best, epoch 3 trained weights EMA weights reference fid" in text
    assert "has val_fid 3 (" in text


def test_keys_of_other_data_have_their_prefix(folder: Path) -> None:
    metrics = {
        "final": {"epoch": 3, "raw": {"digits_fid": 9.5, "digits_fid_floor": 1.5}},
        "best": {"epoch": 3, "digits_val_fid": 8.5},
        "val_fid_floor": 2.25,
    }
    write_json(folder / "summary.json", {**SUMMARY, "data": "digits", "metrics": metrics})
    add_metrics(folder, three_epochs("digits_"))
    page = read(folder)
    assert "lower is better 9.500 real images: 1.5 " in page.text
    assert "digits_val_fid 8.5 (lower is better; real images: 2.25)" in page.text
    charts = charts_of(page)
    assert list(curves(charts["val_fid (lower is better)"])) == ["trained weights", "EMA weights"]
    assert list(curves(charts["val_class_entropy (higher is better)"])) == ["trained weights"]


def test_curves_are_subsampled_and_the_reference_is_dashed(folder: Path) -> None:
    page = read(folder)
    charts = charts_of(page)
    titles = ["Losses", "Mean output of D", "val_fid (lower is better)"]
    titles += ["val_class_entropy (higher is better)", "shares of the classes"]
    assert list(charts) == titles
    losses, outputs, fid, entropy, shares = charts.values()
    most = plots.POINTS
    assert curves(losses) == {"D": most, "G": most}
    assert curves(outputs) == {"D(x), real": most, "D(G(z)), generated": most}
    assert curves(fid) == {"trained weights": 2, "EMA weights": 2}
    assert curves(entropy) == {"trained weights": 2}
    for color in (plots.COLORS["generated"], plots.COLORS["test"]):
        assert len(path_points(shares, color)) == 10
    assert "real images: 1.31<" in fid
    assert "equally frequent classes: 2.3<" in entropy
    dashed = [svg.count("stroke-dasharray") for svg in charts.values()]
    assert dashed == [0, 0, 2, 2, 0]  # with the legends
    units = [re.findall(">(batches|epochs)<", svg) for svg in charts.values()]
    assert units == [["batches"], ["batches"], ["epochs"], ["epochs"], []]
    assert charts_of(read(folder)) == charts  # reproducible


def test_large_range_has_a_logarithmic_axis(folder: Path) -> None:
    svg = charts_of(read(folder))["val_fid (lower is better)"]
    assert numbers(svg) == ["1", "2", "3", "2", "5", "10", "20", "50", "100"]
    add_metrics(folder, {i: {"epoch": i, "metrics/val_fid": 20.0 - i} for i in (1, 2)})
    svg = charts_of(read(folder))["val_fid (lower is better)"]
    assert numbers(svg) == ["1", "2", "0", "5", "10", "15", "20"]


def test_report_has_the_images_of_the_folder(folder: Path) -> None:
    page = read(folder)
    charts = charts_of(page)
    images = [image for image in page.images if image["alt"] not in charts]
    assert {str(image["alt"]): gray(image["src"]) for image in images} == {
        **{"epoch 1": 17, "epoch 2": 34, "epoch 3": 51},
        **{"real images": 85, "generated images": 185},
        "generated images and their nearest training images": 255,
    }
    assert [image["alt"] for image in page.images if "hidden" in image] == ["epoch 1", "epoch 2"]


def test_without_fake_images_the_last_epoch_is_beside_the_real_ones(folder: Path) -> None:
    for path in folder.glob("samples/fake_*.png"):
        path.unlink()
    images = {image["alt"]: image["src"] for image in read(folder).images}
    assert gray(images["generated images"]) == 51


def test_color_images_keep_their_colors(folder: Path) -> None:
    Image.new("RGB", (4, 4), (255, 0, 102)).save(folder / "samples/epoch_003.png")
    src = next(image["src"] for image in read(folder).images if image["alt"] == "epoch 3")
    with Image.open(BytesIO(b64decode(str(src).partition(",")[2]))) as image:
        assert image.convert("RGB").getpixel((0, 0)) == (255, 0, 102)


def test_at_most_60_epochs_are_shown(folder: Path) -> None:
    for epoch in range(1, 1001):
        add_image(folder / f"samples/epoch_{epoch:03d}.png", epoch % 256)
    page = read(folder)
    epochs = [int(str(a["alt"])[6:]) for a in page.images if str(a["alt"]).startswith("epoch")]
    assert len(epochs) == 60
    assert (epochs[0], epochs[-1]) == (1, 1000)
    assert {b - a for a, b in pairwise(epochs)} <= {16, 17}
    [slider] = page.all("input")
    assert (slider["min"], slider["max"]) == ("0", "59")


def test_command_and_versions(folder: Path) -> None:
    text = read(folder).text
    revision = ENV["git"].removesuffix("+changes")
    command = "python -m ganmnist.train 'name=my idea' lr=0.002"
    assert f"git checkout {revision} {command} " in text
    assert f"data MNIST, {SHA} ganmnist 0.1.0 python 3.11.7" in text
    assert "torch 2.14.1, numpy 2.4.6" in text
    assert "job of the sweep" not in text


def test_job_of_a_sweep_has_its_settings(folder: Path) -> None:
    command = ["python", "-m", "ganmnist.train", "-m", "lr=0.001,0.002"]
    write_json(folder / "env.json", {**ENV, "command": command})
    assert "-m lr=0.001,0.002 " in (text := read(folder).text)
    assert "Settings of this job of the sweep: lr=0.002" in text


@pytest.mark.parametrize(
    ("missing", "left_out"),
    [
        (["metrics.csv"], ["training"]),
        (["metrics.csv", "summary.json"], ["training", "metrics", "classes"]),
        (["samples/epoch_001.png", "samples/epoch_002.png", "samples/epoch_003.png"], ["epochs"]),
        (["samples/real_000200.png", "samples/real_000400.png"], ["pair"]),
        (["samples/neighbors.png"], ["neighbors"]),
        (["env.json", ".hydra/overrides.yaml"], ["reproduce"]),
        ([".hydra/config.yaml", ".hydra/overrides.yaml"], []),
        (["metrics.csv", "summary.json", "env.json", ".hydra", "samples"], SECTIONS),
    ],
)
def test_sections_without_files_are_left_out(
    folder: Path, missing: list[str], left_out: list[str]
) -> None:
    for name in missing:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = read(folder)
    assert page.sections == [name for name in SECTIONS if name not in left_out]
    # Without the summary the name is that of the folder.
    name = "2026-11-22_07-11-18" if "summary.json" in missing else "my_idea"
    assert page.all("h1") == [{}]
    assert name in page.text
    assert len(page.all("script")) == ("epochs" in page.sections)


def test_failed_run_has_its_error(folder: Path) -> None:
    failed = {"name": "my_idea", "status": "failed", "error": "RuntimeError: no <memory>"}
    write_json(folder / "summary.json", {**failed, "metric": "val_fid", "value": None})
    page = read(folder)
    assert "failed" in page.text
    assert "RuntimeError: no <memory>" in page.text
    assert "images ·" not in page.text


def test_without_configuration_the_settings_are_those_of_the_summary(folder: Path) -> None:
    (folder / ".hydra/config.yaml").unlink()
    write_json(folder / "summary.json", {**SUMMARY, "settings": {"epochs": 3, "lr": 0.5}})
    assert "epochs 3 lr 0.5" in read(folder).text


def test_torn_files_are_left_out(folder: Path) -> None:
    add_metrics(folder, {1: {"train/d/loss": 1.0, "train/g/loss": float("nan")}})
    with (folder / "metrics.csv").open("a") as file:
        file.write("2,1.5")
    (folder / "samples/epoch_003.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "summary.json").write_text('{"name": "my_')
    (folder / ".hydra/config.yaml").write_text("a: [")
    page = read(folder)
    [losses] = charts_of(page).values()
    assert list(curves(losses)) == ["D"]
    assert [a["alt"] for a in page.images] == [
        *("epoch 1", "epoch 2", "real images", "generated images", "Losses"),
        "generated images and their nearest training images",
    ]


def test_chart_of_one_value(folder: Path) -> None:
    add_metrics(folder, {1: {"epoch": 1, "metrics/val_fid": 0.0, "train/d/loss": 1.0}})
    charts = charts_of(read(folder))
    del charts["shares of the classes"]
    assert list(charts) == ["Losses", "val_fid (lower is better)"]
    for svg, color in zip(charts.values(), ("#c0392b", "#8a6d1f"), strict=True):
        dots = [a for a in Page(svg).all("use") if color in str(a["style"])]
        assert len(dots) == 2  # one in the legend


@pytest.mark.parametrize("value", [None, True, 3, "text", [None], [[1]], {"a": {"b": 1}}])
def test_values_of_wrong_types_do_not_fail(folder: Path, value: Any) -> None:
    metrics = dict.fromkeys(METRICS, value)
    write_json(folder / "summary.json", dict.fromkeys(SUMMARY, value) | {"metrics": metrics})
    write_json(folder / "env.json", dict.fromkeys(ENV, value))
    parts = dict.fromkeys(("gan", "optimizer", "trainer", *CONFIG), value)
    (folder / ".hydra/config.yaml").write_text(yaml.safe_dump(parts))
    assert {"training", "metrics", "epochs", "reproduce"} <= set(read(folder).sections)


HOSTILE = "</title><script>alert(1)</script><img src=https://example.org/x onerror=alert(1)>\"'"


def test_content_of_files_is_escaped(folder: Path) -> None:
    before = [tag for tag, _ in read(folder).elements]
    metrics = json.loads(json.dumps(METRICS))
    metrics["final"]["raw"][HOSTILE] = 1.0
    metrics["best"][HOSTILE] = 2.0
    metrics["protocol"][HOSTILE] = HOSTILE
    write_json(
        folder / "summary.json",
        SUMMARY
        | dict.fromkeys(("name", "status", "data", "metric"), HOSTILE)
        | {"metrics": metrics},
    )
    write_json(
        folder / "env.json",
        ENV
        | {"command": ["python", HOSTILE, "not \udcff text"], "packages": {HOSTILE: HOSTILE}}
        | {"device": {"type": HOSTILE, "name": HOSTILE}, "data": {"checksum": HOSTILE}},
    )
    config = {**CONFIG, "seed": HOSTILE, "objective": {"_target_": HOSTILE, HOSTILE: HOSTILE}}
    (folder / ".hydra/config.yaml").write_text(yaml.safe_dump(config))
    (folder / ".hydra/overrides.yaml").write_text(yaml.safe_dump([HOSTILE]))
    page = read(folder)
    for tag in ("script", "img", "title"):
        assert [t for t, _ in page.elements].count(tag) == before.count(tag)
    assert page.text.count("<script>alert(1)</script>") >= 10
    assert not any(name.startswith("on") for _, a in page.elements for name in a)
    assert_no_requests(page)


def test_report_makes_no_requests(folder: Path) -> None:
    assert_no_requests(read(folder))


def assert_no_requests(page: Page) -> None:
    links = ("src", "srcset", "href", "xlink:href", "data", "action", "poster")
    found = [value for _, a in page.elements for name, value in a.items() if name in links]
    assert found
    assert all(re.match(r"data:image/(png|svg\+xml);base64,", str(value)) for value in found)
    charts = [Page(svg) for svg in charts_of(page).values()]
    assert charts
    for chart in charts:
        assert not {tag for tag, _ in chart.elements} & {"script", "image", "foreignobject"}
        assert {str(a["xlink:href"])[0] for a in chart.all("use")} <= {"#"}
    assert not page.all("link")
    [policy] = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert str(policy["content"]).startswith("default-src 'none'; img-src data:; ")


# Moves the slider and presses keys, records what is visible, then tries to load an image.
PROBE = """
<script>
addEventListener("securitypolicyviolation", event => {
  document.body.dataset.blocked = event.effectiveDirective;
});
const visible = () => [[...document.querySelectorAll("#frames img")]
  .filter(f => f.checkVisibility()).map(f => f.alt).join(),
  document.querySelector("output").textContent];
const range = document.querySelector("input[type=range]");
const seen = [visible()];
range.value = 0;
range.dispatchEvent(new Event("input", { bubbles: true }));
seen.push(visible());
document.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
seen.push(visible());
for (let i = 0; i < 9; i++)
  document.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
seen.push(visible());
document.body.dataset.seen = JSON.stringify(seen);
document.body.dataset.requests = JSON.stringify(
  performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:")));
new Image().src = "http://127.0.0.1:9/image.png";
</script>
"""


def test_slider_in_a_browser(folder: Path, tmp_path: Path) -> None:
    names = ("chromium", "google-chrome", "chromium-browser")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip("needs Chromium")
    report.write(folder)
    html = (folder / "report.html").read_text(encoding="utf-8")
    body = body_in_browser(browser, html.replace("</body>", PROBE + "</body>"), tmp_path)
    assert "data-seen" not in body  # the page allows its own script alone
    code = PROBE.partition("<script>")[2].partition("</script>")[0]
    digest = b64encode(sha256(code.encode()).digest()).decode()
    html = html.replace("script-src ", f"script-src 'sha256-{digest}' ")
    body = body_in_browser(browser, html.replace("</body>", PROBE + "</body>"), tmp_path)
    shown = ["epoch 3", "epoch 1", "epoch 2", "epoch 1"]
    assert json.loads(str(body["data-seen"])) == [[epoch, epoch] for epoch in shown]
    assert json.loads(str(body["data-requests"])) == []
    assert body["data-blocked"] == "img-src"


def body_in_browser(browser: str, html: str, tmp_path: Path) -> dict[str, str | None]:
    """The attributes of a page's body after its scripts have run."""
    copy = tmp_path / "copy.html"
    copy.write_text(html, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run(
        [browser, *options, profile, "--dump-dom", copy.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    [body] = Page(done.stdout).all("body")
    return body
