"""tritonserver's flags that `reelmesh serve` has not, and what to use instead; read by the command line's errors.

The one invariant: every flag of Triton 2.51 is either one of `reelmesh serve` or stands here.
"""

from typing import Final

_LOG: Final = "set REELMESH_LOG__LEVEL and REELMESH_LOG__STYLE, or POST /v2/logging while the mesh runs"
_TRACE: Final = "POST /v2/trace/setting, or /v2/models/NAME/trace/setting, while the mesh runs"
_TLS: Final = "there is no TLS at the edge: put what your network uses in front of it"
_KEYS: Final = "use --keys: a key's `calls` say what it allows (docs/keys.md)"
_EDGE: Final = "HAProxy holds the connections; its bounds are the settings limits.* (docs/settings.md)"
_HOST: Final = "use --host, for all three ports"
_ON: Final = "all three ports are always on: leave it out"
_CONFIG: Final = "set it in the model's config.pbtxt"
_OWN: Final = "the mesh sets it for its own tritonserver: leave it out"
_NO_CACHE: Final = "the mesh has no response cache: leave it out"
_NONE: Final = "the mesh has nothing like it: leave it out"
_STARTS: Final = (
    "`reelmesh serve` starts once every model that was asked for is ready, or ends with the reason: leave it out"
)
_CLOUD: Final = "the mesh speaks the Open Inference Protocol alone: leave it out"

INSTEAD: Final[dict[str, str]] = {
    "--http-address": _HOST,
    "--grpc-address": _HOST,
    "--metrics-address": _HOST,
    "--strict-readiness": "/v2/health/ready is always strict: leave it out",
    "--exit-on-error": _STARTS,
    "--disable-auto-complete-config": "the mesh completes what a config.pbtxt leaves out, and keeps what it says",
    "--strict-model-config": "the mesh completes what a config.pbtxt leaves out, and keeps what it says",
    "--http-restricted-api": _KEYS,
    "--grpc-restricted-protocol": _KEYS,
    "--backend-config": _CONFIG + ", under `parameters`",
    "--model-load-gpu-limit": _CONFIG + ": `instance_group`",
    "--host-policy": _CONFIG + ": `instance_group`",
    "--rate-limit": "bound a model's queue in its config.pbtxt, or a client by --keys and its `rate`",
    "--rate-limit-resource": "bound a model's queue in its config.pbtxt, or a client by --keys and its `rate`",
    "--metrics-config": "--metrics-port serves every metric",
    "--metrics-interval-ms": "metrics are as new as the scrape",
    "--log-file": "logs are in the folder --home",
    **dict.fromkeys(("--log-verbose", "--log-info", "--log-warning", "--log-error", "--log-format"), _LOG),
    **dict.fromkeys(
        ("--trace-config", "--trace-file", "--trace-level", "--trace-rate", "--trace-count", "--trace-log-frequency"),
        _TRACE,
    ),
    **dict.fromkeys(
        (
            "--grpc-use-ssl", "--grpc-use-ssl-mutual", "--grpc-server-cert", "--grpc-server-key", "--grpc-root-cert",
        ),
        _TLS,
    ),
    **dict.fromkeys(("--allow-http", "--allow-grpc", "--allow-metrics"), _ON),
    **dict.fromkeys(
        (
            "--http-thread-count", "--reuse-http-port", "--reuse-grpc-port", "--grpc-infer-allocation-pool-size",
            "--grpc-keepalive-time", "--grpc-keepalive-timeout", "--grpc-keepalive-permit-without-calls",
            "--grpc-http2-max-pings-without-data", "--grpc-http2-min-recv-ping-interval-without-data",
            "--grpc-http2-max-ping-strikes", "--grpc-max-connection-age", "--grpc-max-connection-age-grace",
        ),
        _EDGE,
    ),
    **dict.fromkeys(
        (
            "--backend-directory", "--allow-gpu-metrics", "--allow-cpu-metrics", "--pinned-memory-pool-byte-size",
            "--cuda-memory-pool-byte-size", "--cuda-virtual-address-size", "--min-supported-compute-capability",
            "--buffer-manager-thread-count", "--model-load-thread-count", "--enable-peer-access",
        ),
        _OWN,
    ),
    **dict.fromkeys(("--cache-config", "--cache-directory", "--response-cache-byte-size"), _NO_CACHE),
    **dict.fromkeys(
        (
            "--id", "--model-namespacing", "--model-load-retry-count", "--model-config-name", "--repoagent-directory",
            "--http-header-forward-pattern", "--grpc-header-forward-pattern", "--grpc-infer-response-compression-level",
        ),
        _NONE,
    ),
    **dict.fromkeys(
        (
            "--allow-sagemaker", "--sagemaker-port", "--sagemaker-safe-port-range", "--sagemaker-thread-count",
            "--allow-vertex-ai", "--vertex-ai-port", "--vertex-ai-thread-count", "--vertex-ai-default-model",
        ),
        _CLOUD,
    ),
}  # fmt: skip
"""What to do instead, by flag."""
