from pathlib import Path

import pytest

from tests.towers import world
from tests.towers.world import save_conse, save_open_clip


@pytest.fixture(scope="session")
def conse_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_conse(tmp_path_factory.mktemp("conse"))


@pytest.fixture(scope="session")
def open_clip_name(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_open_clip(tmp_path_factory.mktemp("open_clip") / "model", quick_gelu=True)


@pytest.fixture(scope="session")
def clip_folder(open_clip_name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from modeling_ulip2.towers.open_clip import save_clip_from_open_clip

    folder = tmp_path_factory.mktemp("clip")
    save_clip_from_open_clip(open_clip_name, folder)
    return folder


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.save_siglip(tmp_path_factory.mktemp("siglip"))


@pytest.fixture(scope="session")
def siglip2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.save_siglip2(tmp_path_factory.mktemp("siglip2"))


@pytest.fixture(scope="session")
def slip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("open_clip")
    return world.save_slip(tmp_path_factory.mktemp("slip"))


@pytest.fixture(scope="session")
def chinese_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.save_chinese_clip(tmp_path_factory.mktemp("chinese_clip"))
