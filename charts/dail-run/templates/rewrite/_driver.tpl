{{/* The stage process that sends the servers their work. Arguments: root, task. */}}
{{- define "dail.driver" -}}
{{- $servers := dict "name" "DAIL_SERVERS" "value" (printf "http://%s.$(POD_NAMESPACE).svc:8000" .task.object) -}}
{{- include "dail.job" (merge (dict "component" "driver" "pool" .task.pool "env" (list $servers)) .) }}
{{- end }}
