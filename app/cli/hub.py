"""The models that `flask model download` knows: a commit of each, and what its files must be."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RemoteFile:
    size: int
    sha256: str


@dataclass(frozen=True)
class RemoteModel:
    """A repository on the hub at one commit, and the files of it that serving needs."""

    repository: str
    revision: str
    files: dict[str, RemoteFile]

    @property
    def name(self) -> str:
        """Without its author's."""
        return self.repository.partition("/")[2]


BGE_M3 = RemoteModel(
    repository="BAAI/bge-m3",
    revision="5617a9f61b028005a4858fdac845db406aefb181",
    files={
        "config.json": RemoteFile(687, "26159e7ad065073448460117eb24b7a4572f6f4e78eadff65dc0a11c052449fa"),
        "pytorch_model.bin": RemoteFile(
            2271145830, "b5e0ce3470abf5ef3831aa1bd5553b486803e83251590ab7ff35a117cf6aad38"
        ),
        "tokenizer.json": RemoteFile(
            17098108, "21106b6d7dab2952c1d496fb21d5dc9db75c28ed361a05f5020bbba27810dd08"
        ),
        "tokenizer_config.json": RemoteFile(
            444, "a62b2b6784f990259fddef5f16388693a8043be4f69179e6a5257eeb3f9abac4"
        ),
        "special_tokens_map.json": RemoteFile(
            964, "8c785abebea9ae3257b61681b4e6fd8365ceafde980c21970d001e834cf10835"
        ),
        "modules.json": RemoteFile(349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
        "1_Pooling/config.json": RemoteFile(
            191, "e54c164a07274f2eb45bb724f54a79d1efcc90c41573887cd9a29aeee0597352"
        ),
        "sentence_bert_config.json": RemoteFile(
            54, "eb9b44b13c0f52a3b3685c3b1cbdea1ba8b04bea123b98f61610048940776eb1"
        ),
        "sparse_linear.pt": RemoteFile(
            3516, "45c93804d2142b8f6d7ec6914ae23a1eee9c6a1d27d83d908a20d2afb3595ad9"
        ),
        "colbert_linear.pt": RemoteFile(
            2100674, "19bfbae397c2b7524158c919d0e9b19393c5639d098f0a66932c91ed8f5f9abb"
        ),
    },
)
BGE_RERANKER = RemoteModel(
    repository="BAAI/bge-reranker-v2-m3",
    revision="953dc6f6f85a1b2dbfca4c34a2796e7dde08d41e",
    files={
        "config.json": RemoteFile(795, "13dcd6c31d9fec9d1d8e158702072f62d7fa7d312a64b9fe057bec9a08cfe41a"),
        "model.safetensors": RemoteFile(
            2271071852, "d9e3e081faff1eefb84019509b2f5558fd74c1a05a2c7db22f74174fcedb5286"
        ),
        "tokenizer.json": RemoteFile(
            17098273, "69564b696052886ed0ac63fa393e928384e0f8caada38c1f4864a9bfbf379c15"
        ),
        "tokenizer_config.json": RemoteFile(
            1173, "7e4c1cc848840aeccdd763458c18dd525eb0f795c992e00ebe9c28554e7db2d4"
        ),
        "special_tokens_map.json": RemoteFile(
            964, "8c785abebea9ae3257b61681b4e6fd8365ceafde980c21970d001e834cf10835"
        ),
    },
)
