"""Memory of the machine, of a container and of this process."""

from __future__ import annotations

from vptkit.devices.probes.memory import free_memory, process_memory, swap_free, total_memory

MEMINFO = "MemTotal:  8192 kB\nMemFree: 1 kB\nMemAvailable:  4096 kB\nSwapFree: 2048 kB\n"
KIB = 1024


def plant(root, **files: str):
    """Files of a container's memory group beside /proc/meminfo."""
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text(MEMINFO)
    (root / "sys/fs/cgroup").mkdir(parents=True)
    for name, text in files.items():
        (root / f"sys/fs/cgroup/memory.{name}").write_text(text)
    return root


def test_a_machine(tmp_path):
    plant(tmp_path)
    assert total_memory(tmp_path) == 8192 * KIB
    assert free_memory(tmp_path) == 4096 * KIB
    assert swap_free(tmp_path) == 2048 * KIB


def test_a_system_that_does_not_tell(tmp_path):
    assert total_memory(tmp_path) is None
    assert free_memory(tmp_path) is None
    assert swap_free(tmp_path) == 0


def test_a_container_without_a_limit(tmp_path):
    plant(tmp_path, max="max\n", current=f"{8000 * KIB}\n")
    assert total_memory(tmp_path) == 8192 * KIB
    assert free_memory(tmp_path) == 4096 * KIB


def test_a_container_with_a_limit(tmp_path):
    """Files that were read and are not needed now count as used there; they give way."""
    stat = f"anon 5\nactive_file 7\ninactive_file {200 * KIB}\n"
    plant(tmp_path, max=f"{3000 * KIB}\n", current=f"{2500 * KIB}\n", stat=stat)
    assert total_memory(tmp_path) == 3000 * KIB
    assert free_memory(tmp_path) == 700 * KIB


def test_a_container_above_its_limit(tmp_path):
    plant(tmp_path, max=f"{3000 * KIB}\n", current=f"{3001 * KIB}\n")
    assert free_memory(tmp_path) == 0


def test_this_process():
    now, peak = process_memory()
    block = bytearray(64 << 20)
    more, most = process_memory()
    assert more - now > 32
    assert most >= max(more, peak)
    del block
