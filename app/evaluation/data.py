"""Reads a folder of evaluation data."""

from collections.abc import Sequence
from pathlib import Path

from app.evaluation.collection import Collection
from app.evaluation.errors import EvaluationError
from app.evaluation.judged import read_beir, read_pairs
from app.evaluation.parallel import read_parallel


def read_folder(folder: Path, qrels: Path | None, languages: Sequence[str], whole: bool) -> list[Collection]:
    """The collections in a folder: parallel texts (.json) and pairs (.jsonl), or one in BEIR's layout.

    `qrels`: a file of judgements, for BEIR's layout. `languages`: those of queries; all if there are none.
    `whole`: without sampling. Raises EvaluationError.
    """
    if qrels or (folder / "corpus.jsonl").is_file():
        return [read_beir(folder, qrels, languages)]
    found = [
        read_parallel(file, languages, whole) if file.suffix == ".json" else read_pairs(file, languages)
        for file in sorted(folder.iterdir())
        if file.suffix in (".json", ".jsonl")
    ]
    if not found:
        raise EvaluationError(f"{folder} has neither parallel texts (.json) nor pairs (.jsonl)")
    found = [collection for collection in found if collection.tasks]
    if not found:
        raise EvaluationError(f"{folder} has no query in {', '.join(languages)}")
    return found
