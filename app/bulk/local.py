"""Embeds all parts in this process."""

import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from app.bulk.errors import Stopped
from app.bulk.formats import Part
from app.bulk.options import Counts
from app.bulk.progress import Progress
from app.bulk.work import Work
from app.engine.encoder import Encoder

# While one part is read, tokenised or written, the other keeps the encoder busy.
AT_A_TIME = 2


def embed_here(work: Work, encoder: Encoder, parts: list[Part], progress: Progress) -> Counts:
    """Embed the parts with a loaded encoder, which reports its batches to `progress`.

    Raises Stopped on KeyboardInterrupt. Then, and after any error, the parts under way are abandoned.
    """
    total, stop = Counts(), threading.Event()

    def embed(part: Part) -> Counts:
        counts = work.embed(encoder, part, stop.is_set)
        # The encoder reports the other rows itself. With passages it reports none, as it sees no rows.
        progress.add(counts.rows if work.options.chunk else counts.unseen, 0)
        return counts

    waiting: Iterator[Part] = iter(parts)
    with ThreadPoolExecutor(AT_A_TIME, "part") as pool:
        running: set[Future[Counts]] = {pool.submit(embed, part) for part in islice(waiting, AT_A_TIME)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    total.add(future.result())
                    running |= {pool.submit(embed, part) for part in islice(waiting, 1)}
        except KeyboardInterrupt:
            raise Stopped from None
        finally:
            stop.set()
    return total
