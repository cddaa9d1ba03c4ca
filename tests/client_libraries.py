"""Calls client libraries; test_client_libraries.py runs this with the Python that has them.

The arguments are the name of a function below and the server's URL; stdin has the function's arguments as
JSON. What it returns goes to stdout: for most functions the vectors of the texts and of the query, for those
that rerank the documents' indices and scores, the best first.
"""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

Vectors = list[list[float]]
Ranking = list[tuple[int, float]]
MODEL = "multilingual-e5-small"
KEY = "none"
APART = Path(sys.prefix) / "apart"  # see requirements-clients-apart.txt


def langchain_ollama(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    from langchain_ollama import OllamaEmbeddings

    embedder = OllamaEmbeddings(model=MODEL, base_url=url)
    return embedder.embed_documents(texts), embedder.embed_query(query)


def langchain_openai(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    from langchain_openai import OpenAIEmbeddings

    embedder = OpenAIEmbeddings(
        model=MODEL, base_url=f"{url}/v1", api_key=KEY, check_embedding_ctx_length=False
    )
    return embedder.embed_documents(texts), embedder.embed_query(query)


def langchain_openai_refused(url: str, texts: list[str]) -> str:
    """The error of langchain-openai if it sends token ids; they are of bytes, because it would fetch
    OpenAI's vocabulary from the internet."""
    import openai
    import tiktoken
    from langchain_openai import OpenAIEmbeddings

    of_bytes = tiktoken.Encoding(
        "bytes", pat_str="(?s).", mergeable_ranks={bytes([n]): n for n in range(256)}, special_tokens={}
    )
    tiktoken.get_encoding = lambda name: of_bytes
    try:
        OpenAIEmbeddings(model=MODEL, base_url=f"{url}/v1", api_key=KEY).embed_documents(texts)
    except openai.BadRequestError as error:
        return error.message
    return "it was not refused"


def langchain_search(url: str, passages: list[str], queries: list[str]) -> list[list[str]]:
    """The three passages LangChain finds for each query."""
    from langchain_core.vectorstores import InMemoryVectorStore
    from langchain_ollama import OllamaEmbeddings

    store = InMemoryVectorStore(OllamaEmbeddings(model=MODEL, base_url=url))
    store.add_texts(passages)
    return [[found.page_content for found in store.similarity_search(query, k=3)] for query in queries]


def llama_index_ollama(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    from llama_index.embeddings.ollama import OllamaEmbedding

    embedder = OllamaEmbedding(model_name=MODEL, base_url=url)
    return embedder.get_text_embedding_batch(texts), embedder.get_query_embedding(query)


def llama_index_openai(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    from llama_index.embeddings.openai import OpenAIEmbedding

    embedder = OpenAIEmbedding(model_name=MODEL, api_base=f"{url}/v1", api_key=KEY)
    return embedder.get_text_embedding_batch(texts), embedder.get_query_embedding(query)


def haystack_ollama(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    from haystack_integrations.components.embedders.ollama import OllamaDocumentEmbedder, OllamaTextEmbedder

    settings = {"model": MODEL, "url": url}
    return _haystack(OllamaDocumentEmbedder(**settings), OllamaTextEmbedder(**settings), texts, query)


def haystack_openai(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
    from haystack.utils import Secret

    settings = {"model": MODEL, "api_base_url": f"{url}/v1", "api_key": Secret.from_token(KEY)}
    return _haystack(OpenAIDocumentEmbedder(**settings), OpenAITextEmbedder(**settings), texts, query)


def haystack_hugging_face(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    from haystack_integrations.components.embedders.huggingface_api import (
        HuggingFaceAPIDocumentEmbedder,
        HuggingFaceAPITextEmbedder,
    )

    settings = {
        "api_type": "text_embeddings_inference",
        "api_params": {"url": url},
        "normalize": True,
        "token": None,
    }
    documents = HuggingFaceAPIDocumentEmbedder(**settings)
    return _haystack(documents, HuggingFaceAPITextEmbedder(**settings), texts, query)


def _haystack(documents, text, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    from haystack import Document

    found = documents.run([Document(content=content) for content in texts])["documents"]
    return [document.embedding for document in found], text.run(query)["embedding"]


def hugging_face_hub(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    from huggingface_hub import InferenceClient

    client = InferenceClient(model=url)
    return client.feature_extraction(texts).tolist(), client.feature_extraction(query)[0].tolist()


def cohere_v1(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    import cohere

    def embed(texts: list[str], kind: str) -> Vectors:
        return cohere.Client(KEY, base_url=url).embed(texts=texts, model=MODEL, input_type=kind).embeddings

    return embed(texts, "search_document"), embed([query], "search_query")[0]


def cohere_v2(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    return (
        _cohere_v2(url, texts, "search_document", ["float"]).float_,
        _cohere_v2(url, [query], "search_query", ["float"]).float_[0],
    )


def cohere_types(url: str, texts: list[str], types: list[str]) -> dict[str, list]:
    """The same texts in several types at once."""
    found = _cohere_v2(url, texts, "clustering", types)
    return {name: getattr(found, name) for name in types}


def _cohere_v2(url: str, texts: list[str], kind: str, types: list[str]):
    import cohere

    client = cohere.ClientV2(KEY, base_url=url)
    return client.embed(texts=texts, model=MODEL, input_type=kind, embedding_types=types).embeddings


def cohere_v1_rerank(url: str, query: str, documents: list[str], top: int) -> Ranking:
    import cohere

    client = cohere.Client(KEY, base_url=url)
    found = client.rerank(query=query, documents=documents, model=MODEL, top_n=top, return_documents=True)
    assert all(row.document.text == documents[row.index] for row in found.results)
    return [(row.index, row.relevance_score) for row in found.results]


def cohere_v2_rerank(url: str, query: str, documents: list[str], top: int) -> Ranking:
    import cohere

    client = cohere.ClientV2(KEY, base_url=url)
    found = client.rerank(query=query, documents=documents, model=MODEL, top_n=top)
    return [(row.index, row.relevance_score) for row in found.results]


def cohere_7(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    sys.path.insert(0, str(APART))
    return cohere_v2(url, texts, query)


def cohere_7_rerank(url: str, query: str, documents: list[str], top: int) -> Ranking:
    sys.path.insert(0, str(APART))
    return cohere_v2_rerank(url, query, documents, top)


def langchain_cohere(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    from langchain_cohere import CohereEmbeddings

    embedder = CohereEmbeddings(model=MODEL, base_url=url, cohere_api_key=KEY)
    return embedder.embed_documents(texts), embedder.embed_query(query)


def langchain_cohere_rerank(url: str, query: str, documents: list[str], top: int) -> Ranking:
    from langchain_cohere import CohereRerank

    found = CohereRerank(model=MODEL, base_url=url, cohere_api_key=KEY, top_n=top).rerank(documents, query)
    return [(row["index"], row["relevance_score"]) for row in found]


def langchain_infinity(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    from langchain_community.embeddings import InfinityEmbeddings

    embedder = InfinityEmbeddings(model=MODEL, infinity_api_url=url)
    return embedder.embed_documents(texts), embedder.embed_query(query)


def langchain_infinity_rerank(url: str, query: str, documents: list[str], top: int) -> Ranking:
    sys.path.insert(0, str(APART))
    from infinity_client import Client
    from langchain_community.document_compressors.infinity_rerank import InfinityRerank

    found = InfinityRerank(client=Client(base_url=url), model=MODEL, top_n=top).rerank(documents, query)
    return [(row["index"], row["relevance_score"]) for row in found]


def langchain_nvidia(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    from langchain_nvidia_ai_endpoints import NVIDIAEmbeddings

    embedder = NVIDIAEmbeddings(model=MODEL, base_url=f"{url}/v1", api_key=KEY)
    return embedder.embed_documents(texts), embedder.embed_query(query)


def langchain_xinference(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    from langchain_community.embeddings import XinferenceEmbeddings

    embedder = XinferenceEmbeddings(server_url=url, model_uid=MODEL)
    return embedder.embed_documents(texts), embedder.embed_query(query)


def infinity(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    sys.path.insert(0, str(APART))
    from infinity_client import Client
    from infinity_client.api.default import embeddings
    from infinity_client.models import OpenAIEmbeddingInputText as Asked

    client = Client(base_url=url, raise_on_unexpected_status=True)
    found = embeddings.sync(client=client, body=Asked(input_=[*texts, query], model=MODEL)).data
    *rows, row = [row.embedding for row in found]
    return rows, row


def infinity_rerank(url: str, query: str, documents: list[str], top: int) -> Ranking:
    sys.path.insert(0, str(APART))
    from infinity_client import Client
    from infinity_client.api.default import rerank
    from infinity_client.models import RerankInput

    body = RerankInput(query=query, documents=documents, model=MODEL, top_n=top)
    found = rerank.sync(client=Client(base_url=url, raise_on_unexpected_status=True), body=body)
    return [(row.index, row.relevance_score) for row in found.results]


def infinity_models(url: str) -> list[str]:
    sys.path.insert(0, str(APART))
    from infinity_client import Client
    from infinity_client.api.default import health, models

    client = Client(base_url=url, raise_on_unexpected_status=True)
    assert health.sync(client=client) is not None
    return [model.id for model in models.sync(client=client).data]


def litellm_embed(url: str, texts: list[str], query: str, provider: str, path: str, **options):
    import litellm

    def embed(texts: list[str]) -> Vectors:
        found = litellm.embedding(
            f"{provider}/{MODEL}", input=texts, api_base=url + path, api_key=KEY, **options
        )
        return [row["embedding"] for row in found.data]

    return embed(texts), embed([query])[0]


def litellm_rerank(
    url: str, query: str, documents: list[str], top: int, provider: str, path: str, **options
) -> Ranking:
    import litellm

    given = {"query": query, "documents": documents, "top_n": top, **options}
    found = litellm.rerank(f"{provider}/{MODEL}", api_base=url + path, api_key=KEY, **given)
    return [(row["index"], row["relevance_score"]) for row in found.results][:top]


def lightrag_jina(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    from functools import partial

    from lightrag.llm.jina import jina_embed
    from lightrag.utils import EmbeddingFunc

    func = partial(jina_embed.func, model=MODEL, base_url=f"{url}/v1/embeddings", api_key=KEY)
    embed = EmbeddingFunc(embedding_dim=384, func=func, send_dimensions=True, supports_asymmetric=True)
    documents = asyncio.run(embed(texts, context="document"))
    return documents.tolist(), asyncio.run(embed([query], context="query"))[0].tolist()


def lightrag_rerank(url: str, query: str, documents: list[str], top: int) -> Ranking:
    from lightrag.rerank import jina_rerank

    given = {"query": query, "documents": documents, "top_n": top, "model": MODEL, "api_key": KEY}
    found = asyncio.run(jina_rerank(base_url=f"{url}/v1/rerank", **given))
    return [(row["index"], row["relevance_score"]) for row in found]


def llama_index_tei(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

    embedder = TextEmbeddingsInference(model_name=MODEL, base_url=url)
    return embedder.get_text_embedding_batch(texts), embedder.get_query_embedding(query)


def llama_index_tei_rerank(url: str, query: str, documents: list[str], top: int) -> Ranking:
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    return _llama_index_rerank(TextEmbeddingInference(base_url=url, top_n=top), query, documents)


def llama_index_jina(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    from llama_index.embeddings.jinaai import JinaEmbedding

    embedder = JinaEmbedding(model=MODEL, api_key=KEY, task="retrieval.passage")
    embedder._api.api_url = f"{url}/v1/embeddings"  # its only way to another address
    return embedder.get_text_embedding_batch(texts), embedder.get_query_embedding(query)


def llama_index_jina_rerank(url: str, query: str, documents: list[str], top: int) -> Ranking:
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    reranker = JinaRerank(model=MODEL, base_url=f"{url}/v1", api_key=KEY, top_n=top)
    return _llama_index_rerank(reranker, query, documents)


def llama_index_cohere(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    """It accepts only the names of Cohere's models, so the server has this one as an alias."""
    from llama_index.embeddings.cohere import CohereEmbedding

    embedder = CohereEmbedding(model_name="embed-multilingual-v3.0", base_url=url, api_key=KEY)
    return embedder.get_text_embedding_batch(texts), embedder.get_query_embedding(query)


def llama_index_cohere_rerank(url: str, query: str, documents: list[str], top: int) -> Ranking:
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    return _llama_index_rerank(
        CohereRerank(model=MODEL, base_url=url, api_key=KEY, top_n=top), query, documents
    )


def _llama_index_rerank(reranker, query: str, documents: list[str]) -> Ranking:
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text, id_=str(n))) for n, text in enumerate(documents)]
    return [(int(found.node_id), found.score) for found in reranker.postprocess_nodes(nodes, query_str=query)]


def llama_index_nvidia(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    from llama_index.embeddings.nvidia import NVIDIAEmbedding

    embedder = NVIDIAEmbedding(model=MODEL, base_url=f"{url}/v1", api_key=KEY)
    return embedder.get_text_embedding_batch(texts), embedder.get_query_embedding(query)


def chromadb_ollama(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    from chromadb.utils.embedding_functions import OllamaEmbeddingFunction

    return _chromadb(OllamaEmbeddingFunction(url=url, model_name=MODEL), texts, query)


def chromadb_openai(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    from chromadb.utils.embedding_functions import OpenAIEmbeddingFunction

    os.environ["CHROMA_OPENAI_API_KEY"] = KEY
    return _chromadb(OpenAIEmbeddingFunction(api_base=f"{url}/v1", model_name=MODEL), texts, query)


def chromadb_jina(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    from chromadb.utils.embedding_functions import JinaEmbeddingFunction

    os.environ["CHROMA_JINA_API_KEY"] = KEY
    options = {"task": "retrieval.passage", "truncate": True, "embedding_type": "float", "normalized": True}
    embed = JinaEmbeddingFunction(model_name=MODEL, query_config={"task": "retrieval.query"}, **options)
    embed._api_url = f"{url}/v1/embeddings"  # its only way to another address
    return _chromadb(embed, texts, query)


def chromadb_cohere(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    os.environ |= {"CO_API_URL": url, "CHROMA_COHERE_API_KEY": KEY}
    from chromadb.utils.embedding_functions import CohereEmbeddingFunction

    return _chromadb(CohereEmbeddingFunction(model_name=MODEL), texts, query)


def chromadb_hugging_face(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    from chromadb.utils.embedding_functions import HuggingFaceEmbeddingServer

    return _chromadb(HuggingFaceEmbeddingServer(url=f"{url}/embed"), texts, query)


def _chromadb(embed, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    (row,) = embed.embed_query([query])
    return [row.tolist() for row in embed(texts)], [float(number) for number in row]


def mem0_openai(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    return _mem0("openai", texts, query, openai_base_url=f"{url}/v1", api_key=KEY, embedding_dims=384)


def mem0_ollama(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    return _mem0("ollama", texts, query, ollama_base_url=url)


def _mem0(provider: str, texts: list[str], query: str, **config) -> tuple[Vectors, list[float]]:
    from mem0.utils.factory import EmbedderFactory

    embedder = EmbedderFactory.create(provider, {"model": MODEL, **config}, None)
    return embedder.embed_batch(texts), embedder.embed(query)


def mem0_rerank(url: str, query: str, documents: list[str], top: int) -> Ranking:
    os.environ["CO_API_URL"] = url
    from mem0.utils.factory import RerankerFactory

    reranker = RerankerFactory.create("cohere", {"model": MODEL, "api_key": KEY})
    memories = [{"index": index, "memory": text} for index, text in enumerate(documents)]
    return [(row["index"], row["rerank_score"]) for row in reranker.rerank(query, memories, top_k=top)]


def voyage(url: str, texts: list[str], query: str) -> tuple[Vectors, list[float]]:
    import voyageai

    client = voyageai.Client(api_key=KEY, base_url=f"{url}/v1")
    documents = client.embed(texts, model=MODEL, input_type="document").embeddings
    return documents, client.embed(query, model=MODEL, input_type="query").embeddings[0]


def voyage_rerank(url: str, query: str, documents: list[str], top: int) -> Ranking:
    import voyageai

    client = voyageai.Client(api_key=KEY, base_url=f"{url}/v1")
    found = client.rerank(query, documents, model=MODEL, top_k=top).results
    return [(row.index, row.relevance_score) for row in found]


def refused(url: str, client: str, **given) -> str:
    """The error that a client shows for a model that is not served."""
    global MODEL
    served, MODEL = MODEL, "nobody"
    try:
        globals()[client](url, **given)
    except Exception as error:
        return str(error)
    finally:
        MODEL = served
    return "it was not refused"


def several(url: str, calls: list[tuple[str, dict]]) -> list:
    """What each of several functions returns, or why it failed: for a library that is slow to import."""

    def call(function: str, given: dict):
        try:
            return globals()[function](url, **given)
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    return [call(function, given) for function, given in calls]


def stay_here() -> None:
    """Make connections to any other machine fail, as for clients of a server without internet."""

    def guarded(real: Callable, host: Callable) -> Callable:
        def call(*args, **options):
            if host(*args) not in ("127.0.0.1", "localhost", None):
                raise OSError(f"the network was asked for: {args}")
            return real(*args, **options)

        return call

    socket.socket.connect = guarded(socket.socket.connect, lambda _, address: address[0])
    socket.socket.connect_ex = guarded(socket.socket.connect_ex, lambda _, address: address[0])
    socket.getaddrinfo = guarded(socket.getaddrinfo, lambda host, *_: host)


if __name__ == "__main__":
    os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    stay_here()
    with redirect_stdout(sys.stderr):  # some print what they do
        found = globals()[sys.argv[1]](sys.argv[2], **json.load(sys.stdin))
    print(json.dumps(found))
