{{/* Nodes are drained one server at a time. Arguments: root, task, component, pool. */}}
{{- define "dail.budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .task.object }}
  labels:
    {{- include "dail.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "dail.serverSelector" . | nindent 6 }}
{{- end }}
