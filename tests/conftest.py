"""Fixtures: a fake encoder for the HTTP tests, and real checkpoints for every promise about vectors."""

import hashlib
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.config import Settings
from app.engine.embeddings import (
    CROSS_ENCODER,
    PRIORITIES,
    Chunking,
    Embeddings,
    Load,
    ModelInfo,
    Passage,
    Scores,
    Timings,
    Token,
    count_numbers,
)
from app.engine.encoder import Encoder, EncoderSettings
from app.engine.errors import Abandoned, LateNeedsMean, MissingHead, TextTooLong, TooMuchOutput
from app.engine.scores import Plan, score_pairs
from app.engine.space import space_name
from app.engine.token_pooling import count_pooled, pool
from benchmarks.checkpoint import PAIR

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "models" / "multilingual-e5-small"
BGE_M3 = ROOT / "models" / "bge-m3"

# If this machine has a proxy, it must not be used for the servers that tests start.
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"
# A shell's background jobs ignore Ctrl-C, and so would the servers and commands that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


class FakeEncoder:
    """Makes vectors from a text's hash; a text has one token per word and two around them."""

    width = 16
    limit = 8
    heads = ("sparse", "colbert")
    pooling = "mean"

    def __init__(self) -> None:
        self.load_state = Load(ready=True, drain_seconds=dict.fromkeys(PRIORITIES, 7))
        self.calls: list[dict] = []
        self.fails: Exception | None = None
        self.fails_after_expecting: Exception | None = None
        self.gave_way = 0
        self.shape = None  # that of its weights: family, layers, width, vocabulary

    def give_way(self) -> None:
        self.gave_way += 1

    def turns(self, **load) -> None:
        """Change how much work it has."""
        self.load_state = replace(self.load_state, **load)

    def encode(
        self,
        texts: list[str],
        *,
        pooling=None,
        outputs=("dense",),
        truncate="right",
        priority=None,
        gone=None,
        expect=None,
        patient=False,
        chunk=None,
        colbert_pool=None,
    ) -> Embeddings:
        if self.fails:
            raise self.fails
        self.calls.append(
            {
                "texts": texts,
                "pooling": pooling,
                "outputs": set(outputs),
                "truncate": truncate,
                "priority": priority,
                "patient": patient,
                "chunk": chunk,
                "colbert_pool": colbert_pool,
            }
        )
        if chunk and chunk.late and pooling == "cls":
            raise LateNeedsMean
        passages = self.passages(texts, chunk) if chunk else []
        if chunk:
            texts = [texts[passage.text][passage.start : passage.stop] for passage in passages]
        for head in {"sparse", "colbert"} & set(outputs):
            if head not in self.heads:
                raise MissingHead(head)
        counts = [len(text.split()) + 2 for text in texts]
        over = [index for index, count in enumerate(counts) if count > self.limit and not chunk]
        if over and truncate is None:
            raise TextTooLong(over[0], counts[over[0]], self.limit)
        if expect:
            count = partial(count_pooled, factor=colbert_pool) if colbert_pool else count_numbers
            expect(count(counts, self.width, outputs))
        if self.fails_after_expecting:
            raise self.fails_after_expecting
        rows = [self.vector(text) for text in texts]
        multi_vector = [
            np.array([self.vector(word) for word in [*text.split(), "</s>"]], np.float32)
            for text in texts
            if "colbert" in outputs
        ]
        return Embeddings(
            dense=np.array(rows if "dense" in outputs else [], np.float32).reshape(-1, self.width),
            lengths=np.full(len(texts) if "dense" in outputs else 0, 2, np.float32),
            sparse=[self.lexical(text) for text in texts if "sparse" in outputs],
            multi_vector=pool(multi_vector, colbert_pool) if colbert_pool else multi_vector,
            token_counts=[min(count, self.limit) for count in counts],
            truncated=over,
            timings=Timings(load=7),
            passages=passages,
        )

    def passages(self, texts: list[str], chunk: Chunking) -> list[Passage]:
        """Runs of words; if the texts are passages already, the texts themselves."""
        found = []
        for index, text in enumerate(texts):
            words = [word.span() for word in re.finditer(r"\S+", text)]
            size = chunk.tokens or max(1, len(words))
            runs = [words[start : start + size] for start in range(0, len(words), size)] or [[(0, 0)]]
            found += [Passage(index, run[0][0], run[-1][1], len(run)) for run in runs]
        return found

    def score(
        self,
        pairs,
        weights=(0.4, 0.2, 0.4),
        *,
        pooling=None,
        truncate="right",
        priority=None,
        gone=None,
        expect=None,
    ) -> Scores:
        options = {"pooling": pooling, "truncate": truncate, "priority": priority}
        plan = Plan(pairs)
        counts = [0] * len(plan.texts)

        def encode(group):
            texts = [plan.texts[text] for text in group]
            try:
                found = self.encode(texts, outputs=("dense", *self.heads), **options)
            except TextTooLong as error:
                pair, query = plan.pair_of(group[error.index])
                raise TextTooLong(pair, error.tokens, error.limit, query) from None
            for text, count in zip(group, found.token_counts, strict=True):
                counts[text] = count
            return found

        by_name = score_pairs(plan, plan.groups(counts), encode, weights, self.heads)
        return Scores(by_name, counts, 0)

    @property
    def info(self) -> ModelInfo:
        family, layers, width, vocabulary = self.shape or ("xlm-roberta", 2, self.width, 9)
        return ModelInfo(
            family=family,
            parameters=1000,
            size=4000,
            digest="0" * 64,
            modified=1.7e9,
            layers=layers,
            width=width,
            vocabulary=vocabulary,
            max_tokens=self.limit,
            pooling=self.pooling,
            heads=self.heads,
            engine="native",
            precision="fp32",
            space=self.space(),
        )

    def space(self, pooling=None) -> str:
        return space_name("0" * 64, pooling or self.pooling, "fp32", "", self.limit)

    def tokenize(self, texts: list[str], special: bool, most: int, gone=None) -> list[list[Token]]:
        found: list[list[Token]] = []
        if sum(len(text.split()) for text in texts) > most:
            raise TooMuchOutput("tokens", None, most)
        for text in texts:
            words = [
                Token(len(word.group()), word.group(), False, *word.span())
                for word in re.finditer(r"\S+", text)
            ]
            first, last = Token(0, "<s>", True, None, None), Token(2, "</s>", True, None, None)
            found.append([first, *words, last] if special else words)
        return found

    def lexical(self, text: str):
        ids = np.array(sorted({len(word) for word in text.split()}), np.int32)
        return ids, (ids / 8).astype(np.float32)

    def token_strings(self, ids) -> list[str]:
        return [f"{number} letters" for number in ids]

    def vector(self, text: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
        vector = np.random.default_rng(seed).normal(size=self.width).astype(np.float32)
        return vector / np.linalg.norm(vector)


class FakeReranker:
    """Makes logits from the words that two texts share; a pair has one token per word, and four more."""

    limit = 12

    def __init__(self, encoder: FakeEncoder) -> None:
        self.encoder = encoder
        self.calls: list[dict] = []
        self.fails: Exception | None = None
        self.labels: tuple[str, ...] = ()
        self.loaded: bool | None = None

    def load(self) -> None:
        if self.fails:
            raise self.fails
        self.loaded = True

    def close(self) -> None:
        self.loaded = False

    @property
    def info(self) -> ModelInfo:
        of_encoder = replace(self.encoder.info, max_tokens=self.limit, pooling="cls", heads=())
        return replace(of_encoder, digest="1" * 64, labels=self.labels, space="")

    @staticmethod
    def logit(query: str, passage: str) -> float:
        shared = set(query.split()) & set(passage.split())
        return 3.0 * len(shared) - 0.5 * len(passage.split()) - 1

    def score(self, pairs, *, truncate="right", priority=None, gone=None) -> Scores:
        if self.fails:
            raise self.fails
        self.calls.append({"pairs": pairs, "truncate": truncate, "priority": priority})
        if gone and gone():
            raise Abandoned
        counts = [len(query.split()) + len(passage.split()) + 4 for query, passage in pairs]
        over = [index for index, count in enumerate(counts) if count > self.limit]
        if over and truncate is None:
            raise TextTooLong(over[0], counts[over[0]], self.limit)
        logits = np.array([self.logit(*pair) for pair in pairs], np.float32)
        return Scores({CROSS_ENCODER: logits}, [min(count, self.limit) for count in counts], len(over))

    def rank(
        self,
        query,
        passages,
        top,
        weights=(0.4, 0.2, 0.4),
        *,
        pooling=None,
        truncate="right",
        priority=None,
        gone=None,
        expect=None,
    ) -> Scores:
        options = {"truncate": truncate, "priority": priority, "gone": gone}
        pairs = [(query, passage) for passage in passages]
        first = self.encoder.score(pairs, weights, pooling=pooling, **options)
        if expect:
            outputs = ("dense", *self.encoder.heads)
            expect(count_numbers(first.token_counts, self.encoder.width, outputs))
        best = np.argsort(-first.by_name[first.best], kind="stable")[:top]
        try:
            second = self.score([pairs[index] for index in best], **options)
        except TextTooLong as error:
            raise TextTooLong(int(best[error.index]), error.tokens, error.limit) from None
        logits = np.full(len(pairs), np.nan, np.float32)
        logits[best] = second.by_name[CROSS_ENCODER]
        by_name = first.by_name | {CROSS_ENCODER: logits}
        return Scores(by_name, first.token_counts + second.token_counts, first.cut + second.cut)


def assert_alike(found: Embeddings, expected: Embeddings) -> None:
    """Compare every output of the same texts, up to the rounding errors of float32."""
    np.testing.assert_allclose(found.dense, expected.dense, atol=1e-5)
    for (ids, weights), (same, others) in zip(found.sparse, expected.sparse, strict=True):
        np.testing.assert_array_equal(ids, same)
        np.testing.assert_allclose(weights, others, atol=1e-4)
    for rows, others in zip(found.multi_vector, expected.multi_vector, strict=True):
        np.testing.assert_allclose(rows, others, atol=1e-4)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--save-vectors", action="store_true", help="store the vectors of test_vectors.py anew")


@pytest.fixture
def fake() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def settings() -> Settings:
    return Settings(model_name="fake", max_texts=64, max_body_bytes=100_000)


@pytest.fixture
def app(settings: Settings, fake: FakeEncoder) -> Flask:
    return create_app(settings, fake)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def reranker(fake: FakeEncoder) -> FakeReranker:
    return FakeReranker(fake)


@pytest.fixture
def both(settings: Settings, fake: FakeEncoder, reranker: FakeReranker) -> FlaskClient:
    """A client of an application with a cross-encoder beside the encoder."""
    names = {"reranker_name": "bge-reranker-v2-m3", "reranker_aliases": ("cross:latest",)}
    return create_app(replace(settings, **names), fake, reranker).test_client()


@pytest.fixture(scope="session")
def demo_folder() -> Path:
    assert (DEMO / "config.json").is_file(), (
        "models/multilingual-e5-small is missing: make models/multilingual-e5-small"
    )
    return DEMO


# Size of the small models' vocabulary: the most frequent of BGE-M3's tokens, with their own ids.
VOCABULARY = 40_000


@pytest.fixture(scope="session")
def small_tokenizer(tmp_path_factory, demo_folder: Path) -> Path:
    """BGE-M3's tokenizer with part of its vocabulary; it loads in a tenth of a second instead of one."""
    content = json.loads((demo_folder / "tokenizer.json").read_text())
    *pieces, mask = content["model"]["vocab"]
    assert mask[0] == "<mask>"
    content["model"]["vocab"] = [*pieces[: VOCABULARY - 1], mask]
    for added in content["added_tokens"]:
        if added["content"] == "<mask>":
            added["id"] = VOCABULARY - 1
    content["post_processor"]["pair"] = PAIR
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    file.write_text(json.dumps(content, ensure_ascii=False))
    return file


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, small_tokenizer: Path) -> Path:
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny", small_tokenizer, VOCABULARY)


