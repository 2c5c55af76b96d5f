"""A pyfunc as tutorials write it, which `serving.py` compares with: float32, one transform, no more."""

import base64
import io

import pandas as pd
import torch
import torchvision
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from PIL import Image
from torchvision import transforms


class Plain(PythonModel):
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
        """Probabilities of the base64 images in the column `image`."""
        images = [Image.open(io.BytesIO(base64.b64decode(text))) for text in model_input["image"]]
        batch = torch.stack([self.transform(image.convert("RGB")) for image in images])
        with torch.no_grad():
            answers: list[list[float]] = self.network(batch).softmax(dim=1).tolist()
        return answers


set_model(Plain())
