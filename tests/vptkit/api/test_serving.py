"""`vptkit.serve`: the command's options as arguments."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

import pytest

pytest.importorskip("tests.support.serving")

from vptkit.api.serving import serve
from vptkit.cli.runtime_commands import serve as command
from vptkit.errors import VptkitError
from vptkit.export.bank import edit_bank
from vptkit.runtime.http_server.server_process import ServerSettings


def test_the_commands_options_and_defaults():
    options = inspect.signature(command.serve).parameters
    for field in fields(ServerSettings):
        assert options[field.name].default == field.default, field.name


def test_a_setting_at_a_time(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "vptkit.runtime.http_server.server_process.serve_bundles",
        lambda bundles, settings, **more: asked.append((bundles, settings, more["editor"])),
    )
    serve("a.vptk", ServerSettings(port=1, max_batch=4), port=2)
    assert asked == [([Path("a.vptk")], ServerSettings(port=2, max_batch=4), edit_bank)]
    with pytest.raises(
        VptkitError, match="prot: no such setting, expected one of admin_token_file"
    ):
        serve("a.vptk", prot=3)
