"""What `platform k8s doctor` looks at. A check changes nothing; what a user may not look at is told as such."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tunery.cli._checks import Check, store
from tunery.errors import ProfileError, TuneryError
from tunery.k8s import access, needs
from tunery.k8s.api import ApiServer, RefusedError
from tunery.k8s.render import Object, render
from tunery.profile import Profile

VERBS = ("create", "get", "list", "watch", "patch", "delete")
"""What is asked of RayJobs."""
OPERATOR = "/apis/apps/v1/deployments?labelSelector=app.kubernetes.io%2Fname%3Dkuberay-operator"
KUEUE = "kueue.x-k8s.io/v1beta2"


def all_checks(profile: Profile) -> Iterator[Check]:
    """Every check, in the order of the report. Where the API server is not reached there is nothing more to look at."""
    name = f"profile {profile.name}"
    try:
        objects = render(profile.kubernetes, with_job=True)
        server = access.connect(profile.kubernetes, profile=profile.name)
        version = server.ask("GET", "/version").get("gitVersion", "unknown")
    except TuneryError as error:
        yield Check(name, ok=False, detail=str(error), todo="nothing more can be looked at", exit_code=error.exit_code)
        return
    settings = profile.kubernetes
    yield Check(name, ok=True, detail=f"overlay {settings.overlay}, {len(objects)} objects")
    yield Check("API server", ok=True, detail=f"{server.url}, Kubernetes {version}")
    try:
        yield rights(server, settings.namespace)
    except ProfileError as error:  # 401: many servers tell their version to everybody
        yield Check(
            "rights", ok=False, detail=str(error), todo="nothing more can be looked at", exit_code=error.exit_code
        )
        return
    looks: list[tuple[str, Callable[[], Check]]] = [
        ("namespace", lambda: namespace(server, settings.namespace)),
        ("KubeRay's definitions", lambda: definitions(server)),
        ("KubeRay's operator", lambda: operator(server)),
        ("GPUs", lambda: gpus(server, objects)),
        ("storage", lambda: storage(server, objects)),
        ("secrets", lambda: secrets(server, objects, settings.namespace)),
        ("services", lambda: services(server, objects)),
    ]
    if any(each["kind"] == "LocalQueue" for each in objects) or needs.queue(objects):
        looks.insert(3, ("queue", lambda: queue(server, objects, settings.namespace)))
    for name, look in looks:
        yield _looked(name, look)
    yield store("tracking (MLflow)", profile.tracking_uri, profile)


def _looked(name: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except ProfileError as error:  # 403: whoever submits need not see all of this
        return Check(name, ok=False, detail=str(error), todo="have it looked at by who may", required=False)
    except RefusedError as refused:
        return Check(name, ok=False, detail=str(refused), todo="is it an API server of Kubernetes?")


def rights(server: ApiServer, namespace: str) -> Check:
    """The user may do what the client does."""
    missing = []
    for verb in VERBS:
        asked = {"namespace": namespace, "verb": verb, "group": "ray.io", "resource": "rayjobs"}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        answer = server.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=review)
        if not answer.get("status", {}).get("allowed"):
            missing.append(verb)
    if missing:
        todo = f"bind the user to the Role tunery-submitter in namespace {namespace}: docs/kubernetes.md shows how"
        return Check("rights", ok=False, detail=f"may not {', '.join(missing)} rayjobs in {namespace}", todo=todo)
    return Check("rights", ok=True, detail=f"{', '.join(VERBS)} rayjobs in {namespace}")


def namespace(server: ApiServer, name: str) -> Check:
    """It is there, and pods of another kind than ours are not let in."""
    found = server.find(f"/api/v1/namespaces/{name}")
    if found is None:
        return Check("namespace", ok=False, detail=f"{name} is not there", todo="platform k8s apply")
    level = found["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce", "not set")
    todo = "" if level == "restricted" else "platform k8s apply sets Pod Security to restricted"
    return Check("namespace", not todo, f"{name}, Pod Security {level}", todo, required=False)


def definitions(server: ApiServer) -> Check:
    """KubeRay's, of a version that has what is used."""
    name, todo = "KubeRay's definitions", "install KubeRay 1.7 or later, its definitions by server-side apply"
    found = server.find("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/rayjobs.ray.io")
    if found is None:
        return Check(name, ok=False, detail="rayjobs.ray.io is not there", todo=todo)
    served = {each["name"]: each for each in found["spec"]["versions"] if each.get("served")}
    if "v1" not in served:
        return Check(name, ok=False, detail=f"rayjobs.ray.io has {', '.join(served) or 'no version'}", todo=todo)
    if missing := needs.fields_missing(served["v1"]["schema"]["openAPIV3Schema"]):
        return Check(name, ok=False, detail=f"rayjobs.ray.io v1 lacks {', '.join(missing)}", todo=todo)
    return Check(name, ok=True, detail="rayjobs.ray.io v1, with all fields that are used")


