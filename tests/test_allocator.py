"""Thresholds of malloc are raised where the C library is glibc and the environment says nothing of them."""

from __future__ import annotations

import platform

import pytest

from brewlens import allocator


def test_thresholds_are_raised_with_glibc_only(monkeypatch):
    for name in allocator._SETTINGS:
        monkeypatch.delenv(name, raising=False)
    assert allocator.keep_buffers() == (platform.libc_ver()[0] == "glibc")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not allocator.keep_buffers()


@pytest.mark.parametrize("name", allocator._SETTINGS)
def test_settings_of_the_environment_win(monkeypatch, name):
    monkeypatch.setenv(name, "glibc.malloc.check=0")
    assert not allocator.keep_buffers()
