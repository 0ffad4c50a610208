"""A process joins a cluster or starts one; what keeps a cluster from the work is one sentence."""

import sys
from pathlib import Path

import pytest

from irgen.compute import cluster
from irgen.errors import ClusterError, ExtraError
from irgen.params import Compute

from ..ray_cluster import start_cluster

HERE = Compute(engine="ray", device="cpu")


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(ExtraError, match=r"^ray is not installed: pip install .*\[ray\]"),
        cluster.connect(HERE),
    ):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("address", ["127.0.0.1:9", "nowhere"])
def test_an_address_where_no_cluster_answers_is_told_in_bounded_time(address, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setattr(cluster, "JOIN_SECONDS", 5.0)
    message = f"^compute.address: no Ray cluster answers at '{address}'; allowed: nothing"
    settings = Compute(engine="ray", address=address)
    with pytest.raises(ClusterError, match=message), cluster.connect(settings):
        pass


@pytest.mark.slow
def test_a_cluster_is_started_for_a_block_and_blocks_within_share_it(capfd):
    ray = pytest.importorskip("ray")
    with cluster.connect(HERE):
        session = ray.get_runtime_context().get_node_id()
        with cluster.connect(HERE):
            assert ray.get_runtime_context().get_node_id() == session
        assert ray.is_initialized()
    assert not ray.is_initialized()
    assert not capfd.readouterr().out


@pytest.mark.slow
def test_nodes_that_cannot_do_the_work_are_named(tmp_path, monkeypatch):
    with start_cluster(1) as nodes:
        settings = Compute(engine="ray", address=nodes.address, device="cpu", precision="fp32")
        machine = cluster.choose_machine(settings)
        assert (machine.device.type, machine.autocast) == ("cpu", None)
        cluster.require_folder(tmp_path)
        assert not list(tmp_path.iterdir())
        monkeypatch.chdir(tmp_path)
        seen_here_alone = Path("/proc/self/cwd")
        message = r"^nodes of the Ray cluster cannot do the work: \S+ does not see /proc/self/cwd: "
        with pytest.raises(ClusterError, match=message + "mount the project's folder at the same"):
            cluster.require_folder(seen_here_alone)
        assert not list(tmp_path.iterdir())
        versions = dict.fromkeys(cluster.PACKAGES, "0.1")
        monkeypatch.setattr(cluster, "_list_versions", lambda: versions)
        with pytest.raises(ClusterError, match=r"has numpy \S+ in place of 0.1, .*: install the s"):
            cluster.require_folder(tmp_path)
