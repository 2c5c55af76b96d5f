"""Ten-crop evaluation: averages probabilities over crops and their reflections."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from transfer_model.classifier import Classifier
from transfer_model.decode import decode
from transfer_model.preprocessing import Preprocessing
from transfer_platform.training.precision import autocast

CROPS = 10


@torch.inference_mode()
def ten_crop_probabilities(classifier: Classifier, images: Sequence[Path]) -> NDArray[np.float32]:
    """Returns class probabilities (N, C): for each image, the mean of the calibrated probabilities of its 10 crops.

    See Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012, sec. 4.1.
    """
    config, device = classifier.config, classifier.device
    rows = []
    for path in images:
        image = decode(path, intensity=config.preprocessing.intensity)
        crops = ten_crops(image, config.preprocessing).to(device, memory_format=torch.channels_last)
        with autocast(device, config.precision):
            logits = classifier.network(crops)
        rows.append((logits.float() / config.temperature).softmax(dim=1).mean(dim=0).cpu())
    probabilities: NDArray[np.float32] = torch.stack(rows).numpy()
    return probabilities


def ten_crops(image: Image.Image, preprocessing: Preprocessing) -> Tensor:
    """Returns normalized crops (10, 3, S, S) of an RGB image: 4 corners and the center, followed by their reflections.

    The crops are squares within the center square of the image. The center crop is the one used for serving.
    """
    square = min(image.size)
    side = preprocessing.crop * square
    left, top, margin = (image.width - square) / 2, (image.height - square) / 2, square - side
    offsets = [(0.0, 0.0), (margin, 0.0), (0.0, margin), (margin, margin), (margin / 2, margin / 2)]
    size, resample = (preprocessing.image_size,) * 2, Image.Resampling[preprocessing.interpolation.upper()]
    boxes = [(left + x, top + y, left + x + side, top + y + side) for x, y in offsets]
    crops = torch.stack([preprocessing.normalize(image.resize(size, resample, box=box)) for box in boxes])
    return torch.cat([crops, crops.flip(3)])
