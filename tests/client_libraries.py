"""What a client library makes of texts; run by test_client_libraries.py with the Python that has it.

The name of a function below and the server's URL are arguments, what the function takes is JSON on
stdin. On stdout comes what it returns: for most the vectors of the texts and that of the query.
"""

import json
import os
import socket
import sys
from collections.abc import Callable

Vectors = list[list[float]]
MODEL = "bge-m3"
KEY = "none"


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
    """What langchain-openai says where it is left to send token ids, those of bytes in place of OpenAI's,
    which it would fetch from the internet."""
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


def stay_here() -> None:
    """Whoever asks another machine than this one fails: a server without internet has such clients."""

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
    stay_here()
    print(json.dumps(globals()[sys.argv[1]](sys.argv[2], **json.load(sys.stdin))))
