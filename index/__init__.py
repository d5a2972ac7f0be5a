"""Descriptors and metadata in, neighbours out: a durable catalog with FAISS over it."""

from index.catalog import Catalog
from index.collection import Collection
from index.duplicates import DuplicateCheck
from index.errors import CollectionError, DiskError
from index.item import Item, Neighbour, NewItem, Outcome, check_id
from index.jobs import FileOutcome, Job, Jobs
from index.keys import Key, Keys
from index.pictures import PictureStore
from index.ranking.expansion import Expansion
from index.ranking.reranking import Reranking
from index.ranking.spatial import Verification
from index.space import Space

__all__ = [
    "Catalog",
    "Collection",
    "CollectionError",
    "DiskError",
    "DuplicateCheck",
    "Expansion",
    "FileOutcome",
    "Item",
    "Job",
    "Jobs",
    "Key",
    "Keys",
    "Neighbour",
    "NewItem",
    "Outcome",
    "PictureStore",
    "Reranking",
    "Space",
    "Verification",
    "check_id",
]
