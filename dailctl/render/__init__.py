"""From a job to Kubernetes objects: pure functions around the chart charts/dail-run. Needs no cluster."""
