"""The plain service that we compare with: transformers as in its manual, behind Flask.

    PLAIN_MODEL=models/bench gunicorn -c /dev/null -k gthread --threads 32 benchmarks.plain:app

Float32, a request's texts padded to the longest, one forward pass, mean over the mask, L2, JSON floats.
"""

import os
import time

import torch
from flask import Flask, request
from transformers import AutoModel, AutoTokenizer

start = time.time_ns()
tokenizer = AutoTokenizer.from_pretrained(os.environ["PLAIN_MODEL"])
model = AutoModel.from_pretrained(os.environ["PLAIN_MODEL"], dtype=torch.float32).eval()
load_duration = time.time_ns() - start

app = Flask(__name__)


@app.get("/readyz")
def ready():
    return {"status": "ok"}


@app.post("/api/embed")
def embed():
    start = time.time_ns()
    texts = request.get_json()["input"]
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1)
    mean = (hidden * mask).sum(1) / mask.sum(1)
    vectors = torch.nn.functional.normalize(mean, dim=1)
    return {
        "model": "bge-m3",
        "embeddings": vectors.tolist(),
        "total_duration": time.time_ns() - start,
        "load_duration": load_duration,
        "prompt_eval_count": int(mask.sum()),
    }
