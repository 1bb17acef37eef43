"""The practice range: an emulated Kubernetes API server, pods as local processes, volumes as folders."""
