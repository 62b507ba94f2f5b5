"""A real Kubernetes cluster and a real S3 server for the tests, built from source.

`control_plane` needs no root: etcd, API server, controllers, scheduler, the training operator, simulated nodes. `node` is a whole
machine: kubelet, containerd, kube-proxy, CoreDNS, S3. Tests use the fixtures of `tests.lab.fixtures`, people `python -m tests.lab`.
"""
