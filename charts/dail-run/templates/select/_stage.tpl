{{/* Select: traces are graded; leaks, wrong ones and evaluation problems are dropped. */}}
{{- define "dail.stage.select" -}}
{{- include "dail.job" (merge (dict "component" "stage" "pool" .task.pool) .) }}
{{- end }}
