"""How long a network takes to each depth."""

import torch

from models import WeightsFolder
from models.timing import depth_seconds


def test_every_depth_and_pooling_is_timed_from_one_trunk() -> None:
    layers = {"conv1": ["spoc", "rmac"], "conv5": ["gem"], "fc6": ["flatten"]}
    weights = WeightsFolder(offline=True).resolve("alexnet", "untrained")
    found = depth_seconds(weights, layers, torch.device("cpu"))
    assert found.keys() == {
        ("conv1", "spoc"),
        ("conv1", "rmac"),
        ("conv5", "gem"),
        ("fc6", "flatten"),
    }
    # Far enough apart for a machine that others use as well.
    assert 0 < found["conv1", "spoc"].forward < found["fc6", "flatten"].forward < 60
    assert found["conv1", "rmac"].forward == found["conv1", "spoc"].forward
    assert all(0 < passed.pooling < 60 for passed in found.values())
