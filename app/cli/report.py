"""What is printed of a model folder, by `flask model info` and after an export."""

import logging
import sys
from pathlib import Path
from typing import Any

import click

from app.config import Settings, unknown_variables
from app.engine.backends import PRECISIONS, Chosen, Place, choose, exporter_for
from app.engine.checkpoint import HEADS, Checkpoint
from app.engine.embeddings import Precision
from app.engine.export import find_export
from app.engine.loading import load_tokenizer
from app.engine.measure import quality
from app.engine.pairs import PairTokenizer
from app.engine.processor import kind_of
from app.engine.space import rounding, space_name
from app.evaluation.compare import Summary
from app.evaluation.kept import summaries
from app.processors import thread_budget


def place_of(settings: Settings) -> Place:
    threads = settings.threads or thread_budget(workers=1)
    return Place(settings.cache_dir, threads, instructions=settings.native_isa)


def begin() -> None:
    """Show our own log on standard error, and a warning for each variable that looks like a setting."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("app").setLevel(logging.INFO)  # and not httpx's line for each request
    for warning in unknown_variables():
        click.echo(f"Warning: {warning}", err=True)


def rows(found: Checkpoint, settings: Settings) -> dict[str, str]:
    """What a folder holds; ModelError where it cannot be served."""
    limit, own = _reranker(found, settings) if found.labels else _encoder(found, settings)
    return {
        "folder": str(found.path),
        "architecture": f"{found.model_type}, {found.layers} layers, {found.attention_heads} heads",
        "width": str(found.width),
        "limit": limit,
        "vocabulary": f"{found.vocabulary} tokens",
        "weights": f"{', '.join(file.name for file in found.weights)}, {found.size / 1e9:.2f} GB",
        **own,
        **_engine(found, settings),
    }


def _encoder(found: Checkpoint, settings: Settings) -> tuple[str, dict[str, str]]:
    """The limit, and the rows that only an encoder has."""
    absent = [file for head, file in HEADS.items() if head not in found.heads]
    return f"{min(found.max_tokens, settings.max_length)} tokens", {
        "pooling": f"{settings.pooling} in use, trained for {found.trained_pooling or 'unknown'}",
        "heads": ", ".join(["dense", *found.heads]) + (f" (no {', no '.join(absent)})" if absent else ""),
    }


def _reranker(found: Checkpoint, settings: Settings) -> tuple[str, dict[str, str]]:
    """The limit, and the rows that only a reranker has, or another classifier."""
    limit = min(found.max_tokens, settings.reranker_max_length)
    if len(found.labels) > 1:
        names = f"{len(found.labels)} labels ({', '.join(found.labels)})"
        return f"{found.max_tokens} tokens", {"reranker": f"no, it has {names}, and a reranker has one"}
    pairs = PairTokenizer(found, load_tokenizer(found, limit), limit)
    return f"{pairs.max_tokens} tokens of a pair, {pairs.query_tokens} of its query", {
        "reranker": f"one score of a pair, called {found.labels[0]}"
    }


def _engine(found: Checkpoint, settings: Settings) -> dict[str, str]:
    place = place_of(settings)
    kind = kind_of(place.features)
    chosen = choose(found, settings.engine, settings.precision, place)
    rows = {} if found.labels else {"space": _space(found, settings, chosen)}
    rows |= {
        "processor": kind,
        "engine": chosen.engine,
        "precision": chosen.told,
    }
    if chosen.engine == "torch":
        return rows
    exporter = exporter_for(chosen.engine)
    exports: dict[Precision, Path | None] = {
        name: find_export(found, exporter, name, settings.cache_dir) for name in PRECISIONS[chosen.engine]
    }
    ready = [f"{name}{told(quality(folder, kind, name))}" for name, folder in exports.items() if folder]
    rows["exports"] = "; ".join(ready) or "none yet"
    lost = [
        f"{name} on {collection}, {told_loss(summary)}"
        for name, folder in exports.items()
        if folder
        for collection, summary in summaries(folder, kind, name, settings.pooling).items()
    ]
    return rows | ({"loss": "; ".join(lost)} if lost else {})


def told_loss(summary: Summary) -> str:
    """What a precision loses, by language."""
    return (
        f"{summary['worst_loss']:.2f} points of recall@1 in the worst language, {summary['worst']}, "
        f"{summary['mean_loss']:.2f} in the mean of {summary['languages']}"
    )


def _space(found: Checkpoint, settings: Settings, chosen: Chosen) -> str:
    rounded = rounding(found, chosen.engine, chosen.precision, settings.cache_dir)
    max_tokens = min(found.max_tokens, settings.max_length)
    return space_name(found.fingerprint, settings.pooling, chosen.precision, rounded, max_tokens)


def told(measured: dict[str, Any]) -> str:
    """What a precision was found to cost and to give, as the end of a sentence."""
    if not measured:
        return ""
    cost = _cost_of_scores(measured) if "correlation" in measured else _cost_of_vectors(measured)
    if "times_as_fast" not in measured:
        return cost
    return f"{cost}, {measured['times_as_fast']} times as fast as {measured['than']}"


def _cost_of_vectors(measured: dict[str, Any]) -> str:
    return (
        f", cosine to fp32 {measured['cosine_mean']} (least {measured['cosine_min']}), "
        f"{measured['top10_overlap']:.0%} of ten nearest neighbours kept, "
        f"on {measured['texts']} held-out texts"
    )


def _cost_of_scores(measured: dict[str, Any]) -> str:
    return (
        f", correlation with fp32 {measured['correlation']} "
        f"(scores differ by {measured['largest_difference']} at most), "
        f"{measured['order_kept']:.1%} of the order kept, on {measured['pairs']} held-out pairs"
    )
