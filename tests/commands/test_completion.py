# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""`cvreg --completion`, as bash uses it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from cvreg_trainer.cli import COMMANDS, main


pytest.importorskip("shtab", reason="needs the extra `report`")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "cvreg"
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda text: printed.append(text))
        assert main(["--completion", "bash"]) == 0
    path.write_text(printed[0])
    return path


def completed(script: Path, *words: str, folder: Path | None = None) -> list[str]:
    """What bash offers for the last of some words."""
    line = " ".join(f"'{word}'" for word in words)
    code = f"""source {script}; COMP_WORDS=(cvreg {line}); COMP_CWORD={len(words)}
        COMP_LINE="${{COMP_WORDS[*]}}"; COMP_POINT=${{#COMP_LINE}}
        name=$(complete -p cvreg | sed 's/.*-F \\([^ ]*\\).*/\\1/'); $name cvreg "{words[-1]}" "" 2>/dev/null
        printf '%s\\n' "${{COMPREPLY[@]}}" """
    run = subprocess.run(["bash", "-c", code], capture_output=True, text=True, cwd=folder)
    return run.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_and_values(script: Path, tmp_path: Path) -> None:
    names = {command.__name__.rpartition(".")[2] for command in COMMANDS}
    assert set(completed(script, "")) >= names
    assert completed(script, "audit", "--lora") == ["--lora_rank"]
    assert "llamafactory" in completed(script, "export", "--format", "")
    # Those of the training script, of TRL and ours
    offered = completed(script, "sft", "--l")
    assert {"--learning_rate", "--lora_r", "--lambda_patch"} <= set(offered)
    (tmp_path / "rows.jsonl").touch()
    assert completed(script, "audit", "--data", "ro", folder=tmp_path) == ["rows.jsonl"]


def test_other_shells_have_a_script_and_unknown_ones_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("#compdef cvreg")
    with pytest.raises(SystemExit):
        main(["--completion", "cmd"])
    assert "invalid choice: 'cmd'" in capsys.readouterr().err
