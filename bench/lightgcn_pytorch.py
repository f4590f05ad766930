"""Times the code of LightGCN-PyTorch, from a checkout of it, in a process of its own.

    python lightgcn_pytorch.py CHECKOUT FOLDER WEIGHTS.npy BATCHES THREADS

FOLDER has train.txt and test.txt, WEIGHTS the rows of users and items, float32 [nodes, d]. Prints one line of JSON:
seconds of sampling an epoch, of a mini-batch (median), of testing all users, the mini-batches of an epoch, and
recall@20 and ndcg@20 of the given weights. What the checkout writes goes to a temporary folder.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch


def _modules(*names: str) -> list[Any]:
    """Modules of the checkout. Stands in for packages that they import, that none of what runs here uses, and that are
    not installed; only for as long as the imports last, because others ask whether there is such a package."""
    stand_ins = []
    for package, has in (("sklearn", "metrics"), ("pandas", "")):
        try:
            importlib.import_module(package)
        except ImportError:
            for part in filter(None, (package, has and f"{package}.{has}")):
                sys.modules[part] = types.ModuleType(part)
                vars(sys.modules[part])["roc_auc_score"] = None
                stand_ins.append(part)
    found = [importlib.import_module(name) for name in names]
    for part in stand_ins:
        del sys.modules[part]
    return found


def main() -> None:
    checkout, folder, weights, batches, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    rows = np.load(weights)
    sys.argv = ["main.py", "--dataset", "yelp2018", "--recdim", str(rows.shape[1]), "--tensorboard", "0"]
    sys.path.insert(0, str(Path(checkout) / "code"))
    with tempfile.TemporaryDirectory() as data:
        for name in ("train.txt", "test.txt"):
            (Path(data) / name).symlink_to(Path(folder).resolve() / name)
        print(json.dumps(measure(data, rows, int(batches))))


def measure(data: str, rows: np.ndarray, batches: int) -> dict[str, Any]:
    loader, model, procedure, utils, world = _modules("dataloader", "model", "Procedure", "utils", "world")
    dataset = loader.Loader(path=data)
    network = model.LightGCN(world.config, dataset)
    with torch.no_grad():
        network.embedding_user.weight.copy_(torch.from_numpy(rows[: dataset.n_users]))
        network.embedding_item.weight.copy_(torch.from_numpy(rows[dataset.n_users :]))

    start = time.perf_counter()
    found = procedure.Test(dataset, network, 0)
    test = time.perf_counter() - start

    start = time.perf_counter()
    drawn = utils.UniformSample_original(dataset)
    triples = utils.shuffle(*(torch.Tensor(drawn[:, place]).long() for place in range(3)))
    sample = time.perf_counter() - start

    loss = utils.BPRLoss(network, world.config)
    network.train()
    steps = []
    size = world.config["bpr_batch_size"]
    for number in range(batches):
        batch = [each[number * size : (number + 1) * size] for each in triples]
        start = time.perf_counter()
        loss.stageOne(*batch)
        steps.append(time.perf_counter() - start)
    return {
        "sample_s": sample,
        "batch_s": statistics.median(steps),
        "batches": -(-len(triples[0]) // size),
        "test_s": test,
        "recall": float(found["recall"][0]),
        "ndcg": float(found["ndcg"][0]),
        "cpp_sampler": bool(utils.sample_ext),
    }


if __name__ == "__main__":
    main()
