"""Data sets, and the LightningDataModule that holds them in memory."""

from ganmnist.data.datamodule import DataModule
from ganmnist.data.datasets import (
    MNIST,
    Auto,
    DataSet,
    Digits,
    FashionMNIST,
    Images,
    StackedMNIST,
)
from ganmnist.data.plane import Grid, Mixture, Ring

__all__ = [
    "MNIST",
    "Auto",
    "DataModule",
    "DataSet",
    "Digits",
    "FashionMNIST",
    "Grid",
    "Images",
    "Mixture",
    "Ring",
    "StackedMNIST",
]
