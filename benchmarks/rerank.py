"""Our cross-encoder compared with sentence-transformers', on the same weights: `python -m benchmarks.rerank`.

50 passages of one query, in turns: ours in each precision, in process and over HTTP, and CrossEncoder.predict
with torch and with OpenVINO, on as many threads. Then 200 passages in two stages, the memory of both models,
and on a real cross-encoder what 8 bits and two stages change in the order.
"""

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from app.engine.checkpoint import read_checkpoint
from benchmarks import checkpoint, load, machine, services
from benchmarks.bench import say, shape
from benchmarks.corpus import Corpus
from benchmarks.load import Request, WrongAnswer
from benchmarks.peers import PEERS_VENV
from benchmarks.rerank_quality import DEMO, REAL, quality
from benchmarks.rerank_report import OPENVINO, broken, summary, table
from benchmarks.services import ROOT, InProcess, Server

PASSAGES, STAGED, TOP = 50, 200, 20
PEERS = ("torch", *OPENVINO)
BATCH = 32  # CrossEncoder.predict's default
CALIBRATION_PAIRS = 128
PRECISIONS = ("fp32", "w8a16", "int8")
BF16 = {"amx_bf16", "avx512_bf16", "bf16"}
WARM_UP = 4  # warm-up passages, which do not count

Answer = dict[str, Any]  # seconds, scores and further figures


class Scorer(Protocol):
    """What is measured."""

    def score(self, query: str, passages: list[str]) -> Answer:
        """The passages' scores in order, and the seconds that they took."""


class Ours(InProcess):
    """Both models in a process of their own."""

    def __init__(self, encoder: Path, reranker: Path, precision: str) -> None:
        module = [sys.executable, "-m", "benchmarks.inprocess_rerank"]
        super().__init__({}, [*module, str(encoder), str(reranker), precision])

    def score(self, query: str, passages: list[str]) -> Answer:
        return self.tell({"pairs": [[query, passage] for passage in passages]})

    def rank(self, query: str, passages: list[str], top: int) -> Answer:
        """Rank in two stages."""
        return self.tell({"query": query, "passages": passages, "top": top})


class Peer(InProcess):
    """sentence-transformers in its own environment."""

    def __init__(self, verb: str, name: str, model: Path, folder: Path) -> None:
        module = [str(PEERS_VENV / "bin" / "python"), "-m", "benchmarks.peer_cross_encoder"]
        super().__init__({}, [*module, verb, name, str(model), str(folder)])

    def score(self, query: str, passages: list[str]) -> Answer:
        return self.tell({"pairs": [[query, passage] for passage in passages], "batch": BATCH})


class Served(Server):
    """Ours over HTTP."""

    def __init__(self, encoder: Path, reranker: Path, precision: str) -> None:
        environ = services.our_environ(encoder, services.ENGINE, precision)
        long = {"EMBED_REQUEST_TIMEOUT": "3600"}
        super().__init__([], environ | long | {"EMBED_RERANKER_PATH": str(reranker)})

    def score(self, query: str, passages: list[str]) -> Answer:
        body = json.dumps({"query": query, "texts": passages, "raw_scores": True}).encode()
        seconds, answer = load.post(self.port, Request(passages, [], body), "/rerank")
        scores = {rank["index"]: rank["score"] for rank in json.loads(answer)}
        if sorted(scores) != list(range(len(passages))):
            raise WrongAnswer(f"{len(scores)} scores for {len(passages)} passages")
        return {"seconds": seconds, "scores": [scores[index] for index in range(len(passages))]}


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the processes it started end too
    try:
        report = run(options)
    except (services.StartFailed, WrongAnswer) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(table(report), file=sys.stderr)
    machine.conclude(report, "rerank", options.save)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything; the report has the figures of each round."""
    encoder, reranker = options.model.resolve(), options.reranker.resolve()
    peers = options.reranker.absolute().with_name(f"{options.reranker.name}-peers")
    corpus = Corpus(reranker / "tokenizer.json", read_checkpoint(reranker).max_tokens)
    make_exports(reranker, peers, corpus)
    report = machine.describe() | {
        "model": shape(reranker),
        "passages": PASSAGES,
        "staged": STAGED,
        "top": TOP,
        "peer_batch": BATCH,
        "precisions": options.precisions,
    }
    query = corpus.texts("short", 1, seed=1)[0]
    passages = corpus.texts("passage", STAGED, seed=2)
    say("starting ours and the peers; new weights may take ours minutes, once")
    with contextlib.ExitStack() as stack:
        ours = {name: stack.enter_context(Ours(encoder, reranker, name)) for name in options.precisions}
        parts: dict[str, Scorer] = dict(ours)
        started = {name: stack.enter_context(Peer("run", name, reranker, peers)) for name in PEERS}
        parts |= started
        report["peer_versions"] = started["torch"].hello["versions"]
        report["threads"] = {name: peer.hello["threads"] for name, peer in started.items()}
        if not options.no_http:
            parts |= {
                f"{name} over HTTP": stack.enter_context(Served(encoder, reranker, name))
                for name in options.precisions
            }
        report["scores"] = agreement(parts, query, passages[:PASSAGES])
        report["memory"] = {
            name: {"loaded": part.hello["memory"], "after": part.score(query, passages[:WARM_UP])["memory"]}
            for name, part in ours.items()
        }
        report["runs"] = [
            {"round": turn, "of": name, "seconds": round(seconds, 3)}
            for turn in range(options.rounds)
            for name, seconds in one_round(turn, parts, query, passages[:PASSAGES])
        ]
        staged = {name: ours[name] for name in options.staged if name in ours}
        report["two_stages"] = {
            name: two_stages(part, query, passages, min(2, options.rounds)) for name, part in staged.items()
        }
    if (options.real / "config.json").is_file():
        say("measuring what 8 bits and two stages change on a real cross-encoder")
        with contextlib.ExitStack() as stack:
            real = {
                name: stack.enter_context(Ours(DEMO.resolve(), options.real.resolve(), name))
                for name in ("fp32", *(name for name in options.precisions if name != "fp32"))
            }
            report["quality"] = quality(options.real, real, options.pages)
    report["summary"] = summary(report)
    return report | {"broken": broken(report)}


def make_exports(model: Path, folder: Path, corpus: Corpus) -> None:
    """Make the files that OpenVINO loads, once in a separate process, and again if the model is newer."""
    folder.mkdir(exist_ok=True)
    queries = corpus.texts("short", CALIBRATION_PAIRS, seed=-2)
    passages = corpus.texts("passage", CALIBRATION_PAIRS, seed=-2)
    pairs = [list(pair) for pair in zip(queries, passages, strict=True)]
    (folder / "calibration.json").write_text(json.dumps(pairs), encoding="utf-8")
    for name in OPENVINO:
        done = folder / f"{name}.done"
        if done.exists() and done.stat().st_mtime > (model / "config.json").stat().st_mtime:
            continue
        say(f"exporting {name}, once; it may take minutes")
        with Peer("export", name, model, folder):
            done.touch()


def agreement(parts: dict[str, Scorer], query: str, passages: list[str]) -> dict[str, dict[str, float]]:
    """Compare all scores with torch's, to check that all compute the same. The first call does not count."""
    found = {name: np.array(part.score(query, passages)["scores"]) for name, part in parts.items()}
    right = found["torch"]
    return {
        name: {
            "largest_difference": round(float(np.abs(scores - right).max()), 6),
            "correlation": round(float(np.corrcoef(scores, right)[0, 1]), 6),
            "spread": round(float(scores.std()), 3),
        }
        for name, scores in found.items()
    }


