"""What a cluster needs to run a model repository: YAML, on standard output.

A Deployment of Triton with the repository in its image, a Service, an autoscaler on the time that
images wait in Triton's queues, the rule by which Prometheus's adapter computes that time, and a
PodDisruptionBudget. Unverified in a cluster; the tests check it against Kubernetes' own schemas.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vptkit.errors import VptkitError
from vptkit.formats.bank_tables import BankShape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vptkit.formats.bundle import Bundle

    from .model_config import Batching

__all__ = ["ClusterOptions", "cluster_yaml", "memory_mib"]

_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._:/@-]{0,250}")
_MIB = 1 << 20
_PROCESS = 400  # MiB of the server and its libraries
_INSTANCE = 250  # MiB of one Python process with ONNX Runtime
_SHARED = 256  # MiB of /dev/shm: requests and answers between server and Python processes


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """What the cluster's own is.

    Attributes:
        image: of the container, with the repository in /models (docs/triton.md).
        least, most: pods.
        cores: CPU cores of a pod.
        queue_ms: the time in the queue that the autoscaler holds, milliseconds.
        gpu: each pod has one.
    """

    image: str = "registry/vptkit-triton:1"
    least: int = 2
    most: int = 10
    cores: int = 2
    queue_ms: int = 5
    gpu: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no name of an image.

        Raises:
            VptkitError: of a form that no registry has.
        """
        if not _IMAGE.fullmatch(self.image):
            raise VptkitError(
                f"--k8s-image {self.image[:100]!r}: expected the name of a container's image, as "
                "registry/vptkit-triton:1"
            )


def memory_mib(bundles: Sequence[Bundle], batching: Batching) -> int:
    """What a pod needs, from the bundles' graphs; an estimate from above, MiB."""
    total = float(_PROCESS + _SHARED)
    for bundle in bundles:
        memory = bundle.manifest["memory"]
        activations = memory["activation_bytes"]
        graph = activations["fixed"] + activations["per_image"] * batching.max_batch
        # the file, once more while it is loaded, and what the library keeps in another order
        total += batching.instances * (
            _INSTANCE + (3 * memory["weights_bytes"] + graph + _table_bytes(bundle)) / _MIB
        )
    return 64 * math.ceil(total / 64)


def cluster_yaml(
    bundles: Sequence[Bundle], batching: Batching, options: ClusterOptions | None = None
) -> str:
    """Deployment, Service, HorizontalPodAutoscaler, ConfigMap, PodDisruptionBudget.

    Args:
        bundles: that the repository holds.
        batching: how they are served.
        options: of the cluster.
    """
    options = options or ClusterOptions()
    memory = memory_mib(bundles, batching)
    limits = '\n              nvidia.com/gpu: "1"' if options.gpu else ""
    documents = (
        _DEPLOYMENT.format(
            image=options.image,
            least=options.least,
            cores=options.cores,
            memory=memory,
            shared=_SHARED,
            gpu=limits,
        ),
        _SERVICE,
        _AUTOSCALER.format(least=options.least, most=options.most, queue_ms=options.queue_ms),
        _RULES,
        _BUDGET,
    )
    return "---\n".join(documents)


def _table_bytes(bundle: Bundle) -> int:
    """A bank's tables, which have room for twice the adapters."""
    if bundle.layout != "bank" or bundle.constant_tables:
        return 0
    shape = BankShape.of_manifest(bundle.manifest, bundle.spec)
    each = sum(count * math.prod(row) for count, row in shape.rows().values())
    return 4 * 2 * each * len(bundle.adapter_names)


