"""What KubeRay's operator and Kueue would refuse, and quotas."""

from __future__ import annotations

from tests.deploy.breaks.broken import CPU, GONE, GPU, HEAD, IN_JOB, JOB, QUEUE, QUOTA, RAY, Break, env
from tests.deploy.rules import kuberay

BREAKS = [
    Break(kuberay.token_authentication, "expected mode token", RAY, ("spec", "authOptions", "mode"), "disabled"),
    Break(kuberay.token_authentication, "expected mode token", RAY, ("spec", "authOptions", "secretName"), GONE),
    Break(kuberay.token_authentication, "expected mode token", RAY, ("spec", "authOptions"), GONE),
    Break(kuberay.token_authentication, "tokens need 2.52", RAY, ("spec", "rayVersion"), "2.51.3"),
    Break(kuberay.token_authentication, "expected mode token", JOB, (*IN_JOB, "authOptions"), GONE, "gpu-kueue"),
    Break(kuberay.head_computes_nothing, "num-cpus", RAY, ("spec", "headGroupSpec", "rayStartParams", "num-cpus"), "2"),
    Break(
        kuberay.head_computes_nothing,
        "the head has a GPU",
        RAY,
        (*HEAD, "containers", 0, "resources", "limits", kuberay.GPU),
        "1",
    ),
    Break(kuberay.autoscaler_v2, "expected version v2", RAY, ("spec", "autoscalerOptions", "version"), "v1"),
    Break(kuberay.autoscaler_v2, "idleTimeoutSeconds", RAY, ("spec", "autoscalerOptions", "idleTimeoutSeconds"), GONE),
    Break(kuberay.autoscaler_v2, "wants Never", RAY, (*HEAD, "restartPolicy"), "Always"),
    Break(kuberay.autoscaler_v2, "wants Never", RAY, (*GPU, "template", "spec", "restartPolicy"), "OnFailure"),
    Break(kuberay.autoscaler_v2, "cannot be suspended", RAY, (*CPU, "suspend"), True),
    Break(kuberay.autoscaler_v2, "without an autoscaler", RAY, ("spec", "enableInTreeAutoscaling"), False),
    Break(
        kuberay.autoscaler_v2,
        "is said twice",
        RAY,
        (*HEAD, "containers", 0, "env"),
        env("RAY_enable_autoscaler_v2", value="1"),
    ),
    Break(kuberay.worker_groups, "a group is there twice", RAY, (*GPU, "groupName"), "cpu"),
    Break(kuberay.worker_groups, "expected minReplicas <=", RAY, (*CPU, "replicas"), 9),
    Break(
        kuberay.worker_groups,
        "resources are said twice",
        RAY,
        CPU,
        {"groupName": "x", "maxReplicas": 1, "rayStartParams": {"num-cpus": "1"}, "resources": {"CPU": "1"}},
    ),
    Break(
        kuberay.gpu_groups,
        "in its limits",
        RAY,
        (*GPU, "template", "spec", "containers", 0, "resources", "limits", kuberay.GPU),
        GONE,
    ),
    Break(kuberay.gpu_groups, "GPU nodes' taint", RAY, (*GPU, "template", "spec", "tolerations"), GONE),
    Break(kuberay.gpu_groups, "on any node", RAY, (*GPU, "template", "spec", "nodeSelector"), GONE),
    Break(kuberay.gpu_groups, "nobody has asked for", RAY, (*GPU, "minReplicas"), 1),
    Break(kuberay.jobs, "at most 47 letters", JOB, ("metadata", "name"), "Tunery", "gpu-kueue"),
    Break(kuberay.jobs, "its cluster stays", JOB, ("spec", "shutdownAfterJobFinishes"), False, "gpu-kueue"),
    Break(kuberay.jobs, "exclude each other", JOB, ("spec", "deletionStrategy"), {"deletionRules": []}, "gpu-kueue"),
    Break(kuberay.jobs, "nothing removes it", JOB, ("spec", "ttlSecondsAfterFinished"), GONE, "gpu-kueue"),
    Break(kuberay.jobs, "may run for ever", JOB, ("spec", "activeDeadlineSeconds"), GONE, "gpu-kueue"),
    Break(kuberay.jobs, "a lost cluster ends it", JOB, ("spec", "backoffLimit"), GONE, "gpu-kueue"),
    Break(kuberay.jobs, "one of the two", JOB, ("spec", "clusterSelector"), {"ray.io/cluster": "tunery"}, "gpu-kueue"),
    Break(kuberay.jobs, "its submitter is not admitted", JOB, ("spec", "submissionMode"), GONE, "gpu-kueue"),
    Break(
        kuberay.queues,
        "the queue another is not there",
        JOB,
        ("metadata", "labels", "kueue.x-k8s.io/queue-name"),
        "another",
        "gpu-kueue",
    ),
    Break(kuberay.queues, "expected suspend", JOB, ("spec", "suspend"), GONE, "gpu-kueue"),
    Break(
        kuberay.queues,
        "Kueue leaves it alone",
        JOB,
        ("spec", "clusterSelector"),
        {"ray.io/cluster": "tunery"},
        "gpu-kueue",
    ),
    Break(kuberay.queues, "a job that scales", JOB, (*IN_JOB, "enableInTreeAutoscaling"), True, "gpu-kueue"),
    Break(kuberay.queues, "none called head", JOB, (*IN_JOB, *CPU[1:], "groupName"), "head", "gpu-kueue"),
    Break(
        kuberay.queues,
        "ClusterQueue/tunery has no ephemeral-storage, memory",
        QUEUE,
        ("spec", "resourceGroups", 0, "coveredResources"),
        ["cpu"],
        "gpu-kueue",
    ),
    Break(
        kuberay.jobs_fit,
        "takes 5 nvidia.com/gpu, and ClusterQueue/tunery has 4",
        JOB,
        (*IN_JOB, *GPU[1:], "maxReplicas"),
        5,
        "gpu-kueue",
    ),
    *(
        Break(
            kuberay.jobs_fit,
            f"takes {takes}, and ClusterQueue/tunery has {has}",
            QUEUE,
            ("spec", "resourceGroups", 0, "flavors", 0, "resources", at, "nominalQuota"),
            has,
            "gpu-kueue",
        )
        for at, takes, has in ((0, "14 cpu", 13), (1, "88Gi memory", "87Gi"), (2, "15Gi ephemeral-storage", "14Gi"))
    ),
    *(
        Break(
            kuberay.jobs_fit,
            f"takes {takes}, and ResourceQuota/tunery in {of} has {has}",
            QUOTA,
            ("spec", "hard", key),
            has,
            "gpu-kueue",
        )
        for key, of, takes, has in (
            ("pods", "requests", "5 pods", "4"),
            ("requests.cpu", "requests", "14.75 cpu", "14"),
            ("requests.memory", "requests", "91Gi memory", "90Gi"),
            ("limits.memory", "limits", "91Gi memory", "90Gi"),
            ("requests.nvidia.com/gpu", "requests", "1 nvidia.com/gpu", "0"),
        )
    ),
]
