"""Files of models that other tools logged."""

from pathlib import Path

import yaml

from transfer_registry.model_files import find_damage


def test_a_model_of_another_tool_may_have_an_artifact_called_model(tmp_path: Path) -> None:
    (tmp_path / "artifacts" / "model").mkdir(parents=True)
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"metadata": {"classes": ["ant", "bee"]}}), encoding="utf-8")
    assert not find_damage(tmp_path)
    (tmp_path / "artifacts" / "model" / "model.json").write_text("{", encoding="utf-8")
    assert find_damage(tmp_path)[0].startswith("artifacts/model/model.json cannot be read")
    assert find_damage(tmp_path)[1] == "artifacts/model/weights.safetensors is missing"
