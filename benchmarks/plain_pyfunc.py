"""Minimal pyfunc as in tutorials, the baseline of `serving.py`: float32, one transform."""

import base64
import io

import pandas as pd
import torch
import torchvision
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from PIL import Image
from torchvision import transforms


class PlainModel(PythonModel):
    """ResNet-18 with random weights."""

    def __init__(self) -> None:
        self.network = torchvision.models.resnet18(num_classes=2).eval()
        self.transform = transforms.Compose(
            [
                transforms.Resize(256),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        )

    def predict(self, model_input: pd.DataFrame) -> list[list[float]]:
        """Returns the probabilities of the base64 images in the column `image`."""
        images = [Image.open(io.BytesIO(base64.b64decode(text))) for text in model_input["image"]]
        batch = torch.stack([self.transform(image.convert("RGB")) for image in images])
        with torch.no_grad():
            probabilities: list[list[float]] = self.network(batch).softmax(dim=1).tolist()
        return probabilities


set_model(PlainModel())
