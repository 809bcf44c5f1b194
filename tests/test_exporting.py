"""Models taken elsewhere: safetensors and ONNX files that colour as the run does, and means of
weights.
"""

from __future__ import annotations

import builtins
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gancolor import interchange, models, presets
from gancolor.coloring import views
from gancolor.coloring.colorizer import Colorizer
from gancolor.coloring.settings import PhotographSettings
from gancolor.coloring.views import Draw
from gancolor.config import TrainConfig
from gancolor.errors import CheckpointError, ConfigError, MissingExtra
from gancolor.hints import Hint
from gancolor.hub import choice
from gancolor.images.photograph import Photograph
from gancolor.models.backbones import ENCODERS
from gancolor.storage import checkpoint, model_file, onnx_file

if TYPE_CHECKING:
    from click.testing import Result

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SMALL: dict[str, Any] = {
    **{"image_size": 32, "frozen_blocks": 3, "levels": 1, "width": 4, "backbone_weights": "none"},
    **{"dataset": "/home/me/pictures", "device": "cpu"},
}


def build(preset: str = "gan", **settings: Any) -> TrainConfig:
    return presets.build(preset, **{**SMALL, **settings})


def content(config: TrainConfig, seed: int = 0) -> dict[str, Any]:
    """A best.pt's: a network that was never trained, but colours loudly, with BatchNorms that have
    seen something.
    """
    torch.manual_seed(seed)
    if config.network != "unet":
        state = models.build_generator(config).state_dict()
        embedding = dict.fromkeys(("weights", "fingerprint"))
        embedding |= {"name": config.embedding, "seed": 0, "identity": "none-0", "origin": "random"}
        return {"generator": state, "origin": "random", "step": seed, "embedding": embedding}
    generator = models.build_generator(config, ENCODERS[config.backbone].load("none", seed=1))
    last = generator.last.logits if config.head == "bins" else generator.last
    with torch.no_grad():
        last.weight.mul_(100)
        for key, value in generator.state_dict().items():
            if key.endswith(("running_mean", "running_var")):
                value.uniform_(0.5, 1)
            elif key.startswith("last.refine"):
                value.add_(0.05 * torch.randn_like(value))
    return {"generator": generator.state_dict(), "origin": "random", "step": seed, "seen": 2}


def save(folder: Path, config: TrainConfig, seed: int = 3) -> Path:
    """A run's directory with best.pt, config.json and card.md."""
    folder.mkdir(parents=True)
    checkpoint.save(folder / "best.pt", content(config, seed), config)
    (folder / "config.json").write_text(json.dumps({"settings": config.to_json()}))
    (folder / "card.md").write_text("# A card\n\nTrained on /home/me/pictures.\n")
    return folder


def model(path: Path) -> choice.Choice:
    return choice.find(str(path), path.parent)