_DEPLOYMENT = """\
# Written by vptkit serve --print-k8s. The image is yours to build: docs/triton.md.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: vptkit-triton
  labels:
    app.kubernetes.io/name: vptkit-triton
spec:
  replicas: {least}
  selector:
    matchLabels:
      app.kubernetes.io/name: vptkit-triton
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxSurge: 1
      maxUnavailable: 0
  template:
    metadata:
      labels:
        app.kubernetes.io/name: vptkit-triton
      annotations:
        prometheus.io/scrape: "true"
        prometheus.io/port: "8002"
        prometheus.io/path: /metrics
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 60
      securityContext:
        runAsNonRoot: true
        runAsUser: 1000
        runAsGroup: 1000
        fsGroup: 1000
        seccompProfile:
          type: RuntimeDefault
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              app.kubernetes.io/name: vptkit-triton
      containers:
        - name: triton
          image: {image}
          args:
            - tritonserver
            - --model-repository=/models
            - --disable-auto-complete-config
            - --strict-readiness=true
            - --exit-timeout-secs=30
            - --log-format=ISO8601
          env:
            - name: HOME
              value: /tmp
          ports:
            - name: http
              containerPort: 8000
            - name: grpc
              containerPort: 8001
            - name: metrics
              containerPort: 8002
          startupProbe:
            httpGet:
              path: /v2/health/ready
              port: http
            periodSeconds: 2
            failureThreshold: 150
          readinessProbe:
            httpGet:
              path: /v2/health/ready
              port: http
            periodSeconds: 5
            timeoutSeconds: 2
            failureThreshold: 2
          livenessProbe:
            httpGet:
              path: /v2/health/live
              port: http
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 3
          lifecycle:
            preStop:  # the Service forgets the pod first, then it drains
              exec:
                command: ["sleep", "5"]
          resources:
            requests:
              cpu: "{cores}"
              memory: {memory}Mi
            limits:
              cpu: "{cores}"
              memory: {memory}Mi{gpu}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: ["ALL"]
          volumeMounts:
            - name: shm
              mountPath: /dev/shm
            - name: tmp
              mountPath: /tmp
      volumes:
        - name: shm
          emptyDir:
            medium: Memory
            sizeLimit: {shared}Mi
        - name: tmp
          emptyDir:
            sizeLimit: 256Mi
"""

_SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: vptkit-triton
  labels:
    app.kubernetes.io/name: vptkit-triton
spec:
  selector:
    app.kubernetes.io/name: vptkit-triton
  ports:
    - name: http
      port: 8000
      targetPort: http
    - name: grpc
      port: 8001
      targetPort: grpc
      appProtocol: kubernetes.io/h2c
    - name: metrics
      port: 8002
      targetPort: metrics
"""

_AUTOSCALER = """\
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: vptkit-triton
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: vptkit-triton
  minReplicas: {least}
  maxReplicas: {most}
  metrics:
    - type: Pods
      pods:
        metric:
          name: vptkit_queue_ms  # of the ConfigMap below
        target:
          type: AverageValue
          averageValue: "{queue_ms}"
  behavior:
    scaleUp:
      stabilizationWindowSeconds: 0
      policies:
        - type: Percent
          value: 100
          periodSeconds: 30
    scaleDown:
      stabilizationWindowSeconds: 300
"""

# The rule for k8s-prometheus-adapter: its chart takes it as rules.custom, or as this ConfigMap's file.
_RULES = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: vptkit-triton-prometheus-adapter
data:
  config.yaml: |
    rules:
      - seriesQuery: 'nv_inference_queue_duration_us{namespace!="",pod!=""}'
        resources:
          overrides:
            namespace: {resource: namespace}
            pod: {resource: pod}
        name:
          as: vptkit_queue_ms
        metricsQuery: >-
          sum(rate(nv_inference_queue_duration_us{<<.LabelMatchers>>}[1m])) by (<<.GroupBy>>)
          / clamp_min(sum(rate(nv_inference_request_success{<<.LabelMatchers>>}[1m])) by (<<.GroupBy>>), 0.001)
          / 1000
"""

_BUDGET = """\
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: vptkit-triton
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      app.kubernetes.io/name: vptkit-triton
"""
