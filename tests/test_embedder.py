"""The embedder: when the network runs and when the disk answers, the same numbers either way,
checkpoints.
"""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gancolor import color, presets
from gancolor.config import TrainConfig
from gancolor.errors import CheckpointError, WeightsError
from gancolor.models import embedding_cache, embeddings
from gancolor.models.embeddings import Embedder, EmbeddingKind

CPU = torch.device("cpu")
KEYS = [f"{n:064x}" for n in range(1, 41)]
COPIES = torch.randint(
    0, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


@pytest.fixture(autouse=True)
def _heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("gancolor"), "propagate", True)


class Tiny(nn.Module):
    """Scores that depend, as those of real networks do in the last bits, on how many pictures come
    at once.
    """

    seen: list[int] = []
    built = 0
    offset = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.AvgPool2d(8), nn.Flatten()
        )
        self.classifier = nn.Linear(64, 6)

    def forward(self, x: Tensor) -> Tensor:
        Tiny.seen.append(len(x))
        scores: Tensor = self.classifier(self.features(x))
        return scores + len(x) / 1000 + Tiny.offset


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> type[Tiny]:
    def build() -> nn.Module:
        Tiny.built += 1
        return Tiny()

    for name, size in (("vgg16", 32), ("vgg19", 32)):
        kind = EmbeddingKind(name=name, title=f"tiny {name}", width=6, size=size, build=build)
        monkeypatch.setitem(embeddings.EMBEDDINGS, name, kind)
    # its pictures are not to be counted
    monkeypatch.setattr(embeddings, "_standardize", lambda embedding: None)
    for name, value in (("seen", []), ("built", 0), ("offset", 0.0)):
        monkeypatch.setattr(Tiny, name, value)
    return Tiny


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GANCOLOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "embeddings"


def settings(**changes: Any) -> TrainConfig:
    return presets.build("face", **{"backbone_weights": "none", "device": "cpu", **changes})


