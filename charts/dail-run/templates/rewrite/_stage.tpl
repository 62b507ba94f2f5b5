{{/* Rewrite: traces from the model, shown the expert's solutions. */}}
{{- define "dail.stage.rewrite" -}}
{{- include "dail.modelTask" . }}
{{- end }}
