{{/* Prepare: problems, solutions and answers, checked and brought into one form. */}}
{{- define "dail.stage.prepare" -}}
{{- include "dail.job" (merge (dict "component" "stage" "pool" .task.pool) .) }}
{{- end }}
