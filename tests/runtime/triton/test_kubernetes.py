from __future__ import annotations

import kubernetes_validate
import pytest
import yaml

from vptkit.errors import VptkitError
from vptkit.formats.bundle import open_bundle
from vptkit.runtime.triton.kubernetes import ClusterOptions, cluster_yaml, memory_mib
from vptkit.runtime.triton.model_config import Batching

KINDS = ["Deployment", "Service", "HorizontalPodAutoscaler", "ConfigMap", "PodDisruptionBudget"]


@pytest.mark.slow
@pytest.mark.parametrize("gpu", [False, True])
def test_kubernetes_own_schemas_take_it(make_bundle, gpu):
    text = cluster_yaml([open_bundle(make_bundle())], Batching(), ClusterOptions(gpu=gpu))
    documents = list(yaml.safe_load_all(text))
    assert [one["kind"] for one in documents] == KINDS
    for one in documents:
        kubernetes_validate.validate(one, "1.31", strict=True)
    wrong = {**documents[0], "spec": {**documents[0]["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.31", strict=True)
    (container,) = documents[0]["spec"]["template"]["spec"]["containers"]
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == gpu


def test_what_a_pod_may_not_do_and_how_it_scales(make_bundle):
    bundles = [open_bundle(make_bundle())]
    found = list(yaml.safe_load_all(cluster_yaml(bundles, Batching())))
    pod = found[0]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
    assert {v["mountPath"] for v in container["volumeMounts"]} == {"/dev/shm", "/tmp"}
    (metric,) = found[2]["spec"]["metrics"]
    (rule,) = yaml.safe_load(found[3]["data"]["config.yaml"])["rules"]
    assert rule["name"]["as"] == metric["pods"]["metric"]["name"]
    labels = found[0]["spec"]["template"]["metadata"]["labels"].items()
    for selector in (
        found[0]["spec"]["selector"]["matchLabels"],
        found[1]["spec"]["selector"],
        found[4]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels


def test_memory_grows_with_what_is_served(make_bundle):
    large = {"weights_bytes": 400 << 20, "activation_bytes": {"fixed": 0, "per_image": 1 << 20}}
    one, two = open_bundle(make_bundle()), open_bundle(make_bundle(memory=large))
    few, many = Batching(), Batching(instances=2, max_batch=32)
    assert memory_mib([one], few) < memory_mib([two], few) < memory_mib([one, two], many)
    assert memory_mib([two], few) > 1200


@pytest.mark.parametrize("image", ["", "a b", "x\ny: 1", "-x", 'x"'])
def test_an_image_that_no_registry_has(image):
    with pytest.raises(VptkitError, match="--k8s-image"):
        ClusterOptions(image=image)
