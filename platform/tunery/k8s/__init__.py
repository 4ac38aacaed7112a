"""Kubernetes: its API server, and what of deploy/k8s a profile's values make."""
