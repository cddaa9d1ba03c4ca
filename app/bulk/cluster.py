"""Embeds the parts on a Ray cluster: Ray Data hands them to a pool of actors, each with its own encoder."""

import logging
import os
import socket
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from app.bulk.errors import BulkError, Stopped
from app.bulk.formats import Part
from app.bulk.options import Cluster, Counts
from app.bulk.progress import Progress, counted
from app.bulk.work import Work
from app.engine.encoder import Encoder, EncoderSettings
from app.engine.errors import EngineError
from app.folders import requirements

log = logging.getLogger(__name__)

MOST_CPUS = 16  # per actor; a node with more runs several actors, each with its own copy of the weights
CONNECT_SECONDS = 10
NODE_SECONDS = 300
BLOCKS = 10_000  # at most; Ray Data splits the parts into blocks, which it hands to the actors


class Embedder:
    """The actor: holds an encoder, takes parts and returns counts.

    A permanent error is returned, not raised: Ray would retry an exception on every node.
    """

    def __init__(self, work: Work, settings: EncoderSettings) -> None:
        import ray

        self.work = work
        self.error = ""
        self.node = ray.util.get_node_ip_address()
        self.encoder = Encoder(settings)
        try:
            self.encoder.load()
            if (space := self.encoder.space()) != work.model.space:
                raise BulkError(
                    f"its embedding space is {space}, not {work.model.space}: give every node the same model "
                    "folder and the same kind of processor"
                )
        except (EngineError, BulkError) as error:
            self.error = f"the node {self.node} cannot embed: {error}"

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Take a batch of one row, a part; return a batch of one row, its counts or an error."""
        part = Part(**{name: int(values[0]) for name, values in batch.items()})
        counts = Counts()
        error = self.error
        try:
            if not error and self.work.destination.has(part.name):  # an actor wrote it and was lost
                counts = self.work.destination.counts({part.name})
            elif not error:
                counts = self.work.embed(self.encoder, part)
        except BulkError as fault:
            error = f"{fault} (on the node {self.node})"
        return {name: [value] for name, value in {**asdict(counts), "error": error}.items()}


def embed_there(
    work: Work,
    settings: EncoderSettings,
    parts: list[Part],
    progress: Progress,
    cluster: Cluster,
) -> Counts:
    """Embed the parts on the cluster.

    An actor or a node that is lost is replaced, and its parts are done again.
    """
    ray = connect(cluster.address)
    try:
        nodes = _processors(ray)
        each = cluster.cpus or min(MOST_CPUS, *nodes)
        room = sum(size // each for size in nodes)
        if not room:
            raise BulkError(
                f"no node has {counted(each, 'processor')}, the largest has {max(nodes)}: lower --cpus"
            )
        most = cluster.actors or room
        log.info(
            "%s, up to %s with %s each",
            counted(len(parts), "part"),
            counted(most, "actor"),
            counted(each, "processor"),
        )
        settings = replace(settings, threads=each)
        return _run(ray, work, settings, parts, progress, (min(most, room), most), each)
    except KeyboardInterrupt:
        raise Stopped from None
    finally:
        ray.shutdown()


def connect(address: str | None) -> Any:
    """Connect and return the ray module; raises BulkError if Ray is missing or no cluster is at `address`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would send statistics to its makers
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise BulkError(f"Ray is not installed ({error}): {requirements('bulk')}") from error
    package = Path(sys.modules["app"].__file__ or "").parent
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        _knock(address)
        ray.init(
            address=address or "local",
            runtime_env={"py_modules": [str(package)]},  # every node runs this copy of the code
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        reason = str(error).partition("\n")[0]
        raise BulkError(f"there is no Ray cluster at {address or 'this machine'}: {reason}") from error
    return ray


def _processors(ray: Any) -> list[int]:
    """How many processors each node has, without nodes that have none; waits until a cluster has any."""
    end = time.monotonic() + NODE_SECONDS
    while True:
        sizes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        if found := [size for size in sizes if size]:
            return found
        if time.monotonic() > end:
            raise BulkError(f"the cluster has had no node with a processor for {NODE_SECONDS} s")
        time.sleep(1)


def _knock(address: str | None) -> None:
    """Raises OSError if nobody listens at `address`: Ray itself would retry for many minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()


def _run(
    ray: Any,
    work: Work,
    settings: EncoderSettings,
    parts: list[Part],
    progress: Progress,
    size: tuple[int, int],
    cpus: int,
) -> Counts:
    """`size`: how many actors the pool starts with and may have; `cpus`: processors per actor."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # ours says more
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    first, most = size
    items = ray.data.from_items([asdict(part) for part in parts], override_num_blocks=min(len(parts), BLOCKS))
    rows = items.map_batches(
        Embedder,
        fn_constructor_args=(work, settings),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=most, initial_size=first, max_tasks_in_flight_per_actor=2
        ),
        num_cpus=cpus,
    )
    total = Counts()
    try:
        for row in rows.iter_rows():
            if error := row.pop("error"):
                raise BulkError(error)
            counts = Counts(**row)
            total.add(counts)
            progress.add(counts.rows, counts.tokens)
    except ray.exceptions.RayError as error:
        raise BulkError(f"the cluster gave up: {str(error).strip().splitlines()[-1]}") from error
    return total
