"""Our server compared with a plain one on the same weights, in turns: `python -m benchmarks.bench`."""

import argparse
import functools
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.engine.checkpoint import read_checkpoint
from benchmarks import load, machine, services
from benchmarks.checkpoint import DEFAULT
from benchmarks.corpus import Corpus
from benchmarks.load import requests_of
from benchmarks.report import summary, table
from benchmarks.services import InProcess, Process, Server


@dataclass(frozen=True)
class Profile:
    """A way to use the server. The plain server gets only the first few of the texts."""

    name: str
    meaning: str
    texts: str  # of the corpus
    each: int  # texts in a request
    clients: int
    plain: int  # texts per round: about half a minute at 100 tokens a second, or one request
    ours: int


PROFILES = [
    Profile("mixed", "passages, 1 a request, 8 clients", "mixed", 1, 8, plain=40, ours=160),
    Profile("batch", "passages, 32 a request, 1 client", "mixed", 32, 1, plain=32, ours=160),
    Profile("queries", "short queries, 16 clients", "short", 1, 16, plain=128, ours=800),
    Profile("query", "a short query, alone", "short", 1, 1, plain=40, ours=100),
    Profile("documents", "2000 tokens, 1 a request, 2 clients", "document", 1, 2, plain=2, ours=6),
]
QUICK = 4  # a quick run does this many times less, but at least one request per client
AGREEMENT_TEXTS = 8
# What one forward pass can give; the cost of each is measured against that of dense alone.
OUTPUTS = {"dense": ["dense"], "sparse": ["dense", "sparse"], "all": ["dense", "sparse", "colbert"]}


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the processes it started end too
    try:
        report = run(options)
    except (services.StartFailed, load.WrongAnswer) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(table(report))
    if options.save:
        machine.save(report, f"{report['engine']}-{report['precision']}")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything; the report has the figures of each round."""
    model = options.model.resolve()
    corpus = Corpus(model / "tokenizer.json", read_checkpoint(model).max_tokens)
    environ = services.our_environ(model, options.engine, options.precision)
    plain, ours = functools.partial(services.plain, model), functools.partial(services.ours, environ)

    report = machine.describe() | {"model": shape(model)}
    report["profiles"] = {profile.name: profile.meaning for profile in options.profiles}
    say("measuring what the processors can multiply and read")
    before = machine.limits()
    say("starting both; new weights may take ours minutes, once")
    with plain() as left, ours() as right:
        report["engine"], report["precision"] = right.running() or (options.engine, options.precision)
        report["first_ready_seconds"] = right.ready_seconds
        report["lowest_cosine"] = agreement(left, right, corpus)
        with InProcess(environ) as encoder:
            parts: dict[str, Process] = {"plain": left, "ours": right, "inprocess": encoder}
            report["runs"] = all_rounds(options, parts, corpus)
            report["outputs"] = costs_of_outputs(encoder, options.rounds, corpus, options.quick)
    say("starting each by itself again, for time and memory")
    full = None if options.quick else corpus
    report["footprint"] = {"plain": footprint(plain(), full), "ours": footprint(ours(), full)}
    report["limits"] = machine.better_limits(before, machine.limits())
    return report | {"summary": summary(report)}


def all_rounds(
    options: argparse.Namespace, parts: dict[str, Process], corpus: Corpus
) -> list[dict[str, Any]]:
    """Measure every profile in every round, after a first batch that does not count."""
    for name in ("ours", "inprocess"):  # the plain server would take a minute for this
        parts[name].measure(requests_of(corpus, corpus.texts("mixed", 32, seed=-1), 32), 1)
    return [
        figures
        for turn in range(options.rounds)
        for profile in options.profiles
        for figures in one_round(profile, turn, parts, corpus, QUICK if options.quick else 1)
    ]


def one_round(
    profile: Profile, turn: int, parts: dict[str, Process], corpus: Corpus, less: int
) -> Iterator[dict[str, Any]]:
    """Measure a profile once for each, while the others are idle; the order changes from round to round."""
    names = [name for name in parts if name != "inprocess" or profile.name == "batch"]
    for name in names if turn % 2 == 0 else reversed(names):
        count = (profile.plain if name == "plain" else profile.ours) // less
        count = max(count, profile.each * profile.clients)
        requests = requests_of(corpus, corpus.texts(profile.texts, count, seed=turn), profile.each)
        idle = [part for part in parts.values() if part is not parts[name]]
        before = sum(part.cpu_seconds() for part in idle)
        figures = parts[name].measure(requests, profile.clients)
        figures["idle_cpu_seconds"] = round(sum(part.cpu_seconds() for part in idle) - before, 2)
        say(f"round {turn + 1}, {profile.name}, {name}: {figures['tokens_per_second']:.0f} tokens/s")
        yield {"round": turn, "profile": profile.name, "of": name} | figures


def costs_of_outputs(encoder: InProcess, rounds: int, corpus: Corpus, quick: bool) -> dict[str, list[float]]:
    """The encoder's tokens per second without HTTP, for each set of outputs in every round."""
    found: dict[str, list[float]] = {name: [] for name in OUTPUTS}
    for turn in range(rounds):
        requests = requests_of(corpus, corpus.texts("mixed", 64 if quick else 160, seed=turn), 32)
        for name in OUTPUTS if turn % 2 == 0 else reversed(OUTPUTS):
            figures = encoder.measure(requests, outputs=OUTPUTS[name])
            found[name].append(figures["tokens_per_second"])
            say(f"round {turn + 1}, outputs {name}: {figures['tokens_per_second']:.0f} tokens/s")
    return found


