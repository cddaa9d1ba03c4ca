"""Memory does not grow over many requests of random lengths."""

import threading
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.soak

CALLS, CLIENTS, SETTLED, GROWTH = 20_000, 8, 1000, 1.05


def resident_mib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


def test_memory_is_flat_after_the_first_thousand_calls(load_encoder, demo_folder):
    encoder = load_encoder(demo_folder)
    lock, done, sizes = threading.Lock(), 0, []

    def client(seed):
        nonlocal done
        chance = np.random.default_rng(seed)
        while done < CALLS:
            lengths = np.clip(chance.lognormal(2.7, 0.9, chance.integers(1, 4)), 1, 500).astype(int)
            texts = [f"{chance.integers(1e9)} " + "word " * length for length in lengths]
            encoder.encode(texts, outputs=["dense"])
            with lock:
                done += 1
                if done % SETTLED == 0:
                    sizes.append(resident_mib())

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"MiB after each thousand calls: {sizes}")
    assert max(sizes) <= GROWTH * sizes[0]
