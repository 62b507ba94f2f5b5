{{/* Train: a PyTorchJob. */}}
{{- define "dail.stage.train" -}}
{{- include "dail.pytorchjob" (merge (dict "component" "trainer" "pool" .task.pool) .) }}
{{- end }}
