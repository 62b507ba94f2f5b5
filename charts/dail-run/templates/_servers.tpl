{{/* Everything of a task whose model runs on servers: Deployment, Service, budget, driver. Arguments: root, task. */}}
{{- define "dail.servers" -}}
{{- $servers := merge (dict "component" "server" "pool" "rewrite") . -}}
{{- include "dail.deployment" $servers }}
---
{{ include "dail.service" $servers }}
---
{{ include "dail.budget" $servers }}
---
{{ include "dail.driver" . }}
{{- end }}

{{/* One Job where the engine runs inside the stage's process, servers and their driver otherwise. Arguments: root, task. */}}
{{- define "dail.modelTask" -}}
{{- if eq .task.component "servers" }}
{{- include "dail.servers" . }}
{{- else }}
{{- include "dail.job" (merge (dict "component" "stage" "pool" .task.pool) .) }}
{{- end }}
{{- end }}
