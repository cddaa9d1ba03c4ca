"""From a question to ranked pages: dense vectors, hybrid score, cross-encoder. See retrieval.md.

python docs/retrieval.py .venv/manpages/vectors "How do I convert a file to another character encoding?"
"""

import argparse
import json
import urllib.request
from typing import Any

import numpy as np
import pyarrow.parquet as pq

CANDIDATES = 50  # pages that the dense vectors find
READ = 20  # of them, those that the cross-encoder reads
SHOWN = 5


def ask(server: str, path: str, **body: Any) -> Any:
    """The JSON that the server answers; a GET where there is no body."""
    content = json.dumps(body).encode() if body else None
    request = urllib.request.Request(server + path, content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def retrieve(server: str, folder: str, question: str) -> list[dict[str, Any]]:
    """The pages that answer the question, the best first, each with its place in all three orders."""
    pages = pq.read_table(folder, columns=["page", "language", "text", "dense"]).to_pylist()
    pages = list({page["text"]: page for page in pages}.values())  # some have several names

    # 1. Dense: every page's vector beside the question's.
    vectors = np.array([page["dense"] for page in pages])
    vector = ask(server, "/v1/embeddings", input=question)["data"][0]["embedding"]
    near = np.argsort(-(vectors @ np.array(vector)))[:CANDIDATES]
    candidates = [pages[index] for index in near]
    texts = [page["text"] for page in candidates]

    # 2. Hybrid: how the encoder alone orders them. Only to show it, for step 3 does this too.
    encoder = ask(server, "/v1/models")["data"][0]["id"]
    hybrid = ask(server, "/v1/rerank", model=encoder, query=question, documents=texts)

    # 3. Cross-encoder: in one call the hybrid score orders all, and the cross-encoder reads the best.
    ranked = ask(server, "/v1/rerank", query=question, documents=texts, rerank_top=READ)

    place = {result["index"]: number for number, result in enumerate(hybrid["results"], 1)}
    return [
        {
            "page": candidates[index]["page"],
            "language": candidates[index]["language"],
            "text": candidates[index]["text"],
            "dense": index + 1,
            "first": place[index],
            "first_by": hybrid["model_info"]["ranked_by"],
            "score": result["relevance_score"],
            "scored_by": result["scored_by"],
        }
        for result in ranked["results"]
        for index in [result["index"]]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(".")[0])
    parser.add_argument("folder", help="what flask embed wrote")
    parser.add_argument("questions", nargs="+")
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    options = parser.parse_args()
    for question in options.questions:
        found = retrieve(options.server, options.folder, question)
        hybrid = found[0]["first_by"] != "dense"  # an encoder without heads has no other
        print(f"\n{question}\n     dense  {'hybrid  ' if hybrid else ''}cross-encoder")
        for number, page in enumerate(found[:SHOWN], 1):
            first = f"{page['first']:>6}  " if hybrid else ""
            about = f"{page['page']} ({page['language']}): {page['text'][:50].strip()}"
            print(f"{number:>3}  {page['dense']:>5}  {first}{page['score']:>13.3f}  {about}")


if __name__ == "__main__":
    main()
