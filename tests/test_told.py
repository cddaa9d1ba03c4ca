"""What a server says of its model: whether it is the demo, and which cosines mean nothing."""

import shutil
from dataclasses import replace

import numpy as np

from app.engine.checkpoint import read_checkpoint
from app.engine.demo import is_demo
from app.engine.export import ensure_export
from app.engine.measure import unrelated_cosine
from app.engine.native.export import NativeExporter
from app.engine.texts import SUBJECTS
from tests.conftest import HELD_OUT

LETTERS = np.array(list(SUBJECTS))


def percentiles(vectors):
    """Of the cosine of all pairs with different letters."""
    rows, columns = np.nonzero(np.triu(LETTERS[:, None] != LETTERS[None, :]))
    return np.percentile((vectors @ vectors.T)[rows, columns], [5, 50, 95])


def test_the_demo_model_is_known_under_any_name(demo_folder, tiny_folder, tmp_path):
    renamed = tmp_path / "bge-m3"
    renamed.symlink_to(demo_folder)
    assert is_demo(read_checkpoint(renamed))
    assert not is_demo(read_checkpoint(tiny_folder))


def test_other_weights_of_the_same_size_are_not_the_demo(demo_folder, tmp_path):
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(demo_folder / name, tmp_path)
    other = tmp_path / "model.safetensors"
    with other.open("wb") as file:
        file.truncate((demo_folder / "model.safetensors").stat().st_size)
    assert not is_demo(read_checkpoint(tmp_path))


def test_every_held_out_text_has_a_subject():
    assert len(SUBJECTS) == len(HELD_OUT)
    (question,) = [at for at, text in enumerate(HELD_OUT) if text == "Wann ist die Berliner Mauer gefallen?"]
    assert SUBJECTS[question] == SUBJECTS[question + 1]  # the same in English


def test_the_cosine_between_unrelated_texts_is_that_of_its_vectors(vectors, demo_folder):
    told = unrelated_cosine(read_checkpoint(demo_folder), "mean", None)
    assert told is not None, "run flask model export models/multilingual-e5-small"
    np.testing.assert_allclose(list(told.values()), percentiles(vectors()), atol=2e-3)
    assert list(told) == ["p5", "p50", "p95"]


def test_it_is_told_for_the_pooling_that_is_served(broken_folder, load_encoder, tmp_path):
    """Out of an export of any engine, in the model folder or in the cache; unknown before there is one."""
    for engine in ("native", "openvino"):
        shutil.rmtree(broken_folder / engine, ignore_errors=True)
    checkpoint, cache = read_checkpoint(broken_folder), tmp_path / "cache"
    assert unrelated_cosine(checkpoint, "mean", cache) is None
    made = ensure_export(checkpoint, NativeExporter(), "int8", None)
    encoder = load_encoder(broken_folder, engine="torch", pooling="cls")
    told = encoder.info.unrelated_cosine
    expected = percentiles(encoder.encode(HELD_OUT).dense)
    np.testing.assert_allclose(list(told.values()), expected, atol=2e-3)
    assert unrelated_cosine(checkpoint, "mean", None) != told
    elsewhere = cache / f"{broken_folder.name}-{checkpoint.fingerprint[:12]}" / "native" / "w8"
    elsewhere.parent.mkdir(parents=True)
    made.rename(elsewhere)
    assert unrelated_cosine(checkpoint, "cls", cache) == told
    (elsewhere / "export.json").write_text("[]")
    assert unrelated_cosine(checkpoint, "cls", cache) is None


def test_both_are_told_by_info_and_by_show(client, fake, monkeypatch):
    assert client.get("/info").json["demo"] is False
    assert client.get("/info").json["unrelated_cosine"] is None
    spread = {"p5": 0.7, "p50": 0.75, "p95": 0.8}
    monkeypatch.setattr(type(fake), "info", replace(fake.info, demo=True, unrelated_cosine=spread))
    for told in (client.get("/info").json, client.post("/api/show", json={}).json["model_info"]):
        assert (told["demo"], told["unrelated_cosine"]) == (True, spread)