def gray(height: int = 40, width: int = 52) -> NDArray[np.uint8]:
    return np.repeat(np.random.default_rng(5).integers(0, 256, (height, width, 1), np.uint8), 3, 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with bins and hints. Read only."""
    return save(tmp_path_factory.mktemp("runs") / "0007-first", build())


@pytest.fixture(scope="module")
def graph(run: Path) -> Path:
    """The run as an ONNX file. Read only."""
    out = run.parent / "model.onnx"
    interchange.export(model(run), out)
    return out


# --- safetensors ---


def test_safetensors_colour_as_the_run_and_hold_its_card_and_settings(
    run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.safetensors"
    written = interchange.export(model(run), out, precision="fp32")
    assert (written.format, written.precision, written.difference) == ("safetensors", "fp32", None)
    assert np.array_equal(Colorizer.load(out)(gray()), Colorizer.load(run)(gray()))
    told = model_file.read_header(out)
    assert told["card"] == "# A card\n\nTrained on pictures.\n"  # without folders of this machine
    assert told["config"] == dataclasses.replace(build(), dataset="pictures")
    assert Colorizer.load(out).name == "0007-first step 3"
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx"])
def test_a_model_may_be_exported_bolder(run: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"m{suffix}"
    interchange.export(model(run), out, precision="fp32", saturation=1.5)
    plain, bold = (Colorizer.load(path).predict(gray()) for path in (run, out))
    assert np.allclose(bold, 1.5 * plain, atol=1e-4) and np.ptp(plain) > 0
    hints = [Hint(10, 10, (60, 120, 90))]
    held = [Colorizer.load(path)(gray(), hints=hints)[10, 10].astype(int) for path in (run, out)]
    assert np.abs(held[0] - held[1]).max() <= 2  # what is known is not made bolder


def test_a_card_and_a_name_may_be_given_and_half_precision_is_the_default(
    run: Path, tmp_path: Path
) -> None:
    card, out = tmp_path / "mine.md", tmp_path / "m.safetensors"
    card.write_text("# Mine\n")
    assert interchange.export(model(run), out, card=card, name="sepia").precision == "fp16"
    assert model_file.read_header(out)["card"] == "# Mine\n"
    assert Colorizer.load(out).name == "sepia step 3"
    difference = Colorizer.load(out).predict(gray()) - Colorizer.load(run).predict(gray())
    assert 0 < np.abs(difference).max() < 0.02


def test_last_pt_becomes_what_colouring_needs(run: Path, tmp_path: Path) -> None:
    config, whole = build(), content(build(), 3)
    frozen = {key: value for key, value in whole["generator"].items() if key.startswith("encoder.")}
    own = {key: value for key, value in whole["generator"].items() if key not in frozen}
    last = {
        **whole,
        "generator": {},
        "ema": own,
        "optimizers": {"G": {"state": torch.ones(9)}},
        "seconds": 5.0,
    }
    last["backbone"] = {key.removeprefix("encoder."): value for key, value in frozen.items()}
    checkpoint.save(tmp_path / "last.pt", last, config)
    interchange.export(model(tmp_path / "last.pt"), tmp_path / "m.safetensors", precision="fp32")
    read = model_file.read(tmp_path / "m.safetensors")
    assert "optimizers" not in read and "backbone" not in read and read["seconds"] == 5.0
    assert np.array_equal(
        Colorizer.load(tmp_path / "m.safetensors")(gray()), Colorizer.load(run)(gray())
    )


def test_a_fusion_network_travels_as_safetensors_only(
    tmp_path: Path, small_embeddings: None
) -> None:
    config = build(
        "portrait-vgg19",
        **{key: TrainConfig().__getattribute__(key) for key in ("frozen_blocks", "width")},
    )
    folder = save(tmp_path / "runs" / "0001-fused", config)
    interchange.export(model(folder), tmp_path / "m.safetensors", precision="fp32")
    with pytest.raises(
        ConfigError, match="--format must be safetensors with 0001-fused, got onnx: the embedding"
    ):
        interchange.export(model(folder), tmp_path / "m.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors", "runs"]
    read = model_file.read(tmp_path / "m.safetensors")
    assert read["embedding"] == content(config)["embedding"]


# --- ONNX ---

KINDS = {
    "bins and hints": build(),
    "bins without hints": build(hints=0.0),
    "ab": build(head="ab", hints=0.0),
    "ab with hints": build(head="ab", hints=0.5),
    "edges": build(condition="edges"),
    "edges, ab": build(condition="edges", head="ab", hints=0.0),
    "fast": build("fast", encoder_weights="none", frozen_blocks=4, width=4, levels=0),
    "no contractive level": build(frozen_blocks=4, levels=0),
    "no expanding level": build(frozen_blocks=2, hints=0.0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_say_what_torch_says(tmp_path: Path, kind: str) -> None:
    config = KINDS[kind]
    out = tmp_path / "m.onnx"
    written = interchange.export(model(save(tmp_path / "0001-x", config)), out)
    assert written.difference is not None and 0 < written.difference < 1e-4
    one, other = Colorizer.load(tmp_path / "0001-x"), Colorizer.load(out)
    hints = [Hint(10, 12, (200, 30, 30), 3)] if config.hints else []
    for size in (16, 37):
        wanted = one.predict(gray(), size, hints=hints)
        assert np.abs(wanted - other.predict(gray(), size, hints=hints)).max() < 1e-3
        assert np.abs(wanted).max() > 0.05
    if config.hints:  # they are heard in both
        assert np.abs(one.predict(gray(), 37) - wanted).max() > 1e-3
        assert np.abs(one.predict(gray(), 37) - other.predict(gray(), 37)).max() < 1e-3


def test_pictures_of_one_pixel_and_many_at_once(graph: Path, run: Path) -> None:
    session = onnx_file.open_session(graph, 1)
    generator = Colorizer.load(run, precision="fp32").generator
    for count, height, width in ((1, 1, 1), (1, 2, 70), (3, 17, 9)):
        condition, hints = torch.rand(count, 1, height, width), torch.zeros(count, 3, height, width)
        ab, logits = session.run(None, {"gray": condition.numpy(), "hints": hints.numpy()})
        with torch.inference_mode():
            wanted = generator.say(condition, hints)
        assert ab.shape == wanted.colors.shape and logits.shape == wanted.logits.shape
        assert np.abs(ab - wanted.colors.numpy()).max() < 1e-3


def test_temperature_confidence_draws_and_suggestions_are_the_same(graph: Path, run: Path) -> None:
    one, other = Colorizer.load(run), Colorizer.load(graph)
    plain = views.look(one.sight, gray())
    for how in (
        {"temperature": 0.9},
        {"temperature": 0.05},
        {"draw": Draw(0, 4, 1.0)},
        {"flip": True},
    ):
        view = dataclasses.replace(plain, **how)
        said, same = (each.predict_view(view) for each in (one, other))
        assert np.abs(said.colors - same.colors).max() < 2e-3
        assert said.confidence is not None and same.confidence is not None
        assert np.abs(said.confidence - same.confidence).max() < 1e-3
    drawn = one.predict_view(dataclasses.replace(plain, draw=Draw(0, 4, 1.0))).colors
    assert np.abs(one.predict(gray()) - drawn).max() > 0.01
    wanted, got = (each.suggest(gray(), 20, 11, count=3) for each in (one, other))
    assert [item.rgb for item in wanted] == [item.rgb for item in got]
    assert np.allclose(
        [item.probability for item in wanted], [item.probability for item in got], atol=1e-3
    )


def test_the_file_is_valid_and_says_what_it_is(graph: Path) -> None:
    proto = onnx.load(graph)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.opset_import[0].version == onnx_file.OPSET == 17
    told = {item.key: item.value for item in proto.metadata_props}
    assert (
        told["card"].startswith("# A card") and json.loads(told["config"])["dataset"] == "pictures"
    )
    assert {item.name for item in proto.graph.input} == {"gray", "hints", "temperature"}
    assert {item.name for item in proto.graph.output} == {"ab", "logits"}
    assert Colorizer.load(graph).name == "0007-first step 3"
    assert checkpoint.peek(graph)["card"].startswith("# A card")


def test_half_precision_makes_a_graph_small(run: Path, graph: Path, tmp_path: Path) -> None:
    written = interchange.export(model(run), tmp_path / "half.onnx", precision="fp16")
    assert written.size < 0.7 * graph.stat().st_size
    assert written.difference is not None and 1e-6 < written.difference < 0.02


def test_the_input_for_hints_may_be_left_out(run: Path, tmp_path: Path) -> None:
    interchange.export(model(run), tmp_path / "m.onnx", hints=False)
    colorizer = Colorizer.load(tmp_path / "m.onnx")
    assert np.abs(colorizer.predict(gray()) - Colorizer.load(run).predict(gray())).max() < 1e-3
    with pytest.raises(ConfigError, match="hints must be left out with a network that takes none"):
        colorizer(gray(), hints=[Hint(3, 3, (200, 0, 0))])


def test_a_run_that_never_saw_hints_has_no_input_for_them(tmp_path: Path) -> None:
    folder = save(tmp_path / "0002-blind", build(hints=0.0))
    with pytest.raises(
        ConfigError, match="--hints must be left out with 0002-blind, which never saw any"
    ):
        interchange.export(model(folder), tmp_path / "m.onnx", hints=True)
    assert [path.name for path in tmp_path.iterdir()] == ["0002-blind"]
    interchange.export(model(folder), tmp_path / "m.onnx")
    assert "hints" not in {item.name for item in onnx.load(tmp_path / "m.onnx").graph.input}


def test_variants_without_a_distribution_are_refused(tmp_path: Path) -> None:
    interchange.export(model(save(tmp_path / "0001-x", KINDS["ab"])), tmp_path / "m.onnx")
    colorizer = Colorizer.load(tmp_path / "m.onnx")
    with pytest.raises(ConfigError, match="--variants must be 1 with a network that .*, got 2"):
        colorizer.color(Photograph(pixels=gray()), PhotographSettings(variants=2))
    assert (
        len(
            colorizer.color(
                Photograph(pixels=gray()), PhotographSettings(consensus=3, confidence=True)
            ).pictures
        )
        == 1
    )


def test_a_graph_that_says_something_else_is_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gancolor.storage import onnx_graph

    monkeypatch.setattr(onnx_graph, "SLOPE", 0.1)
    with pytest.raises(
        CheckpointError, match=r"m\.onnx was not written: onnxruntime's colours differ .* by 0\."
    ) as caught:
        interchange.export(model(run), tmp_path / "m.onnx")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_device_and_precision_of_a_graph_are_its_own(graph: Path) -> None:
    for wrong, words in (
        ({"device": "cuda"}, "--device must be auto or cpu with an ONNX model, got cuda"),
        ({"precision": "bf16"}, "--precision must be auto or fp32 with an ONNX model, got bf16"),
    ):
        with pytest.raises(ConfigError, match=words):
            Colorizer.load(graph, **wrong)


def test_where_onnxruntime_has_no_memory_less_is_seen(graph: Path) -> None:
    colorizer = Colorizer.load(graph)
    session, seen = colorizer._network.session, []

    class Tight:
        get_inputs = session.get_inputs

        def run(self, names: None, given: dict[str, Any]) -> Any:
            seen.append(given["gray"].shape[2:])
            if given["gray"].size > 40 * 60:
                raise Exception(
                    "[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of"
                    " size 9"
                )
            return session.run(names, given)

    colorizer._network.session = Tight()
    prediction = colorizer.predict_view(views.look(colorizer.sight, gray(80, 120), 80))
    assert seen == [(80, 120), (40, 60)] and prediction.notes == (
        "out of memory on cpu at 120x80: seen at 60x40",
    )


def test_a_graph_cannot_be_trained_on(graph: Path, tmp_path: Path) -> None:
    for use in (
        lambda: checkpoint.load(graph),
        lambda: interchange.export(model(graph), tmp_path / "m.safetensors"),
        lambda: interchange.average([model(graph), model(graph)], tmp_path / "m.safetensors"),
    ):
        with pytest.raises(
            CheckpointError, match="is an ONNX model, which can only colour; use the run"
        ):
            use()


# --- files that are not right ---


def without_graph(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_at_the_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def text(path: Path) -> None:
    path.write_text("<html>not found</html>")


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def change(path: Path, **fields: Any) -> None:
    proto = onnx.load(path)
    for name, value in fields.items():
        if name == "opset":
            proto.opset_import[0].version = value
        elif name == "producer":
            proto.producer_name = value
        else:
            for item in [item for item in proto.metadata_props if item.key == name]:
                if value is None:
                    proto.metadata_props.remove(item)
                else:
                    item.value = value
    onnx.save(proto, path)


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (without_graph, r"m\.onnx is damaged or no ONNX file \(it has no graph\)"),
    "truncated": (truncated, r"m\.onnx is damaged or no ONNX file \(it ends too early\)"),
    "cut": (cut_at_the_end, r"m\.onnx is damaged"),
    "text": (text, r"m\.onnx is damaged or no ONNX file"),
    "flipped": (flipped, r"m\.onnx is damaged \(its checksum is another\)"),
    "opset": (
        lambda path: change(path, opset=21),
        "must have ONNX's opset 17, got 21; export it again",
    ),
    "producer": (
        lambda path: change(path, producer="pytorch"),
        "that gancolor export wrote, got one by 'pytorch'",
    ),
    "format": (
        lambda path: change(path, format="2"),
        "must have format 1, got '2' written by gancolor",
    ),
    "settings": (
        lambda path: change(path, config='{"new": 1}'),
        "unknown new; use the version that wrote them",
    ),
    "metadata": (
        lambda path: change(path, content=None),
        r"must be a gancolor model, got another ONNX file",
    ),
    "card": (
        lambda path: change(path, card="other"),
        r"m\.onnx is damaged \(its checksum is another\)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_a_file_is_one_line(graph: Path, tmp_path: Path, fault: str) -> None:
    path = tmp_path / "m.onnx"
    shutil.copy(graph, path)
    spoil, words = FAULTS[fault]
    spoil(path)
    with pytest.raises(CheckpointError, match=words) as caught:
        Colorizer.load(path)
    assert "\n" not in str(caught.value)


def test_a_graph_is_known_by_its_content(graph: Path, run: Path, tmp_path: Path) -> None:
    shutil.copy(graph, tmp_path / "model.pt")
    assert np.array_equal(
        Colorizer.load(tmp_path / "model.pt")(gray()), Colorizer.load(graph)(gray())
    )
    model_file.write(tmp_path / "s", {"a": torch.ones(2)}, build())
    assert not any(
        onnx_file.is_one(path)
        for path in (run / "best.pt", run / "card.md", tmp_path / "s", tmp_path)
    )


def test_a_sound_file_that_onnxruntime_cannot_open_is_one_line(graph: Path, tmp_path: Path) -> None:
    proto, path = onnx.load(graph), tmp_path / "m.onnx"
    proto.graph.node[0].op_type = "Nonsense"
    told = {item.key: item.value for item in proto.metadata_props}
    digest = onnx_file.digest(told, proto.graph.SerializeToString())
    onnx.save(proto, path)
    change(path, sha256=digest)
    with pytest.raises(
        CheckpointError, match=r"m\.onnx cannot be opened by onnxruntime .*; export it again"
    ) as caught:
        Colorizer.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_extra_is_named(
    run: Path, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    import sys

    real = builtins.__import__

    def fail(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(f"No module named {package!r}", name=package)
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "gancolor.storage.onnx_graph", raising=False)
    monkeypatch.delattr("gancolor.storage.onnx_graph", raising=False)
    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(MissingExtra, match=r"pip install 'gancolor\[onnx\]'"):
        interchange.export(model(run), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
    if package == "onnxruntime":
        with pytest.raises(MissingExtra, match=r"pip install 'gancolor\[onnx\]'"):
            Colorizer.load(graph)


# --- means ---


def test_the_mean_of_weights(tmp_path: Path) -> None:
    config = build(dataset="x")
    runs = [model(save(tmp_path / f"000{seed}-run", config, seed)) for seed in (1, 2)]
    interchange.average(runs, tmp_path / "mean.safetensors", precision="fp32")
    mean = model_file.read(tmp_path / "mean.safetensors")
    one, other = (content(config, seed)["generator"] for seed in (1, 2))
    for key, value in mean["generator"].items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (one[key] + other[key]) / 2)
        else:
            assert torch.equal(value, one[key])
    assert (
        Colorizer.load(tmp_path / "mean.safetensors").name == "mean of 0001-run and 0002-run step 1"
    )


def test_the_mean_of_one_weight_twice_is_that_one(run: Path, tmp_path: Path) -> None:
    interchange.average([model(run), model(run)], tmp_path / "mean.safetensors", precision="fp32")
    assert np.array_equal(
        Colorizer.load(tmp_path / "mean.safetensors")(gray()), Colorizer.load(run)(gray())
    )


@pytest.mark.parametrize("settings", [{"width": 6}, {"hints": 0.0}, {"head": "ab", "hints": 0.0}])
def test_other_shapes_have_no_mean(run: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    other = model(save(tmp_path / "0008-other", build(**settings)))
    with pytest.raises(
        CheckpointError, match="models to average must have the same network, got .* in 0007-first"
    ) as e:
        interchange.average([model(run), other], tmp_path / "m.safetensors")
    assert "\n" not in str(e.value) and not (tmp_path / "m.safetensors").exists()


def test_the_mean_of_distributions(tmp_path: Path) -> None:
    config = build()
    one, other = (
        Colorizer.load(save(tmp_path / f"000{seed}-run", config, seed)) for seed in (1, 2)
    )
    both = Colorizer.mean([one, other])
    assert both.name == "0001-run step 1 and 0002-run step 2"
    view = views.look(one.sight, gray())
    shares = [each._network.distribution(view, 0.4, 0.6) for each in (one, other, both)]
    torch.testing.assert_close(shares[2], (shares[0] + shares[1]) / 2, atol=1e-5, rtol=1e-4)
    predicted = both.predict(gray())
    assert np.abs(predicted - one.predict(gray())).max() > 0.01
    assert np.abs(predicted).max() <= 1
    hinted = both.predict(gray(), hints=[Hint(10, 10, (255, 0, 0), 4)])
    assert np.abs(hinted - predicted).max() > 1e-3
    assert not np.array_equal(
        both.predict_view(dataclasses.replace(view, draw=Draw(0, 1, 1.0))).colors, predicted
    )


def test_the_mean_of_one_network_twice_is_that_network(run: Path, graph: Path) -> None:
    one = Colorizer.load(run)
    for other in (one, Colorizer.load(graph)):  # torch and onnxruntime mix
        both = Colorizer.mean([one, other])
        assert np.abs(both.predict(gray()) - one.predict(gray())).max() < 1e-3
        for how in ({"temperature": 0.9}, {"draw": Draw(0, 2, 1.0)}, {"flip": True}):
            view = dataclasses.replace(views.look(one.sight, gray()), **how)
            assert (
                np.abs(both.predict_view(view).colors - one.predict_view(view).colors).max() < 2e-3
            )


def test_the_mean_of_colours_and_of_networks_that_pad_differently(tmp_path: Path) -> None:
    plain, deep = KINDS["ab"], build(head="ab", hints=0.0, levels=3, image_size=64)
    one, other = (
        Colorizer.load(save(tmp_path / name, config))
        for name, config in (("1-a", plain), ("2-b", deep))
    )
    both = Colorizer.mean([one, other])
    assert both.sight.size == 32 and both._network.stride == other._network.stride
    rgb = gray(32, 64)  # a multiple of both strides: nothing is padded
    mean = (one.predict(rgb) + other.predict(rgb)) / 2
    assert np.abs(both.predict(rgb) - mean).max() < 1e-5
    assert both.predict(gray()).shape == one.predict(gray()).shape


def test_hints_need_all_networks_to_take_them(run: Path, tmp_path: Path) -> None:
    blind = Colorizer.load(save(tmp_path / "0002-blind", build(hints=0.0)))
    both = Colorizer.mean([Colorizer.load(run), blind])
    with pytest.raises(ConfigError, match="hints must be left out with a network that takes none"):
        both(gray(), hints=[Hint(3, 3, (200, 0, 0))])
    assert both(gray()).shape == (40, 52, 3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"head": "ab", "hints": 0.0},
            "--head must be the same for networks whose mean is wanted, got bins of",
        ),
        (
            {"condition": "edges"},
            "--condition must be the same .* got gray of 0007-first step 3 and edges of 0001-x",
        ),
    ],
)
def test_networks_that_see_or_say_other_things_have_no_mean(
    run: Path, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    other = Colorizer.load(save(tmp_path / "0001-x", build(**settings)))
    with pytest.raises(ConfigError, match=words):
        Colorizer.mean([Colorizer.load(run), other])


# --- the commands ---


def test_export_by_the_command_line(cli: Callable[..., Result], run: Path, tmp_path: Path) -> None:
    result = cli("export", 7, "--runs-root", run.parent, "--out", tmp_path / "m.safetensors")
    assert result.exit_code == 0, result.output
    assert (
        "m.safetensors: 0." in result.output
        and "MiB, safetensors, weights in fp16" in result.output
    )
    result = cli("export", run, "--out", tmp_path / "m.onnx")
    assert result.exit_code == 0, result.output
    assert "onnx, weights in fp32; at three sizes at most " in result.output
    result = cli(
        "export", tmp_path / "m.safetensors", "--out", tmp_path / "again.onnx", "--name", "again"
    )
    assert result.exit_code == 0, result.output
    assert Colorizer.load(tmp_path / "again.onnx").name == "again step 3"


WRONG: list[tuple[list[str], str]] = [
    (["--out", "m.bin"], "--format must be one of safetensors, onnx for --out m.bin, got none"),
    (
        ["--out", "m.onnx", "--format", "safetensors"],
        "--out must end in .safetensors with --format safetensors, got",
    ),
    (["--out", ".", "--format", "onnx"], "--out must name a file, got the folder ."),
    (
        ["--out", "none/m.onnx"],
        "none/m.onnx could not be written (No such file or directory)",
    ),
    (["--out", "m.safetensors", "--hints"], "--hints must be left out with --format safetensors"),
    (
        ["--out", "m.safetensors", "--card", "none.md"],
        "none.md must be a text in UTF-8, got 'No such file",
    ),
    (["--out", "m.safetensors", "--name", " "], "--name must be a line of text, got ' '"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG)
def test_wrong_options_are_one_line_and_write_nothing(
    cli: Callable[..., Result],
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli("export", run, *arguments)
    assert (
        result.exit_code in (1, 2)
        and words in result.output
        and len(result.output.splitlines()) == 1
    )
    assert not list(tmp_path.iterdir())


def test_average_and_sample_by_the_command_line(cli: Callable[..., Result], tmp_path: Path) -> None:
    from gancolor.images import arrays

    one, two = (save(tmp_path / "runs" / f"000{seed}-run", build(), seed) for seed in (1, 2))
    result = cli("average", one, two, "--out", tmp_path / "mean.safetensors")
    assert result.exit_code == 0 and "the mean of 2 models, weights in fp16" in result.output
    assert cli("average", one, "--out", tmp_path / "m.safetensors").exit_code == 2
    arrays.write_rgb(tmp_path / "a.png", gray())
    outputs = {}
    for name, given in {"one": [one], "two": [two], "both": [one, two]}.items():
        options = [item for path in given for item in ("--run", path)]
        result = cli(
            "sample", tmp_path / "a.png", "--out", tmp_path / name, "--workers", 0, *options
        )
        assert result.exit_code == 0, result.output
        outputs[name] = arrays.read_rgb(tmp_path / name / "a.png").astype(int)
    assert all(np.abs(outputs["both"] - outputs[name]).max() > 2 for name in ("one", "two"))
    assert "colouring with 0001-run" in result.output and "colouring with 0002-run" in result.output
    result = cli("sample", "--run", one, "--run", two)
    assert (
        result.exit_code == 2
        and "--out must name a folder for the pictures of 2 models together" in result.output
    )
