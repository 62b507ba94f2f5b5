{{/* Report: one page with the verdict. */}}
{{- define "dail.stage.report" -}}
{{- include "dail.job" (merge (dict "component" "stage" "pool" .task.pool) .) }}
{{- end }}