def operator(server: ApiServer) -> Check:
    """It runs; the manifests let the one in kuberay-system in."""
    name = "KubeRay's operator"
    found = server.ask("GET", OPERATOR)["items"]
    if not found:
        return Check(name, ok=False, detail="there is none", todo="install KubeRay 1.7 in namespace kuberay-system")
    at, images = found[0]["metadata"]["namespace"], needs.images(found[0])
    detail = f"{', '.join(images)} in {at}"
    if not found[0].get("status", {}).get("availableReplicas"):
        todo = f"kubectl -n {at} describe deployment {found[0]['metadata']['name']}"
        return Check(name, ok=False, detail=f"{detail}: no pod is available", todo=todo)
    if at != "kuberay-system":
        todo = f"the policy ray-head-from-operator lets kuberay-system in: patch it to {at} in your overlay"
        return Check(name, ok=False, detail=detail, todo=todo)
    return Check(name, ok=True, detail=detail)


def queue(server: ApiServer, objects: list[Object], namespace: str) -> Check:
    """Kueue's, which lets jobs go."""
    wanted = needs.queue(objects) or "tunery"
    if server.find(f"/apis/{KUEUE}") is None:
        todo = "install Kueue with ray.io/rayjob among its integrations, or take the overlay gpu"
        return Check("queue", ok=False, detail=f"no {KUEUE} here", todo=todo)
    found = server.find(f"/apis/{KUEUE}/namespaces/{namespace}/localqueues/{wanted}")
    if found is None:
        return Check("queue", ok=False, detail=f"LocalQueue {wanted} is not there", todo="platform k8s apply")
    if problem := needs.not_true(found, "Active"):
        return Check("queue", ok=False, detail=f"LocalQueue {wanted}: {problem}", todo="look at its ClusterQueue")
    return Check("queue", ok=True, detail=f"LocalQueue {wanted}")


def gpus(server: ApiServer, objects: list[Object]) -> Check:
    """Nodes offer as many as a sweep takes."""
    nodes = server.ask("GET", "/api/v1/nodes")["items"]
    there, on = needs.gpus_of(nodes)
    most = needs.gpus_asked(objects)
    detail = f"{there} on {on} of {len(nodes)} nodes; a sweep takes up to {most}"
    if there >= most:
        return Check("GPUs", ok=True, detail=detail)
    todo = (
        "install NVIDIA's device plugin and feature discovery (nodes have nvidia.com/gpu and the label "
        "nvidia.com/gpu.present=true), or lower gpus in the profile; well where nodes come when they are asked for"
    )
    return Check("GPUs", ok=False, detail=detail, todo=todo, required=False)


def storage(server: ApiServer, objects: list[Object]) -> Check:
    """Every claim names a class that is there, or there is a default."""
    found = server.ask("GET", "/apis/storage.k8s.io/v1/storageclasses")["items"]
    missing = needs.classes_missing(objects, found)
    names = ", ".join(each["metadata"]["name"] for each in found) or "none"
    if missing:
        todo = "name one as storage_class or shared_storage_class in the profile, or make one the default"
        return Check("storage", ok=False, detail=f"{'; '.join(missing)}; known: {names}", todo=todo)
    return Check(
        "storage", ok=True, detail=f"classes: {names}; that the one of claim tunery can ReadWriteMany shows on use"
    )


def secrets(server: ApiServer, objects: list[Object], namespace: str) -> Check:
    """Those that pods take are there, with their keys. Their values are not kept."""
    missing = []
    for name, keys in sorted(needs.secrets(objects).items()):
        found = server.find(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        lacking = keys - {*((found or {}).get("data") or {})}
        if found is None or lacking:
            missing.append(f"{name} ({', '.join(sorted(lacking)) or 'whole'})")
    if missing:
        todo = f"kubectl -n {namespace} create secret generic ...: deploy/README.md lists them with their keys"
        return Check("secrets", ok=False, detail=f"missing: {', '.join(missing)}", todo=todo)
    return Check("secrets", ok=True, detail=", ".join(sorted(needs.secrets(objects))))


def services(server: ApiServer, objects: list[Object]) -> Check:
    """What the overlay runs is up."""
    down = []
    for each in objects:
        if each["kind"] not in ("Deployment", "StatefulSet"):
            continue
        at = each["metadata"]
        found = server.find(f"/apis/apps/v1/namespaces/{at['namespace']}/{each['kind'].lower()}s/{at['name']}")
        if found is None:
            down.append(f"{at['name']} is not there")
        elif not (found.get("status") or {}).get("readyReplicas"):
            down.append(f"{at['name']} has no pod that is ready")
    if down:
        todo = "platform k8s apply, then kubectl get pods and kubectl describe of the pod that waits"
        return Check("services", ok=False, detail="; ".join(down), todo=todo)
    return Check("services", ok=True, detail="every Deployment and StatefulSet has a pod that is ready")
