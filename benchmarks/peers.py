"""Our encoder and its strongest peers on a CPU, same weights, no HTTP: `python -m benchmarks.peers`."""

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from app.engine.checkpoint import read_checkpoint
from benchmarks import load, machine, services
from benchmarks.bench import AGREEMENT_TEXTS, say, shape
from benchmarks.checkpoint import DEFAULT
from benchmarks.corpus import Corpus
from benchmarks.entrants import OURS, PEERS, PROFILES, Profile
from benchmarks.isa import held
from benchmarks.load import Request, requests_of
from benchmarks.peers_report import summary, table
from benchmarks.services import ROOT, InProcess, our_environ

PEERS_VENV = ROOT / ".venv" / "peers"
CALIBRATION_TEXTS = 128  # optimum-intel's default


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the processes it started end too
    try:
        report = run(options)
    except (services.StartFailed, load.WrongAnswer) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(table(report))
    if options.save:
        machine.save(report, "peers")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything; the report has the figures of each round."""
    model = options.model.resolve()
    corpus = Corpus(model / "tokenizer.json", read_checkpoint(model).max_tokens)
    folder = model.with_name(f"{model.name}-peers")
    make_exports(model, folder, corpus)

    report = machine.describe(options.isa) | {"model": shape(model), "held_to": options.isa}
    report["not_held"] = [name for name in PEERS if options.isa and not PEERS[name].can_be_held]
    say("measuring what the processors can multiply and read")
    before = machine.limits(options.isa)
    same = requests_of(corpus, corpus.texts("mixed", AGREEMENT_TEXTS, seed=-1), each=1)
    with _ours(model, "torch", "fp32", options.isa) as reference:
        right = vectors(reference, same)
    say("starting ours and the peers; new weights may take ours minutes, once")
    with contextlib.ExitStack() as stack:
        parts = {
            name: stack.enter_context(_ours(model, services.ENGINE, ours.precision, options.isa))
            for name, ours in OURS.items()
        } | {name: stack.enter_context(_peer("run", name, folder, isa=options.isa)) for name in PEERS}
        running = {name: parts[name].running() or ("", OURS[name].precision) for name in OURS}
        report["engines"] = {name: engine for name, (engine, _) in running.items()}
        report["precisions"] = {name: precision for name, (_, precision) in running.items()}
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
        report["limits"] = machine.better_limits(before, machine.limits(options.isa))
    return report | {"summary": summary(report)}


def make_exports(model: Path, folder: Path, corpus: Corpus) -> None:
    """Make the files that the peers load, each once in its own process, and again if the model is newer."""
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
    """Measure a profile once per entrant and batch size, while the others are idle; the order changes."""
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
    """The vectors of all texts, one text per call, (n, d)."""
    return np.array(part.ask(requests, vectors=True, batch=1)["vectors"])


def _batches(name: str, each: int) -> tuple[int, ...]:
    """The batch sizes to try for calls of this many texts; an entrant with its own batches gets them all."""
    tried = PEERS[name].batches if name in PEERS else ()
    return tried if tried and each > 1 else (each,)


def _ours(model: Path, engine: str, precision: str, isa: str) -> InProcess:
    return InProcess(our_environ(model, engine, precision) | held(isa))


def _peer(verb: str, name: str, *folders: Path, isa: str = "") -> InProcess:
    command = [str(PEERS_VENV / "bin" / "python"), "-m", "benchmarks.peer", verb, name]
    return InProcess(held(isa), [*command, *map(str, folders)])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--model", type=Path, default=DEFAULT, help="a model folder (%(default)s)")
    parser.add_argument("--rounds", type=int, help="how often each is measured (3)")
    parser.add_argument("--quick", action="store_true", help="one round of fewer texts, for a first look")
    parser.add_argument(
        "--isa", choices=["avx2"], default="", help="hold every library to an older instruction set"
    )
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