@pytest.fixture(scope="session")
def tiny_folder_of_all_words(tmp_path_factory, demo_folder: Path) -> Path:
    """The same with BGE-M3's whole vocabulary, for what depends on a server's memory."""
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny", demo_folder / "tokenizer.json", 250_002)


def make_tiny(folder: Path, tokenizer: Path, vocabulary: int) -> Path:
    """BGE-M3's layout, files and positions; two layers of random weights, 64 wide."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaModel

    (folder / "1_Pooling").mkdir(parents=True)
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=8194,
        type_vocab_size=1,
        pad_token_id=1,
        layer_norm_eps=1e-5,
    )
    model = XLMRobertaModel(config, add_pooling_layer=True)
    with torch.no_grad():
        # A range wide enough that attention and position matter, and that texts get different vectors.
        for name, parameter in model.named_parameters():
            if "LayerNorm.weight" in name:
                parameter.normal_(1.0, 0.1)
            elif name.endswith("bias"):
                parameter.normal_(0.0, 0.05)
            else:
                parameter.normal_(0.0, 0.15)
    config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    torch.save({"weight": torch.randn(1, 64), "bias": torch.full((1,), 0.3)}, folder / "sparse_linear.pt")
    torch.save({"weight": torch.randn(64, 64), "bias": torch.randn(64)}, folder / "colbert_linear.pt")
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 8192}))
    shutil.copy(tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_reranker(tmp_path_factory, small_tokenizer: Path) -> Path:
    """bge-reranker-v2-m3's layout and files; two layers of random weights, 64 wide."""
    from transformers import XLMRobertaConfig

    folder = tmp_path_factory.mktemp("models") / "tiny-reranker"
    make_reranker(
        folder,
        XLMRobertaConfig(**TINY, vocab_size=VOCABULARY, max_position_embeddings=8194, pad_token_id=1),
    )
    shutil.copy(small_tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bert_reranker(tmp_path_factory) -> Path:
    """The same for BERT's family: a WordPiece vocabulary, and token types for the two texts of a pair."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig

    folder = tmp_path_factory.mktemp("models") / "tiny-bert-reranker"
    letters = [mark + letter for letter in "abcdefghijklmnopqrstuvwxyz.,?0123456789" for mark in ("", "##")]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, "the", "warm", "##ing", "water"]
    make_reranker(
        folder, BertConfig(**TINY, vocab_size=len(words), max_position_embeddings=512, type_vocab_size=2)
    )
    BertWordPieceTokenizer({word: number for number, word in enumerate(words)}).save(
        str(folder / "tokenizer.json")
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return folder


TINY = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "layer_norm_eps": 1e-5,
    "num_labels": 1,
}


def make_reranker(folder: Path, config, seed: int = 0) -> None:
    """A cross-encoder with random weights that give pairs different scores."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "LayerNorm.weight" in name:
                parameter.normal_(1.0, 0.1)
            elif name.endswith("bias"):
                parameter.normal_(0.0, 0.05)
            else:
                parameter.normal_(0.0, 0.15)
    model.save_pretrained(folder)


def add_heads(folder: Path) -> None:
    """Add untrained heads of random numbers to the demo model."""
    import torch

    torch.manual_seed(0)
    for name, rows, bias in (("sparse", 1, 0.3), ("colbert", 384, 0.0)):  # so that most weights are positive
        head = {"weight": torch.randn(rows, 384) / 384**0.5, "bias": torch.full((rows,), bias)}
        torch.save(head, folder / f"{name}_linear.pt")


@pytest.fixture(scope="session")
def demo_with_heads(demo_folder: Path, tmp_path_factory) -> Path:
    """The demo model with heads; its export in 8 bits takes a minute."""
    folder = tmp_path_factory.mktemp("models") / "demo"
    folder.mkdir()
    for file in demo_folder.iterdir():
        if file.name not in ("native", "openvino"):
            (folder / file.name).symlink_to(file)
    add_heads(folder)
    return folder


@pytest.fixture(scope="session")
def shallow_with_heads(demo_folder: Path, small_tokenizer: Path, tmp_path_factory) -> Path:
    """The first three of the demo model's twelve layers, which are trained, with heads."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("models") / "shallow"
    shutil.copytree(demo_folder, folder, ignore=shutil.ignore_patterns("native", "openvino", "*.safetensors"))
    shutil.copy(small_tokenizer, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": 3, "vocab_size": VOCABULARY}
    (folder / "config.json").write_text(json.dumps(config))
    kept = re.compile(r"embeddings\.|encoder\.layer\.[0-2]\.")
    weights = load_file(demo_folder / "model.safetensors")
    weights = {name: tensor for name, tensor in weights.items() if kept.match(name)}
    words = "embeddings.word_embeddings.weight"
    weights[words] = weights[words][[*range(VOCABULARY - 1), -1]]
    save_file(weights, folder / "model.safetensors")
    add_heads(folder)
    return folder


@pytest.fixture
def broken_folder(tmp_path: Path, tiny_folder: Path) -> Path:
    """A copy of the tiny checkpoint for a test to damage; its large files are links."""
    folder = tmp_path / "broken"
    shutil.copytree(tiny_folder, folder, copy_function=lambda source, to: Path(to).symlink_to(source))
    for file in (folder / "config.json", folder / "sparse_linear.pt"):
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def load_encoder() -> Callable[..., Encoder]:
    """Loaded encoders, one for each folder and set of settings, closed at the end of the session."""
    loaded: dict[tuple, Encoder] = {}

    def load(folder: Path, **settings) -> Encoder:
        key = (folder, *sorted(settings.items()))
        if key not in loaded:
            loaded[key] = Encoder(EncoderSettings(path=folder, threads=2, **settings))
            loaded[key].load()
        return loaded[key]

    yield load
    for encoder in loaded.values():
        encoder.close()


# The texts that no calibration sees.
HELD_OUT = (ROOT / "app" / "engine" / "held_out.txt").read_text().splitlines()


@pytest.fixture(scope="session")
def vectors(load_encoder, demo_folder: Path) -> Callable[..., np.ndarray]:
    """The demo model's vectors of the held-out texts, computed once for each set of settings."""
    return cache(lambda **settings: load_encoder(demo_folder, **settings).encode(HELD_OUT).dense)


# Promises about vectors hold for the reference engine, and for the fast engine where it is exact.
EXACT = [
    {"engine": "torch"},
    {"engine": "openvino", "precision": "fp32"},
    {"engine": "native", "precision": "fp32"},
]


@pytest.fixture(scope="session", params=EXACT, ids=lambda settings: settings["engine"])
def engine(request) -> dict:
    return request.param


@pytest.fixture(scope="session")
def tiny(load_encoder, tiny_folder: Path, engine: dict) -> Encoder:
    return load_encoder(tiny_folder, **engine)


@pytest.fixture(scope="session")
def demo(load_encoder, demo_folder: Path, engine: dict) -> Encoder:
    return load_encoder(demo_folder, **engine)


@pytest.fixture(scope="session")
def reference(load_encoder, tiny_folder: Path) -> Encoder:
    """The tiny model in the torch engine."""
    return load_encoder(tiny_folder, engine="torch")


@pytest.fixture(scope="session")
def run(tiny_folder: Path) -> Callable:
    """Run `flask embed` with the tiny model; gives its output and exit status."""

    def embed(*arguments: object, stdin: bytes = b"", **settings):
        app = create_app(Settings(**{"model_path": tiny_folder, "engine": "torch"} | settings))
        return app.test_cli_runner().invoke(args=["embed", *map(str, arguments)], input=stdin)

    return embed
