"""Trials in this process, one after the other, on one device."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from transfer_model.network import Network, NetworkSpec, build
from transfer_model.preprocessing import Preprocessing
from transfer_platform.data.dataset import PictureDataset, loader
from transfer_platform.data.splits import Splits
from transfer_platform.features import PREFIX_BATCH, Features, compute
from transfer_platform.network.freezing import freeze_through
from transfer_platform.progress import Progress, Step
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.space import resolve
from transfer_platform.search import Trial
from transfer_platform.tracking import Run, Tracker
from transfer_platform.training import checkpoint
from transfer_platform.training.device import choose_precision
from transfer_platform.training.fitting import Epoch, Fit, Material, fit
from transfer_platform.training.material import FeatureMaterial, PictureMaterial