def one_round(
    turn: int, parts: dict[str, Scorer], query: str, passages: list[str]
) -> Iterator[tuple[str, float]]:
    """Measure each once, while the others are idle; the order changes."""
    for name in parts if turn % 2 == 0 else reversed(parts):
        seconds = parts[name].score(query, passages)["seconds"]
        say(f"round {turn + 1}, {name}: {len(passages)} pairs in {seconds:.1f} s")
        yield name, seconds


def two_stages(part: Ours, query: str, passages: list[str], rounds: int) -> dict[str, Any]:
    """Two stages compared with the cross-encoder for all passages, and with the second stage alone."""
    seconds: dict[str, list[float]] = {"two_stages": [], "all": [], "second_stage": []}
    for _ in range(rounds):
        seconds["two_stages"].append(part.rank(query, passages, TOP)["seconds"])
        seconds["all"].append(part.score(query, passages)["seconds"])
        seconds["second_stage"].append(part.score(query, passages[:TOP])["seconds"])
    best = {name: round(min(values), 2) for name, values in seconds.items()}
    say(f"{len(passages)} passages, the best {TOP} read: {best}")
    return {
        "seconds": best,
        "times_as_fast": round(best["all"] / best["two_stages"], 2),
        "second_stage_alone": round(best["all"] / best["second_stage"], 2),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--model", type=Path, default=checkpoint.DEFAULT, help="the encoder (%(default)s)")
    parser.add_argument(
        "--reranker", type=Path, default=checkpoint.RERANKER, help="a model folder (%(default)s)"
    )
    parser.add_argument("--real", type=Path, default=REAL, help="a trained cross-encoder (%(default)s)")
    parser.add_argument("--pages", type=Path, default=ROOT / ".venv" / "manpages" / "pages.parquet")
    has_bf16 = BF16 & set(machine.cpu_flags())
    here = (*PRECISIONS, "bf16") if has_bf16 else PRECISIONS
    parser.add_argument("--precisions", nargs="+", default=here, choices=(*PRECISIONS, "bf16"))
    parser.add_argument("--staged", nargs="*", default=("int8",), help="precisions of the two stages (int8)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (%(default)s)")
    parser.add_argument("--no-http", action="store_true", help="not over HTTP")
    parser.add_argument("--save", action="store_true", help="keep the figures under benchmarks/results")
    options = parser.parse_args()
    for folder in (options.model, options.reranker):
        if not (folder / "config.json").is_file():
            sys.exit(f"{folder} is not there: `make bench-rerank` makes it")
    if not (PEERS_VENV / "installed").is_file():
        sys.exit(f"{PEERS_VENV.relative_to(ROOT)} is not there or not whole: `make bench-rerank` makes it")
    return options


if __name__ == "__main__":
    main()
