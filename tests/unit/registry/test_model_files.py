"""Files of models that other tools logged."""

from pathlib import Path

import yaml

from transfer_registry.model_files import find_damage


def test_a_model_of_another_tool_may_have_an_artifact_called_model(tmp_path: Path) -> None:
    (tmp_path / "artifacts" / "model").mkdir(parents=True)
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"flavors": {}, "metadata": None}), encoding="utf-8")
    assert not find_damage(tmp_path)
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"metadata": {"classes": ["ant", "bee"]}}), encoding="utf-8")
    assert find_damage(tmp_path)[0] == "artifacts/model/model.json is missing"