def agreement(plain: Server, ours: Server, corpus: Corpus) -> float:
    """The lowest cosine between both servers' vectors of the same texts; this also warms them up."""
    requests = requests_of(corpus, corpus.texts("mixed", AGREEMENT_TEXTS, seed=-1), each=1)
    left, right = (
        np.array([load.vectors(request, load.post(server.port, request)[1])[0] for request in requests])
        for server in (plain, ours)
    )
    return round(float((left * right).sum(axis=1).min()), 6)


def footprint(server: Server, corpus: Corpus | None) -> dict[str, Any]:
    """Seconds from start to ready, MiB when ready and, given a corpus, after the longest text."""
    with server:
        found = {"ready_seconds": server.ready_seconds, "ready_mib": server.memory()}
        if corpus:
            server.measure(requests_of(corpus, corpus.texts("full", 1, seed=0), each=1), clients=1)
            found["longest_text_mib"] = server.memory()
        return found


def say(line: str) -> None:
    """Print progress, apart from the table."""
    print(line, file=sys.stderr, flush=True)


def shape(model: Path) -> dict[str, Any]:
    """What determines the amount of computation."""
    config = json.loads((model / "config.json").read_text())
    keys = ("num_hidden_layers", "hidden_size", "intermediate_size", "max_position_embeddings")
    return {"folder": model.name} | {key: config[key] for key in keys}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--model", type=Path, default=DEFAULT, help="a model folder (%(default)s)")
    parser.add_argument("--engine", default=services.ENGINE, help="EMBED_ENGINE (%(default)s)")
    parser.add_argument("--precision", default="auto", help="EMBED_PRECISION (%(default)s)")
    names = [profile.name for profile in PROFILES]
    parser.add_argument(
        "--profiles", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names)
    )
    parser.add_argument("--rounds", type=int, help="how often each is measured (3)")
    parser.add_argument("--quick", action="store_true", help="one round of less work, for a first look")
    parser.add_argument("--save", action="store_true", help="keep the figures under benchmarks/results")
    options = parser.parse_args()
    if not (options.model / "config.json").is_file():
        parser.error(f"{options.model} is not there: `python -m benchmarks.checkpoint` makes {DEFAULT}")
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.profiles = [profile for profile in PROFILES if profile.name in options.profiles]
    return options


if __name__ == "__main__":
    main()