def make(
    dtype: torch.dtype = torch.float32, saved: dict[str, Any] | None = None, **changes: Any
) -> Embedder:
    return Embedder(settings(**changes), CPU, dtype, saved)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Return a file of weights."""
    path = tmp_path / "weights.pt"
    torch.save(embeddings.load_embedding("vgg16", "none", seed=7).network.state_dict(), path)
    Tiny.built = 0
    return path


def test_the_scores_are_those_of_the_gray_picture() -> None:
    embedder = make()
    assert (embedder.width, embedder.size, embedder.passes) == (6, 32, 0)
    assert "tiny vgg16, random" in embedder.origin
    got = embedder(COPIES[:3])
    network = embeddings.load_embedding("vgg16", "none", seed=0)
    expected = network(color.gray(color.split(COPIES[:3])[0]).expand(-1, 3, -1, -1))
    assert got.dtype == torch.float32 and got.shape == (3, 6) and got.std() > 0.01
    assert torch.equal(got, expected.half().float()) and embedder.passes == 3
    gray = (color.gray(color.split(COPIES[:3])[0]) * 255).round().byte().expand(-1, 3, -1, -1)
    assert torch.allclose(embedder(gray), got, atol=0.02), "colours do not count"
    assert torch.equal(make(embedding_output="softmax")(COPIES[:3]), got.softmax(1))
    assert torch.allclose(got.softmax(1).sum(1), torch.ones(3))


def test_at_most_sixteen_at_once(cache: Path) -> None:
    embedder = make()
    embedder(COPIES)
    assert Tiny.seen == [16, 16, 8] and embedder.passes == 40
    embedder(COPIES[:2], ())  # no keys
    assert Tiny.seen[3:] == [2] and not cache.exists()
    assert embedder(COPIES[:0]).shape == (0, 6)
    with pytest.raises(ValueError, match="one a picture, got 2 for 3"):
        embedder(COPIES[:3], KEYS[:2])


def test_known_pictures_need_no_network(cache: Path) -> None:
    first = make()
    assert Tiny.built == 0
    expected = first(COPIES, KEYS)
    assert first.passes == 40 and Tiny.built == 1
    again = make()
    order = [5, 3, 3, 39, 0]
    assert torch.equal(again(COPIES[order], [KEYS[i] for i in order]), expected[order])
    assert again.passes == 0 and Tiny.built == 1
    assert torch.equal(again(torch.zeros_like(COPIES[:2]), KEYS[:2]), expected[:2]), (
        "the key counts"
    )


def test_equal_pictures_of_a_batch_go_through_once() -> None:
    for cached in (True, False):
        embedder = make(embedding_cache=cached)
        order = [2, 0, 2, 2, 1, 0]
        got = embedder(COPIES[order], [KEYS[i] for i in order])
        assert embedder.passes == 3 and sum(Tiny.seen) == 3
        assert (
            torch.equal(got[0], got[2])
            and torch.equal(got[1], got[5])
            and not torch.equal(got[0], got[1])
        )
        Tiny.seen.clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("output", ["scores", "softmax"])
def test_hits_and_misses_give_the_same_numbers(
    dtype: torch.dtype, output: str, cache: Path
) -> None:
    """A resumed run finds some pictures known that an unbroken one computed with others, or in
    another process.
    """
    without = make(dtype, embedding_cache=False, embedding_output=output)(COPIES, KEYS)
    fresh = make(dtype, embedding_output=output)
    some = fresh(COPIES[4:9], KEYS[4:9])
    mixed = fresh(COPIES, KEYS)
    assert fresh.passes == 40
    hits = make(dtype, embedding_output=output)
    assert torch.equal(without, mixed) and torch.equal(some, mixed[4:9])
    assert torch.equal(hits(COPIES, KEYS), mixed) and hits.passes == 0


def test_raw_scores_are_kept_whatever_the_network_is_given(cache: Path) -> None:
    scores = make()(COPIES, KEYS)
    softmax = make(embedding_output="softmax")
    assert torch.equal(softmax(COPIES, KEYS), scores.softmax(1)) and softmax.passes == 0


@pytest.mark.parametrize("changes", [{"framing": "random"}, {"embedding_cache": False}], ids=str)
def test_what_is_not_cached(changes: dict[str, Any], cache: Path) -> None:
    embedder = make(**changes)
    embedder(COPIES[:5], KEYS[:5])
    embedder(COPIES[:5], KEYS[:5])
    assert embedder.passes == 10 and not cache.exists()


def test_networks_are_kept_apart(
    cache: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = weights.with_name("other.pt")
    torch.save(embeddings.load_embedding("vgg16", "none", seed=8).network.state_dict(), other)
    kinds: list[dict[str, Any]] = [
        {},
        {"seed": 1},
        {"embedding": "vgg19"},
        {"dtype": torch.bfloat16},
        {"backbone_weights": str(weights)},
        {"backbone_weights": str(other)},
    ]
    results = []
    for count, changes in enumerate(kinds, start=1):
        embedder = make(**changes)
        results.append(embedder(COPIES[:2], KEYS[:2]))
        assert embedder.passes == 2 and len(list(cache.iterdir())) == count
    assert all(not torch.equal(one, two) for i, one in enumerate(results) for two in results[:i])
    monkeypatch.setattr(torch, "__version__", "9.9.9+cpu")  # it may draw other random weights
    for changes, passes in ((kinds[0], 2), (kinds[4], 0)):
        embedder = make(**changes)
        embedder(COPIES[:2], KEYS[:2])
        assert embedder.passes == passes
    names = {path.name for path in cache.iterdir()}
    assert "vgg16-none-seed0-torch9.9.9-float32-2" in names and any(
        name.endswith("-bfloat16-2") for name in names
    )


def test_damage_on_disk_is_mended_with_the_same_numbers(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = make()(COPIES[:4], KEYS[:4])
    (file,) = cache.rglob("data.mdb")
    record = expected[2].half().numpy().tobytes()
    damaged = bytes([record[0] ^ 16]) + record[1:]
    file.write_bytes(file.read_bytes().replace(record, damaged))  # also in pages that are free
    caplog.clear()
    embedder = make()
    assert torch.equal(embedder(COPIES[:4], KEYS[:4]), expected) and embedder.passes == 1
    assert sum("damaged" in record.getMessage() for record in caplog.records) == 1
    after = make()
    assert torch.equal(after(COPIES[:4], KEYS[:4]), expected) and after.passes == 0


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GANCOLOR_CACHE", str(tmp_path / "file"))
    embedder = make()
    one, two = embedder(COPIES[:4], KEYS[:4]), embedder(COPIES[:4], KEYS[:4])
    assert torch.equal(one, two) and embedder.passes == 8
    assert sum("going on without" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("offset", [1e5, -1e6, float("nan"), float("inf")])
@pytest.mark.parametrize("keys", [KEYS[:3], None], ids=["cached", "not cached"])
def test_scores_that_float16_cannot_hold_are_refused(
    offset: float, keys: list[str] | None, cache: Path
) -> None:
    Tiny.offset = offset
    with pytest.raises(
        WeightsError, match=r"embedding vgg16 must be finite and at most 65504.*--precision fp32"
    ):
        make()(COPIES[:3], keys)
    Tiny.offset = 6e4
    assert torch.equal(make()(COPIES[:3], KEYS[:3]), make()(COPIES[:3], KEYS[:3])), (
        "nothing of it was kept"
    )


def test_weights_are_held_in_the_dtype() -> None:
    embedder = make(torch.bfloat16)
    got = embedder(COPIES[:4])
    network = embedder._build()
    kinds = {type(m): p.dtype for m in network.modules() for p in m.parameters(recurse=False)}
    assert kinds == {
        nn.Conv2d: torch.bfloat16,
        nn.Linear: torch.bfloat16,
        nn.BatchNorm2d: torch.float32,
    }
    full = make()(COPIES[:4])
    assert (
        got.dtype == torch.float32
        and not torch.equal(got, full)
        and torch.allclose(got, full, atol=0.05)
    )


def test_the_embedding_trains_nothing_and_lets_others_train() -> None:
    embedder = make()
    with torch.inference_mode():
        embedder(COPIES[:2])  # built here
    fusion = nn.Linear(6, 2)
    with torch.enable_grad():
        got = embedder(COPIES[:2], KEYS[:2])
        fusion(got + embedder(COPIES[:2])).sum().backward()
    assert not got.requires_grad and not got.is_inference() and fusion.weight.grad is not None
    parameters = list(embedder._build().parameters())
    assert parameters and all(
        p.grad is None and not p.requires_grad and not p.is_inference() for p in parameters
    )


def reload(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_travel_in_the_checkpoint(dtype: torch.dtype, weights: Path, cache: Path) -> None:
    changes: dict[str, Any] = {"backbone_weights": str(weights), "seed": 3}
    embedder = make(dtype, **changes)
    expected = embedder(COPIES[:6], KEYS[:6])
    state = reload(embedder.state())
    assert (
        state["name"] == "vgg16"
        and state["seed"] == 3
        and state["weights"]["classifier.weight"].dtype == dtype
    )
    assert state["weights"]["features.1.running_var"].dtype == torch.float32
    weights.unlink()
    Tiny.built = 0
    restored = make(dtype, state, **changes)
    assert restored.origin == embedder.origin and "weights.pt" in restored.origin
    assert (
        torch.equal(restored(COPIES[:6], KEYS[:6]), expected) and restored.passes == Tiny.built == 0
    )
    assert reload(restored.state()).keys() == state.keys() and Tiny.built == 0
    assert torch.equal(
        make(dtype, state, embedding_cache=False, **changes)(COPIES[:6], KEYS[:6]), expected
    )
    again = reload(restored.state())["weights"]
    assert all(torch.equal(value, again[key]) for key, value in state["weights"].items())
    with pytest.raises(WeightsError, match="no file"):
        make(dtype, **changes)


def test_weights_rounded_once_are_another_network(weights: Path, cache: Path) -> None:
    changes: dict[str, Any] = {"backbone_weights": str(weights)}
    make(torch.float32, **changes)(COPIES[:2], KEYS[:2])
    rounded = make(torch.bfloat16, **changes).state()
    embedder = make(torch.float32, rounded, **changes)
    embedder(COPIES[:2], KEYS[:2])
    assert embedder.passes == 2, "not those of the file's float32"
    assert torch.equal(
        rounded["weights"]["classifier.weight"], embedder.state()["weights"]["classifier.weight"]
    )
    assert {p.dtype for p in embedder._build().parameters()} == {torch.float32}


def test_random_weights_are_drawn_again_and_checked(cache: Path) -> None:
    embedder = make(seed=3)
    state = reload(embedder.state())
    assert state["weights"] is None and state["seed"] == 3 and Tiny.built == 1, (
        "the fingerprint needs it"
    )
    expected = embedder(COPIES[:2])
    Tiny.built = 0
    restored = make(saved=state, seed=3)
    assert restored.state() == state and Tiny.built == 0
    assert torch.equal(restored(COPIES[:2]), expected) and restored.state() == state
    for fingerprint in (
        [value + 0.1 for value in state["fingerprint"]],
        state["fingerprint"][1:],
        None,
    ):
        with pytest.raises(
            CheckpointError, match="random weights of the embedding vgg16 must be those"
        ):
            make(saved={**state, "fingerprint": fingerprint}, seed=3)(COPIES[:2])
    last_bits = [value * (1 + 1e-6) for value in state["fingerprint"]]
    assert torch.equal(
        make(saved={**state, "fingerprint": last_bits}, seed=3)(COPIES[:2]), expected
    )


def test_a_checkpoint_of_another_embedding_is_refused() -> None:
    state = make().state()
    with pytest.raises(CheckpointError, match="the embedding vgg19 of its settings, got vgg16"):
        make(saved=state, embedding="vgg19")
    del state["fingerprint"], state["seed"]
    with pytest.raises(CheckpointError, match="without its seed, fingerprint"):
        make(saved=state)


def test_other_scores_or_grays_would_be_another_format() -> None:
    """A change of what is cached (gray conversion, scores) must raise FORMAT, and then these
    figures.
    """
    picture = torch.tensor([[200, 30, 90], [0, 255, 128]], dtype=torch.uint8).reshape(2, 3, 1, 1)
    gray = color.gray(color.split(picture)[0]).flatten() * 255
    assert gray.tolist() == pytest.approx([104.38, 222.04], abs=0.1) and embedding_cache.FORMAT == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(cache: Path) -> None:
    device = torch.device("cuda")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        embedder = Embedder(settings(), device, dtype)
        got = embedder(COPIES, KEYS)
        assert got.device.type == "cuda" and Tiny.seen[-3:] == [16, 16, 8]
        again = Embedder(settings(), device, dtype)
        assert torch.equal(again(COPIES.to(device), KEYS), got) and again.passes == 0
        assert torch.allclose(embedder(COPIES), got, atol=0.02)
        state = {
            **again.state(),
            "weights": {k: v.cpu() for k, v in embedder._build().network.state_dict().items()},
        }
        assert torch.allclose(Embedder(settings(), device, dtype, state)(COPIES), got, atol=0.02)


@pytest.mark.slow
def test_a_real_network_gives_the_same_numbers_in_any_company(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.undo()  # the real VGG16
    monkeypatch.setenv("GANCOLOR_CACHE", str(cache))
    copies = torch.randint(
        0, 256, (5, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    embedder = make(embedding_cache=False)
    together = embedder(copies, KEYS[:5])
    assert together.shape == (5, 1000) and embedder.passes == 5
    assert torch.equal(torch.cat([embedder(copies[[i]], [KEYS[i]]) for i in range(5)]), together)
    assert torch.allclose(embedder(copies), together, rtol=2e-3, atol=1e-2)
