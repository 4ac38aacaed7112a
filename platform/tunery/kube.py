"""What a profile says of a Kubernetes cluster: how it is reached, and what of deploy/k8s is deployed there.

Images, classes of storage and the rest are said once: `platform k8s apply` deploys with them, and `platform submit`
sends jobs of the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_IMAGE = re.compile(
    r"(?P<name>(?:[\w.-]+(?::\d+)?/)?[\w.-]+(?:/[\w.-]+)*)(?::(?P<tag>\w[\w.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_DNS = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"


class Image(BaseModel):
    """A container image as it is named, taken apart."""

    model_config = ConfigDict(frozen=True)

    name: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def of(cls, text: str) -> Image:
        """ValueError where it is no name of an image."""
        found = _IMAGE.fullmatch(text)
        if found is None:
            raise ValueError(f"expected an image, such as registry.example.org/tunery@sha256:..., got {text!r}")
        return cls(**found.groupdict())


class Kubernetes(BaseModel):
    """The table [profiles.NAME.kubernetes]; every key may be left out."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    kubeconfig: str | None = Field(None, min_length=1)
    """File; None: $KUBECONFIG or ~/.kube/config, and in a pod where neither is there its service account."""
    context: str | None = Field(None, min_length=1)
    """Of the kubeconfig; None: its current one."""
    namespace: str = Field("tunery", pattern=_DNS)
    overlay: str = Field("gpu-kueue", min_length=1)
    """One of deploy/k8s/overlays by its name, or the folder of a kustomization of one's own."""
    components: Sequence[str] = ()
    """Of deploy/k8s/components, by their names."""
    image: str = "tunery"
    gpu_image: str = "tunery-gpu"
    storage_class: str | None = Field(None, pattern=_DNS)
    """Of Postgres' volume; None: the cluster's default."""
    shared_storage_class: str | None = Field(None, pattern=_DNS)
    """Of the volume that all nodes write to (ReadWriteMany); None: the cluster's default."""
    artifacts: str | None = None
    """s3://BUCKET[/PREFIX], where MLflow keeps artifacts; None: as the overlay says."""
    store: str | None = None
    """s3://BUCKET[/PREFIX], where runs keep their checkpoints; None: as the profile of the pods says, which is on the
    volume that all nodes write to."""
    s3_endpoint: str | None = None
    """URL of an object store that is not Amazon's, for both."""
    hosts: Sequence[str] = ()
    """Names, with the port where there is one, under which a proxy offers MLflow."""
    gpus: int | None = Field(None, ge=1)
    """GPUs that a sweep gets at most, and with Kueue at once; None: as the overlay says."""

    @field_validator("image", "gpu_image")
    @classmethod
    def _is_an_image(cls, text: str) -> str:
        Image.of(text)
        return text

    @field_validator("hosts")
    @classmethod
    def _are_hosts(cls, hosts: Sequence[str]) -> Sequence[str]:
        for host in hosts:
            if not re.fullmatch(r"[A-Za-z0-9.-]+(:\d+)?", host):
                raise ValueError(f"expected a name or an address, and perhaps a port, got {host!r}")
        return hosts

    @field_validator("artifacts", "store")
    @classmethod
    def _is_a_bucket(cls, text: str | None) -> str | None:
        if text is not None and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]+(/[^\s?#@]*)?", text):
            raise ValueError(f"expected s3://BUCKET[/PREFIX], got {text!r}")
        return text

    @field_validator("s3_endpoint")
    @classmethod
    def _is_a_server(cls, text: str | None) -> str | None:
        if text is not None and not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:\d+)?/?", text):
            raise ValueError("expected http:// or https://, a host and perhaps a port, and nothing else")
        return text

    @model_validator(mode="after")
    def _goes_together(self) -> Kubernetes:
        if self.s3_endpoint is not None and self.artifacts is None and self.store is None:
            raise ValueError("s3_endpoint: goes with artifacts or store, s3://BUCKET[/PREFIX]")
        return self
