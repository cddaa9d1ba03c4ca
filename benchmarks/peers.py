"""Ours beside the strongest peers on a CPU, same weights, no HTTP: `python -m benchmarks.peers`."""

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from app.engine.checkpoint import read_checkpoint
from benchmarks import load, machine, services
from benchmarks.bench import AGREEMENT_TEXTS, RESULTS, say, shape
from benchmarks.checkpoint import DEFAULT
from benchmarks.corpus import Corpus
from benchmarks.load import Request, requests_of
from benchmarks.services import ROOT, InProcess, our_environ

PEERS_VENV = ROOT / ".venv" / "peers"
CALIBRATION_TEXTS = 128  # optimum-intel's default
OURS = {"ours": "auto", "ours-int8": "int8"}
# sentence-transformers' backends, each with the batch sizes to try. The order matters: the first export
# makes the folder that the others go into.
PEERS = {"openvino": (1, 32), "openvino-int8": (1, 32), "onnx-int8": (1,)}


@dataclass(frozen=True)
class Profile:
    """What one round asks for: so many calls, each of so many texts."""

    name: str
    texts: str  # of the corpus
    each: int
    calls: int
    quick: int  # texts in a call of a quick run


PROFILES = [
    Profile("passages", "mixed", 64, calls=1, quick=16),
    Profile("queries", "short", 16, calls=4, quick=16),
    Profile("documents", "document", 2, calls=1, quick=1),
    Profile("query", "short", 1, calls=20, quick=1),
]


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that what was started ends too
    try:
        report = run(options)
    except (services.StartFailed, load.WrongAnswer) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(table(report))
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / "peers.json"
        file.write_text(json.dumps(report, indent=1) + "\n")
        print(f"saved as {file.relative_to(ROOT)}")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything; the report keeps what each round gave."""
    model = options.model.resolve()
    corpus = Corpus(model / "tokenizer.json", read_checkpoint(model).max_tokens)
    folder = model.with_name(f"{model.name}-peers")
    make_exports(model, folder, corpus)

    report = machine.describe() | {"model": shape(model)}
    same = requests_of(corpus, corpus.texts("mixed", AGREEMENT_TEXTS, seed=-1), each=1)
    with InProcess(our_environ(model, "torch", "fp32")) as reference:
        right = vectors(reference, same)
    say("starting ours and the peers; new weights may take ours minutes, once")
    with contextlib.ExitStack() as stack:
        parts = {
            name: stack.enter_context(InProcess(our_environ(model, "openvino", precision)))
            for name, precision in OURS.items()
        } | {name: stack.enter_context(_peer("run", name, folder)) for name in PEERS}
        report["precisions"] = {name: (parts[name].running() or ("", OURS[name]))[1] for name in OURS}
        report["peer_versions"] = parts["openvino"].hello["versions"]
        report["lowest_cosine"] = {
            name: round(float((vectors(part, same) * right).sum(axis=1).min()), 6)
            for name, part in parts.items()
        }
        for part in parts.values():  # a first batch does not count
            part.ask(requests_of(corpus, corpus.texts("mixed", 32, seed=-1), 32), batch=32)
        report["runs"] = [
            figures
            for turn in range(options.rounds)
            for profile in PROFILES
            for figures in one_round(profile, turn, parts, corpus, options.quick)
        ]
    return report | {"summary": {name: summary(report["runs"], name) for name in parts}}


def make_exports(model: Path, folder: Path, corpus: Corpus) -> None:
    """What the peers load, each made once in a process of its own, and again if the model is newer."""
    folder.mkdir(exist_ok=True)
    texts = corpus.texts("mixed", CALIBRATION_TEXTS, seed=-2)
    (folder / "calibration.json").write_text(json.dumps(texts), encoding="utf-8")
    for name in PEERS:
        done = folder / f"{name}.done"
        if done.exists() and done.stat().st_mtime > (model / "config.json").stat().st_mtime:
            continue
        say(f"exporting {name}, once; it may take minutes")
        with _peer("export", name, model, folder):
            done.touch()


def one_round(
    profile: Profile, turn: int, parts: dict[str, InProcess], corpus: Corpus, quick: bool
) -> Iterator[dict[str, Any]]:
    """A profile once for each and each batch size, the others idle; who is first changes."""
    each = profile.quick if quick else profile.each
    requests = requests_of(corpus, corpus.texts(profile.texts, each * profile.calls, seed=turn), each)
    ways = [(name, batch) for name in parts for batch in _batches(name, each)]
    for name, batch in ways if turn % 2 == 0 else reversed(ways):
        idle = [part for part in parts.values() if part is not parts[name]]
        before = sum(part.cpu_seconds() for part in idle)
        figures = parts[name].measure(requests, batch=batch)
        figures["idle_cpu_seconds"] = round(sum(part.cpu_seconds() for part in idle) - before, 2)
        say(f"round {turn + 1}, {profile.name}, {name}, {batch}: {figures['tokens_per_second']:.0f} tokens/s")
        yield {"round": turn, "profile": profile.name, "of": name, "batch": batch} | figures


def vectors(part: InProcess, requests: list[Request]) -> np.ndarray:
    """Those of all texts, one text a call, (n, d)."""
    return np.array(part.ask(requests, vectors=True, batch=1)["vectors"])


def summary(runs: list[dict[str, Any]], name: str) -> dict[str, dict[str, float]]:
    """Medians over the rounds, of each profile at the batch size that is best for it."""
    found = {}
    for profile in PROFILES:
        mine = [run for run in runs if (run["of"], run["profile"]) == (name, profile.name)]
        medians = [
            {
                "batch": batch,
                "tokens_per_second": median(
                    run["tokens_per_second"] for run in mine if run["batch"] == batch
                ),
                "p50_ms": median(run["p50_ms"] for run in mine if run["batch"] == batch),
            }
            for batch in sorted({run["batch"] for run in mine})
        ]
        found[profile.name] = max(medians, key=lambda row: row["tokens_per_second"])
    return found


def table(report: dict[str, Any]) -> str:
    """What a person reads."""
    *speeds, query = (profile.name for profile in PROFILES)
    heads = "".join(f"{name:>14}" for name in speeds)
    lines = [
        f"{report['machine']['cpu']}, {report['machine']['cores']} cores; in tokens/s, the query in ms",
        "",
        f"{'':<40}{heads}{query:>10}{'lowest cosine':>16}",
    ]
    for name, rows in report["summary"].items():
        label = f"sentence-transformers, {name}" if name in PEERS else f"ours, {report['precisions'][name]}"
        values = "".join(f"{rows[profile]['tokens_per_second']:>14.1f}" for profile in speeds)
        lowest = report["lowest_cosine"][name]
        lines.append(f"{label:<40}{values}{rows[query]['p50_ms']:>10.1f}{lowest:>16.5f}")
    return "\n".join(lines)


def _batches(name: str, each: int) -> tuple[int, ...]:
    """Batch sizes to try for calls of so many texts; ours knows none, it gets the call."""
    return PEERS.get(name, (each,)) if each > 1 else (1,)


def _peer(verb: str, name: str, *folders: Path) -> InProcess:
    return InProcess(
        {}, [str(PEERS_VENV / "bin" / "python"), "-m", "benchmarks.peer", verb, name, *map(str, folders)]
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--model", type=Path, default=DEFAULT, help="a model folder (%(default)s)")
    parser.add_argument("--rounds", type=int, help="how often each is measured (3)")
    parser.add_argument("--quick", action="store_true", help="one round of fewer texts, for a first look")
    parser.add_argument("--save", action="store_true", help="keep the figures under benchmarks/results")
    options = parser.parse_args()
    if not (options.model / "config.json").is_file():
        sys.exit(f"{options.model} is not there: `python -m benchmarks.checkpoint` makes {DEFAULT}")
    if not (PEERS_VENV / "installed").is_file():
        sys.exit(f"{PEERS_VENV.relative_to(ROOT)} is not there or not whole: `make bench-peers` makes it")
    options.rounds = options.rounds or (1 if options.quick else 3)
    return options


if __name__ == "__main__":
    main()
